"""World models that need no language model: the baselines a learned one must beat.

A world model predicts what the world will say next. Anything with `predict` is one; with `learn` too, it learns from
what `WorldModelRewardWrapper` sees.
"""

from __future__ import annotations

import inspect
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rwml_gym.encoders.cached import Embedded
from rwml_gym.errors import InvalidConfigError, RWMLGymError, WorldModelError
from rwml_gym.transitions import Transition, Turn, action_type

__all__ = [
    "MostFrequentOutcome",
    "NothingChanges",
    "OnlineWorldModel",
    "WorldModel",
    "check_lengths",
    "predict_checked",
    "state_key",
    "takes_tasks",
]


@runtime_checkable
class WorldModel(Protocol):
    """Anything that predicts next states, in batches."""

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[Any], tasks: Sequence[str] | None = None
    ) -> list[Any]:
        """Predict what the world will say.

        Args:
            histories: `n` windows of turns, oldest first; the last observation is the current state.
            actions: `n` actions about to be taken.
            tasks: `n` instructions, or `None` where they are not known; a model that has no use for them may do without
                this parameter.

        Returns:
            `n` predicted next states: text, or, of a world that is not text, members of its observation space; or
            `embedding.Embedded` ones. `""` or `None` where the model has no prediction.
        """
        ...


@runtime_checkable
class OnlineWorldModel(WorldModel, Protocol):
    """A world model that learns from what happens."""

    def learn(self, histories: Sequence[Sequence[Turn]], actions: Sequence[Any], next_states: Sequence[Any]) -> None:
        """Learn from transitions, after they were predicted.

        Args:
            histories: `n` windows of turns, see `predict`.
            actions: `n` actions.
            next_states: `n` realised next states.
        """
        ...


class NothingChanges:
    """Predicts that the world will say what it said last."""

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[Any], tasks: Sequence[str] | None = None
    ) -> list[Any]:
        """Predict the last observation of each history (`WorldModel.predict`)."""
        check_lengths(histories, actions)
        return [history[-1].observation for history in histories]


class MostFrequentOutcome:
    """Predicts what followed the same action most often, else the same type of action, else any action.

    It knows the templates of a world and nothing of the state: what it earns is earned without a world model.
    Among equally frequent outcomes, the one seen first is predicted. It goes on counting when it is shown more.
    """

    def __init__(self, transitions: Iterable[Transition] | None = None, capacity: int | None = None):
        """Count outcomes.

        Args:
            transitions: What to learn from; if absent, it starts with nothing and predicts nothing before it `learn`s.
            capacity: How many of the last transitions count; all by default.

        Raises:
            InvalidConfigError: If `transitions` is empty or `capacity` not positive.
        """
        if capacity is not None and capacity < 1:
            raise InvalidConfigError(f"Expected a positive `capacity`, actual: {capacity}.")
        self._capacity = capacity
        # An action, its type (`None`: of all), and how often which outcome followed.
        self._counts: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
        self._states: dict[Hashable, Any] = {}
        self._window: deque[tuple[tuple[Hashable, ...], Hashable]] = deque()
        if transitions is not None:
            for transition in transitions:
                self._add(transition.action, transition.next_state)
            if not self._window:
                raise InvalidConfigError("Expected at least one transition to learn from, actual: none.")

    def learn(self, histories: Sequence[Sequence[Turn]], actions: Sequence[Any], next_states: Sequence[Any]) -> None:
        """Count what followed (`OnlineWorldModel.learn`)."""
        for action, state in zip(actions, next_states, strict=True):
            self._add(action, state)

    def predict(
        self, histories: Sequence[Sequence[Turn]], actions: Sequence[Any], tasks: Sequence[str] | None = None
    ) -> list[Any]:
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


# The cause of every outcome.
_ANY = ("any",)


def _causes(action: Any) -> tuple[Hashable, ...]:
    if isinstance(action, str):
        return (("action", action.strip()), ("type", action_type(action)), _ANY)
    return (("action", state_key(action)), _ANY)


def state_key(state: Any) -> Hashable:
    """Something hashable that is equal for equal states or actions, whatever they are made of."""
    if isinstance(state, str):
        return state
    if isinstance(state, Mapping):
        return tuple((name, state_key(state[name])) for name in sorted(state, key=str))
    if isinstance(state, tuple):
        return tuple(map(state_key, state))
    array = np.asarray(state)
    if array.dtype.kind in "biuf":  # 1 is 1, of whatever width
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        return array.shape, array.dtype.kind, array.tobytes()
    return repr(state)


def takes_tasks(model: WorldModel) -> bool:
    """Whether a world model's `predict` has a parameter `tasks`, or takes any keyword."""
    try:
        parameters = inspect.signature(model.predict).parameters
    except (TypeError, ValueError):  # a builtin or the like says nothing of itself
        return False
    return "tasks" in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def predict_checked(
    model: WorldModel,
    histories: Sequence[Sequence[Turn]],
    actions: Sequence[Any],
    tasks: Sequence[str] | None,
    text: bool,
) -> list[Any]:
    """Ask a world model and check what it says.

    Args:
        model: The model.
        histories: See `WorldModel.predict`.
        actions: See there.
        tasks: See there; `None` for a model that does not take them.
        text: Whether states are text.

    Returns:
        One prediction an action.

    Raises:
        WorldModelError: If the model raises, returns another number of predictions, or other than text where states are
            text.
    """
    name = f"{type(model).__name__}.predict"
    try:
        given = model.predict(histories, actions) if tasks is None else model.predict(histories, actions, tasks=tasks)
    except RWMLGymError:
        raise
    # Whatever a model of the user's raises.
    except Exception as error:
        raise WorldModelError(
            f"Expected {len(actions)} predictions from {name}, actual: {type(error).__name__}: {error}"
        ) from error
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray) or len(given) != len(actions):
        count = f"{len(given)}" if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str) else ""
        raise WorldModelError(
            f"Expected {len(actions)} predictions from {name}, one for each action, "
            f"actual: {count or repr(given)[:200]}{f' ({type(given).__name__})' if not count else ''}."
        )
    for prediction in given if text else ():
        if not isinstance(prediction, str | Embedded | None):
            raise WorldModelError(
                f"Expected text (or None, or Embedded) from {name}, "
                f"actual: {str(prediction)[:200]!r} ({type(prediction).__name__})."
            )
    return list(given)


def check_lengths(histories: Sequence[Sequence[Turn]], actions: Sequence[Any]) -> None:
    """Raise `InvalidConfigError` if there are more histories than actions, or fewer."""
    if len(histories) != len(actions):
        raise InvalidConfigError(f"Expected as many histories as actions ({len(actions)}), actual: {len(histories)}.")
