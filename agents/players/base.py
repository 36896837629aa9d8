"""The agent protocol: what plays a text environment, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

__all__ = ["Agent", "Decoding"]

Decoding = Literal["free", "constrained", "scored"]
"""How a language model writes an action, see `LanguageModelAgent`."""


class Agent(Protocol):
    """Plays several episodes side by side."""

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Chooses one action an episode.

        Args:
            observations: One a slot, what the world said last; `None` where no episode is played, whatever its info.
            infos: One a slot, as the environment gave it.

        Returns:
            One action a slot.
        """
        ...

    def reset(self, mask: Sequence[bool]) -> None:
        """Forgets the episodes of the slots whose mask is true: new ones start there."""
        ...
