"""Next-state SFT: cross-entropy on the realised state. The filter, a warm start for small models, and a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from rwml_gym.agents.grpo import completion_logprobs
from rwml_gym.errors import InvalidConfigError

__all__ = ["SFTConfig", "sft_update"]


@dataclass(frozen=True)
class SFTConfig:
    """Configuration of next-state SFT.

    Attributes:
        steps: Updates.
        batch_size: Transitions an update.
        learning_rate: Peak, of AdamW; linear warm-up over `warmup` steps, constant afterwards.
        warmup: Steps of warm-up.
        max_grad_norm: Gradient clipping.
    """

    steps: int = 60
    batch_size: int = 8
    learning_rate: float = 5e-4
    warmup: int = 4
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.steps < 0:
            raise InvalidConfigError(
                f"Expected steps >= 0 and batch_size >= 1, actual {self.steps} and {self.batch_size}"
            )


def sft_update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    prompts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    accelerator: Accelerator,
    max_grad_norm: float = 1.0,
) -> dict[str, float]:
    """One update on n prompts and what should follow them.

    Returns:
        `loss`: mean negative log-likelihood of a target token (natural logarithm); `grad_norm` before clipping.
    """
    length = max(map(len, targets))
    tokens = torch.tensor([[*t, *[0] * (length - len(t))] for t in targets], device=accelerator.device)
    mask = torch.tensor([[1.0] * len(t) + [0.0] * (length - len(t)) for t in targets], device=accelerator.device)
    logprobs = completion_logprobs(model, prompts, tokens)
    loss = -(logprobs * mask).sum() / mask.sum()
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": float(loss.detach()), "grad_norm": float(norm)}
