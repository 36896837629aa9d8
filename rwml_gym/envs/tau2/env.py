"""τ²-bench as a Gymnasium environment: an agent serves a customer under a policy, with messages and tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from rwml_gym.checks import one_of, real_number, whole_number
from rwml_gym.endpoints import within
from rwml_gym.envs.base import TextEnv
from rwml_gym.envs.read_only import read_only
from rwml_gym.envs.tau2.actions import InvalidAction, Speech, parse_action
from rwml_gym.envs.tau2.conversation import STOP, Conversation, User
from rwml_gym.envs.tau2.domains import ALL, DOMAINS, Domain, load_domain, members
from rwml_gym.envs.tau2.package import data_version
from rwml_gym.envs.tau2.scoring import Score, check_scorable, score
from rwml_gym.envs.tau2.tasks import NamedTask, Tasks
from rwml_gym.envs.tau2.tools import ToolSpec
from rwml_gym.envs.tau2.users import ChatModel, LitellmModel, ModelUser, ScriptedUser, UserModelError
from rwml_gym.errors import InvalidConfigError
from rwml_gym.text import printable

__all__ = ["USERS", "Tau2Env"]

USERS = ("scripted", "solo", "model")

MAX_ACTION = 10_000
"""Maximal length of an action; the longest gold action has 600. Some of tau2's tools need quadratic time for a list."""

DONE = ToolSpec("done", "Call this function when you are done with the task.", {"type": "object", "properties": {}})
"""The agent's call to end the conversation, as in tau2's own gym."""


