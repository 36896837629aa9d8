"""Plays the actions of a trace again in the real engine, and says where the world answers otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import gymnasium as gym

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.runs.worlds import Source, games_of
from rwml_gym.agents.traces.folder import Trace
from rwml_gym.agents.traces.records import StepRecord
from rwml_gym.errors import InvalidConfigError, StorageError

__all__ = ["Deviation", "Replay", "environment_of", "replay"]


@dataclass(frozen=True)
class Deviation:
    """The first step of an episode in which the world answers otherwise.

    Attributes:
        episode: Number of the episode.
        game: Its game.
        trial: Its trial.
        step: The step, from 1; 0 if the game cannot be played.
        what: What differs: `observation`, `reward`, `invalid`, `won`, or `error`.
        recorded: What the trace says.
        replayed: What the engine says now.
    """

    episode: int
    game: str
    trial: int
    step: int
    what: str
    recorded: str
    replayed: str


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        episodes: Number of episodes that were played again.
        steps: Number of their steps.
        deviations: Where the world answered otherwise, at most one an episode.
    """

    episodes: int
    steps: int
    deviations: list[Deviation]


def environment_of(header: Mapping[str, Any], **arguments: Any) -> gym.Env[str, str]:
    """Make the environment of an evaluation.

    Args:
        header: What `run.json` holds.
        **arguments: Further arguments of the environment, such as `expert=True`.

    Raises:
        InvalidConfigError: If its user was a model, whose answers cannot be had again.
        StorageError: If the header names no environment.
    """
    if "env" not in header:
        raise StorageError(
            "Expected the environment in the evaluation's run.json, actual: no key 'env'. Repeat the evaluation in "
            "another folder."
        )
    given = dict(header.get("env_arguments") or {})
    if given.get("user") == "model":
        raise InvalidConfigError(
            "Expected a trace whose world answers the same again, actual: one with a model as user. Evaluate with "
            "--user scripted."
        )
    source = Source(EnvConfig(env=str(header["env"])))
    return source.make(header.get("max_steps"), **given, **arguments)()


def replay(trace: Trace) -> Replay:
    """Play the actions of a trace's finished episodes again.

    Episodes in which agent or environment failed are played up to there.

    Raises:
        InvalidConfigError: See `environment_of`.
    """
    finished = {episode.episode for episode in trace.episodes}
    won = {episode.episode: episode.won for episode in trace.episodes if episode.error is None}
    episodes = steps = 0
    deviations = []
    with environment_of(trace.header) as env:
        # Episodes that were played side by side lie between each other.
        recorded = sorted(
            (step for step in trace.steps() if step.episode in finished), key=lambda step: (step.episode, step.step)
        )
        for number, group in groupby(recorded, key=lambda step: step.episode):
            records = list(group)
            episodes, steps = episodes + 1, steps + len(records)
            if deviation := next(_deviations(env, records, won.get(number)), None):
                deviations.append(deviation)
    return Replay(episodes, steps, deviations)


def _deviations(env: gym.Env[str, str], records: list[StepRecord], won: bool | None) -> Iterator[Deviation]:
    """Play an episode as long as the world answers as recorded."""
    first = records[0]
    info: dict[str, Any] = {}

    def deviation(record: StepRecord, what: str, recorded: object, replayed: object, step: int = -1) -> Deviation:
        number = record.step if step < 0 else step
        return Deviation(
            record.episode, record.game, record.trial, number, what, str(recorded)[:500], str(replayed)[:500]
        )

    try:
        if games_of(env) is None:
            observation, info = env.reset(seed=int(first.game))
        else:
            observation, info = env.reset(options={"game": first.game})
    except Exception as error:  # a game that is not there, or is another one now
        yield deviation(first, "error", first.observation, f"{type(error).__name__}: {error}", 0)
        return
    if observation != first.observation:
        yield deviation(first, "observation", first.observation, observation, 0)
    for record in records:
        try:
            observation, reward, _, _, info = env.step(record.action)
        except Exception as error:
            yield deviation(record, "error", record.next_observation, f"{type(error).__name__}: {error}")
            return
        if observation != record.next_observation:
            yield deviation(record, "observation", record.next_observation, observation)
        if float(reward) != record.reward and (math.isfinite(reward) or math.isfinite(record.reward)):
            yield deviation(record, "reward", record.reward, float(reward))
        if bool(info.get("invalid_action", False)) != record.invalid:
            yield deviation(record, "invalid", record.invalid, not record.invalid)
    if won is not None and bool(info.get("won")) != won:
        yield deviation(records[-1], "won", won, not won)
