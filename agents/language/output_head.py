"""The vocabulary, by far a small model's widest layer, computed where it is wanted only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["head_at"]


@contextmanager
def head_at(model: nn.Module, positions: Tensor) -> Iterator[None]:
    """While it lasts, the model's logits are those at these positions, row by row: (N, vocabulary).

    Args:
        model: A causal language model of `transformers`, with or without adapter.
        positions: (R, T) bool, of the tokens that the next call is given; N of them are true.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(lambda module, inputs: (inputs[0][positions],))
    try:
        yield
    finally:
        handle.remove()
