"""The lines of `steps.jsonl` and `episodes.jsonl`: what happened in each step and each episode of an evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from rwml_gym.errors import StorageError

__all__ = ["EpisodeRecord", "StepRecord", "record_of"]

Record = TypeVar("Record", "StepRecord", "EpisodeRecord")


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One action and what the world answered.

    Attributes:
        episode: Number of the episode in the panel, from 0: trial times games, plus place of the game.
        game: Name of the game, or the seed where games have no names: what `reset` took.
        trial: Number of the trial, from 0.
        step: Number of the action in the episode, from 1.
        observation: What the agent saw before it acted.
        shown: What the model was shown in this turn: a prompt, or the messages that are new; `None` without a model.
        written: What the model wrote, tool calls as JSON; `None` without a model.
        thought: The thought in it, where it has one.
        action: What the environment was given, without the prediction.
        prediction: The predicted next observation; `None` if none was made.
        next_observation: The world's answer.
        message_role: Message role of the answer, `tool` or `user`; empty where there are none.
        gap: Distance of the prediction from the answer; `None` without a prediction or a gap.
        gap_reward: Reward of that gap.
        reward: Reward of the task.
        invalid: Whether the environment rejected the action.
        inefficient: Whether the action is invalid, or looks without acting (`look`, `examine`), as the paper counts.
        prompt_tokens: Tokens that the model was shown.
        completion_tokens: Tokens that it wrote.
        seconds: Time that the agent and the environment took for the step.
        cost: What the calls of the step cost, in US dollars.
        info: What else the environment said that matters, such as `won` and `score_parts`.
    """

    episode: int
    game: str
    trial: int
    step: int
    observation: str
    action: str
    next_observation: str
    shown: str | list[dict[str, Any]] | None = None
    written: str | None = None
    thought: str = ""
    prediction: str | None = None
    message_role: str = ""
    gap: float | None = None
    gap_reward: float | None = None
    reward: float = 0.0
    invalid: bool = False
    inefficient: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """One episode that was played to its end, or until agent or environment failed.

    Attributes:
        episode: Number of the episode in the panel, see `StepRecord`.
        game: Name of the game, or the seed where games have no names: what `reset` took.
        trial: Number of the trial, from 0.
        seed: Seed of the agent in this episode.
        task: The task in words.
        task_type: Task type of the game; empty where there are none.
        domain: Domain of the game; empty where there are none.
        won: Whether the task was solved.
        reward: Sum of the rewards of the task.
        steps: Number of actions.
        invalid: Number of actions that the environment rejected.
        inefficient: Number of inefficient actions, see `StepRecord.inefficient`.
        ended: Why it ended: `won`, `terminated`, `truncated` or `failed`, or what the environment says.
        error: The failure of agent or environment that ended it; `None` if neither failed.
        failed: Who failed: `agent`, `environment`, or empty.
        judged: Whether the environment says who won (`info["won"]`).
        prompt_tokens: Tokens that the model was shown.
        completion_tokens: Tokens that it wrote.
        seconds: Time that agent and environment took.
        cost: What the calls cost, in US dollars.
        score_parts: Parts of the score by name, such as `database`; empty where there are none.
        counted: Names of the parts that count for this task.
        known_problem: What is wrong with the task's data, usually nothing.
        data_version: Version of the game's data.
    """

    episode: int
    game: str
    trial: int
    won: bool
    reward: float
    steps: int
    seed: int = 0
    task: str = ""
    task_type: str = ""
    domain: str = ""
    invalid: int = 0
    inefficient: int = 0
    ended: str = ""
    error: str | None = None
    failed: str = ""
    judged: bool = True
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    score_parts: dict[str, Any] = field(default_factory=dict)
    counted: list[str] = field(default_factory=list)
    known_problem: str = ""
    data_version: str = ""


def record_of(kind: type[Record], content: object) -> Record:
    """Make a record from what JSON held; null for a number that cannot be absent was not finite, and becomes NaN.

    Raises:
        StorageError: If it is no record of this kind.
    """
    types = {field.name: field.type for field in fields(kind)}
    if not isinstance(content, dict) or set(content) - set(types):
        raise StorageError(f"Expected the fields of a {kind.__name__}, actual: {str(content)[:200]}.")
    values: dict[str, Any] = {n: math.nan if v is None and types[n] == "float" else v for n, v in content.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise StorageError(f"Expected a {kind.__name__}, actual: {str(content)[:200]} ({error}).") from error
