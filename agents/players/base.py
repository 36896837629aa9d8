"""The agent protocol: what plays a text environment, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium as gym

__all__ = ["Agent", "Decoding", "MakeEnv", "WritingAgent"]

MakeEnv = Callable[[], gym.Env[str, str]]
"""Makes a text environment, with its step budget."""

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


@runtime_checkable
class WritingAgent(Agent, Protocol):
    """An agent that writes its actions, and remembers what it was shown and wrote."""

    def reset(self, mask: Sequence[bool], seeds: Sequence[int | None] | None = None) -> None:
        """Forget the episodes of the slots whose mask is true; new ones with these seeds start there."""
        ...

    def written(self, slot: int) -> list[Any]:
        """The `TurnRecord`s of the episode in a slot so far."""
        ...

    def playing(self) -> AbstractContextManager[Any]:
        """A context for the time of many turns, whose weights do not change."""
        ...
