"""A key-value cache for rows of unequal length: new tokens are written after each row's own last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from rwml_gym.agents.language.shared_prefix import SharedPrefix

__all__ = ["RaggedCache"]


class _RaggedLayer(CacheLayerMixin):
    """Keys and values of one layer: (rows, key-value heads, room, head size)."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.rows = torch.empty(0, dtype=torch.long)
        self.view: slice | None = None
        self.positions = torch.empty(0)
        self.seen = 0
        self.needed = (0, 0)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        _, heads, _, size = key_states.shape
        self.keys, self.values = key_states.new_zeros(0, heads, 0, size), value_states.new_zeros(0, heads, 0, size)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.grow()
        self.keys[self.rows[:, None], :, self.positions] = key_states.transpose(1, 2)
        self.values[self.rows[:, None], :, self.positions] = value_states.transpose(1, 2)
        rows = self.rows if self.view is None else self.view
        return self.keys[rows, :, : self.seen], self.values[rows, :, : self.seen]

    def grow(self) -> None:
        """Allocate more room, filled with zeros because masked entries must still be finite."""
        rows, room = self.needed
        if rows <= self.keys.shape[0] and room <= self.keys.shape[2]:
            return
        rows, room = max(rows, self.keys.shape[0]), max(room, self.keys.shape[2])
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(rows, old.shape[1], room, old.shape[3])
            new[: old.shape[0], :, : old.shape[2]] = old
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen, 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        return -1


class RaggedCache(Cache):
    """Key-value cache for rows of unequal length; `open` sets the rows and token positions of the next call."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=self._layer)  # type: ignore[arg-type] # a factory works too
        self._rows, self._room, self._seen = 0, 0, 0
        self._now: tuple[Tensor, slice | None, Tensor] = (torch.empty(0, dtype=torch.long), None, torch.empty(0))

    def _layer(self) -> _RaggedLayer:
        layer = _RaggedLayer()
        self._tell(layer)
        return layer

    def _tell(self, layer: _RaggedLayer) -> None:
        layer.rows, layer.view, layer.positions = self._now
        layer.seen, layer.needed = self._seen, (self._rows, self._room)

    def ensure(self, rows: int) -> None:
        """Reserve at least this many rows for the next call."""
        self._rows = max(rows, self._rows)

    def open(self, rows: Sequence[int], positions: Tensor) -> int:
        """Set the rows and the (rows, T) token positions of the next call; return the number of keys it attends to."""
        numbers, self._seen = list(rows), int(positions.max()) + 1
        # Rows that follow each other are read without a copy.
        follow = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        view = slice(numbers[0], numbers[0] + len(numbers)) if follow else None
        self._now = (torch.tensor(numbers, device=positions.device), view, positions)
        if self._seen > self._room:
            self._room = max(self._seen, 128, self._room + self._room // 2)
        for layer in self.layers:
            self._tell(layer)  # type: ignore[arg-type]
        return self._seen

    def copy(self, source: int, rows: Sequence[int], length: int) -> None:
        """Copy the first `length` keys and values of the row `source` into `rows`."""
        for layer in self._initialised():
            layer.needed = (self._rows, self._room)
            layer.grow()
            for kept in (layer.keys, layer.values):
                kept[list(rows), :, :length] = kept[source, :, :length].clone()

    def swap(self, a: int, b: int, length_a: int, length_b: int) -> None:
        """Exchange two rows."""
        length = max(length_a, length_b)
        for layer in self._initialised():
            layer.grow()
            for kept in (layer.keys, layer.values):
                first = kept[a, :, :length].clone()
                kept[a, :, :length] = kept[b, :, :length]
                kept[b, :, :length] = first

    def prefix(self, row: int, length: int) -> SharedPrefix:
        """Return the beginning of a row as a prefix that several continuations share."""
        layers = self._initialised()
        keys = [layer.keys[row : row + 1, :, :length] for layer in layers]
        values = [layer.values[row : row + 1, :, :length] for layer in layers]
        device = keys[0].device
        mask = torch.ones((1, length), dtype=torch.bool, device=device)
        return SharedPrefix(keys, values, mask, mask.sum(-1), torch.empty(0))

    def _initialised(self) -> list[_RaggedLayer]:
        return [layer for layer in self.layers if isinstance(layer, _RaggedLayer) and layer.is_initialized]
