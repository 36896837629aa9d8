"""How well a world model predicts held-out transitions: reward, gap and exact match, with intervals over games."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rwml_gym.gap import GapReward
from rwml_gym.transitions import Transition, action_type

__all__ = ["Prediction", "evaluate_predictions", "interval", "names_nothing_new", "paired_difference"]

_RESAMPLES = 2_000
_NAMED = re.compile(r"[^\W\d_]+ \d+")
_VALUE = re.compile(r"[\w#][\w#@.-]*")


@dataclass(frozen=True)
class Prediction:
    """One held-out transition, predicted.

    Attributes:
        game: Its game; intervals resample games.
        action_type: The action's first word; `(invalid)` if the world rejected it, whatever it was, and `(words)` for
            what is said to a user.
        names_nothing_new: See the function of that name.
        action: The action.
        next_state: What happened.
        prediction: What was predicted.
        reward: r_WM at τ_d, or 1 - d where the reward is continuous.
        distance: d, 1 - cosine or 1 - ROUGE-L.
        exact: Whether the prediction is the next state, white space at its ends aside.
        kind: Kind of message the next state is, see `Transition.kind`.
    """

    game: str
    action_type: str
    names_nothing_new: bool
    action: str
    next_state: str
    prediction: str
    reward: float
    distance: float
    exact: bool
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON takes them."""
        return asdict(self)


def names_nothing_new(transition: Transition) -> bool:
    """Whether every numbered thing in the next state (`apple 2`) was named before: in the window, action or task.

    Contents that were never seen cannot be predicted, so results are reported apart for the transitions that name
    something new. It is a proxy: that a drawer turns out empty names nothing new and is still a guess. In a tool's
    result, it is every value with a digit in it (`#W2378156`, `342.81`).
    """
    known = " ".join([transition.action, transition.task, *(f"{t.action} {t.observation}" for t in transition.history)])
    named = _values if transition.kind == "tool" else _NAMED.findall
    return set(named(transition.next_state)) <= set(named(known))


def _values(text: str) -> list[str]:
    return [word.rstrip(".-") for word in _VALUE.findall(text) if any(map(str.isdigit, word))]


def evaluate_predictions(
    transitions: Sequence[Transition], predictions: Sequence[str], gap: GapReward
) -> list[Prediction]:
    """Scores predictions of transitions.

    Args:
        transitions: T transitions.
        predictions: T predicted next states; an empty one never earns.
        gap: The reward.

    Returns:
        T scored predictions.
    """
    gaps = gap(predictions, [t.next_state for t in transitions], [t.kind for t in transitions])
    return [
        Prediction(
            game=t.game,
            action_type=_type_of(t),
            names_nothing_new=names_nothing_new(t),
            action=t.action,
            next_state=t.next_state,
            prediction=p,
            reward=float(r),
            distance=float(d),
            exact=p.strip() == t.next_state.strip(),
            kind=t.kind,
        )
        for t, p, r, d in zip(transitions, predictions, gaps.rewards, gaps.distances, strict=True)
    ]


def _type_of(transition: Transition) -> str:
    if transition.invalid_action:
        return "(invalid)"
    return "(words)" if transition.kind == "user" else action_type(transition.action) or "(none)"


def interval(values: Sequence[float], games: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """Mean with a 95 % bootstrap interval that resamples games, as the steps of a game are not independent.

    Args:
        values: T numbers.
        games: T names.
        seed: Of the resampling.

    Returns:
        Mean, lower and upper end (percentiles 2.5 and 97.5 of 2,000 resamples).
    """
    array = np.asarray(values, dtype=np.float64)
    _, inverse = np.unique(np.asarray(games), return_inverse=True)
    sums, counts = np.bincount(inverse, array), np.bincount(inverse)
    picks = np.random.default_rng(seed).integers(len(counts), size=(_RESAMPLES, len(counts)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def paired_difference(
    ours: Sequence[Prediction],
    others: Sequence[Prediction],
    metric: Callable[[Prediction], float] = lambda p: p.reward,
) -> tuple[float, float, float]:
    """Mean difference on the same transitions, with its 95 % interval over games.

    Raises:
        ValueError: The two did not predict the same transitions.
    """
    key = [(p.game, p.action, p.next_state) for p in ours]
    if key != [(p.game, p.action, p.next_state) for p in others]:
        raise ValueError("Expected predictions of the same transitions in the same order")
    differences = [metric(a) - metric(b) for a, b in zip(ours, others, strict=True)]
    return interval(differences, [p.game for p in ours])
