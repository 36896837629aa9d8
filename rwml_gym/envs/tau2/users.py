"""The users that an agent can talk to: a scripted one without a model, and one played by a language model."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rwml_gym.checks import require
from rwml_gym.endpoints import may_send_key, within
from rwml_gym.envs.tau2.actions import find_calls, without_thoughts
from rwml_gym.envs.tau2.conversation import STOP, TRANSFER
from rwml_gym.envs.tau2.first_person import in_first_person
from rwml_gym.envs.tau2.literals import UnreadableError, read_json
from rwml_gym.envs.tau2.package import load
from rwml_gym.envs.tau2.tools import ToolSpec, UnfitArgumentsError
from rwml_gym.errors import InvalidConfigError, RWMLGymError
from rwml_gym.text import cleaned

__all__ = ["ChatModel", "LitellmModel", "ModelUser", "ScriptedUser", "UserModelError"]

ChatModel = Callable[[list[dict[str, Any]], list[dict[str, Any]]], Mapping[str, Any]]
"""A language model: a function from OpenAI-style messages and tool schemas to an OpenAI-style assistant message."""

RETRIES = 3
"""Number of retries after an empty or unreadable answer of the model, as in tau2."""

_GREETING = "Hello, I need help."

_SENTENCE = re.compile(r"[^.!?\n]++[.!?\n]*+")
# A word of farewell where a clause begins: "say goodbye to your old order" is none.
_FAREWELL = re.compile(
    r"(?:^|[,;:\u2013\u2014-]|\b(?:and|so|then|now|ok|okay|thanks|you|well|alright|otherwise|again)\b)\W*"
    r"(?:good[ -]?bye|bye(?:[ -]bye)?|farewell|take care(?! of)|see you (?:soon|later|again|around|next)"
    r"|have an? (?:\w+ )?(?:day|evening|night|weekend|one|trip|flight))(?![\w-])(?! to\b)",
    re.IGNORECASE,
)
_HAND_OVER = re.compile(
    r"\b(?:you(?: are|'re)(?: now)?(?: being)?|you(?: have|'ve)(?: now)? been) transferred\b"
    r"|\bi(?: am|'m)(?: now)? transferring you\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\W*(?:if|when|once|before|after|until|while|unless)\b", re.IGNORECASE)


class UserModelError(RWMLGymError, RuntimeError):
    """The user's language model has failed, was late, or has returned only empty or unreadable answers."""


class ScriptedUser:
    """A user without a model, with the same words in every task of every domain.

    The user first states the reason for the call and what is known, in the first person and without what the task says
    to whoever plays the user (`first_person.in_first_person`). If the agent names some of the user's own tools
    with their arguments, as in ``toggle_roaming()``, the user calls them and reports the results. The user ends the
    conversation as tau2's guidelines for users say: when the agent says goodbye, or that the user is being transferred.
    The user agrees to everything else.

    Args:
        task: A tau2 `Task`.
        tools: The user's tools.
    """

    def __init__(self, task: Any, tools: Mapping[str, ToolSpec]) -> None:
        self._task, self._tools = task, tools

    @property
    def _message(self) -> ModuleType:
        return load("data_model.message")  # no attribute, because modules cannot be pickled

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
        if _states(_HAND_OVER, text):
            return self._say(TRANSFER)
        return self._say(STOP if _states(_FAREWELL, text) else "Yes, please go ahead.")

    def _say(self, text: str) -> Any:
        self._opened = True
        return self._message.UserMessage(role="user", content=text or "Done.")

    def _reason(self) -> str:
        instructions = self._task.user_scenario.instructions
        if isinstance(instructions, str):
            return in_first_person(instructions) or _GREETING
        told = in_first_person(f"{instructions.reason_for_call}\n{instructions.known_info or ''}")
        return told or _GREETING


def _states(pattern: re.Pattern[str], text: str) -> bool:
    """Return whether a sentence of the text, which is neither a question nor a condition, has the pattern."""
    sentences = (sentence.strip() for sentence in _SENTENCE.findall(text.replace("\u2019", "'")))
    return any(
        pattern.search(sentence)
        for sentence in sentences
        if "?" not in sentence and (pattern is _FAREWELL or not _CONDITION.match(sentence))
    )


