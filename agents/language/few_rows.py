"""Linear layers that are faster for few rows.

`torch.nn.functional.linear` computes x·Wᵀ. For a token of each of 8 to 64 rows the CPU library reaches half the rate of
W·xᵀ, which is the same numbers but for rounding (MKL on AMD Zen 3, float32: `benchmarks/few_rows.py`). Sampling
consists of such products. The output layer has so many columns that the other order pays for all tokens of a pass,
gradient included.

An output layer often gets the last position of each row, which is a view with gaps. Of such an x with three dimensions
and a frozen W torch makes a product of batches, with a copy of W for each row: 5 GB in bfloat16 for 96 prompts and a
vocabulary of 49,152. `OutputLinear` makes one product of rows.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["FewRowsLinear", "OutputLinear", "for_few_rows"]

_FEW = 64  # rows; with more, putting the result back into rows takes what was gained


class FewRowsLinear(nn.Linear):
    """A linear layer that multiplies in the other order for few rows; its results lie in memory as a layer's do."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, (..., out_features), for (..., in_features)."""
        if input.numel() > _FEW * self.in_features or self.bias is not None:
            return nn.functional.linear(input, self.weight, self.bias)
        return _transposed(self, input).contiguous()


class OutputLinear(nn.Linear):
    """An output layer that makes one product of all rows; in float32 on a CPU in the other order.

    There, the tokens' logits lie side by side in memory.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits, (..., vocabulary), for (..., hidden size)."""
        if self.bias is None and _other_order(self.weight):
            return _transposed(self, input)
        rows = nn.functional.linear(input.reshape(-1, self.in_features), self.weight, self.bias)
        return rows.unflatten(0, input.shape[:-1])


def for_few_rows(model: nn.Module) -> None:
    """Make a model's linear layers the faster ones: the output layer, and in float32 on a CPU the others, too.

    Args:
        model: A causal language model of `transformers`, without adapter. It is changed; weights and names stay.
    """
    output = model.get_output_embeddings()  # type: ignore[operator]
    for module in model.modules():
        if type(module) is nn.Linear:  # a layer of its own kind may do other things
            if module is output:
                module.__class__ = OutputLinear
            elif _other_order(module.weight):
                module.__class__ = FewRowsLinear


def _other_order(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def _transposed(layer: nn.Linear, x: Tensor) -> Tensor:
    rows = x.reshape(-1, layer.in_features)
    return cast(Tensor, torch.mm(layer.weight, rows.T).T.unflatten(0, x.shape[:-1]))
