"""Text encoders by name, with a cache: the frozen embedding space in which predictions are compared.

`make_encoder` takes a name, the address of an embeddings endpoint, an object with `name` and `encode`, or a function,
and returns a `CachedEncoder`. The cache makes the reward cheap, because sentences and states often repeat.
"""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rwml_gym.encoders.endpoint import EndpointEncoder
from rwml_gym.encoders.forks import in_children
from rwml_gym.encoders.local import DEFAULT_ENCODER, HUB_PREFIX, HashingEncoder, SentenceTransformerEncoder, unit_rows
from rwml_gym.errors import EncoderError, EncoderNotFoundError, InvalidConfigError, RWMLGymError
from rwml_gym.text import replace_surrogates

__all__ = ["DEFAULT_ENCODER", "CachedEncoder", "Embedded", "Encoder", "EncoderLike", "make_encoder"]

# About 130,000 short texts at 384 dimensions, 16,000 at 4,096 (Qwen3-Embedding-8B).
DEFAULT_CACHE_BYTES = 2**28
# Overhead of an entry beside its text and its numbers: two objects and its place in the table.
_ENTRY_BYTES = 250


@dataclass(frozen=True, eq=False)
class Embedded:
    """A prediction in the embedding space itself, without a text or an observation.

    Attributes:
        vector: Float array of shape `(d,)`, as wide as the encoder's rows; the norm is ignored.
    """

    vector: np.ndarray


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns texts into vectors."""

    @property
    def name(self) -> str:
        """The encoder's name in tables and run folders."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts.

        Args:
            texts: `n` texts.

        Returns:
            float32 array of shape `(n, d)`, rows of unit length.
        """


class CachedEncoder:
    """An encoder with a cache of the most recent texts.

    Rows are scaled to unit length, whatever the inner encoder returns. Blank text (white space only) becomes the zero
    vector, whose cosine with every vector is 0, and never reaches the inner encoder. Lone surrogates, which are not
    text and break tokenizers, become U+FFFD. The encoder is thread-safe.

    Attributes:
        hits: Number of texts answered without the inner encoder (including repetitions within one call).
        misses: Number of texts that the inner encoder encoded.
        cache_bytes: Size limit of the cache, in bytes.
        used_bytes: Current size of the cache, in bytes, including the texts.
    """

    def __init__(self, encoder: Encoder, cache_bytes: int = DEFAULT_CACHE_BYTES):
        """Wrap an encoder.

        Args:
            encoder: Encodes the texts that are not in the cache.
            cache_bytes: Memory limit for texts and vectors, in bytes; the least recently used are removed first.

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
        self._width = 0  # unknown until the first row
        # The keys are texts, and fingerprints of long texts.
        self._cache: OrderedDict[str | bytes, np.ndarray] = OrderedDict()
        self._fingerprint: Callable[[str], bytes | None] = getattr(encoder, "fingerprint", _no_fingerprint)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the inner encoder."""
        return self.encoder.name

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle or copy a shared encoder by its name, any other with its inner encoder; the cache is left out."""
        if _shared.get(self.name) is self:
            return make_encoder, (self.name,)
        return CachedEncoder, (self.encoder, self.cache_bytes)

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedEncoder:
        """Return the encoder itself: it may be a large model, and two copies would have two caches."""
        return self

    @property
    def hit_rate(self) -> float:
        """Share of the texts that were answered without the inner encoder; NaN before the first text."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else float("nan")

    def __len__(self) -> int:
        """Return the number of texts in the cache."""
        return len(self._cache)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts in one batch; each distinct text that is not in the cache is encoded once.

        Args:
            texts: `n` texts.

        Returns:
            float32 array of shape `(n, d)`, with rows of unit length, or zero for blank texts. Without texts, the shape
            is `(0, d)`, where `d` is 0 before the first text.

        Raises:
            EncoderError: If the inner encoder fails, or does not return one finite row per text.
            InvalidConfigError: If `texts` is one text, or has anything else than texts.
        """
        rows = self.rows(texts)
        return np.stack(rows) if rows else np.zeros((0, self._width), dtype=np.float32)

    def rows(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode texts as `encode` does, to one read-only float32 array of shape `(d,)` each."""
        with self._lock:
            keys = [_clean(text) for text in _checked(texts)]
            # Separate from the cache, because one call may have more texts than the cache can hold.
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
                    rows[key] = _BLANK  # a placeholder; computed below
                    unseen[key] = mark
            if unseen:
                self._compute(unseen, rows)
            if "" in keys and not self._width:
                self._compute({_PROBE: b""}, {})
            blank = _read_only(np.zeros(self._width, dtype=np.float32)) if "" in keys else _BLANK
            return [rows[key] if key else blank for key in keys]

    def _compute(self, texts: dict[str, bytes], rows: dict[str, np.ndarray]) -> None:
        try:
            given: Any = self.encoder.encode(list(texts))
            if hasattr(given, "detach"):  # a tensor, perhaps with a gradient, on a GPU, or of a type that NumPy lacks
                given = given.detach().float().cpu()
            vectors = np.asarray(given, dtype=np.float64)
        except RWMLGymError:
            raise
        # A library or a user's function may raise anything.
        except Exception as error:
            raise EncoderError(
                f"Expected {len(texts)} rows from the encoder {self.name!r}, actual: {type(error).__name__}: {error}."
            ) from error
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.size or not np.isfinite(vectors).all():
            raise EncoderError(
                f"Expected {len(texts)} rows of finite numbers from the encoder {self.name!r}, "
                f"actual: shape {vectors.shape}{'' if np.isfinite(vectors).all() else ' with NaN or infinity'}."
            )
        if self._width and vectors.shape[1] != self._width:
            raise EncoderError(
                f"Expected rows of {self._width} numbers, as before, from the encoder {self.name!r}, "
                f"actual: {vectors.shape[1]}."
            )
        self._width = vectors.shape[1]
        self.misses += len(texts)
        for (text, mark), row in zip(texts.items(), unit_rows(vectors), strict=True):
            rows[text] = row = _read_only(row.copy())  # a view would keep the whole batch in memory
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
# Reveals the width of the rows if all texts were blank.
_PROBE = "."


def _no_fingerprint(text: str) -> None:
    return None


def _size(text: str | bytes, row: np.ndarray) -> int:
    return sys.getsizeof(text) + row.nbytes + _ENTRY_BYTES


def _read_only(row: np.ndarray) -> np.ndarray:
    row.flags.writeable = False
    return row


class _FunctionEncoder:
    def __init__(self, function: Callable[[Sequence[str]], np.ndarray]):
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self.encode = function


class _Named:
    def __init__(self, name: str, encoder: Any):
        self.name = name
        self.encode = encoder.encode if hasattr(encoder, "encode") else encoder


# A module's function or object, `package.module:name`.
_IMPORTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EncoderNotFoundError(
            f"Expected the encoder {name!r} as `module:name`, actual: {error}. Check the name, and that the module "
            "can be imported here."
        ) from error
    if isinstance(found, type) or not (callable(found) or hasattr(found, "encode")):
        raise EncoderNotFoundError(
            f"Expected a function or an object with `encode` as {name!r}, actual: {type(found).__name__}. "
            "Name one of these."
        )
    return found


_shared: dict[str, CachedEncoder] = {}


def _unlock_shared() -> None:
    for encoder in _shared.values():
        encoder._lock = threading.Lock()


in_children(_unlock_shared)


EncoderLike = str | Encoder | Callable[[Sequence[str]], np.ndarray]
"""What `make_encoder` takes."""


def make_encoder(encoder: EncoderLike) -> CachedEncoder:
    """Make an encoder from its name, or cache the one given; return a `CachedEncoder` unchanged.

    Encoders made by name are shared in a process: a model is loaded once, and all its users share its cache.

    Args:
        encoder: `"all-MiniLM-L6-v2"`, `"hashing"`, a local folder or hub id of a sentence-transformers model;
            `"https://HOST/v1#MODEL"`, see `endpoint.EndpointEncoder`; an object with `name` and `encode`; a function
            from texts to an array of shape `(n, d)`; or the name of either, `"module:name"`.

    Raises:
        DependencyNotInstalled: If sentence-transformers is needed and not installed.
        EncoderNotFoundError: If a model, module or function cannot be loaded.
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
    if _IMPORTED.fullmatch(name):
        return _Named(name, _imported(name))
    return EndpointEncoder(name) if name.startswith(("http://", "https://")) else SentenceTransformerEncoder(name)


def _checked(texts: Sequence[str]) -> list[str]:
    listed = list(texts)
    if isinstance(texts, str) or not all(isinstance(text, str) for text in listed):
        raise InvalidConfigError(f"Expected a list of texts, actual: {str(texts)[:200]!r}. Write `[text]` for one.")
    return listed


def _clean(text: str) -> str:
    text = replace_surrogates(text)
    return "" if text.isspace() else text
