"""Numeric observations as their own embedding, so that the gap reward needs no text for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from rwml_gym.encoders.cached import CachedEncoder, make_encoder
from rwml_gym.encoders.local import unit_rows
from rwml_gym.errors import InvalidConfigError, InvalidObservationError

__all__ = ["SpaceEncoder", "inside", "is_text", "make_row_encoder", "outside"]

# A wider range is no information about the values; environments write the largest float for "no bound".
_WIDEST = 1e6

_Leaf = Callable[[Any], np.ndarray]


class SpaceEncoder:
    """Encoder from members of a space to unit vectors, without learned parameters or state.

    The numbers of a `Box` are scaled to `[-1, 1]` by their bounds; unbounded ones by the symmetric logarithm
    `sign(x) · log(1 + |x|)` (as in DreamerV3). `scale` sets the unit instead: `x / scale`. `Discrete` and
    `MultiDiscrete` are one-hot, `MultiBinary` is unchanged, the parts of `Dict` and `Tuple` are concatenated, and a
    text encoder encodes texts in them. A constant 1 is appended: it makes the norm count and gives the origin a
    direction, so that for close states::

        1 - cos ≈ |x - y|² / (2 (1 + |x|²))

    *Do not use it* for codes written as numbers (MiniGrid's images: object 5 is not between 4 and 6), for pixels (a
    moved object is as far away as another one), or for numbers that hardly change in a step: then every prediction is
    close, above all "nothing changes". Describe such observations in text, or give the change of a typical step as
    `scale`, and measure the reward of "nothing changes".

    >>> encoder = SpaceEncoder(spaces.Box(-2, 2, (2,)))
    >>> [row.tolist() for row in encoder.rows([np.array([0, 0]), np.array([2, 0])])]
    [[0.0, 0.0, 1.0], [0.7071067690849304, 0.0, 0.7071067690849304]]
    """

    def __init__(
        self,
        space: spaces.Space,
        scale: float | Sequence[float] | None = None,
        text_encoder: CachedEncoder | None = None,
        name: str = "observation",
    ):
        """Read the space.

        Args:
            space: Space of the states.
            scale: Unit of the numbers of a `Box`: one number, or one per element; the bounds are used if absent.
            text_encoder: Encoder of texts within a `Dict` or `Tuple`.
            name: What the members are, `"observation"` or `"action"`, for tables and messages.

        Raises:
            InvalidConfigError: If a part is neither numeric nor, with a text encoder, text, or `scale` does not fit.
        """
        self.name = name
        self.space = space
        self._text_encoder = text_encoder
        self._texts: list[str] | None = None  # texts of the current states, while they are collected
        self._scale = None if scale is None else _positive(scale)
        self._scaled = False
        self._leaf = self._read(space)
        if self._scale is not None and not self._scaled:
            raise InvalidConfigError(f"Expected a space with a Box for `scale`, actual: {space}. Remove `scale`.")

    def __getstate__(self) -> dict[str, Any]:
        """Pickle or copy the constructor's arguments."""
        return {"space": self.space, "scale": self._scale, "text_encoder": self._text_encoder, "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read the space again."""
        self.__init__(**state)  # type: ignore[misc]

    def rows(self, states: Sequence[Any]) -> list[np.ndarray]:
        """Encode states.

        Args:
            states: Members of the space.

        Returns:
            One float32 array of shape `(d,)` and unit length per state.

        Raises:
            InvalidObservationError: If a state has another type or shape, or is not finite. It may exceed the bounds.
        """
        if self._text_encoder is not None:
            # Encode all texts in one call; the rows below then come from the cache.
            self._texts = []
            for state in states:
                self._leaf(state)
            texts, self._texts = self._texts, None
            self._text_encoder.rows(texts)
        return [self._row(state) for state in states]

    def _row(self, state: Any) -> np.ndarray:
        return unit_rows(np.append(self._leaf(state), 1.0)[np.newaxis])[0]

    def _read(self, space: spaces.Space) -> _Leaf:
        if isinstance(space, spaces.Box):
            return self._box(space)
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            return lambda value: np.asarray(flatten(space, self._member(space, value)), dtype=np.float64)
        if isinstance(space, spaces.Dict):
            parts = {name: self._read(part) for name, part in space.spaces.items()}
            return lambda value: self._join(space, value, parts)
        if isinstance(space, spaces.Tuple):
            members = dict(enumerate(self._read(part) for part in space.spaces))
            return lambda value: self._join(space, value, members)
        if self._text_encoder is not None and is_text(space):
            return lambda value: self._text(self._member(space, value))
        raise InvalidConfigError(
            f"Expected a numeric space, actual: {space}. Give `{self._describe}`, which turns an {self.name} into text."
        )

    def _text(self, text: str) -> np.ndarray:
        assert self._text_encoder is not None
        if self._texts is not None:
            self._texts.append(text)
            return np.zeros(0)
        return self._text_encoder.rows([text])[0]

    @property
    def _describe(self) -> str:
        return "describe" if self.name == "observation" else f"describe_{self.name}"

    def _outside(self, space: spaces.Space, value: Any) -> InvalidObservationError:
        return outside(space, value, self.name, self._describe)

    def _box(self, space: spaces.Box) -> _Leaf:
        # Halve first, because the difference of the largest floats overflows.
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = (high / 2 - low / 2 < _WIDEST / 2) & (high > low)
        if self._scale is not None:
            self._scaled = True
            try:
                unit = np.broadcast_to(self._scale, space.shape)
            except ValueError:
                raise InvalidConfigError(
                    f"Expected `scale` as one number or of shape {space.shape}, actual: {self._scale.shape}."
                ) from None
            return lambda value: (self._numbers(space, value) / unit).ravel()
        low, high = np.where(bounded, low, -1), np.where(bounded, high, 1)
        middle, half = (low + high) / 2, (high - low) / 2

        def scaled(value: Any) -> np.ndarray:
            numbers = (self._numbers(space, value) - middle) / half
            if not bounded.all():
                numbers = np.where(bounded, numbers, np.sign(numbers) * np.log1p(np.abs(numbers)))
            return numbers.ravel()

        return scaled

    def _numbers(self, space: spaces.Box, value: Any) -> np.ndarray:
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._outside(space, value) from None
        if numbers.shape != space.shape or not np.isfinite(numbers).all():
            raise self._outside(space, value)
        return numbers

    def _member(self, space: spaces.Space, value: Any) -> Any:
        if not space.contains(value):
            raise self._outside(space, value)
        return value

    def _join(self, space: spaces.Space, value: Any, parts: dict[Any, _Leaf]) -> np.ndarray:
        try:
            return np.concatenate([leaf(value[key]) for key, leaf in parts.items()])
        except (KeyError, IndexError, TypeError):
            raise self._outside(space, value) from None


def make_row_encoder(encoder: Any) -> CachedEncoder | SpaceEncoder:
    """Return a `SpaceEncoder` unchanged; make any other encoder with `encoders.cached.make_encoder`."""
    return encoder if isinstance(encoder, SpaceEncoder) else make_encoder(encoder)


def inside(space: spaces.Space, value: Any) -> bool:
    """Return whether a value is in a space, for any float type; Gymnasium rejects float64 in a float32 space."""
    if isinstance(space, spaces.Box):
        try:
            numbers = np.asarray(value)
            if numbers.dtype.kind not in "biuf" or numbers.shape != space.shape:
                return False
            if numbers.dtype.kind == "f" and space.dtype.kind != "f" and (numbers != np.floor(numbers)).any():
                return False
            return bool((numbers >= space.low).all() and (numbers <= space.high).all())
        except (TypeError, ValueError):
            return False
    if isinstance(space, spaces.Dict):
        fits = isinstance(value, Mapping) and value.keys() == space.keys()
        return fits and all(inside(part, value[name]) for name, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        fits = isinstance(value, tuple | list) and len(value) == len(space.spaces)
        return fits and all(inside(part, of) for part, of in zip(space.spaces, value, strict=True))
    return bool(space.contains(value))


def is_text(space: spaces.Space) -> bool:
    """Return whether the members of a space are texts, also of one that is no `Text`; its generator stays as it is."""
    return isinstance(space, spaces.Text) or isinstance(copy.deepcopy(space).sample(), str)


def outside(
    space: spaces.Space, value: Any, name: str = "observation", describe: str = "describe"
) -> InvalidObservationError:
    """Make the error for a value that is not in a space."""
    return InvalidObservationError(
        f"Expected an {name} in {space}, actual: {str(value)[:200]} ({type(value).__name__}). "
        f"Correct the environment's {name}_space, or give `{describe}`."
    )


def _positive(scale: Any) -> np.ndarray:
    try:
        units = np.asarray(scale, dtype=np.float64)
    except (TypeError, ValueError):
        units = np.zeros(1)
    if not (np.isfinite(units).all() and (units > 0).all()):
        raise InvalidConfigError(f"Expected a positive `scale`, one number or one per element, actual: {scale!r}.")
    return units
