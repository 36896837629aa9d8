"""Text encoders that run elsewhere, behind an OpenAI-compatible embeddings endpoint (vLLM, TEI, a hosted service).

So that an encoder too large for this machine, such as the paper's Qwen3-Embedding-8B, can measure predictions::

    vllm serve Qwen/Qwen3-Embedding-8B --task embed        # on the machine with the GPU
    GapReward("http://HOST:8000/v1#Qwen/Qwen3-Embedding-8B")
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled

from rwml_gym.errors import EncoderError, InvalidConfigError

__all__ = ["EndpointEncoder"]

# Most texts a request: what hosted services allow is more, and a failed request is sent again as a whole.
_BATCH = 256
_TIMEOUT_S = 60.0
_RETRIES = 3


class EndpointEncoder:
    """Asks an OpenAI-compatible endpoint for embeddings.

    A request that fails is sent again up to three times with growing pauses (the `openai` library's own). What is sent
    leaves this machine: mind what an environment shows.
    """

    def __init__(self, address: str):
        """Prepare the client; nothing is sent yet.

        Args:
            address: `"https://HOST/v1#MODEL"`: the endpoint's base address and, after `#`, the model. A key, where one
                is needed, is read from `$OPENAI_API_KEY` and is never part of a spec or run folder.

        Raises:
            DependencyNotInstalled: If `openai` is not installed.
            InvalidConfigError: If the address names no host or no model, or holds a password.
        """
        base, _, model = address.partition("#")
        host = base.partition("://")[2].partition("/")[0]
        if not host or not model.strip():
            raise InvalidConfigError(
                "Expected the address of an embeddings endpoint and its model, such as "
                f"'http://localhost:8000/v1#Qwen/Qwen3-Embedding-8B', actual: {address!r}."
            )
        if "@" in host:
            raise InvalidConfigError(
                "Expected an address without a password, which would be written into specs and run folders: "
                "put the key into $OPENAI_API_KEY."
            )
        if importlib.util.find_spec("openai") is None:
            raise DependencyNotInstalled(
                f'The encoder {address!r} needs the openai client: run `pip install "rwml-gym[endpoint]"`.'
            )
        # Imported only here: it takes a second.
        from openai import OpenAI

        self.name = address
        self._model = model
        self._client = OpenAI(
            base_url=base,
            # Servers of one's own need none, and the client insists on one.
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=_TIMEOUT_S,
            max_retries=_RETRIES,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled or copied: the address alone, never the key."""
        return EndpointEncoder, (self.name,)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts (`embedding.Encoder.encode`); the endpoint's rows need not be of unit length.

        Raises:
            EncoderError: If the endpoint cannot be reached, refuses, or returns other than one row a text.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return np.concatenate([self._ask(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)])

    def _ask(self, texts: Sequence[str]) -> np.ndarray:
        from openai import OpenAIError

        try:
            answer = self._client.embeddings.create(model=self._model, input=list(texts), encoding_format="float")
        except OpenAIError as error:
            raise EncoderError(
                f"Cannot encode {len(texts)} texts with {self.name!r} ({type(error).__name__}: {error}). "
                "Check that the server runs at this very address (requests are not redirected), knows the model, and "
                "accepts the key in $OPENAI_API_KEY."
            ) from error
        data: Any = getattr(answer, "data", None)
        if not isinstance(data, list):
            raise EncoderError(
                f"Expected embeddings from {self.name!r}, actual: {str(answer)[:100]!r}. Check that the address is the "
                "API's base, which mostly ends in /v1."
            )
        # Rows may come in any order; some servers do not number them.
        places = [i if item.index is None else item.index for i, item in enumerate(data)]
        if sorted(places) != list(range(len(texts))):
            raise EncoderError(f"Expected rows 0 to {len(texts) - 1} from {self.name!r}, actual: {places[:10]}.")
        rows = [item.embedding for _, item in sorted(zip(places, data, strict=True), key=lambda pair: pair[0])]
        if len({len(row) for row in rows}) != 1:
            raise EncoderError(f"Expected rows of one length from {self.name!r}, actual: {sorted({*map(len, rows)})}.")
        return np.array(rows, dtype=np.float32)
