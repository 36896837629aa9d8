"""One conversation: agent, user and environment exchange messages, until it is the agent's turn or the task ends.

The rules are those of tau2's `Orchestrator`. It is not used itself, because it imports litellm and its loop waits for
an agent. Here the caller is the agent, so that no thread is needed. The tests compare both step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

from rwml_gym.envs.tau2.package import load

__all__ = ["GREETING", "MAX_USER_CALLS", "STOP", "TRANSFER", "Conversation", "User"]

GREETING = "Hi! How can I help you today?"
"""The agent's first message if there is a user, as in tau2."""

STOP = "###STOP###"
TRANSFER = "###TRANSFER###"
ENDINGS = (STOP, TRANSFER, "###OUT-OF-SCOPE###")
"""Texts with which a user ends the conversation."""

MAX_USER_CALLS = 100
"""Maximal number of tool calls in one turn of the user: tau2 stops after 200 steps, and a call takes two of them."""


class User(Protocol):
    """The other side of the conversation. It receives one message at a time and stores them itself."""

    def begin(self, history: list[Any]) -> None:
        """Start over, after the messages at the beginning of a task."""

    def reply(self, messages: list[Any]) -> Any:
        """Answer the agent's message, or the results of the user's own tool calls, with a tau2 `UserMessage`."""


class Conversation:
    """A running task; `begin` starts it.

    Attributes:
        messages: All messages so far, as tau2 messages.
        ended: Why it ended, in tau2's words (``agent_stop``, ``user_stop``, ``too_many_errors``, ``max_steps``);
            None until then.
        errors: Number of tool errors so far.

    Args:
        task: A tau2 `Task`.
        world: A fresh tau2 `Environment`.
        user: The other side; None in solo mode.
        max_errors: Number of errors after which tau2 ends the task.
    """

    def __init__(self, task: Any, world: Any, user: User | None, max_errors: int) -> None:
        self.task, self.world, self.user, self.max_errors = task, world, user, max_errors
        self.messages: list[Any] = []
        self.ended: str | None = None
        self.errors = 0

    @property
    def _message(self) -> ModuleType:
        return load("data_model.message")  # no attribute, because modules cannot be pickled

    def begin(self) -> None:
        """Run until it is the agent's turn."""
        start = self.task.initial_state
        history = list(start.message_history or []) if start is not None else []
        self.world.set_state(
            initialization_data=start.initialization_data if start is not None else None,
            initialization_actions=start.initialization_actions if start is not None else None,
            message_history=history,
        )
        self.messages = [message.model_copy(deep=True) for message in history]
        if self.user is None:
            self.world.sync_tools()
            return
        if not self.messages:
            self.messages = [self._message.AssistantMessage(role="assistant", content=GREETING, cost=0.0)]
        self.user.begin([message for message in self.messages[:-1] if _for_user(message)])
        self.world.sync_tools()
        self._resume(self.messages[-1])

    def say(self, text: str) -> None:
        """Send the agent's message to the user; a message with `STOP` ends the conversation."""
        self._append(self._message.AssistantMessage(role="assistant", content=text))
        if STOP in text:
            self.ended = "agent_stop"
        elif self.user is not None:
            self._let_user_answer([self.messages[-1]])
        self._check_errors()

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool as the agent; return the answer, a tau2 `ToolMessage` and the last of `messages`."""
        request = self._message.ToolCall(name=name, arguments=dict(arguments), requestor="assistant")
        self._append(self._message.AssistantMessage(role="assistant", tool_calls=[request]))
        (answer,) = self._run([request])
        self._check_errors()
        return answer

    def count_error(self) -> None:
        """Count a call that did not reach a tool."""
        self.errors += 1
        self._check_errors()

    def _resume(self, last: Any) -> None:
        """Continue after the last message of a task's history, whoever's turn it is."""
        message = self._message
        if isinstance(last, message.AssistantMessage):
            if last.is_tool_call():
                self._run(last.tool_calls)
            elif STOP in (last.content or ""):
                self.ended = "agent_stop"
            else:
                self._let_user_answer([last])
        elif isinstance(last, message.UserMessage):
            if last.is_tool_call():
                self._let_user_answer(self._run(last.tool_calls))
            elif _ends(last):
                self.ended = "user_stop"
        elif last.requestor == "user":
            self._let_user_answer([last])

    def _let_user_answer(self, told: list[Any]) -> None:
        assert self.user is not None
        calls = 0
        while True:
            answer = self.user.reply(told)
            answer.validate()
            calls += len(answer.tool_calls or [])
            if calls > MAX_USER_CALLS:
                self.ended = "max_steps"
                return
            self._append(answer)
            if not answer.is_tool_call():
                if _ends(answer):
                    self.ended = "user_stop"
                return
            told = self._run(answer.tool_calls)
            if self.errors >= self.max_errors:
                return

    def _run(self, calls: list[Any]) -> list[Any]:
        answers = [self._answer(call) for call in calls]
        self.errors += sum(answer.error for answer in answers)
        for answer in answers:
            self._append(answer)
        return answers

    def _answer(self, call: Any) -> Any:
        try:
            return self.world.get_response(call)
        except (ValueError, RecursionError) as error:  # tau2 catches errors of tools, but not of serialisation
            return self._message.ToolMessage(
                id=call.id, role="tool", content=f"Error: {error}", requestor=call.requestor, error=True
            )

    def _append(self, message: Any) -> None:
        self.messages.append(message)
        self.world.sync_tools()

    def _check_errors(self) -> None:
        if self.errors >= self.max_errors and self.ended is None:
            self.ended = "too_many_errors"


def _for_user(message: Any) -> bool:
    """Return whether the user may see a message, as in `tau2.user.base.is_valid_user_history_message`."""
    if message.role == "tool":
        return bool(message.requestor == "user")
    return message.role == "user" or (message.role == "assistant" and not message.is_tool_call())


def _ends(message: Any) -> bool:
    return any(ending in (message.content or "") for ending in ENDINGS)
