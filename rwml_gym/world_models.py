"""World models that need no language model: the baselines a learned one must beat.

A world model predicts what the world will say next. Anything with `predict` is one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Transition, Turn, action_type

__all__ = ["WORLD_MODELS", "MostFrequentOutcome", "NothingChanges", "WorldModel", "make_world_model"]


@runtime_checkable
class WorldModel(Protocol):
    """Anything that predicts next states, in batches."""

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[str]:
        """Predict what the world will say.

        Args:
            histories: `n` windows of turns, oldest first; the last observation is the current state.
            actions: `n` actions about to be taken.
            tasks: `n` instructions, or `None` where they are not known.

        Returns:
            `n` predicted next states.
        """
        ...


class NothingChanges:
    """Predicts that the world will say what it said last."""

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[str]:
        """Predict the last observation of each history (`WorldModel.predict`)."""
        _check_lengths(histories, actions)
        return [history[-1].observation for history in histories]


class MostFrequentOutcome:
    """Predicts what followed the same action most often, else the same type of action, else any action.

    It knows the templates of a world and nothing of the state: what it earns is earned without a world model.
    Among equally frequent outcomes, the one seen first is predicted.
    """

    def __init__(self, transitions: Iterable[Transition]):
        """Count outcomes.

        Args:
            transitions: What to learn from.

        Raises:
            InvalidConfigError: If there are none.
        """
        by_action: dict[str, Counter[str]] = defaultdict(Counter)
        by_type: dict[str, Counter[str]] = defaultdict(Counter)
        overall: Counter[str] = Counter()
        for transition in transitions:
            by_action[transition.action.strip()][transition.next_state] += 1
            by_type[action_type(transition.action)][transition.next_state] += 1
            overall[transition.next_state] += 1
        if not overall:
            raise InvalidConfigError("Expected at least one transition to learn from, actual: none.")
        self._by_action = {action: _most_frequent(outcomes) for action, outcomes in by_action.items()}
        self._by_type = {kind: _most_frequent(outcomes) for kind, outcomes in by_type.items()}
        self._overall = _most_frequent(overall)

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[str], tasks: Sequence[str] | None = None
    ) -> list[str]:
        """Predict the most frequent outcome of each action (`WorldModel.predict`); the history is not used."""
        _check_lengths(histories, actions)
        return [
            self._by_action.get(action.strip(), self._by_type.get(action_type(action), self._overall))
            for action in actions
        ]


WORLD_MODELS: dict[str, Callable[[], WorldModel]] = {"nothing-changes": NothingChanges}
"""World models that can be made from their name alone."""


def make_world_model(model: str | WorldModel) -> WorldModel:
    """Make a world model from its name; one that is given is returned as it is.

    Args:
        model: A name in `WORLD_MODELS`, or a world model.

    Returns:
        The world model.

    Raises:
        InvalidConfigError: If it is neither.
    """
    if isinstance(model, str):
        if model not in WORLD_MODELS:
            raise InvalidConfigError(f"Expected a world model's name of {sorted(WORLD_MODELS)}, actual: {model!r}.")
        return WORLD_MODELS[model]()
    if not isinstance(model, WorldModel) or isinstance(model, type):
        raise InvalidConfigError(f"Expected a world model's name or an object with `predict`, actual: {model!r}.")
    return model


def _most_frequent(outcomes: Counter[str]) -> str:
    return outcomes.most_common(1)[0][0]


def _check_lengths(histories: Sequence[Sequence[Turn]], actions: Sequence[str]) -> None:
    if len(histories) != len(actions):
        raise InvalidConfigError(f"Expected as many histories as actions ({len(actions)}), actual: {len(histories)}.")
