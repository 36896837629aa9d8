"""Text encoders by name, cached by text: the frozen embedding space in which predictions are compared.

`make_encoder` takes a name, the address of an embeddings endpoint, an object with `encode`, or a function, and returns
a `CachedEncoder`. Worlds repeat their sentences a lot and a group of predictions shares one realised state, so the
cache is what makes the reward cheap.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rwml_gym.encoders.endpoint import EndpointEncoder
from rwml_gym.encoders.local import DEFAULT_ENCODER, HUB_PREFIX, HashingEncoder, SentenceTransformerEncoder, unit_rows
from rwml_gym.errors import EncoderError, InvalidConfigError, RWMLGymError
from rwml_gym.text import replace_surrogates

__all__ = ["DEFAULT_ENCODER", "CachedEncoder", "Embedded", "Encoder", "make_encoder"]

# About 130,000 short texts at 384 dimensions, 16,000 at 4,096 (Qwen3-Embedding-8B).
DEFAULT_CACHE_BYTES = 2**28
# What an entry costs beside its text and its numbers: two objects and its place in the table.
_ENTRY_BYTES = 250


@dataclass(frozen=True, eq=False)
class Embedded:
    """A prediction made in the embedding space itself: no text or observation belongs to it.

    Attributes:
        vector: float array of shape `(d,)`, as wide as the encoder's rows; its length does not count.
    """

    vector: np.ndarray


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


class CachedEncoder:
    """An encoder that remembers its last texts and computes only what it has not seen.

    Rows are brought to unit length whatever the inner encoder returns. Blank text (nothing but white space) has no
    meaning to compare: it is the zero vector, whose cosine with everything is 0, and never reaches the inner encoder.
    Lone surrogates, which are not text and break tokenizers, count as U+FFFD. Threads may share one.

    Attributes:
        hits: Texts answered without the inner encoder (repetitions within one call included).
        misses: Texts the inner encoder was asked for.
        cache_bytes: Most bytes to remember.
        used_bytes: Bytes remembered now, texts included.
    """

    def __init__(self, encoder: Encoder, cache_bytes: int = DEFAULT_CACHE_BYTES):
        """Wrap an encoder.

        Args:
            encoder: What encodes the texts that are not in the cache.
            cache_bytes: Most memory for texts and vectors, in bytes; the least recently used goes first.

        Raises:
            InvalidConfigError: If `cache_bytes` is not positive.
        """
        if cache_bytes <= 0:
            raise InvalidConfigError(f"Expected a positive `cache_bytes`, actual: {cache_bytes}.")
        self.encoder = encoder
        self.cache_bytes = cache_bytes
        self.used_bytes = 0
        self.hits = 0
        self.misses = 0
        self._width = 0  # until the first row tells
        # By text, and by what the encoder reads of a long one.
        self._cache: OrderedDict[str | bytes, np.ndarray] = OrderedDict()
        self._fingerprint: Callable[[str], bytes | None] = getattr(encoder, "fingerprint", _no_fingerprint)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the inner encoder."""
        return self.encoder.name

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled or copied: the name of a shared one, else the encoder, without what is remembered."""
        if _shared.get(self.name) is self:
            return make_encoder, (self.name,)
        return CachedEncoder, (self.encoder, self.cache_bytes)

    @property
    def hit_rate(self) -> float:
        """Share of the texts that were answered without the inner encoder; NaN before the first one."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else float("nan")

    def __len__(self) -> int:
        """The number of texts remembered now."""
        return len(self._cache)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts, each distinct unseen one once, in one batch.

        Args:
            texts: `n` texts.

        Returns:
            float32 array of shape `(n, d)`; rows of unit length, zero for blank texts. `(0, d)` for no texts, with `d`
            0 if there were none before.

        Raises:
            EncoderError: If the inner encoder fails, or returns other than one finite row a text.
        """
        rows = self.rows(texts)
        return np.stack(rows) if rows else np.zeros((0, self._width), dtype=np.float32)

    def rows(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode texts as `encode` does, to one float32 array of shape `(d,)` each; not to be written to."""
        with self._lock:
            keys = [_clean(text) for text in texts]
            # Apart from the cache, as one call may hold more texts than it.
            rows: dict[str, np.ndarray] = {}
            unseen: dict[str, bytes] = {}
            for key in keys:
                if not key:
                    continue
                if key in rows:
                    self.hits += 1
                elif (row := self._cache.get(key)) is not None:
                    self._cache.move_to_end(key)
                    rows[key] = row
                    self.hits += 1
                elif (row := self._cache.get(mark := self._fingerprint(key) or b"")) is not None:
                    rows[key] = row
                    self._remember(key, row)
                    self.hits += 1
                else:
                    rows[key] = _BLANK  # its place; computed below
                    unseen[key] = mark
            if unseen:
                self._compute(unseen, rows)
            if "" in keys and not self._width:
                self._compute({_PROBE: b""}, {})
            blank = np.zeros(self._width, dtype=np.float32) if "" in keys else _BLANK
            return [rows[key] if key else blank for key in keys]

    def _compute(self, texts: dict[str, bytes], rows: dict[str, np.ndarray]) -> None:
        try:
            given: Any = self.encoder.encode(list(texts))
            if hasattr(given, "detach"):  # a tensor, perhaps with gradient, on a GPU, or of a type NumPy lacks
                given = given.detach().float().cpu()
            vectors = np.asarray(given, dtype=np.float64)
        except RWMLGymError:
            raise
        # Whatever a library or a function of the user's raises.
        except Exception as error:
            raise EncoderError(
                f"Expected {len(texts)} rows from the encoder {self.name!r}, actual: {type(error).__name__}: {error}"
            ) from error
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.size or not np.isfinite(vectors).all():
            raise EncoderError(
                f"Expected {len(texts)} rows of finite numbers from the encoder {self.name!r}, "
                f"actual: shape {vectors.shape}{'' if np.isfinite(vectors).all() else ' with NaN or infinity'}."
            )
        if self._width and vectors.shape[1] != self._width:
            raise EncoderError(
                f"Expected rows of {self._width} numbers from the encoder {self.name!r}, as before, "
                f"actual: {vectors.shape[1]}."
            )
        self._width = vectors.shape[1]
        self.misses += len(texts)
        for (text, mark), row in zip(texts.items(), unit_rows(vectors), strict=True):
            rows[text] = row = row.copy()  # a view would keep all rows of its batch
            self._remember(text, row)
            if mark:
                self._remember(mark, row)

    def _remember(self, key: str | bytes, row: np.ndarray) -> None:
        if key in self._cache:
            return
        self._cache[key] = row
        self.used_bytes += _size(key, row)
        while self.used_bytes > self.cache_bytes:
            self.used_bytes -= _size(*self._cache.popitem(last=False))


