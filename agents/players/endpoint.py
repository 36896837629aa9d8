"""Models behind an API or a local server, through litellm: what it is called with, how often again, what it costs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rwml_gym.agents.players.messages import Answer, UnreadableAnswerError
from rwml_gym.checks import require
from rwml_gym.envs.tau2.users import LitellmModel
from rwml_gym.errors import InvalidConfigError, RWMLGymError

__all__ = ["Budget", "BudgetSpentError", "EndpointModel", "EndpointRefusedError"]

_Respond = Callable[[list[dict[str, Any]], list[dict[str, Any]]], Answer]
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds


class BudgetSpentError(RWMLGymError):
    """The calls have cost what they may cost."""


class EndpointRefusedError(RWMLGymError):
    """A model's server refuses the key, or does not know the model."""


@dataclass
class Budget:
    """What all calls of an evaluation may cost together.

    Attributes:
        limit: In US dollars; `None` for no limit.
        spent: What they have cost so far.
        note: Told of `spent` after each call.
    """

    limit: float | None = None
    spent: float = 0.0
    note: Callable[[float], Any] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raise `BudgetSpentError` if nothing is left; calls that are under way may still go beyond it."""
        if self.limit is not None and self.spent >= self.limit:
            raise BudgetSpentError(
                f"Expected calls for less than {self.limit:g} US dollars, actual: {self.spent:.4f} are spent. Raise "
                "--max-cost, and repeat the command, which goes on from there."
            )

    def add(self, cost: float) -> None:
        """Count a call."""
        with self._lock:
            self.spent += cost
            if cost and self.note is not None:
                self.note(self.spent)


class EndpointModel:
    """A model of litellm that answers messages; several threads may ask it.

    A call that fails because the server is busy, late, away or broken is made again after a wait that doubles, or as
    long as the server asks for.

    Args:
        name: Id of litellm, such as `gpt-4.1`, or `openai/NAME` with `api_base` for a local server.
        arguments: Arguments of `litellm.completion`: `temperature`, `api_base`, …
        attempts: How often a call is made at most.
        timeout: How long an answer may take, in seconds.
        budget: What all calls may cost.
        prices: US dollars per million tokens of prompts and of answers; litellm's own list if absent.

    Raises:
        DependencyNotInstalled: If litellm or tenacity is not installed.
        InvalidConfigError: If there is a limit and nobody knows the prices, or a key would go in plain text.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        attempts: int = 8,
        timeout: float = 120.0,
        budget: Budget | None = None,
        prices: tuple[float, float] | None = None,
    ) -> None:
        require("tenacity", "tenacity", "api")
        given = {"timeout": timeout, **(arguments or {}), "max_retries": 0, "num_retries": 0}
        model = LitellmModel(name, given)
        base = given.get("api_base") or given.get("base_url")
        self._respond: _Respond = _Server(model) if base and name.startswith("openai/") else _Litellm(model)
        self._attempts, self._budget, self._prices = attempts, budget or Budget(), prices
        import litellm

        litellm.suppress_debug_info = True  # it would print a hint at each failure
        if self._budget.limit is not None and prices is None:
            known = litellm.model_cost.get(name) or litellm.model_cost.get(name.partition("/")[2]) or {}
            if "input_cost_per_token" not in known:
                raise InvalidConfigError(
                    f"Expected a model with known prices for --max-cost, actual: {name!r}. Give --prices, in US "
                    "dollars per million tokens of prompts and of answers."
                )
            if isinstance(self._respond, _Server):  # which does not say what a call costs
                each = (known.get(f"{kind}_cost_per_token") or 0.0 for kind in ("input", "output"))
                self._prices = tuple(1e6 * float(price) for price in each)  # type: ignore[assignment] # two of them

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Answer:
        """Return the answer to messages.

        Raises:
            BudgetSpentError: If the budget is spent.
            EndpointRefusedError: If the key or the model's name is refused.
            Exception: The last failure, if all attempts failed, or one that another attempt would repeat.
        """
        import tenacity

        self._budget.check()
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=_wait,
            retry=tenacity.retry_if_exception(_is_passing),
            reraise=True,
        )
        try:
            answer: Answer = retrying(self._respond, messages, tools)
        except Exception as error:
            if _is_refused(error):
                raise EndpointRefusedError(
                    f"Expected a model that answers, actual: {type(error).__name__}: {error}. Check its name, the key, "
                    "and the address, and repeat the command."
                ) from error
            raise
        if self._prices is not None:
            dollars = self._prices[0] * answer.prompt_tokens + self._prices[1] * answer.completion_tokens
            answer = replace(answer, cost=dollars / 1e6)
        self._budget.add(answer.cost)
        return answer


class _Litellm:
    """Asks through litellm."""

    def __init__(self, model: LitellmModel) -> None:
        self._model = model

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Answer:
        response = self._model.respond(messages, tools)
        usage = getattr(response, "usage", None)
        return Answer(
            response.choices[0].message.model_dump(),
            int(getattr(usage, "prompt_tokens", 0) or 0),
            int(getattr(usage, "completion_tokens", 0) or 0),
            float(getattr(response, "_hidden_params", {}).get("response_cost") or 0.0),
        )


class _Server:
    """Asks a server that speaks OpenAI's protocol through OpenAI's library.

    litellm calls the same library, and takes twice as much processor time for itself, which threads cannot share.
    """

    def __init__(self, model: LitellmModel) -> None:
        import openai

        given = dict(model.arguments)
        for name in ("api_base", "base_url", "max_retries", "num_retries"):
            given.pop(name, None)
        key = given.pop("api_key", None) or os.environ.get("OPENAI_API_KEY")
        self._client = openai.OpenAI(
            base_url=model.address,
            api_key=key if key and model.sends_key else "none",
            max_retries=0,
            timeout=given.pop("timeout"),
        )
        self._body = {"model": model.name.removeprefix("openai/"), **given}

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Answer:
        import httpx

        body = {**self._body, "messages": messages, **({"tools": tools, "tool_choice": "auto"} if tools else {})}
        response = self._client.post("/chat/completions", cast_to=httpx.Response, body=body).json()
        try:
            usage = response.get("usage") or {}
            counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            return Answer(response["choices"][0]["message"], *counts)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UnreadableAnswerError(
                f"Expected a chat completion from {self._client.base_url}, actual: {str(response)[:200]!r}. Check that "
                "the address is that of an OpenAI-compatible server, with /v1 at its end."
            ) from error


def _is_passing(error: BaseException) -> bool:
    """Return whether the same call may succeed later: not after a refused key, a wrong name or too long a prompt."""
    import openai  # litellm's errors are subclasses of these

    lasting = (
        openai.AuthenticationError,
        openai.BadRequestError,
        openai.NotFoundError,
        openai.PermissionDeniedError,
        openai.UnprocessableEntityError,
    )
    return isinstance(error, Exception) and not isinstance(error, lasting)


def _is_refused(error: BaseException) -> bool:
    """Return whether every other call would be refused, too."""
    import openai

    return isinstance(error, openai.AuthenticationError | openai.NotFoundError | openai.PermissionDeniedError)


def _wait(state: Any) -> float:
    """Return the seconds until the next attempt: what the server asks for, or a random part of a doubling time."""
    import tenacity

    error = state.outcome.exception()
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:  # absent, or a date
        return float(tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT)(state))
    return min(max(asked, 0.0), _LONGEST_WAIT)
