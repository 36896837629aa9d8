"""What an evaluation writes down of each episode: its steps as they happen, then what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from rwml_gym.agents.evaluation.panel import Place
from rwml_gym.agents.players.base import Move
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord
from rwml_gym.checks import plain

__all__ = ["EpisodeRecorder"]

# What of a step's info is written down; texts that stand elsewhere in the line, and lists of all actions, are not.
_KEPT = ("won", "tool_error", "score_parts", "counted", "ended", "user_error")


class EpisodeRecorder:
    """Records one episode.

    Args:
        place: The episode.
        step: Called with each step.

    Attributes:
        steps: Number of steps so far.
    """

    def __init__(self, place: Place, step: Callable[[StepRecord], None]) -> None:
        self.place, self._step = place, step
        self._info: Mapping[str, Any] = {}
        self._observation = ""
        self.steps = self._invalid = self._inefficient = self._prompt = self._completion = 0
        self._reward = self._seconds = self._cost = 0.0
        self._ended = ""

    def begin(self, observation: str, info: Mapping[str, Any]) -> None:
        """Take note of the first observation."""
        self._observation, self._info = observation, info

    def take(
        self,
        move: Move,
        observation: str,
        reward: float,
        terminated: bool,
        truncated: bool,
        info: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Record a step.

        Args:
            move: What the agent did.
            observation: The answer to it.
            reward: What the environment gave for it.
            terminated: Whether the task has ended.
            truncated: Whether the episode was cut off.
            info: The environment's info after it.
            seconds: Time of agent and environment.
        """
        gap = info.get("world_model") or {}
        action = gap.get("action", move.action)
        predicted = gap.get("prediction") or move.prediction or None
        task_reward = float(gap.get("task_reward", reward))
        invalid = bool(info.get("invalid_action", False))
        # As the paper counts on ALFWorld; "look" and "examine" are commands of a game.
        inefficient = invalid or (not info.get("tools") and action.split(" ", 1)[0] in ("look", "examine"))
        self.steps += 1
        self._invalid += invalid
        self._inefficient += inefficient
        self._reward += task_reward
        self._prompt += move.prompt_tokens
        self._completion += move.completion_tokens
        self._cost += move.cost
        self._seconds += seconds
        self._step(
            StepRecord(
                episode=self.place.episode,
                game=str(self.place.game),
                trial=self.place.trial,
                step=self.steps,
                observation=self._observation,
                action=action,
                next_observation=observation,
                shown=move.shown,
                written=move.written,
                thought=move.thought,
                prediction=predicted,
                message_role=str(info.get("message_role") or ""),
                gap=float(gap["distance"]) if predicted and "distance" in gap else None,
                gap_reward=float(gap["reward"]) if predicted and "reward" in gap else None,
                reward=task_reward,
                invalid=invalid,
                inefficient=inefficient,
                prompt_tokens=move.prompt_tokens,
                completion_tokens=move.completion_tokens,
                seconds=round(seconds, 6),
                cost=move.cost,
                info={key: _storable(info[key]) for key in _KEPT if info.get(key)},
            )
        )
        self._observation, self._info = observation, info
        if terminated or truncated:
            said = str(_storable(info.get("ended") or ""))
            self._ended = said or ("won" if info.get("won") else "terminated" if terminated else "truncated")

    def end(self, error: str | None = None, failed: str = "") -> EpisodeRecord:
        """Return the record of the episode.

        Args:
            error: The failure that ended it, if one did.
            failed: Who failed, `agent` or `environment`.
        """
        info = self._info
        parts, counted = (_storable(info.get(name)) for name in ("score_parts", "counted"))
        return EpisodeRecord(
            episode=self.place.episode,
            game=str(self.place.game),
            trial=self.place.trial,
            won=error is None and bool(info.get("won")),
            reward=self._reward,
            steps=self.steps,
            seed=self.place.seed,
            task=str(info.get("task") or ""),
            task_type=str(info.get("task_type") or ""),
            domain=str(info.get("domain") or ""),
            invalid=self._invalid,
            inefficient=self._inefficient,
            ended="failed" if error is not None else self._ended,
            error=None if error is None else error[:2000],
            failed=failed,
            judged="won" in info,
            prompt_tokens=self._prompt,
            completion_tokens=self._completion,
            seconds=round(self._seconds, 6),
            cost=self._cost,
            score_parts=parts if isinstance(parts, dict) else {},
            counted=counted if isinstance(counted, list) else [],
            known_problem=str(info.get("known_problem") or ""),
            data_version=str(info.get("data_version") or ""),
        )


def _storable(value: Any) -> Any:
    """Return what JSON can hold: members of an enumeration as their values, sets in order, anything else as text."""
    if isinstance(value, Mapping):
        return {str(_storable(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return _storable(value.value)
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(_storable, value), key=str)
    if (made := plain(value)) is not value:
        return _storable(made)
    return value if value is None or isinstance(value, str | int | float) else str(value)
