"""Several processes as `accelerate` starts them, each with its own share of a batch: what an update adds up over them.

Every process keeps the whole model, of which only the adapter is trained: one sum of its gradient is all that is sent.
The numbers of completions and tokens are summed before the backward passes, so a process need not have as many as the
others, or any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from rwml_gym.errors import InvalidConfigError

__all__ = ["check_distributed", "largest", "sum_gradients", "total"]

_WORKING = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def check_distributed(accelerator: Accelerator) -> None:
    """Refuses the kinds of distribution that sampling and updates here do not work with.

    Sharded models gather a layer's weights in every forward pass, so all processes must make equally many, and a
    shard cannot be merged with the adapter for sampling; DeepSpeed steps its own optimizer. Both are TRL's to do. In
    fp16, losses are scaled for an optimizer that `accelerate` has prepared.

    Raises:
        InvalidConfigError: Neither one process nor data parallel, or fp16.
    """
    if accelerator.distributed_type not in _WORKING:
        raise InvalidConfigError(
            f"Expected distributed_type among {[kind.value for kind in _WORKING]}, actual "
            f"{accelerator.distributed_type.value!r}: use data parallel processes (configs/accelerate/gpu_8.yaml), "
            "or, for a model too large for one GPU, TRL's trainer with agents/integrations/trl.py (docs/large.md)."
        )
    if accelerator.mixed_precision == "fp16":
        raise InvalidConfigError(
            "Expected mixed_precision 'no' or 'bf16', actual 'fp16': its scaled gradients would not be scaled back."
        )


def total(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Sums over all processes."""
    if accelerator.num_processes == 1:
        return list(map(float, values))
    return accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum").tolist()


def largest(accelerator: Accelerator, value: float) -> float:
    """The largest value of all processes."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.gather(torch.tensor([value], dtype=torch.float64, device=accelerator.device)).max())


def sum_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Adds up the gradients of all processes: each has divided by the numbers of the whole batch already."""
    if accelerator.num_processes == 1:
        return
    # One message. A process without a share has no gradient, and takes part all the same.
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    flat = accelerator.reduce(flat, "sum")
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()
