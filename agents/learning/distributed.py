"""Shares of a batch for the processes that `accelerate` starts, and sums and lists over all of them.

Every process keeps the whole model. Only the adapter is trained, so only its gradient is sent. The numbers of
completions and tokens are summed before the backward passes, so the shares can differ in size or be empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import nn

from rwml_gym.errors import InvalidConfigError

__all__ = ["block", "check_distributed", "gathered", "largest", "share", "sum_gradients", "total"]

Item = TypeVar("Item")

_WORKING = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def check_distributed(accelerator: Accelerator) -> None:
    """Raise `InvalidConfigError` unless the run is one process or data parallel, without fp16.

    Sharded models gather a layer's weights in every forward pass, so all processes must run equally many passes, and a
    shard cannot be merged with the adapter for sampling. DeepSpeed steps its own optimizer. Use TRL for both. In fp16,
    losses are scaled for an optimizer that `accelerate` has prepared.
    """
    if accelerator.distributed_type not in _WORKING:
        raise InvalidConfigError(
            f"Expected distributed_type among {[kind.value for kind in _WORKING]}, actual: "
            f"{accelerator.distributed_type.value!r}. Use data parallel processes (configs/accelerate/gpu_8.yaml), "
            "or, for a model too large for one GPU, TRL's trainer with agents/integrations/trl.py (docs/large.md)."
        )
    if accelerator.mixed_precision == "fp16":
        raise InvalidConfigError(
            "Expected mixed_precision 'no' or 'bf16', actual: 'fp16', whose gradients stay scaled. Use 'bf16'."
        )


def share(accelerator: Accelerator, items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's share of the items: every n-th of them in n processes, so all of them in one."""
    return items[accelerator.process_index :: accelerator.num_processes]


def block(accelerator: Accelerator, count: int) -> range:
    """Return this process's part of 0 … count - 1 as one block; together the blocks are all, in order."""
    index, processes = accelerator.process_index, accelerator.num_processes
    return range(count * index // processes, count * (index + 1) // processes)


def gathered(accelerator: Accelerator, own: Sequence[Item]) -> list[Item]:
    """Return what all processes made of their shares, one item for each, in the order of the items they shared."""
    if accelerator.num_processes == 1:
        return list(own)
    parts: list[list[Item]] = gather_object([list(own)])  # one list from each process
    count, processes = sum(map(len, parts)), len(parts)
    return [parts[number % processes][number // processes] for number in range(count)]


def total(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Return the sums of the values over all processes."""
    if accelerator.num_processes == 1:
        return list(map(float, values))
    return accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum").tolist()


def largest(accelerator: Accelerator, value: float) -> float:
    """Return the largest value of all processes."""
    if accelerator.num_processes == 1:
        return value
    return float(accelerator.gather(torch.tensor([value], dtype=torch.float64, device=accelerator.device)).max())


def sum_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients of all processes, which are already divided by the counts of the whole batch."""
    if accelerator.num_processes == 1:
        return
    # One message for all parameters. A process without a share has no gradient and sends zeros.
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    flat = accelerator.reduce(flat, "sum")
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = gradient.view_as(parameter).clone()
