"""The options of the updates, without torch, so that the command line reads them in no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rwml_gym.errors import InvalidConfigError

__all__ = ["GRPOConfig", "LossType", "SFTConfig", "SequenceOf"]

LossType = Literal["grpo", "dr_grpo", "dapo"]
SequenceOf = Literal["episode", "turn"]


@dataclass(frozen=True)
class GRPOConfig:
    """What the update does with a batch of groups.

    Attributes:
        loss_type: How token losses are averaged: `grpo` per completion, then over completions; `dapo` over all tokens
            of the batch; `dr_grpo` by a constant length, which removes the bias towards long wrong answers.
        clip: ε of the clipped ratio, below 1.
        clip_high: ε above 1 (DAPO's clip-higher); as `clip` if absent.
        beta: Weight of the KL divergence to the reference policy; 0 leaves its forward pass out.
        scale_rewards: Divide advantages by the group's standard deviation (not done with `dr_grpo` in its paper).
        learning_rate: Of AdamW.
        max_grad_norm: Gradient clipping.
        iterations: Updates on the same groups (μ); the ratio differs from 1 from the second on.
        micro_tokens: Most tokens in one forward pass, one row or group at least; speed and memory only, the gradient is
            the same. If absent 512 on a CPU, whose caches are small, else 16384.
    """

    loss_type: LossType = "dapo"
    clip: float = 0.2
    clip_high: float | None = None
    beta: float = 0.01
    scale_rewards: bool = True
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    iterations: int = 1
    micro_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.loss_type not in ("grpo", "dr_grpo", "dapo"):
            raise InvalidConfigError(f"Expected loss_type among ['grpo', 'dr_grpo', 'dapo'], actual {self.loss_type!r}")
        for name in ("iterations", "micro_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InvalidConfigError(f"Expected {name} of at least 1, actual {getattr(self, name)}")

    def tokens_per_pass(self, device_type: str) -> int:
        """`micro_tokens`, or what suits the device."""
        return self.micro_tokens or (512 if device_type == "cpu" else 16_384)


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
