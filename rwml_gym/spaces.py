"""The text space of this package: every Unicode string up to a length, including the empty one."""

from __future__ import annotations

import copy
import ctypes
import multiprocessing
import string
import struct
import sys
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space, unflatten
from gymnasium.vector.utils import (
    batch_differing_spaces,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from rwml_gym.errors import TextTooLongError

__all__ = ["SharedTexts", "UnicodeText"]

SAMPLED_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "
MAX_SAMPLE = 64

# In shared memory, a slot holds the length in bytes, then the text.
LENGTH = struct.Struct("=q")
ENCODING, ENCODING_ERRORS = "utf-8", "surrogatepass"  # lone surrogates are members, too
MAX_CHARACTER_BYTES = 4  # bytes
PADDING = -1  # fills a flattened text


class UnicodeText(spaces.Text):
    """Every string of at most ``max_length`` characters is a member; samples are short printable ASCII.

    `gymnasium.spaces.Text` needs a list of all characters, but language models write all of Unicode.

    Args:
        max_length: Length of the longest member, in characters (code points).
        seed: Seed of `sample`.

    Example:
        >>> from rwml_gym.spaces import UnicodeText
        >>> "" in UnicodeText() and "go to café 1 🙂" in UnicodeText()
        True
    """

    def __init__(self, max_length: int = 65_536, *, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(max_length, min_length=0, charset=SAMPLED_CHARACTERS, seed=seed)
        # Arrays of members, which Stable-Baselines3 makes, hold whole texts; those of `Text` would hold a character.
        self._shape, self.dtype = (), np.dtype(object)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Sample printable text; without a mask, at most 64 characters, so that a sample stays readable."""
        if mask is None and probability is None:
            length = int(self.np_random.integers(0, min(self.max_length, MAX_SAMPLE) + 1))
            mask = (length, None)
        return super().sample(mask=mask, probability=probability)

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a string of at most ``max_length`` characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    @property
    def is_np_flattenable(self) -> bool:
        """True: a text becomes the numbers of its characters; see `flatten`."""
        return True

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: object, /) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length


class SharedTexts(Sequence[str]):
    """A live view of the texts in shared memory; a copy of it is a tuple of strings.

    `gymnasium.vector.AsyncVectorEnv` reads the observations once and expects a view that changes with the memory, as an
    array does. With a tuple of strings it would return the first observations for ever.
    """

    def __init__(self, memory: memoryview, n: int) -> None:
        self._memory = memory
        self._n = n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[slot] for slot in range(self._n)[index])
        start = range(self._n)[index] * (len(self._memory) // self._n)
        (size,) = LENGTH.unpack_from(self._memory, start)
        return str(self._memory[start + LENGTH.size : start + LENGTH.size + size], ENCODING, ENCODING_ERRORS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedTexts | tuple) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment] # the content changes

    def __repr__(self) -> str:
        return f"SharedTexts{tuple(self)}"

    def __copy__(self) -> tuple[str, ...]:
        return tuple(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


# Gymnasium flattens a `Text` to places in its character set, which all of Unicode is not. Here the numbers are code
# points and the rest is padding.


@flatten_space.register(UnicodeText)
def _flatten_text_space(space: UnicodeText) -> spaces.Box:
    return spaces.Box(PADDING, sys.maxunicode, (space.max_length,), np.int32)


@flatten.register(UnicodeText)
def _flatten_text(space: UnicodeText, x: str) -> npt.NDArray[np.int32]:  # type: ignore[misc] # Space[T]
    flat = np.full(space.max_length, PADDING, dtype=np.int32)
    flat[: len(x)] = np.frombuffer(x.encode("utf-32-le", ENCODING_ERRORS), dtype="<i4")
    return flat


@unflatten.register(UnicodeText)
def _unflatten_text(space: UnicodeText, x: npt.NDArray[np.int32]) -> str:  # type: ignore[misc] # Space[T]
    numbers = np.asarray(x)
    return numbers[numbers != PADDING].astype("<i4").tobytes().decode("utf-32-le", ENCODING_ERRORS)


@batch_differing_spaces.register(UnicodeText)
def _batch_differing_text_spaces(texts: Sequence[UnicodeText]) -> spaces.Tuple:  # type: ignore[misc] # Space[T]
    return spaces.Tuple([copy.deepcopy(space) for space in texts])


# The shared memory of `gymnasium.vector.AsyncVectorEnv`, which is on by default. Without these functions Gymnasium uses
# those of `spaces.Text`, which lose every character outside the character set and never update after the first text.


@create_shared_memory.register(UnicodeText)
def _create_text_memory(space: UnicodeText, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.RawArray(ctypes.c_ubyte, n * _slot_size(space))


@read_from_shared_memory.register(UnicodeText)
def _read_text_memory(space: UnicodeText, shared_memory: Any, n: int = 1) -> SharedTexts:
    return SharedTexts(memoryview(shared_memory).cast("B"), n)


@write_to_shared_memory.register(UnicodeText)
def _write_text_memory(space: UnicodeText, index: int, value: str, shared_memory: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"Expected a string as observation, actual: {value!r} ({type(value).__name__}).")
    if len(value) > space.max_length:
        raise TextTooLongError(
            f"Expected an observation of at most {space.max_length} characters (the space {space} of environment "
            f"{index}), actual: {len(value)}. Give the environment a larger space, or make the vector environment "
            "with `shared_memory=False`."
        )
    data = value.encode(ENCODING, ENCODING_ERRORS)
    memory = memoryview(shared_memory).cast("B")
    start = index * _slot_size(space)
    memory[start + LENGTH.size : start + LENGTH.size + len(data)] = data
    LENGTH.pack_into(memory, start, len(data))


def _slot_size(space: UnicodeText) -> int:
    return LENGTH.size + MAX_CHARACTER_BYTES * space.max_length
