"""A small world model in the embedding space, trained online on the wrapper's transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rwml_gym.checks import require
from rwml_gym.encoders.cached import DEFAULT_ENCODER, Embedded
from rwml_gym.encoders.numbers import make_row_encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.world_models.base import Histories, check_lengths

__all__ = ["EmbeddingWorldModel"]


# Memory limit of the replay buffer.
_MAX_BYTES = 2**28


class EmbeddingWorldModel:
    """MLP that predicts the embedding of the next state from those of the current state and the action.

    ::

        ŝ = (E(s) + f(E(s), E(a))) / |…|,    loss: 1 - cos(ŝ, E(s'))

    At first it predicts "nothing changes". It keeps the last transitions and takes one Adam step on a random batch of
    them after every few new ones. Its predictions are embeddings, not text: they give a reward but cannot be read.

    Attributes:
        loss: Loss of the last training step; NaN before the first.
    """

    def __init__(
        self,
        encoder: Any = DEFAULT_ENCODER,
        action_encoder: Any = None,
        hidden: int = 256,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
        train_every: int = 4,
        capacity: int = 4096,
        seed: int = 0,
    ):
        """Set the sizes; the network is made at the first transition.

        Args:
            encoder: Encoder of the states, see `encoders.numbers.make_row_encoder`, also for its errors.
            action_encoder: Encoder of the actions; the same if absent.
            hidden: Width of the two hidden layers.
            learning_rate: Learning rate of Adam.
            batch_size: Transitions per training step.
            train_every: Transitions between training steps; the first step waits for a full batch.
            capacity: Number of most recent transitions to draw the batches from; lowered to take at most 256 MB.
            seed: Seed of the weights and the batches.

        Raises:
            DependencyNotInstalled: If torch is not installed.
            InvalidConfigError: If a number is not positive, or the capacity is smaller than a batch.
        """
        if min(hidden, batch_size, train_every, learning_rate) <= 0 or capacity < batch_size:
            raise InvalidConfigError(
                "Expected positive `hidden`, `learning_rate`, `batch_size` and `train_every`, and `capacity` of at "
                f"least a batch, actual: {hidden}, {learning_rate}, {batch_size}, {train_every} and {capacity}."
            )
        require("torch", "torch for a learned world model", "embed")
        self._states = make_row_encoder(encoder)
        self._actions = self._states if action_encoder is None else make_row_encoder(action_encoder)
        self._hidden, self._learning_rate, self._seed = hidden, learning_rate, seed
        self._batch_size, self._train_every, self.capacity = batch_size, train_every, capacity
        self._rng = np.random.default_rng(seed)
        self._seen = 0
        self._inputs = self._targets = np.zeros((0, 0), dtype=np.float32)
        self._network: Any = None
        self.loss = float("nan")

    def predict(self, histories: Histories, actions: Sequence[Any], tasks: Sequence[str] | None = None) -> list[Any]:
        """Predict embeddings (`WorldModel.predict`); `None` before the first transition."""
        check_lengths(histories, actions)
        if self._network is None or not len(actions):
            return [None] * len(actions)
        import torch

        with torch.no_grad():
            predicted = self._forward(torch.from_numpy(self._embed(histories, actions)))
        return [Embedded(row) for row in predicted.numpy()]

    def learn(self, histories: Histories, actions: Sequence[Any], next_states: Sequence[Any]) -> None:
        """Store transitions, and train after every `train_every` of them (`OnlineWorldModel.learn`)."""
        check_lengths(histories, actions)
        if not len(actions):
            return
        inputs, targets = self._embed(histories, actions), np.stack(self._states.rows(next_states))
        if self._network is None:
            self._make(inputs.shape[1], targets.shape[1])
        for row, target in zip(inputs, targets, strict=True):
            slot = self._seen % self.capacity
            self._inputs[slot], self._targets[slot] = row, target
            self._seen += 1
            if self._seen >= self._batch_size and self._seen % self._train_every == 0:
                self._train()

    def _make(self, width: int, states: int) -> None:
        import torch
        from torch import nn

        self.capacity = min(self.capacity, _MAX_BYTES // (4 * (width + states)))
        if self.capacity < self._batch_size:
            raise InvalidConfigError(
                f"Expected a batch of {self._batch_size} transitions within {_MAX_BYTES / 2**20:.0f} MB, actual: "
                f"{width + states} numbers per transition. Describe the observations in text, or make them smaller."
            )
        self._inputs = np.zeros((self.capacity, width), dtype=np.float32)
        self._targets = np.zeros((self.capacity, states), dtype=np.float32)
        made: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
        # The user's random state and grad modes are restored.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(self._seed)
            self._network = nn.Sequential(
                nn.Linear(width, self._hidden, **made),
                nn.ReLU(),
                nn.Linear(self._hidden, self._hidden, **made),
                nn.ReLU(),
                nn.Linear(self._hidden, states, **made),
            )
            nn.init.zeros_(self._network[-1].weight)
            nn.init.zeros_(self._network[-1].bias)
            self._optimizer = torch.optim.Adam(self._network.parameters(), lr=self._learning_rate)

    def _train(self) -> None:
        import torch

        chosen = self._rng.integers(min(self._seen, self.capacity), size=self._batch_size)
        with torch.inference_mode(False), torch.enable_grad():
            predicted = self._forward(torch.from_numpy(self._inputs[chosen]))
            loss = 1 - (predicted * torch.from_numpy(self._targets[chosen])).sum(dim=1).mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        self.loss = loss.item()

    def _forward(self, inputs: Any) -> Any:
        from torch.nn.functional import normalize

        return normalize(inputs[:, : self._targets.shape[1]] + self._network(inputs), dim=1)

    def _embed(self, histories: Histories, actions: Sequence[Any]) -> np.ndarray:
        states = self._states.rows([history[-1].observation for history in histories])
        acts = self._actions.rows(actions)
        return np.stack([np.concatenate(pair) for pair in zip(states, acts, strict=True)])