class Tau2Env(TextEnv[NamedTask]):
    """A customer service agent's task: the agent talks to a user, calls tools, and gets tau2's score.

    Observation: what the agent may see since its last action, ``user: …`` and ``tool: …``. Action: text to the user, or
    one tool call as text: JSON, ``name(argument="value")``, in ``<tool_call>`` tags, after prose; see
    `envs.tau2.actions`. A malformed call gets an error message, costs a step, and changes nothing. ``done()``,
    ``###STOP###`` or the user's goodbye ends the conversation. Reward: tau2's score at the end, otherwise 0. The
    registered ids, ``rwml_gym/Tau2-v0`` and one per domain (``rwml_gym/Tau2-retail-v0``), truncate after 100 actions.

    ``info``, with the same keys at `reset` and `step`:

    * ``task``: the task in one sentence (in solo mode, the ticket); ``policy``; ``tools``: JSON schemas,
      read-only, because all environments share them.
    * ``messages``: the new messages as ``{"role": …, "content": …}``; ``message_role``: the role of the last one.
    * ``invalid_action``: whether the last action was rejected; ``tool_error``: whether a tool answered with an error.
    * ``won``: whether the score is 1; ``score_parts``: tau2's checks by name, empty until the end; ``counted``: the
      checks that count for this task; ``ended``: tau2's reason, empty until the end; ``user_error``: why the user's
      model failed.
    * ``game``: the name for ``reset(options={"game": name})``; ``domain``; ``data_version``; ``known_problem``:
      what is wrong with the task's data, usually empty; ``known_info``: see below; ``admissible_actions``: always
      empty, because messages are free text.

    Neither the gold actions nor the scoring criteria reach the agent before the end.

    Args:
        domain: ``airline``, ``retail``, ``telecom``, ``telecom-workflow``, ``mock``, or ``all`` for the tasks of the
            first three, whose rules and tools then change with the task.
        split: ``train``, ``test`` or ``base`` (used in publications); telecom also has ``small`` and ``full``.
        user: ``scripted`` (no model, deterministic), ``solo`` (no user; telecom and mock) or ``model``.
        user_model: With ``user="model"``: a litellm id, or a function of messages and tools (`ChatModel`).
        user_arguments: Arguments for the litellm model: ``temperature``, ``seed``, ``api_base``, …
        on_user_error: If the user's model fails, ``raise`` a `UserModelError`, or ``truncate`` the episode.
        policy_in_observation: Whether the first observation begins with the task, the policy and the tools.
        max_errors: Number of errors after which tau2 ends the task.
        user_timeout: How long the user's model or the judge may take for an answer, in seconds; None for any time. In
            the main thread (and not on Windows) a late call is interrupted; elsewhere it goes on, unheard.
        judge: A litellm id or a function, as for users, which checks the assertions in words that count for some tasks
            of upstream's releases. Without it, those tasks are left out, with a warning that says how many.
        known_problems: ``keep`` or ``drop`` tasks whose data are wrong, see `envs.tau2.tasks.known_problem`.
        known_info: Whether ``info["known_info"]`` holds what the simulated user knows about himself, such as name and
            phone number. It is for the prompts of world models, which predict what he says; an agent has to ask him. It
            is never why he calls or what he is to do.
        render_mode: With ``ansi``, `render` returns the conversation so far.
        order: ``random``, or ``each-once`` to play every task of the split; see `TextEnv`.
        share: The share of a slot with ``each-once``; `gymnasium.make_vec` sets it.

    Example:
        >>> import gymnasium, rwml_gym
        >>> env = gymnasium.make("rwml_gym/Tau2-v0", domain="mock")
        >>> observation, info = env.reset(seed=0)
        >>> observation.startswith("user: ")
        True
        >>> observation, reward, terminated, truncated, info = env.step("get_users()")
        >>> info["message_role"]
        'tool'
        >>> env.close()
    """

    def __init__(
        self,
        domain: str = "retail",
        split: str = "base",
        user: str = "scripted",
        user_model: str | ChatModel | None = None,
        user_arguments: Mapping[str, Any] | None = None,
        on_user_error: str = "raise",
        policy_in_observation: bool = False,
        max_errors: int = 10,
        user_timeout: float | None = 600.0,
        judge: str | ChatModel | None = None,
        known_problems: str = "keep",
        known_info: bool = False,
        render_mode: str | None = None,
        order: str = "random",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        one_of("domain", domain, (*DOMAINS, ALL))
        one_of("user", user, USERS)
        one_of("on_user_error", on_user_error, ("raise", "truncate"))
        if (user == "model") != (user_model is not None):
            raise InvalidConfigError(
                f'Expected `user_model` exactly with user="model", actual: user={user!r}, user_model={user_model!r}. '
                "Change one of them."
            )
        for name, model in (("user_model", user_model), ("judge", judge)):
            if model is not None and not isinstance(model, str) and not callable(model):
                raise InvalidConfigError(f"Expected `{name}` as a litellm id or a function, actual: {model!r}.")
        if not isinstance(user_arguments, Mapping | None):
            raise InvalidConfigError(
                f'Expected `user_arguments` as a mapping such as {{"temperature": 0}}, actual: {user_arguments!r}.'
            )
        if user_arguments and not isinstance(user_model, str):
            raise InvalidConfigError(
                f"Expected a litellm id in `user_model` with `user_arguments`, actual: {user_model!r}. "
                "Remove `user_arguments`, or build them into the function."
            )
        max_errors = whole_number("max_errors", max_errors, 1)
        if user_timeout is not None and not real_number(user_timeout) > 0:
            raise InvalidConfigError(f"Expected user_timeout above 0, or None, actual: {user_timeout!r}.")
        self.user_timeout = user_timeout
        self._domains = {name: load_domain(name, solo=user == "solo") for name in members(domain)}
        self.domain = next(iter(self._domains.values()))
        super().__init__(
            Tasks(domain, split, user, judge is not None, known_problems), render_mode, order=order, share=share
        )
        self.user, self.on_user_error, self.max_errors = user, on_user_error, max_errors
        self.policy_in_observation, self.known_info = policy_in_observation, known_info
        self._model = (
            LitellmModel(user_model, dict(user_arguments or {})) if isinstance(user_model, str) else user_model
        )
        self._judge = LitellmModel(judge, {"temperature": 0.0}) if isinstance(judge, str) else judge
        self._tools, self._schemas = _tools_of(self.domain)
        self._conversation: Conversation | None = None
        self._seen = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds; what all environments share is found again."""
        # the domain comes first: reading it imports tau2 without output, before its classes are looked up
        state = {"domain": self.domain, **vars(self)}
        del state["_tools"], state["_schemas"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy, which goes on as the original does."""
        vars(self).update(state)
        self._tools, self._schemas = _tools_of(self.domain)

    def _begin(self, game: NamedTask) -> tuple[str, dict[str, Any]]:
        self._name, self._known_problem, task = game.name, game.known_problem, game.task
        self._known_info = game.known_info if self.known_info and self.user != "solo" else ""
        self.domain = self._domains[game.domain]
        self._tools, self._schemas = _tools_of(self.domain)
        check_scorable(task, self._judge is not None)
        self._conversation = Conversation(task, self.domain.make(), self._make_user(task), self.max_errors)
        self._seen, self._user_error = 0, ""
        self._score: Score | None = None
        self._guard(self._conversation.begin)
        return self._observe(opening=True), self._info(invalid_action=False)

    def _act(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        assert self._conversation is not None
        refusal = "" if self._user_error or self._conversation.ended else self._do(self._conversation, action)
        if self._conversation.ended:
            self._guard(self._give_score)
        ended = self._conversation.ended and not self._user_error
        reward = self._score.reward if self._score is not None else 0.0
        observation = self._observe() if not refusal else refusal
        return observation, reward, bool(ended), bool(self._user_error), self._info(bool(refusal))

    def render(self) -> str | None:
        """Return the conversation so far, in mode ``ansi``."""
        if self.render_mode != "ansi" or self._conversation is None:
            return None
        ticket = [f"ticket: {self._task}"] if self.user == "solo" else []
        return printable("\n".join([*ticket, *map(_line, map(_plain, self._conversation.messages))]))

    def _do(self, conversation: Conversation, action: str) -> str:
        """Carry out an action; return its error message, or the empty string."""
        if len(action) > MAX_ACTION:
            conversation.count_error()
            return f"Error: The action has {len(action):,} characters; the most is {MAX_ACTION:,}."
        request = parse_action(action, self._tools)
        if isinstance(request, InvalidAction):
            conversation.count_error()
            return request.message
        if isinstance(request, Speech):
            if self.user == "solo" and STOP not in request.text:
                conversation.count_error()
                return f"Error: there is no user to talk to; call a tool, or {DONE.name}() at the end."
            self._guard(lambda: conversation.say(request.text))
        elif request.name == DONE.name:
            self._guard(lambda: conversation.say(STOP))
        else:
            conversation.call(request.name, request.arguments)
        return ""

    def _give_score(self) -> None:
        assert self._conversation is not None
        judge = None if self._judge is None else self._judge_in_time
        self._score = score(self._conversation, self.domain.name, judge)

    def _judge_in_time(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Mapping[str, Any]:
        assert callable(self._judge)
        judge = self._judge
        return within(self.user_timeout, lambda: judge(messages, tools))

    def _make_user(self, task: Any) -> User | None:
        if self.user == "solo":
            return None
        if self._model is None:
            return ScriptedUser(task, self.domain.user_tools)
        return ModelUser(task, self.domain.user_tools, self._model, self.user_timeout)

    def _guard(self, turn: Any) -> None:
        """Run a turn of the user or the judge; handle an error of its model as ``on_user_error`` says."""
        try:
            turn()
        except UserModelError as error:
            if self.on_user_error == "raise":
                self._over = True  # nobody knows what was said
                raise
            self._user_error = str(error)

    def _observe(self, opening: bool = False) -> str:
        assert self._conversation is not None
        messages = [_plain(message) for message in self._conversation.messages[self._seen :]]
        self._seen = len(self._conversation.messages)
        self._new = [message for message in messages if message["role"] != "assistant" and not message["hidden"]]
        lines = [_line(message) for message in self._new]
        if not opening:
            return "\n".join(lines)
        if self.user == "solo":
            lines = [f"ticket: {self._task}", *lines]
        if self.policy_in_observation:
            tools = "\n".join(json.dumps(schema) for schema in self._schemas)
            framing = [] if self.user == "solo" else [f"task: {self._task}"]
            lines = [*framing, f"policy:\n{self.domain.policy}\n\ntools:\n{tools}\n", *lines]
        return "\n".join(lines)

    @property
    def _task(self) -> str:
        assert self._conversation is not None
        if self.user == "solo":
            return str(self._conversation.task.ticket)
        return f"Serve the customer of the {self.domain.name} domain as its policy says."

    def _info(self, invalid_action: bool) -> dict[str, Any]:
        assert self._conversation is not None
        new = [] if invalid_action else [{"role": m["role"], "content": m["content"]} for m in self._new]
        return {
            "task": self._task,
            "policy": self.domain.policy,
            "tools": self._schemas,
            "messages": new,
            "message_role": "tool" if invalid_action else new[-1]["role"] if new else "",
            "invalid_action": invalid_action,
            "tool_error": not invalid_action and any(m["error"] for m in self._new),
            "won": self._score is not None and self._score.reward == 1.0,
            "score_parts": dict(self._score.parts) if self._score is not None else {},
            "counted": list(self._score.counted) if self._score is not None else [],
            "ended": self._conversation.ended or "",
            "user_error": self._user_error,
            "game": self._name,
            "domain": self.domain.name,
            "data_version": data_version(),
            "known_problem": self._known_problem,
            "known_info": self._known_info,
            "admissible_actions": [],
        }


@cache
def _tools_of(domain: Domain) -> tuple[dict[str, ToolSpec], list[dict[str, Any]]]:
    """Return the agent's tools and their schemas."""
    tools = {**domain.tools, DONE.name: DONE}
    return tools, read_only([tool.schema for tool in tools.values()])


def _plain(message: Any) -> dict[str, Any]:
    """Convert a tau2 message for the agent; it is hidden if it is between the user and the user's own tools."""
    calls = getattr(message, "tool_calls", None) or []
    text = message.content or ""
    if calls:
        text = "\n".join(json.dumps({"name": call.name, "arguments": call.arguments}) for call in calls)
    hidden = (message.role == "user" and bool(calls)) or getattr(message, "requestor", "assistant") == "user"
    return {"role": message.role, "content": text, "hidden": hidden, "error": getattr(message, "error", False)}


def _line(message: Mapping[str, Any]) -> str:
    return f"{message['role']}: {message['content']}"
