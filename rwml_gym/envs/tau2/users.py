"""The users that an agent can talk to: a scripted one without a model, and one played by a language model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from rwml_gym.checks import require
from rwml_gym.envs.tau2.actions import find_calls
from rwml_gym.envs.tau2.conversation import STOP
from rwml_gym.envs.tau2.package import load
from rwml_gym.envs.tau2.tools import ToolSpec
from rwml_gym.errors import RWMLGymError

__all__ = ["ChatModel", "ModelUser", "ScriptedUser", "UserModelError", "litellm_model"]

ChatModel = Callable[[list[dict[str, Any]], list[dict[str, Any]]], Mapping[str, Any]]
"""A language model: a function from OpenAI-style messages and tool schemas to an OpenAI-style assistant message."""

EMPTY_ANSWERS = 3
"""Number of retries after an empty answer of the model, as in tau2."""


class UserModelError(RWMLGymError, RuntimeError):
    """The user's language model has failed, or has returned only empty answers."""


class ScriptedUser:
    """A user without a model, with the same words in every task of every domain.

    The user first states the reason for the call and what is known. If the agent names some of the user's own tools
    with their arguments, as in ``toggle_roaming()``, the user calls them and reports the results. The user says goodbye
    when the agent does, and agrees to everything else.

    Args:
        task: A tau2 `Task`.
        tools: The user's tools.
    """

    def __init__(self, task: Any, tools: Mapping[str, ToolSpec]) -> None:
        self._task, self._tools = task, tools
        self._message = load("data_model.message")

    def begin(self, history: list[Any]) -> None:
        """Start over."""
        self._opened = any(message.role == "user" for message in history)
        self._calls = 0

    def reply(self, messages: list[Any]) -> Any:
        """Return the next message or tool calls."""
        if messages[0].role == "tool":
            return self._say("\n".join(message.content or "" for message in messages))
        if not self._opened:
            return self._say(self._reason())
        text = messages[0].content or ""
        requests = find_calls(text, self._tools)
        if requests:
            calls = []
            for request in requests:
                self._calls += 1
                call = self._message.ToolCall(
                    id=f"user_{self._calls}", name=request.name, arguments=dict(request.arguments), requestor="user"
                )
                calls.append(call)
            return self._message.UserMessage(role="user", tool_calls=calls)
        return self._say(STOP if "goodbye" in text.lower() else "Yes, please go ahead.")

    def _say(self, text: str) -> Any:
        self._opened = True
        return self._message.UserMessage(role="user", content=text or "Done.")

    def _reason(self) -> str:
        instructions = self._task.user_scenario.instructions
        if isinstance(instructions, str):
            return instructions
        return f"{instructions.reason_for_call} {instructions.known_info or ''}".strip()


class ModelUser:
    """A user played by a language model, with exactly tau2's prompt.

    Args:
        task: A tau2 `Task`.
        tools: The user's tools.
        model: The language model.
    """

    def __init__(self, task: Any, tools: Mapping[str, ToolSpec], model: ChatModel) -> None:
        self._message = load("data_model.message")
        self._model, self._tools = model, [tool.schema for tool in tools.values()]
        guidelines = "simulation_guidelines_tools.md" if tools else "simulation_guidelines.md"
        path = load("utils.utils").DATA_DIR / "tau2" / "user_simulator" / guidelines
        rules = path.read_text(encoding="utf-8")
        self._prompt = f"{rules}\n\n<scenario>\n{task.user_scenario}\n</scenario>".strip()

    def begin(self, history: list[Any]) -> None:
        """Start over."""
        self._heard: list[dict[str, Any]] = [{"role": "system", "content": self._prompt}]
        for message in history:
            self._hear(message)

    def reply(self, messages: list[Any]) -> Any:
        """Return the model's answer.

        Raises:
            UserModelError: If the model fails, or all its answers are empty.
        """
        for message in messages:
            self._hear(message)
        for _ in range(EMPTY_ANSWERS + 1):
            try:
                answer = self._message_of(self._model(list(self._heard), list(self._tools)))
            except Exception as error:  # the model or the connection to it may raise anything
                raise UserModelError(
                    f"Expected an answer of the user's model, actual: {type(error).__name__}: {error}."
                ) from error
            if answer is not None:
                self._hear(answer)
                return answer
        raise UserModelError(f"Expected an answer of the user's model, actual: empty {EMPTY_ANSWERS + 1} times.")

    def _hear(self, message: Any) -> None:
        """Add a message to the model's history, from the user's side: the agent's messages have the role `user`."""
        if message.role == "assistant":
            self._heard.append({"role": "user", "content": message.content})
        elif message.role == "tool":
            self._heard.append({"role": "tool", "content": message.content, "tool_call_id": message.id})
        else:
            calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for call in message.tool_calls or []
            ]
            said = {"role": "assistant", "content": message.content}
            self._heard.append({**said, "tool_calls": calls} if calls else said)

    def _message_of(self, answer: Mapping[str, Any]) -> Any:
        """Convert the model's answer to a tau2 `UserMessage`; None if it is empty."""
        content = answer.get("content")
        calls = [
            self._message.ToolCall(
                id=call.get("id") or f"user_{len(self._heard)}_{number}",
                name=call["function"]["name"],
                arguments=json.loads(call["function"]["arguments"] or "{}"),
                requestor="user",
            )
            for number, call in enumerate(answer.get("tool_calls") or [])
        ]
        if calls:  # a message is text or calls; tau2 prefers the calls
            return self._message.UserMessage(role="user", content=content, tool_calls=calls)
        if content is None or not content.strip():
            return None
        return self._message.UserMessage(role="user", content=content)


def litellm_model(name: str, **arguments: Any) -> ChatModel:
    """Make a model from its litellm id.

    Args:
        name: Id like ``gpt-4.1``, or ``openai/NAME`` with ``api_base="http://localhost:8000/v1"`` for a local endpoint.
        arguments: Arguments for ``litellm.completion``: ``temperature``, ``seed``, ``api_base``, ``api_key``, …
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise the import downloads prices
    require("litellm", "litellm", "tau2")
    import litellm

    def answer(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Mapping[str, Any]:
        wanted = {"tools": tools, "tool_choice": "auto"} if tools else {}
        response = litellm.completion(model=name, messages=messages, drop_params=True, **wanted, **arguments)
        return response.choices[0].message.model_dump()

    return answer
