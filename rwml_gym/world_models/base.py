"""The protocols of world models, and two baselines that a learned model must beat.

Every object with `predict` is a world model. If it has `learn`, too, `WorldModelRewardWrapper` trains it online.
"""

from __future__ import annotations

import inspect
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rwml_gym.checks import whole_number
from rwml_gym.encoders.cached import Embedded
from rwml_gym.errors import InvalidConfigError, RWMLGymError, WorldModelError
from rwml_gym.transitions import Transition, Turn, action_type

__all__ = [
    "Histories",
    "MostFrequentOutcome",
    "NothingChanges",
    "OnlineWorldModel",
    "WorldModel",
    "check_lengths",
    "predict_checked",
    "state_key",
    "takes_tasks",
]

Histories = Sequence[Sequence[Turn]]
"""Windows of turns, oldest first; the last observation is the current state."""


@runtime_checkable
class WorldModel(Protocol):
    """A predictor of next states, in batches."""

    def predict(self, histories: Histories, actions: Sequence[Any], tasks: Sequence[str] | None = None) -> list[Any]:
        """Predict the next observations.

        Args:
            histories: `n` windows, see `Histories`.
            actions: `n` actions that are about to be taken.
            tasks: `n` instructions, or `None` if unknown; a model that does not use them may omit this parameter.

        Returns:
            `n` predicted next states: texts, members of the observation space if it is not text, or
            `encoders.cached.Embedded` predictions. `""` or `None` stands for no prediction.
        """


@runtime_checkable
class OnlineWorldModel(WorldModel, Protocol):
    """A world model that learns online."""

    def learn(self, histories: Histories, actions: Sequence[Any], next_states: Sequence[Any]) -> None:
        """Learn from transitions that were predicted before.

        Args:
            histories: `n` windows, see `Histories`.
            actions: `n` actions.
            next_states: `n` realised next states.
        """


class NothingChanges:
    """Baseline that predicts the last observation again."""

    def predict(self, histories: Histories, actions: Sequence[Any], tasks: Sequence[str] | None = None) -> list[Any]:
        """Predict the last observation of each history (`WorldModel.predict`)."""
        check_lengths(histories, actions)
        return [history[-1].observation for history in histories]


class MostFrequentOutcome:
    """Baseline that predicts the most frequent outcome of the action, else of its type, else of all actions.

    It knows the templates of an environment but not the state: its reward needs no world model. Among equally frequent
    outcomes, it predicts the one seen first. `learn` adds to the counts.
    """

    def __init__(self, transitions: Iterable[Transition] | None = None, capacity: int | None = None):
        """Count outcomes.

        Args:
            transitions: Transitions to count; if absent, it makes no prediction before the first `learn`.
            capacity: Number of most recent transitions to count; all by default.

        Raises:
            InvalidConfigError: If `transitions` is empty or `capacity` not positive.
        """
        self._capacity = None if capacity is None else whole_number("capacity", capacity, 1)
        # For an action, an action type, or all actions: the number of times each outcome followed.
        self._counts: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
        self._states: dict[Hashable, Any] = {}
        self._window: deque[tuple[tuple[Hashable, ...], Hashable]] = deque()
        if transitions is not None:
            for transition in transitions:
                self._add(transition.action, transition.next_state)
            if not self._window:
                raise InvalidConfigError("Expected at least one transition to learn from, actual: 0.")

    def learn(self, histories: Histories, actions: Sequence[Any], next_states: Sequence[Any]) -> None:
        """Count the outcomes (`OnlineWorldModel.learn`)."""
        for action, state in zip(actions, next_states, strict=True):
            self._add(action, state)

    def predict(self, histories: Histories, actions: Sequence[Any], tasks: Sequence[str] | None = None) -> list[Any]:
        """Predict the most frequent outcome of each action (`WorldModel.predict`); the history is not used."""
        check_lengths(histories, actions)
        return [self._predict(action) for action in actions]

    def _predict(self, action: Any) -> Any:
        for cause in _causes(action):
            if outcomes := self._counts.get(cause):
                return self._states[max(outcomes, key=outcomes.__getitem__)]
        return None

    def _add(self, action: Any, state: Any) -> None:
        causes, outcome = _causes(action), state_key(state)
        self._states[outcome] = state
        self._window.append((causes, outcome))
        for cause in causes:
            self._counts[cause][outcome] += 1
        if self._capacity is not None and len(self._window) > self._capacity:
            self._forget(*self._window.popleft())

    def _forget(self, causes: tuple[Hashable, ...], outcome: Hashable) -> None:
        for cause in causes:
            outcomes = self._counts[cause]
            outcomes[outcome] -= 1
            if not outcomes[outcome]:
                del outcomes[outcome]
            if not outcomes:
                del self._counts[cause]
        if outcome not in self._counts.get(_ANY, ()):
            del self._states[outcome]


