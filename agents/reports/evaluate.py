"""How well a world model predicts held-out transitions: reward, gap and exact match, with intervals over games."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rwml_gym.diagnostics.predictability import names_nothing_new, type_of
from rwml_gym.reward.gap import GapReward
from rwml_gym.statistics import bootstrap_interval
from rwml_gym.transitions import Transition

__all__ = ["Prediction", "evaluate_predictions", "paired_difference"]


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
        role: Kind of message the next state is, see `Transition.role`.
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
    role: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON takes them."""
        return asdict(self)


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
    gaps = gap(predictions, [t.next_state for t in transitions], [t.role for t in transitions])
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
            role=t.role,
        )
        for t, p, r, d in zip(transitions, predictions, gaps.rewards, gaps.distances, strict=True)
    ]


def _type_of(transition: Transition) -> str:
    return "(invalid)" if transition.invalid_action else type_of(transition) or "(none)"


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
    return bootstrap_interval(differences, [p.game for p in ours])