class ModelUser:
    """A user played by a language model, with exactly tau2's prompt.

    Thoughts of the model are dropped, and so are characters that are no text. An answer that is empty or unreadable is
    asked for again.

    Args:
        task: A tau2 `Task`.
        tools: The user's tools.
        model: The language model.
        deadline: How long an answer may take, in seconds; None for any time. See `rwml_gym.endpoints.within`.
    """

    def __init__(
        self, task: Any, tools: Mapping[str, ToolSpec], model: ChatModel, deadline: float | None = None
    ) -> None:
        self._model, self._tools, self._deadline = model, tools, deadline
        guidelines = "simulation_guidelines_tools.md" if tools else "simulation_guidelines.md"
        path = load("utils.utils").DATA_DIR / "tau2" / "user_simulator" / guidelines
        rules = path.read_text(encoding="utf-8")
        self._prompt = f"{rules}\n\n<scenario>\n{task.user_scenario}\n</scenario>".strip()

    @property
    def _message(self) -> ModuleType:
        return load("data_model.message")

    def begin(self, history: list[Any]) -> None:
        """Start over."""
        self._heard: list[dict[str, Any]] = [{"role": "system", "content": self._prompt}]
        for message in history:
            self._hear(message)

    def reply(self, messages: list[Any]) -> Any:
        """Return the model's answer.

        Raises:
            UserModelError: If the model fails or is late, or all its answers are empty or unreadable.
        """
        for message in messages:
            self._hear(message)
        for _ in range(RETRIES + 1):
            try:
                answer = within(self._deadline, self._ask)
            except Exception as error:  # the model or the connection to it may raise anything
                raise UserModelError(
                    f"Expected an answer of the user's model, actual: {type(error).__name__}: {error}."
                ) from error
            message = self._message_of(answer)
            if message is not None:
                self._hear(message)
                return message
        raise UserModelError(
            f"Expected an answer of the user's model, actual: empty or unreadable {RETRIES + 1} times, the last time "
            f"{str(answer)[:200]!r}. Return an OpenAI-style assistant message, with content as text or tool_calls."
        )

    def _ask(self) -> Any:
        # copies, because the model may do with them what it likes
        return self._model(copy.deepcopy(self._heard), [copy.deepcopy(tool.schema) for tool in self._tools.values()])

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

    def _message_of(self, answer: Any) -> Any:
        """Convert the model's answer to a tau2 `UserMessage`; None if it is empty or unreadable."""
        if not isinstance(answer, Mapping):
            return None
        content, wanted = answer.get("content") or "", answer.get("tool_calls") or []
        if not isinstance(content, str) or not isinstance(wanted, list | tuple):
            return None
        calls = [self._read_call(call, number) for number, call in enumerate(wanted)]
        text = without_thoughts(cleaned(content))
        if None in calls or not (calls or text):
            return None
        # a message is text or calls; tau2 prefers the calls
        return self._message.UserMessage(role="user", content=text or None, tool_calls=calls or None)

    def _read_call(self, call: Any, number: int) -> Any:
        """Convert a call to tau2's, with arguments as in the tool's schema if they fit; None if it is unreadable."""
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str):
            return None
        arguments = function.get("arguments") or "{}"
        try:
            arguments = read_json(arguments if isinstance(arguments, str) else json.dumps(arguments))
        except (UnreadableError, TypeError, ValueError):  # the last two are those of objects that are no JSON
            return None
        if not isinstance(arguments, dict):
            return None
        if name in self._tools:
            try:
                arguments = self._tools[name].convert(arguments)
            except UnfitArgumentsError:
                pass  # tau2 answers with the tool's own error, which the user can mend
        identity = call.get("id")
        return self._message.ToolCall(
            id=identity if isinstance(identity, str) and identity else f"user_{len(self._heard)}_{number}",
            name=cleaned(name),
            arguments=arguments,
            requestor="user",
        )


@dataclass(frozen=True)
class LitellmModel:
    """A model of litellm, as a function of messages and tools.

    A key goes over https, or to this machine, and never over plain http to another one.

    Args:
        name: Id like ``gpt-4.1``, or ``openai/NAME`` with ``api_base="http://localhost:8000/v1"`` for a local endpoint.
        arguments: Arguments for ``litellm.completion``: ``temperature``, ``seed``, ``api_base``, ``api_key``, …

    Raises:
        InvalidConfigError: If ``api_key`` is given for an address that may not get it.
    """

    name: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise the import downloads prices
        require("litellm", "litellm", "tau2")
        if self.arguments.get("api_key") and not self.sends_key:
            raise InvalidConfigError(
                f"Expected an https address for `api_key`, actual: {self.address!r}, where it would go in plain text. "
                "Use https, a tunnel to localhost, or no key."
            )

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Mapping[str, Any]:
        """Return the assistant message that answers a conversation."""
        return self.respond(messages, tools).choices[0].message.model_dump()

    def respond(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        """Return litellm's whole response, with the tokens used."""
        import litellm

        arguments = {"drop_params": True, **self.arguments}
        if tools:
            arguments |= {"tools": tools, "tool_choice": "auto"}
        if not self.sends_key:
            arguments["api_key"] = "none"  # otherwise litellm takes the one in the environment
        return litellm.completion(model=self.name, messages=messages, **arguments)

    @property
    def address(self) -> str:
        """Where requests go, if that is not the provider's own address.

        Of a provider, litellm takes the address from its own settings or from the environment (`OPENAI_BASE_URL`,
        `HOSTED_VLLM_API_BASE`). A variable that it does not read for this provider costs a key at worst.
        """
        if given := self.arguments.get("api_base") or self.arguments.get("base_url"):
            return str(given)
        import litellm

        base: str | None = None
        try:
            _, provider, _, base = litellm.get_llm_provider(self.name)
        except litellm.BadRequestError:  # a name that litellm does not know, as it says itself when it is called
            provider = self.name.partition("/")[0]
        stem = provider.upper().replace("-", "_")
        variables = map(os.environ.get, (f"{stem}_BASE_URL", f"{stem}_API_BASE"))
        return base or litellm.api_base or next(filter(None, variables), "")

    @property
    def sends_key(self) -> bool:
        """Whether a key may go to where requests go."""
        return not self.address or may_send_key(self.address)