# The key for all actions.
_ANY = ("any",)


def _causes(action: Any) -> tuple[Hashable, ...]:
    if isinstance(action, str):
        return (("action", action.strip()), ("type", action_type(action)), _ANY)
    return (("action", state_key(action)), _ANY)


def state_key(state: Any) -> Hashable:
    """Return a hashable key that is equal for equal states or actions of any type."""
    if isinstance(state, str):
        return state
    if isinstance(state, Mapping):
        return tuple((name, state_key(state[name])) for name in sorted(state, key=str))
    if isinstance(state, tuple):
        return tuple(map(state_key, state))
    array = np.asarray(state)
    if array.dtype.kind in "biuf":  # the integer or float width does not matter
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        return array.shape, array.dtype.kind, array.tobytes()
    return repr(state)


def takes_tasks(model: WorldModel) -> bool:
    """Return whether a world model's `predict` has a parameter `tasks`, or takes any keyword."""
    try:
        parameters = inspect.signature(model.predict).parameters
    except (TypeError, ValueError):  # a builtin, for example, has no signature
        return False
    return "tasks" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def predict_checked(
    model: WorldModel, histories: Histories, actions: Sequence[Any], tasks: Sequence[str] | None, text: bool
) -> list[Any]:
    """Call a world model and check its predictions, one per action.

    Args:
        model: The model.
        histories: See `WorldModel.predict`.
        actions: See `WorldModel.predict`.
        tasks: See `WorldModel.predict`; `None` for a model that does not take them.
        text: Whether states are text.

    Raises:
        WorldModelError: If the model raises, or does not return one prediction per action, as text if states are.
    """
    name = f"{type(model).__name__}.predict"
    try:
        given = model.predict(histories, actions) if tasks is None else model.predict(histories, actions, tasks=tasks)
    except RWMLGymError:
        raise
    # A user's model may raise anything.
    except Exception as error:
        raise WorldModelError(
            f"Expected {len(actions)} predictions from {name}, actual: {type(error).__name__}: {error}."
        ) from error
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray) or len(given) != len(actions):
        count = f"{len(given)}" if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str) else ""
        raise WorldModelError(
            f"Expected {len(actions)} predictions from {name}, one per action, "
            f"actual: {count or repr(given)[:200]}{f' ({type(given).__name__})' if not count else ''}."
        )
    for prediction in given if text else ():
        if not isinstance(prediction, str | Embedded | None):
            raise WorldModelError(
                f"Expected text (or None, or Embedded) from {name}, "
                f"actual: {str(prediction)[:200]!r} ({type(prediction).__name__})."
            )
    return list(given)


def check_lengths(histories: Histories, actions: Sequence[Any]) -> None:
    """Raise `InvalidConfigError` unless there are as many histories as actions."""
    if len(histories) != len(actions):
        raise InvalidConfigError(f"Expected as many histories as actions ({len(actions)}), actual: {len(histories)}.")
