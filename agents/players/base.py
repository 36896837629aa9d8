"""The protocols of who plays text environments: agents play batches of episodes, players one episode each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium as gym

from rwml_gym.errors import InvalidTypeError

__all__ = ["Agent", "Decoding", "MakeEnv", "Move", "Player", "WritingAgent"]

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


@dataclass(frozen=True)
class Move:
    """What a player does in one turn, and how it came to it.

    Attributes:
        action: The action for the environment.
        prediction: The expected next observation, `None` if none is given.
        thought: The thought before the action.
        shown: What the model was shown: a prompt, or the messages that are new in this turn; `None` without a model.
        written: What the model wrote; `None` without a model.
        prompt_tokens: Tokens that the model was shown.
        completion_tokens: Tokens that it wrote.
        cost: What the model's calls cost, in US dollars.

    Numbers of any library are taken for tokens and cost.

    Raises:
        InvalidTypeError: If a text or a number is none.
    """

    action: str
    prediction: str | None = None
    thought: str = ""
    shown: str | list[dict[str, Any]] | None = None
    written: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def __post_init__(self) -> None:
        texts = (self.action, self.thought, self.prediction or "", self.written or "")
        try:
            object.__setattr__(self, "prompt_tokens", operator.index(self.prompt_tokens))
            object.__setattr__(self, "completion_tokens", operator.index(self.completion_tokens))
            object.__setattr__(self, "cost", float(self.cost))
            fits = all(isinstance(text, str) for text in texts)
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise InvalidTypeError(
                "Expected a move with texts as action, thought, prediction and written, whole numbers of tokens and a "
                f"number as cost, actual: {str(self)[:500]}."
            )


class Player(Protocol):
    """Plays one episode; it is made anew for each."""

    def move(self, observation: str, info: dict[str, Any]) -> Move:
        """Return the next move.

        Args:
            observation: The last observation.
            info: The last info.
        """
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

    def last_move(self, slot: int) -> Move:
        """Return the last turn of the current episode in a slot, with what the model was shown and wrote."""
        ...
