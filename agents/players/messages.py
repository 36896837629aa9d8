"""A player that talks to a chat model: an episode as OpenAI-style messages, with the environment's tools as tools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rwml_gym.agents.language.instructions import FORESEE, PromptWorld, describe_task
from rwml_gym.agents.players.base import Move
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import RWMLGymError
from rwml_gym.reward.tags import split_prediction

__all__ = ["Answer", "ChatAgent", "ChatPlayer", "UnreadableAnswerError"]

_SYSTEM: dict[PromptWorld, str] = {
    "game": (
        "You play in a text world to solve the task. In each turn write one short sentence beginning with 'Thought:', "
        "then a line beginning with 'Action:' and one command of the text world."
    ),
    "service": (
        "You are a customer service agent. If there is a policy, follow it. In each turn either send the user a "
        "message or make one tool call, not both."
    ),
}
_ACTION = re.compile(r"(?i)(?<![\w-])action:[*_ \t]*")
_THOUGHT = re.compile(r"(?im)^[ \t]*thought:[ \t]*")
_THINKING = re.compile(r"(?s)<think>.*?</think>")


class UnreadableAnswerError(RWMLGymError, ValueError):
    """An agent has answered with something that is no assistant message."""


@dataclass(frozen=True)
class Answer:
    """A model's answer and what it took.

    Attributes:
        message: OpenAI-style assistant message.
        prompt_tokens: Tokens of the messages.
        completion_tokens: Tokens of the answer.
        cost: In US dollars.
    """

    message: Mapping[str, Any]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


ChatAgent = Callable[[list[dict[str, Any]], list[dict[str, Any]]], Answer]
"""Answers messages, with the schemas of the tools that it may call."""


class ChatPlayer:
    """Plays an episode by asking a chat model.

    The first message has the instruction and the task, with policy where there is one. Each observation becomes a user
    message, or the result of the tool call before it. A tool call becomes an action as JSON. Several calls in one
    answer are played one after the other, and the model is asked again after the last one. In an environment without
    tools the action is what follows the last ``Action:`` in the answer, or its last line.

    Args:
        ask: The model.
        world: Kind of environment.
        show_policy: Whether the first message has the environment's policy.
        predictions: Whether the model is asked for its prediction behind each action.
        show_actions: Whether observations end with the admissible actions, where the environment lists some. A model
            that was not trained on a game cannot know its commands.
    """

    def __init__(
        self,
        ask: ChatAgent,
        world: PromptWorld = "game",
        show_policy: bool = True,
        predictions: bool = False,
        show_actions: bool = True,
    ) -> None:
        self._show_actions = show_actions
        self._ask, self._world, self._show_policy, self._predictions = ask, world, show_policy, predictions
        self._messages: list[dict[str, Any]] = []
        self._tools: list[dict[str, Any]] = []
        self._waiting: list[tuple[str, str]] = []  # identity and text of the calls that were not played yet
        self._open = ""  # identity of the call whose result comes next

    def move(self, observation: str, info: dict[str, Any]) -> Move:
        """Return the next move.

        Raises:
            UnreadableAnswerError: If the model does not answer with an assistant message.
        """
        known = len(self._messages)
        self._listen(observation, info)
        if self._waiting:  # the model has already said what comes next
            self._open, action = self._waiting.pop(0)
            return Move(action, shown=self._messages[known:])
        shown = self._messages[known:]
        answer = self._ask([dict(message) for message in self._messages], self._tools)
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        message, calls = _read(answer.message)
        self._messages.append(message)
        text = message["content"] or ""
        if calls:
            (self._open, action), *self._waiting = calls
            thought, prediction = _without_tags(text), split_prediction(text)[1]
        else:
            thought, action, prediction = self._read_text(text)
        return Move(
            action,
            prediction,
            thought,
            shown,
            json.dumps(message, ensure_ascii=False) if calls else text,
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.cost,
        )

    def _listen(self, observation: str, info: dict[str, Any]) -> None:
        if not self._messages:
            self._tools = [dict(tool) for tool in info.get("tools") or ()]
            rules = {**info, "tools": []} if self._show_policy else {"task": info.get("task", "")}
            words = _SYSTEM[self._world] + FORESEE[True] * self._predictions
            system = f"{words}\n\n{describe_task(rules, show_policy=True)}"
            self._messages.append({"role": "system", "content": system})
        elif self._open:
            result = {"role": "tool", "tool_call_id": self._open, "content": _plain(observation, info)}
            self._messages.append(result)
            self._open = ""
            return
        said = _plain(observation, info)
        if self._show_actions and (actions := admissible_actions(info)):
            said = f"{said}\n\nYou can: {', '.join(actions)}"
        self._messages.append({"role": "user", "content": said})

    def _read_text(self, text: str) -> tuple[str, str, str | None]:
        """Return thought, action and prediction of an answer without tool calls."""
        said, prediction = split_prediction(_THINKING.sub("", text))
        if self._world == "service":
            return "", said.strip(), prediction
        marks = list(_ACTION.finditer(said))
        if marks:
            thought, rest = said[: marks[-1].start()], said[marks[-1].end() :]
            action = next((line.strip() for line in rest.splitlines() if line.strip()), "")
        else:
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            thought, action = "\n".join(lines[:-1]), (lines or [""])[-1]
        return _THOUGHT.sub("", thought).strip(), action.strip("`*").removeprefix(">").strip(), prediction


def _read(message: object) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return an assistant message with what is used of it, and its calls as identities and actions."""
    if isinstance(message, str):
        message = {"content": message}
    content = message.get("content") if isinstance(message, Mapping) else None
    wanted = (message.get("tool_calls") or []) if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(content, str | None) or not isinstance(wanted, list | tuple):
        raise UnreadableAnswerError(
            "Expected a text, or an OpenAI-style assistant message with content or tool_calls, actual: "
            f"{str(message)[:200]!r}."
        )
    calls, kept = [], []
    for number, call in enumerate(wanted):
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str):
            raise UnreadableAnswerError(f"Expected a function with a name in a tool call, actual: {str(call)[:200]!r}.")
        arguments = function.get("arguments") or "{}"
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
        identity = str(call.get("id") or f"call_{number}")
        kept.append({"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}})
        calls.append((identity, f'{{"name": {json.dumps(name)}, "arguments": {arguments}}}'))
    read = {"role": "assistant", "content": content}
    return ({**read, "tool_calls": kept} if kept else read), calls


def _plain(observation: str, info: Mapping[str, Any]) -> str:
    """Return an observation without the role before it, where the environment names the role of one message."""
    new = info.get("messages")
    if new and len({message["role"] for message in new}) == 1:
        return "\n".join(str(message["content"]) for message in new)
    return observation


def _without_tags(text: str) -> str:
    return split_prediction(_THINKING.sub("", text))[0].strip()
