"""Scores of a world model's predictions of held-out transitions: reward, gap and exact match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rwml_gym.diagnostics.predictability import names_nothing_new, type_of
from rwml_gym.reward.gap import GapReward
from rwml_gym.statistics import difference_interval
from rwml_gym.transitions import Transition

__all__ = ["Prediction", "evaluate_predictions", "kinds_of_rows", "outcome_type", "paired_difference"]


@dataclass(frozen=True)
class Prediction:
    """The scored prediction of one held-out transition.

    Attributes:
        game: Game of the transition; intervals resample games.
        action_type: First word of the action; `(invalid)` for any action that the environment rejected, `(words)` for
            a message to a user.
        names_nothing_new: See `diagnostics.predictability.names_nothing_new`.
        action: The action.
        next_state: The realised next state.
        prediction: The predicted next state.
        reward: r_WM at τ_d, or 1 - d for a continuous or stepped reward.
        distance: d, in the role's distance and view.
        exact: Whether the prediction equals the next state in the view that is compared, ignoring white space at both
            ends.
        role: Message role of the next state, see `Transition.role`.
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
        """Return the fields for JSON."""
        return asdict(self)


def evaluate_predictions(
    transitions: Sequence[Transition],
    predictions: Sequence[str],
    gap: GapReward,
    played: Sequence[Transition] | None = None,
) -> list[Prediction]:
    """Return T scored predictions.

    Args:
        transitions: T transitions.
        predictions: T predicted next states; the reward of an empty one is 0.
        gap: The reward.
        played: The transitions as they were before arbitrary parts came in, which name something new in every row.
    """
    gaps = gap(predictions, [t.next_state for t in transitions], [t.role for t in transitions])
    return [
        Prediction(
            game=t.game,
            action_type=outcome_type(t),
            names_nothing_new=names_nothing_new(before),
            action=t.action,
            next_state=t.next_state,
            prediction=p,
            reward=float(r),
            distance=float(d),
            exact=gap.viewed(p.strip(), t.role) == gap.viewed(t.next_state.strip(), t.role),
            role=t.role,
        )
        for t, before, p, r, d in zip(
            transitions, played or transitions, predictions, gaps.rewards, gaps.distances, strict=True
        )
    ]


def outcome_type(transition: Transition) -> str:
    """Return the first word of the action, `(words)`, `(none)`, or `(invalid)` if the environment rejected it."""
    return "(invalid)" if transition.invalid_action else type_of(transition) or "(none)"


def kinds_of_rows(lookup: Sequence[Prediction]) -> dict[str, list[bool]]:
    """Tell apart what a lookup answers, what must be read from the history, and what cannot be known.

    Args:
        lookup: Predictions of the most frequent outcome of each action.

    Returns:
        For each kind, whether each transition belongs to it. What must be read names nothing new (`names_nothing_new`),
        although the lookup is wrong. The rest a guess may hit.
    """
    answered, known = [p.reward > 0.5 for p in lookup], [p.names_nothing_new for p in lookup]
    return {
        "a lookup answers": answered,
        "must be read": [k and not a for k, a in zip(known, answered, strict=True)],
        "cannot be known": [not k and not a for k, a in zip(known, answered, strict=True)],
    }


def paired_difference(
    ours: Sequence[Prediction], others: Sequence[Prediction], metric: Callable[[Prediction], float] = lambda p: p.reward
) -> tuple[float, float, float]:
    """Return the mean difference on the same transitions in the same order, with its 95 % interval over games."""
    key = [(p.game, p.action, p.next_state) for p in ours]
    if key != [(p.game, p.action, p.next_state) for p in others]:
        raise ValueError("Expected predictions of the same transitions in the same order, actual: others.")
    differences = [metric(a) - metric(b) for a, b in zip(ours, others, strict=True)]
    return difference_interval(differences, [p.game for p in ours])
