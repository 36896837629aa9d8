"""tau2's score without a replay: the database after the conversation is compared with that after the gold actions.

tau2's evaluator builds two environments, replays the whole conversation in one and hashes both databases. Here the
environment at the end of the conversation is available, and the changes of the gold actions are computed once per task.

One difference is deliberate: in tau2, breaking the VPN of one phone changes the default of all later ones in a process,
so that a task's score depends on earlier tasks. Scores here are those of a fresh process.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from rwml_gym.envs.tau2.actions import without_thoughts
from rwml_gym.envs.tau2.conversation import Conversation
from rwml_gym.envs.tau2.database import changes
from rwml_gym.envs.tau2.domains import load_domain, load_task
from rwml_gym.envs.tau2.literals import UnreadableError, read_json
from rwml_gym.envs.tau2.package import load
from rwml_gym.envs.tau2.users import RETRIES, ChatModel, UserModelError
from rwml_gym.errors import InvalidGameError

__all__ = ["Score", "check_scorable", "score"]

COMPLETED = ("agent_stop", "user_stop")
"""Endings that tau2 scores; any other scores 0."""

BASES = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE")

JUDGED = "NL_ASSERTION"
"""The check of assertions in words, which only a language model can do."""

# The words of tau2's own judge.
_JUDGE = """
        TASK
        - You will be given a list of expected outcomes and a conversation that was collected during a test case run.
        - The conversation is between an agent and a customer.
        - Your job is to evaluate whether the agent satisfies each of the expected outcomes.
        - Grade each expected outcome individually.

        FORMAT
        - Your response should be a JSON object with the following fields:
        - `reasoning`: a short explanation for your classification
        - `metExpectation`: `true` if the agent satisfies the expected outcomes, `false` otherwise
        - `expectedOutcome`: repeat the expectation from the input that you are grading
        
        Example response structure:
        {
            "results": [
                {
                    "expectedOutcome": "<one of the expected outcomes from the input>",
                    "reasoning": "<reasoning trace>",
                    "metExpectation": <false or true>,
                }
            ]
        }
        """


@dataclass(frozen=True)
class Score:
    """The score of a conversation.

    Attributes:
        reward: Product of the checks that count for the task.
        parts: All of tau2's checks, 1.0 or 0.0 each, whether they count for the task or not; that of the judge only
            if it counts.
        counted: Names of the checks that count for this task.
    """

    reward: float
    parts: dict[str, float]
    counted: tuple[str, ...]


def check_scorable(task: Any, judged: bool = False) -> None:
    """Raise `InvalidGameError` if a task's reward includes checks that are unknown, or need a judge that is missing."""
    unknown = [basis for basis in _counted(task) if basis not in (*BASES, *([JUDGED] if judged else []))]
    if unknown:
        raise InvalidGameError(
            f"Expected a task scored without a language model, actual: {task.id!r}, scored by {', '.join(unknown)}. "
            "Choose another task, or give a `judge`."
        )


def score(conversation: Conversation, domain: str, judge: ChatModel | None = None) -> Score:
    """Score a conversation that has ended.

    Args:
        conversation: The conversation.
        domain: One of `rwml_gym.envs.tau2.domains.DOMAINS`.
        judge: The language model that checks assertions in words, if the task has such that count.

    Raises:
        UserModelError: If the judge fails.
    """
    task = conversation.task
    criteria = task.evaluation_criteria
    counted = _counted(task)
    if conversation.ended not in COMPLETED:
        return Score(0.0, dict.fromkeys(BASES, 0.0), counted)
    if criteria is None:
        return Score(1.0, dict.fromkeys(BASES, 1.0), counted)
    action = load("evaluator.evaluator_action").ActionEvaluator
    communicate = load("evaluator.evaluator_communicate").CommunicateEvaluator
    parts = {
        **_world_parts(conversation, domain),
        "ACTION": action.calculate_reward(task, conversation.messages).reward,
        "COMMUNICATE": communicate.calculate_reward(task, conversation.messages).reward,
    }
    if JUDGED in counted and judge is not None:
        parts[JUDGED] = _judged(conversation, judge)
    return Score(math.prod((parts[basis] for basis in counted), start=1.0), parts, counted)


def _judged(conversation: Conversation, judge: ChatModel) -> float:
    """Ask the judge, with tau2's own prompt, whether all assertions hold."""
    assertions = conversation.task.evaluation_criteria.nl_assertions
    if not assertions:
        return 1.0
    said = "\n".join(f"{message.role}: {message.content}" for message in conversation.messages)
    asked = f"""
        conversation:
        {said}
        
        expectedOutcomes:
        {assertions}
        """
    messages = [{"role": "system", "content": _JUDGE}, {"role": "user", "content": asked}]
    for _ in range(RETRIES + 1):
        try:
            content = judge([dict(message) for message in messages], [])["content"]
        except Exception as error:  # the model or the connection to it may raise anything
            raise UserModelError(
                f"Expected an answer of the judge, actual: {type(error).__name__}: {error}."
            ) from error
        found = re.search(r"\{.*\}", without_thoughts(str(content)), re.DOTALL)
        with contextlib.suppress(UnreadableError, KeyError, TypeError):
            met = [result["metExpectation"] for result in read_json(found[0] if found else "")["results"]]
            if len(met) == len(assertions) and all(isinstance(held, bool) for held in met):
                return float(all(met))
    raise UserModelError(
        f'Expected {len(assertions)} results of the judge, as {{"results": [{{"metExpectation": true}}, …]}}, actual '
        f"{RETRIES + 1} times: others, the last time {str(content)[:200]!r}. Use another judge."
    )


def _counted(task: Any) -> tuple[str, ...]:
    criteria = task.evaluation_criteria
    return tuple(str(basis.value) for basis in criteria.reward_basis) if criteria is not None else ()


def _world_parts(conversation: Conversation, domain: str) -> dict[str, float]:
    task, world = conversation.task, conversation.world
    criteria = task.evaluation_criteria
    if criteria.actions is None and criteria.env_assertions is None:
        return {"DB": 1.0, "ENV_ASSERTION": 1.0}
    same = _state(world) == _gold_state(domain, task.id)
    held = [_holds(world, assertion) for assertion in criteria.env_assertions or []]
    return {"DB": float(same), "ENV_ASSERTION": float(all(held))}


def _holds(world: Any, assertion: Any) -> bool:
    try:
        return bool(world.run_env_assertion(assertion, raise_assertion_error=False))
    except ValueError:  # its object was removed; tau2's evaluator fails here
        return False


@cache
def _gold_state(domain: str, task_id: str) -> Any:
    """Return the state after the gold actions of a task."""
    task = load_task(domain, task_id)
    conversation = Conversation(task, load_domain(domain).make("gold"), None, max_errors=0)
    conversation.begin()
    for action in task.evaluation_criteria.actions or []:
        # like tau2, which logs a failing gold action and continues
        with contextlib.suppress(Exception):
            conversation.world.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
    return _state(conversation.world)


def _state(world: Any) -> Any:
    """Return a state that is equal for two environments of a domain exactly if tau2 hashes their databases equally."""
    changed = changes(world.tools.db)
    return world.get_db_hash() if changed is None else changed, world.get_user_db_hash()
