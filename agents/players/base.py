"""The protocols of agents, which play batches of text environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium as gym

__all__ = ["Agent", "Decoding", "MakeEnv", "WritingAgent"]

MakeEnv = Callable[[], gym.Env[str, str]]
"""Makes a text environment with its step budget."""

Decoding = Literal["free", "constrained", "scored"]
"""How a language model writes an action, see `LanguageModelAgent`."""


class Agent(Protocol):
    """Plays several episodes in parallel, each in its slot."""

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Return one action per slot.

        Args:
            observations: The last observation of each slot; `None` for a slot without episode, whose info is ignored.
            infos: The last info of each slot.
        """
        ...

    def reset(self, mask: Sequence[bool]) -> None:
        """Forget the episodes of the slots whose mask is true; new ones start there."""
        ...


@runtime_checkable
class WritingAgent(Agent, Protocol):
    """An agent that writes its actions and records its prompts and completions."""

    def reset(self, mask: Sequence[bool], seeds: Sequence[int | None] | None = None) -> None:
        """Forget the episodes of the slots whose mask is true; new ones with these seeds start there."""
        ...

    def written(self, slot: int) -> list[Any]:
        """Return the `TurnRecord`s of the current episode in a slot."""
        ...

    def playing(self) -> AbstractContextManager[Any]:
        """Return a context for a series of turns in which the model's weights do not change."""
        ...
