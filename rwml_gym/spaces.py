"""The text space of this package: any Unicode string, the empty one included, up to a length."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from gymnasium import spaces

__all__ = ["UnicodeText"]

SAMPLED_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "
LONGEST_SAMPLE = 64


class UnicodeText(spaces.Text):
    """Every string of at most ``max_length`` characters is a member; samples are short printable ASCII.

    `gymnasium.spaces.Text` wants every character listed, and language models write all of Unicode.

    Example:
        >>> from rwml_gym.spaces import UnicodeText
        >>> "" in UnicodeText() and "go to café 1 🙂" in UnicodeText()
        True
    """

    def __init__(self, max_length: int = 65_536, *, seed: int | np.random.Generator | None = None) -> None:
        """Makes the space.

        Args:
            max_length: the longest member, in characters (code points).
            seed: seeds `sample`.
        """
        super().__init__(max_length, min_length=0, charset=SAMPLED_CHARACTERS, seed=seed)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Draws printable text; without a mask at most 64 characters, so that a sample stays readable."""
        if mask is None and probability is None:
            length = int(self.np_random.integers(0, min(self.max_length, LONGEST_SAMPLE) + 1))
            mask = (length, None)
        return super().sample(mask=mask, probability=probability)

    def contains(self, x: Any) -> bool:
        """Says whether ``x`` is a string that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    @property
    def is_np_flattenable(self) -> bool:
        """False: Unicode has no fixed character set to index."""
        return False

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: object, /) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length
