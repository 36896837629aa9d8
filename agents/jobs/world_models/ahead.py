"""Predictions several steps ahead: the real actions are played, and each state is the model's own prediction."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from rwml_gym.agents.reports.world_model_evaluation import StepAhead
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, Turn

__all__ = ["Predict", "choose_starts", "predict_ahead"]

Predict = Callable[[Sequence[Transition]], list[str]]
"""Predicts the next states of transitions from their history, action and task; it does not read their next state."""


def choose_starts(transitions: Sequence[Transition], steps: int, most: int, seed: int) -> list[list[Transition]]:
    """Choose places in recorded episodes after which at least `steps` steps are recorded.

    Args:
        transitions: Recorded transitions.
        steps: Number of steps.
        most: Maximal number of places; they are drawn from all.
        seed: Seed of the draw.

    Returns:
        For each place its `steps` transitions, one after the other.
    """
    episodes: dict[tuple[str, int], dict[int, Transition]] = {}
    for transition in transitions:
        episodes.setdefault((transition.game, transition.episode), {})[transition.step] = transition
    windows = [
        [episode[first + k] for k in range(steps)]
        for episode in episodes.values()
        for first in sorted(episode)
        if all(first + k in episode for k in range(steps))
    ]
    return windows if len(windows) <= most else random.Random(seed).sample(windows, most)


def predict_ahead(
    predict: Predict, starts: Sequence[Sequence[Transition]], gap: GapReward, history: int
) -> list[StepAhead]:
    """Predict from each start on, with the real actions and the model's own states; score each step.

    Args:
        predict: The world model.
        starts: What really followed at each start, equally many transitions; see `choose_starts`.
        gap: The reward.
        history: Number of turns that the model sees.

    Returns:
        One row per start and step, step by step.
    """
    turns = [list(start[0].history) for start in starts]
    rows: list[StepAhead] = []
    for k in range(len(starts[0]) if starts else 0):
        now = [start[k] for start in starts]
        asked = [replace(t, history=tuple(own[-history:])) for t, own in zip(now, turns, strict=True)]
        predictions = predict(asked)
        gaps = gap(predictions, [t.next_state for t in now], [t.role for t in now])
        for transition, own, prediction, reward, distance in zip(
            now, turns, predictions, gaps.rewards, gaps.distances, strict=True
        ):
            own.append(Turn(transition.action, prediction))
            rows.append(StepAhead(transition.game, k + 1, float(reward), float(distance)))
    return rows
