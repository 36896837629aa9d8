"""One conversation: messages go round between agent, user and world, until it is the agent's turn or all is over.

The rules are those of tau2's `Orchestrator`, which is not used itself: it imports litellm, and its loop waits for an
agent. Here the caller is the agent, so that no thread is needed. The tests play both side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rwml_gym.envs.tau2.package import load

__all__ = ["GREETING", "STOP", "Conversation", "User"]

GREETING = "Hi! How can I help you today?"
"""What the agent says first where there is a user, as in tau2."""

STOP = "###STOP###"
ENDINGS = (STOP, "###TRANSFER###", "###OUT-OF-SCOPE###")
"""What a user says to end the conversation."""


class User(Protocol):
    """The other side. It is told one message at a time and remembers them itself."""

    def begin(self, history: list[Any]) -> None:
        """Starts over, after the messages that a task begins with."""
        ...

    def reply(self, messages: list[Any]) -> Any:
        """What it says to the agent's message, or to the results of its own tool calls: a tau2 `UserMessage`."""
        ...


class Conversation:
    """A task in play.

    Attributes:
        messages: all of tau2's messages so far.
        ended: why it is over, in tau2's words (``agent_stop``, ``user_stop``, ``too_many_errors``); None until then.
        errors: how often a tool has answered with an error.
    """

    def __init__(self, task: Any, world: Any, user: User | None, max_errors: int) -> None:
        """Sets the world up for a task; `begin` starts.

        Args:
            task: tau2 `Task`.
            world: fresh tau2 `Environment`.
            user: the other side; None in solo mode.
            max_errors: after how many errors tau2 gives up.
        """
        self.task, self.world, self.user, self.max_errors = task, world, user, max_errors
        self._message = load("data_model.message")
        self.messages: list[Any] = []
        self.ended: str | None = None
        self.errors = 0

    def begin(self) -> None:
        """Runs until it is the agent's turn."""
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
        """The agent speaks to the user; with `STOP` in it, that is the end."""
        self._append(self._message.AssistantMessage(role="assistant", content=text))
        if STOP in text:
            self.ended = "agent_stop"
        elif self.user is not None:
            self._let_user_answer([self.messages[-1]])
        self._check_errors()

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The agent calls a tool.

        Returns:
            tau2 `ToolMessage`, the last of `messages`.
        """
        request = self._message.ToolCall(name=name, arguments=dict(arguments), requestor="assistant")
        self._append(self._message.AssistantMessage(role="assistant", tool_calls=[request]))
        (answer,) = self._run([request])
        self._check_errors()
        return answer

    def count_error(self) -> None:
        """Counts a call that never reached the world."""
        self.errors += 1
        self._check_errors()

    def _resume(self, last: Any) -> None:
        """Goes on after the last message of a task's history, whoever's turn it is."""
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
        while True:
            answer = self.user.reply(told)
            answer.validate()
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
        except (ValueError, RecursionError) as error:  # tau2 catches what its tools raise, not what writing it raises
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
    """Whether the user may know of a message, as `tau2.user.base.is_valid_user_history_message` has it."""
    if message.role == "tool":
        return bool(message.requestor == "user")
    return message.role == "user" or (message.role == "assistant" and not message.is_tool_call())


def _ends(message: Any) -> bool:
    return any(ending in (message.content or "") for ending in ENDINGS)
