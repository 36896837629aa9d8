"""Observations that are numbers as their own embedding, so that the gap reward needs no words for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten

from rwml_gym.embedding import CachedEncoder
from rwml_gym.errors import InvalidConfigError, InvalidObservationError

__all__ = ["SpaceEncoder"]

# A wider range says nothing about the values that occur; environments write the largest float for "no bound".
_WIDEST = 1e6

_Leaf = Callable[[Any], np.ndarray]


class SpaceEncoder:
    """Turns members of a space into unit vectors, without anything learnt and without state.

    *Numbers* of a `Box` are scaled to `[-1, 1]` by their bounds; where there is none, by the symmetric logarithm
    `sign(x) · log(1 + |x|)` (as in DreamerV3). `scale` sets the unit instead: `x / scale`. `Discrete`, `MultiDiscrete`
    and `MultiBinary` are one-hot or as they are, `Dict` and `Tuple` the parts side by side, and texts in them go
    through a text encoder. Last comes a constant 1: with it, length counts and the origin has a direction, so that for
    close states::

        1 - cos ≈ |x - y|² / (2 (1 + |x|²))

    *Where this is a bad idea*: codes that are written as numbers (MiniGrid's images: object 5 is not between 4 and 6),
    pixels (a moved object is as far as another one), and numbers that hardly change in a step: then every prediction is
    close, "nothing changes" above all. Describe such observations in words, or give the change of a typical step as
    `scale`, and look at what "nothing changes" earns.

    >>> encoder = SpaceEncoder(spaces.Box(-2, 2, (2,)))
    >>> [row.tolist() for row in encoder.rows([np.array([0, 0]), np.array([2, 0])])]
    [[0.0, 0.0, 1.0], [0.7071067690849304, 0.0, 0.7071067690849304]]
    """

    def __init__(
        self,
        space: spaces.Space,
        scale: float | Sequence[float] | None = None,
        text_encoder: CachedEncoder | None = None,
    ):
        """Read the space.

        Args:
            space: Of the states.
            scale: The unit of each number of a `Box`, one or as many as it has; by its bounds if absent.
            text_encoder: For texts within a `Dict` or `Tuple`.

        Raises:
            InvalidConfigError: If a part of the space is neither numbers nor, with a text encoder, text, or `scale`
                does not fit.
        """
        self.name = "observation"
        self.space = space
        self._text_encoder = text_encoder
        self._scale = None if scale is None else np.asarray(scale, dtype=np.float64)
        if self._scale is not None and not (np.isfinite(self._scale).all() and (self._scale > 0).all()):
            raise InvalidConfigError(f"Expected a positive `scale`, actual: {scale!r}.")
        self._leaf = self._read(space)

    def rows(self, states: Sequence[Any]) -> list[np.ndarray]:
        """Encode states.

        Args:
            states: Members of the space.

        Returns:
            For each a float32 array of shape `(d,)` of unit length.

        Raises:
            InvalidObservationError: If a state is not of the space's kind or shape, or not finite. The bounds may be
                passed, as a prediction may.
        """
        return [self._row(state) for state in states]

    def _row(self, state: Any) -> np.ndarray:
        vector = np.append(self._leaf(state), 1.0)
        return (vector / np.sqrt(vector @ vector)).astype(np.float32)

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
        if self._text_encoder is not None and isinstance(space.sample(), str):
            return lambda value: self._text_encoder.rows([self._member(space, value)])[0]  # type: ignore[union-attr]
        raise InvalidConfigError(
            f"Expected a space of numbers, actual: {space}. Give `describe`, a function from an observation to text."
        )

    def _box(self, space: spaces.Box) -> _Leaf:
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        bounded = (high - low < _WIDEST) & (high > low)
        if self._scale is not None:
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
            raise outside(space, value) from None
        if numbers.shape != space.shape or not np.isfinite(numbers).all():
            raise outside(space, value)
        return numbers

    def _member(self, space: spaces.Space, value: Any) -> Any:
        if not space.contains(value):
            raise outside(space, value)
        return value

    def _join(self, space: spaces.Space, value: Any, parts: dict[Any, _Leaf]) -> np.ndarray:
        try:
            return np.concatenate([leaf(value[key]) for key, leaf in parts.items()])
        except (KeyError, IndexError, TypeError):
            raise outside(space, value) from None


def outside(space: spaces.Space, value: Any) -> InvalidObservationError:
    """The error for a value that is not in a space."""
    return InvalidObservationError(
        f"Expected an observation in {space}, actual: {str(value)[:200]} ({type(value).__name__}). "
        "Correct the environment's observation_space, or give `describe`."
    )
