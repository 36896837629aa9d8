"""Agents that users write: a function or class named `module:name`, without any base class."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rwml_gym.agents.language.instructions import PromptWorld
from rwml_gym.agents.players.base import Move, Player
from rwml_gym.agents.players.messages import ChatPlayer, UnreadableAnswerError
from rwml_gym.checks import plain
from rwml_gym.errors import InvalidConfigError, InvalidTypeError
from rwml_gym.reward.tags import split_prediction

__all__ = ["FunctionPlayer", "load_agent"]

_OBSERVATION, _MESSAGES = ("observation", "info"), ("messages", "tools")
_HELP = (
    "Give a function act(observation, info) that returns the action, or act(messages, tools) that returns an "
    "OpenAI-style assistant message or a text; or a class without required arguments whose objects are such functions."
)


class FunctionPlayer:
    """Plays an episode with a function of observation and info.

    Args:
        act: Returns the action as text, with the prediction between its tags if there is one, or a mapping with
            `action` and, if wanted, `prediction`, `thought` and the other fields of `Move`.
    """

    def __init__(self, act: Callable[[str, dict[str, Any]], Any]) -> None:
        self._act = act

    def move(self, observation: str, info: dict[str, Any]) -> Move:
        """Return the next move.

        Raises:
            UnreadableAnswerError: If the function returns anything else.
        """
        answer = self._act(observation, info)
        if isinstance(answer, Move):
            return _storable(answer)
        if isinstance(answer, str):
            action, prediction = split_prediction(answer)
            return Move(action, prediction)
        if isinstance(answer, Mapping) and isinstance(answer.get("action"), str):
            try:
                return _storable(Move(**answer))
            except InvalidTypeError as error:
                raise UnreadableAnswerError(str(error)) from error
            except TypeError as error:
                raise UnreadableAnswerError(
                    f"Expected fields of a move, {', '.join(Move.__dataclass_fields__)}, actual: {', '.join(answer)}."
                ) from error
        raise UnreadableAnswerError(
            f'Expected an action as text, or a mapping with "action", actual: {type(answer).__name__} '
            f"{str(answer)[:200]!r}."
        )


def _storable(move: Move) -> Move:
    """Return a move whose messages a trace can hold."""
    shown = plain(move.shown)
    try:
        json.dumps(shown)
    except (TypeError, ValueError) as error:
        raise UnreadableAnswerError(
            f"Expected a text or messages that JSON can hold as `shown`, actual: {str(shown)[:200]} ({error})."
        ) from error
    return replace(move, shown=shown)


def load_agent(
    name: str,
    world: PromptWorld = "game",
    show_policy: bool = True,
    predictions: bool = False,
    show_actions: bool = True,
) -> Callable[[int], Player]:
    """Find an agent and return what makes its player for an episode, from the episode's seed.

    A function plays every episode. A class is made anew for each, with `seed=…` if it takes that.

    Args:
        name: `module:name`.
        world: Kind of environment, for agents of messages and tools.
        show_policy: See `ChatPlayer`.
        predictions: See `ChatPlayer`.
        show_actions: See `ChatPlayer`.

    Raises:
        InvalidConfigError: If there is no such agent, or it takes other arguments.
    """
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a library that the agent needs
        raise InvalidConfigError(
            f"Expected a module that can be imported, actual: {module!r} ({error}). Run the command in its folder."
        ) from error
    agent = getattr(found, attribute, None)
    if not callable(agent):
        kind = "nothing of that name" if agent is None else type(agent).__name__
        raise InvalidConfigError(f"Expected a function or class {attribute!r} in {module}, actual: {kind}. {_HELP}")
    made = isinstance(agent, type)
    taken = _parameters(agent.__call__ if made else agent)
    names = tuple(taken[1:] if made and taken[:1] == ["self"] else taken)
    if names[:2] not in (_OBSERVATION, _MESSAGES):
        raise InvalidConfigError(f"Expected an agent, actual: {name} takes ({', '.join(names)}). {_HELP}")
    seeded = made and "seed" in _parameters(agent)

    def make(seed: int) -> Player:
        act = (agent(seed=seed) if seeded else agent()) if made else agent
        if names[:2] == _MESSAGES:
            return ChatPlayer(act, world, show_policy, predictions, show_actions)
        return FunctionPlayer(act)

    return make


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # built in
        return []
