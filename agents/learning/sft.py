"""Next-state SFT: cross-entropy on the realised state. The filter, a warm start for small models, and a baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.learning.distributed import check_distributed, sum_gradients, total

__all__ = ["sft_update"]


def sft_update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    prompts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    accelerator: Accelerator,
    max_grad_norm: float = 1.0,
    micro_batch: int = 4,
    masks: Sequence[Sequence[int]] | None = None,
) -> dict[str, float]:
    """One update on n prompts and what should follow them.

    In several processes each hands over its own, as many as it has, and all do the update of all of them together.

    Args:
        model: A PEFT model.
        optimizer: Over its adapter.
        prompts: n token lists.
        targets: n token lists.
        accelerator: Where to compute.
        max_grad_norm: Gradient clipping.
        micro_batch: Rows in one forward pass; memory and padding only, the gradient is the same.
        masks: 1 on the target tokens that are to be learnt, 0 on others (an environment's); all 1 if absent.

    Returns:
        `loss`: mean negative log-likelihood of a target token (natural logarithm); `grad_norm` before clipping.

    Raises:
        InvalidConfigError: The processes are of a kind that this does not work with (`distributed`).
    """
    check_distributed(accelerator)
    # Like lengths together, so that little is padded; the gradient is that of one batch.
    masks = [[1] * len(target) for target in targets] if masks is None else masks
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(targets[i]))
    (tokens_in_all,) = total(accelerator, [sum(map(sum, masks))])
    if not tokens_in_all:
        return {"loss": 0.0, "grad_norm": 0.0}
    loss_sum = 0.0
    for start in range(0, len(order), micro_batch):
        rows = order[start : start + micro_batch]
        length = max(len(targets[i]) for i in rows)
        tokens = torch.tensor([[*targets[i], *[0] * (length - len(targets[i]))] for i in rows])
        mask = torch.tensor([[*map(float, masks[i]), *[0.0] * (length - len(targets[i]))] for i in rows])
        tokens, mask = tokens.to(accelerator.device), mask.to(accelerator.device)
        logprobs = completion_logprobs(model, [prompts[i] for i in rows], tokens, mask)
        loss = -(logprobs * mask).sum() / tokens_in_all
        accelerator.backward(loss)
        loss_sum += float(loss.detach())
    trainable = [p for p in model.parameters() if p.requires_grad]
    sum_gradients(accelerator, trainable)
    norm = accelerator.clip_grad_norm_(trainable, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    (loss_sum,) = total(accelerator, [loss_sum])
    return {"loss": loss_sum, "grad_norm": float(norm)}