_BLANK = np.zeros(0, dtype=np.float32)
# Tells how wide rows are where only blank texts were asked for.
_PROBE = "."


def _no_fingerprint(text: str) -> None:
    return None


def _size(text: str | bytes, row: np.ndarray) -> int:
    return sys.getsizeof(text) + row.nbytes + _ENTRY_BYTES


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
        encoder: `"all-MiniLM-L6-v2"`, `"hashing"`, a local folder or hub id of a sentence-transformers model;
            `"https://HOST/v1#MODEL"`, see `endpoint.EndpointEncoder`; or an object with `name` and `encode`; or a
            function from texts to an array of shape `(n, d)`.

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
        name = encoder.removeprefix(HUB_PREFIX)
        if not name.strip():
            raise InvalidConfigError(f"Expected an encoder's name, actual: {encoder!r}.")
        if name not in _shared:
            _shared[name] = CachedEncoder(_by_name(name))
        return _shared[name]
    if isinstance(encoder, Encoder) and not isinstance(encoder, type):
        return CachedEncoder(encoder)
    if callable(encoder) and not isinstance(encoder, type):
        return CachedEncoder(_FunctionEncoder(encoder))
    raise InvalidConfigError(
        f"Expected an encoder's name, an object with `name` and `encode`, or a function, actual: {encoder!r}."
    )


def _by_name(name: str) -> Encoder:
    if name == HashingEncoder.name:
        return HashingEncoder()
    return EndpointEncoder(name) if name.startswith(("http://", "https://")) else SentenceTransformerEncoder(name)


def _clean(text: str) -> str:
    text = replace_surrogates(text)
    return "" if text.isspace() else text
