"""Text encoders behind an OpenAI-compatible embeddings endpoint (vLLM, TEI, a hosted service).

They allow an encoder too large for this machine, such as the paper's Qwen3-Embedding-8B, to measure predictions::

    vllm serve Qwen/Qwen3-Embedding-8B --task embed        # on the machine with the GPU
    GapReward("http://HOST:8000/v1#Qwen/Qwen3-Embedding-8B")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from rwml_gym.checks import require
from rwml_gym.endpoints import may_send_key, within
from rwml_gym.errors import EncoderError, InvalidConfigError

__all__ = ["EndpointEncoder"]

# Maximal number of texts per request. Hosted services allow more, but a failed request is sent again as a whole.
_BATCH = 256
_RETRIES = 3
_TIMEOUT = 60.0  # seconds without a byte
_DEADLINE = 300.0  # seconds for a request with all its retries


class EndpointEncoder:
    """Encoder that asks an OpenAI-compatible endpoint for embeddings.

    The `openai` library repeats a failed request up to three times. Check that the observations may leave this machine.
    The key is sent over https, or to this machine, and never over plain http to another one.
    """

    def __init__(self, address: str, timeout: float = _TIMEOUT, deadline: float = _DEADLINE):
        """Prepare the client; no request is sent yet.

        Args:
            address: `"https://HOST/v1#MODEL"`: the endpoint's base address and, after `#`, the model. A key, if
                needed, is read from `$OPENAI_API_KEY` and is never written to a spec or run folder.
            timeout: How long the server may send nothing, in seconds.
            deadline: How long a request may take with all its retries, in seconds.

        Raises:
            DependencyNotInstalled: If `openai` is not installed.
            InvalidConfigError: If the address has no host or no model, or has a password.
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
                "Expected an address without a password, which would be written to specs and run folders, actual: "
                "a password. Set $OPENAI_API_KEY instead."
            )
        require("openai", f"openai for {address!r}", "endpoint")
        # Imported here because it takes a second.
        from openai import OpenAI

        self.name = address
        self._model, self._timeout, self._deadline = model, timeout, deadline
        self._sends_key = may_send_key(base)
        self._client = OpenAI(
            base_url=base,
            # The client requires a key, which many self-hosted servers do not need.
            api_key=(os.environ.get("OPENAI_API_KEY") if self._sends_key else None) or "none",
            timeout=timeout,
            max_retries=_RETRIES,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle or copy the address alone, never the key."""
        return EndpointEncoder, (self.name, self._timeout, self._deadline)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts (`encoders.cached.Encoder.encode`); the endpoint's rows need not have unit length.

        Raises:
            EncoderError: If the endpoint cannot be reached, refuses, or does not return one row per text.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        return np.concatenate([self._ask(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)])

    def _ask(self, texts: Sequence[str]) -> np.ndarray:
        from openai import OpenAIError

        try:
            answer = within(
                self._deadline,
                lambda: self._client.embeddings.create(model=self._model, input=list(texts), encoding_format="float"),
            )
        except (OpenAIError, TimeoutError) as error:
            key = "accepts the key in $OPENAI_API_KEY" if self._sends_key else "needs no key, or has an https address"
            raise EncoderError(
                f"Expected {len(texts)} embeddings from {self.name!r}, actual: {type(error).__name__}: {error}. Check "
                f"that the server runs at exactly this address (redirects are not followed), has the model, and {key}."
            ) from error
        data: Any = getattr(answer, "data", None)
        if not isinstance(data, list):
            raise EncoderError(
                f"Expected embeddings from {self.name!r}, actual: {str(answer)[:100]!r}. Check that the address is the "
                "API's base, which usually ends in /v1."
            )
        # Rows may be in any order; some servers do not number them.
        places = [i if item.index is None else item.index for i, item in enumerate(data)]
        if sorted(places) != list(range(len(texts))):
            raise EncoderError(f"Expected rows 0 to {len(texts) - 1} from {self.name!r}, actual: {places[:10]}.")
        rows = [item.embedding for _, item in sorted(zip(places, data, strict=True), key=lambda pair: pair[0])]
        if len({len(row) for row in rows}) != 1:
            raise EncoderError(f"Expected rows of one length from {self.name!r}, actual: {sorted({*map(len, rows)})}.")
        return np.array(rows, dtype=np.float32)
