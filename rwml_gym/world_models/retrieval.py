"""A world model without training: it predicts the outcome of the most similar transition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from rwml_gym.checks import whole_number
from rwml_gym.encoders.cached import DEFAULT_ENCODER
from rwml_gym.encoders.numbers import make_row_encoder
from rwml_gym.transitions import Transition, Turn
from rwml_gym.world_models.base import Histories, check_lengths, state_key

__all__ = ["RetrievalWorldModel"]

# Keys of 384 + 384 numbers are 13 MB.
DEFAULT_CAPACITY = 4096
_MAX_BYTES = 2**28


class RetrievalWorldModel:
    """World model that predicts the outcome of the nearest recorded transition.

    The nearest one has the highest `cos(E(s), E(s')) + cos(E(a), E(a'))` of current state and action; earlier turns are
    ignored. For each state and action, the last outcome is kept. It is useful after the first episode, because the same
    room gives the same observations. It cannot predict unseen outcomes, and copies the numbers of another drawer.

    >>> turn = Turn("", "You are in the kitchen.")
    >>> model = RetrievalWorldModel([Transition((turn,), "open fridge", "The fridge is empty.")], encoder="hashing")
    >>> model.predict([[Turn("look", "You are in a kitchen.")]], ["open the fridge"])
    ['The fridge is empty.']
    """

    def __init__(
        self,
        transitions: Iterable[Transition] = (),
        encoder: Any = DEFAULT_ENCODER,
        action_encoder: Any = None,
        capacity: int = DEFAULT_CAPACITY,
    ):
        """Remember transitions.

        Args:
            transitions: The first transitions; `learn` adds more.
            encoder: Encoder of the states, see `encoders.numbers.make_row_encoder`, also for its errors.
            action_encoder: Encoder of the actions; the same if absent.
            capacity: Number of most recent transitions to search, in proportional time; lowered to take at most 256 MB.

        Raises:
            InvalidConfigError: If `capacity` is not positive.
        """
        self.capacity = whole_number("capacity", capacity, 1)
        self._states = make_row_encoder(encoder)
        self._actions = self._states if action_encoder is None else make_row_encoder(action_encoder)
        self._slots: dict[Any, int] = {}  # from the oldest to the most recent transition
        self._outcomes: list[Any] = []
        self._rows = np.zeros((0, 0), dtype=np.float32)
        transitions = iter(transitions)
        while some := list(islice(transitions, 256)):
            self.learn([t.history for t in some], [t.action for t in some], [t.next_state for t in some])

    def __len__(self) -> int:
        """Return the number of stored transitions."""
        return len(self._slots)

    def learn(self, histories: Histories, actions: Sequence[Any], next_states: Sequence[Any]) -> None:
        """Remember transitions (`OnlineWorldModel.learn`)."""
        check_lengths(histories, actions)
        keys = [_key(history, action) for history, action in zip(histories, actions, strict=True)]
        rows = self._embed(histories, actions, [key not in self._slots for key in keys])
        for key, row, history, action, outcome in zip(keys, rows, histories, actions, next_states, strict=True):
            slot = self._slots.get(key)
            if slot is None:
                if row is None:  # stored before this call, but removed during it
                    (row,) = self._embed([history], [action], [True])
                slot = self._place(key)
                self._rows[slot] = row
            else:
                self._slots[key] = self._slots.pop(key)  # now the most recent
            self._outcomes[slot] = outcome

    def predict(self, histories: Histories, actions: Sequence[Any], tasks: Sequence[str] | None = None) -> list[Any]:
        """Predict the outcome of the nearest transition (`WorldModel.predict`); `None` if nothing is stored."""
        check_lengths(histories, actions)
        if not self._slots:
            return [None] * len(actions)
        keys = [_key(history, action) for history, action in zip(histories, actions, strict=True)]
        rows = self._embed(histories, actions, [key not in self._slots for key in keys])
        # One search per row: a product with all rows at once might round, and so choose, differently.
        known = self._rows[: len(self._outcomes)]
        return [
            self._outcomes[int(np.argmax(known @ row)) if row is not None else self._slots[key]]
            for key, row in zip(keys, rows, strict=True)
        ]

    def _embed(self, histories: Histories, actions: Sequence[Any], wanted: Sequence[bool]) -> list[np.ndarray | None]:
        """Concatenate the embeddings of state and action, for the wanted pairs."""
        chosen = [i for i, want in enumerate(wanted) if want]
        rows: list[np.ndarray | None] = [None] * len(actions)
        if chosen:
            states = self._states.rows([histories[i][-1].observation for i in chosen])
            acts = self._actions.rows([actions[i] for i in chosen])
            for i, state, action in zip(chosen, states, acts, strict=True):
                rows[i] = np.concatenate([state, action])
                if not len(self._rows):
                    width = len(state) + len(action)
                    self._rows = np.zeros((1, width), dtype=np.float32)
                    self.capacity = max(min(self.capacity, _MAX_BYTES // (4 * width)), 1)
        return rows

    def _place(self, key: Any) -> int:
        """Return a slot for a new transition: a free one, or that of the oldest."""
        if len(self._outcomes) < self.capacity:
            slot = len(self._outcomes)
            self._outcomes.append(None)
            if slot >= len(self._rows):
                grown = min(max(2 * slot, 16), self.capacity)
                self._rows = np.concatenate([self._rows, np.zeros((grown - slot, self._rows.shape[1]), np.float32)])
        else:
            slot = self._slots.pop(next(iter(self._slots)))
        self._slots[key] = slot
        return slot


def _key(history: Sequence[Turn], action: Any) -> Any:
    return state_key(history[-1].observation), state_key(action)
