"""Group-relative policy optimisation: advantages, loss and update, on groups whose prompt is computed once.

The losses are those of TRL's `GRPOTrainer` (`grpo`, `dr_grpo`, `dapo`); sources: GRPO arXiv 2402.03300, Dr. GRPO
arXiv 2503.20783, DAPO arXiv 2503.14476. Where this deviates from textbook GRPO: groups without reward difference are
left out of the update altogether (they have no policy gradient; leaving them out also leaves out their KL term and
keeps them from diluting the others), and all logits come from one forward pass over each prompt, whatever G is. The
KL term is the textbook's; TRL 1.16 by default multiplies it with the ratio (`use_bias_correction_kl`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from torch import Tensor, nn

from rwml_gym.agents.models import mixed_precision, reference
from rwml_gym.agents.shared_prefix import completion_logits, encode_prompts
from rwml_gym.errors import InvalidConfigError

__all__ = ["GRPOConfig", "Group", "completion_logprobs", "group_advantages", "has_signal", "policy_loss", "update"]

LossType = Literal["grpo", "dr_grpo", "dapo"]


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
        micro_groups: Groups in one forward pass; memory only, the gradient is the same.
    """

    loss_type: LossType = "dapo"
    clip: float = 0.2
    clip_high: float | None = None
    beta: float = 0.01
    scale_rewards: bool = True
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    iterations: int = 1
    micro_groups: int = 4

    def __post_init__(self) -> None:
        if self.loss_type not in ("grpo", "dr_grpo", "dapo"):
            raise InvalidConfigError(f"Expected loss_type among ['grpo', 'dr_grpo', 'dapo'], actual {self.loss_type!r}")
        for name in ("iterations", "micro_groups"):
            if getattr(self, name) < 1:
                raise InvalidConfigError(f"Expected {name} of at least 1, actual {getattr(self, name)}")


@dataclass(frozen=True)
class Group:
    """One prompt and its G completions; both stages hand these to the same update.

    Attributes:
        prompt: Token ids.
        completions: G token lists, none empty.
        advantages: One number a completion, or one a token.
        logprobs: The tokens' log-probabilities when they were sampled, to measure the mismatch with training.
        mask: 1 on the model's own tokens, 0 on others (an environment's); all 1 if absent.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    advantages: Sequence[float] | Sequence[Sequence[float]]
    logprobs: Sequence[Sequence[float]] | None = None
    mask: Sequence[Sequence[int]] | None = None


def group_advantages(rewards: np.ndarray, scale: bool = True) -> np.ndarray:
    """Group-relative advantages: rewards less their group's mean, over its standard deviation if asked.

    Args:
        rewards: (P, G).
        scale: Whether to divide by the group's (sample) standard deviation.

    Returns:
        (P, G); all zero in a group without reward difference.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    centred = rewards - rewards.mean(1, keepdims=True)
    if not scale:
        return centred
    deviation = rewards.std(1, ddof=1, keepdims=True) if rewards.shape[1] > 1 else np.zeros((len(rewards), 1))
    return centred / (deviation + 1e-4)


def has_signal(rewards: np.ndarray) -> np.ndarray:
    """Which groups of (P, G) rewards hold a difference, (P,) bool: only they have a policy gradient."""
    return np.ptp(np.asarray(rewards, dtype=np.float64), axis=1) > 1e-9


@dataclass(frozen=True)
class _Batch:
    """Groups of equal size as tensors: rows are completions, those of a group adjacent."""

    prompts: list[list[int]]
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    sampled: Tensor | None


def _pad(rows: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    padded = torch.zeros((len(rows), max(map(len, rows))), dtype=dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return padded.to(device)


def _collate(groups: Sequence[Group], device: torch.device) -> _Batch:
    completions = [list(c) for g in groups for c in g.completions]
    advantages = [a for g in groups for a in g.advantages]
    masks = [m for g in groups for m in (g.mask if g.mask is not None else [[1] * len(c) for c in g.completions])]
    tokens = _pad(completions, torch.long, device)
    per_token = [
        list(a) if isinstance(a, Sequence) else [float(a)] * len(c)
        for a, c in zip(advantages, completions, strict=True)
    ]
    sampled = None
    if all(g.logprobs is not None for g in groups):
        sampled = _pad([p for g in groups for p in g.logprobs or ()], torch.float32, device)
    return _Batch(
        [list(g.prompt) for g in groups],
        tokens,
        _pad(masks, torch.float32, device),
        _pad(per_token, torch.float32, device),
        sampled,
    )


def completion_logprobs(
    model: nn.Module, prompts: Sequence[Sequence[int]], completions: Tensor, pad_id: int = 0
) -> Tensor:
    """Log-probabilities of G completions a prompt, (P·G, T) float32; the prompts run once.

    Args:
        model: A model of `load_model`.
        prompts: P token lists.
        completions: (P·G, T) token ids, right-padded, rows of a prompt adjacent.
        pad_id: Any token id; padding is masked.
    """
    with mixed_precision(model):
        logits = completion_logits(model, encode_prompts(model, prompts, pad_id), completions)
    return -F.cross_entropy(logits.float().flatten(0, 1), completions.flatten(), reduction="none").view_as(completions)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: GRPOConfig,
    reference_logprobs: Tensor | None = None,
    *,
    completions: int | None = None,
    tokens: float | None = None,
    max_completion_length: int | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The clipped, group-relative loss with its KL term.

    Args:
        logprobs: (R, T) of the policy, with gradient.
        old_logprobs: (R, T) of the policy that sampled.
        advantages: (R, T), or (R, 1).
        mask: (R, T), 1 on tokens that count.
        config: Loss type, clipping and β.
        reference_logprobs: (R, T) of the reference; needed if β is not 0.
        completions: Completions of the whole batch if this is a part of it; R if absent.
        tokens: Counting tokens of the whole batch; this part's if absent.
        max_completion_length: The constant of `dr_grpo`; T if absent.

    Returns:
        The loss, and sums over the counting tokens: `tokens`, `kl`, `clipped`, `ratio`.
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    low, high = 1 - config.clip, 1 + (config.clip if config.clip_high is None else config.clip_high)
    clipped = ratio.clamp(low, high)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    kl = torch.zeros_like(losses)
    if config.beta:
        if reference_logprobs is None:
            raise InvalidConfigError("β is not 0: expected the reference's log-probabilities, actual None")
        gap = reference_logprobs - logprobs
        kl = gap.exp() - gap - 1  # unbiased and never negative (Schulman's k3)
        losses = losses + config.beta * kl
    rows = completions or len(logprobs)
    if config.loss_type == "grpo":
        loss = ((losses * mask).sum(-1) / mask.sum(-1).clamp(min=1)).sum() / rows
    elif config.loss_type == "dr_grpo":
        loss = (losses * mask).sum() / (rows * (max_completion_length or logprobs.shape[1]))
    else:
        loss = (losses * mask).sum() / max(tokens if tokens is not None else float(mask.sum()), 1.0)
    with torch.no_grad():
        outside = ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0))
        sums = {
            "tokens": float(mask.sum()),
            "kl": float((kl * mask).sum()),
            "clipped": float((outside * mask).sum()),
            "ratio": float((ratio * mask).sum()),
        }
    return loss, sums


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    config: GRPOConfig,
    accelerator: Accelerator,
    max_completion_length: int,
) -> dict[str, float]:
    """One GRPO update (μ of them with `iterations`) on groups of equal size.

    Args:
        model: The policy, a PEFT model; its reference is `models.reference`.
        optimizer: Over the adapter's parameters.
        groups: Groups with reward difference; none is a valid batch and changes nothing.
        config: The update's configuration.
        accelerator: Where to compute.
        max_completion_length: In tokens, the constant of `dr_grpo`.

    Returns:
        Means over the counting tokens: `loss`, `kl` (to the reference), `clip_fraction`, `ratio`, `grad_norm`, and
        `sampling_mismatch`: the mean absolute difference of log-probabilities between sampling and training.

    Raises:
        InvalidConfigError: The groups differ in size.
    """
    if not groups:
        return {"loss": 0.0, "kl": 0.0, "clip_fraction": 0.0, "ratio": 1.0, "grad_norm": 0.0, "sampling_mismatch": 0.0}
    sizes = {len(g.completions) for g in groups}
    if len(sizes) > 1:  # completions would be scored after other groups' prompts
        raise InvalidConfigError(f"Expected groups of equal size, actual sizes {sorted(sizes)}")
    rows = sum(len(g.completions) for g in groups)
    tokens = float(sum(sum(map(sum, g.mask)) if g.mask else sum(map(len, g.completions)) for g in groups))
    old: list[Tensor] = []
    frozen: list[Tensor | None] = []
    totals = dict.fromkeys(("loss", "kl", "clipped", "ratio", "grad_norm", "mismatch"), 0.0)
    for iteration in range(config.iterations):
        for index, batch in enumerate(_micro_batches(groups, config.micro_groups, accelerator.device)):
            if iteration == 0:
                frozen.append(_reference_logprobs(model, batch) if config.beta else None)
            logprobs = completion_logprobs(model, batch.prompts, batch.tokens)
            if iteration == 0:
                old.append(logprobs.detach())
                if batch.sampled is not None:
                    totals["mismatch"] += float(((logprobs.detach() - batch.sampled).abs() * batch.mask).sum())
            loss, sums = policy_loss(
                logprobs,
                old[index],
                batch.advantages,
                batch.mask,
                config,
                frozen[index],
                completions=rows,
                tokens=tokens,
                max_completion_length=max_completion_length,
            )
            accelerator.backward(loss)
            totals["loss"] += float(loss.detach())
            for name in ("kl", "clipped", "ratio"):
                totals[name] += sums[name]
        trainable = [p for p in model.parameters() if p.requires_grad]
        totals["grad_norm"] += float(accelerator.clip_grad_norm_(trainable, config.max_grad_norm))
        optimizer.step()
        optimizer.zero_grad()
    seen = max(tokens, 1.0) * config.iterations
    return {
        "loss": totals["loss"] / config.iterations,
        "kl": totals["kl"] / seen,
        "clip_fraction": totals["clipped"] / seen,
        "ratio": totals["ratio"] / seen,
        "grad_norm": totals["grad_norm"] / config.iterations,
        "sampling_mismatch": totals["mismatch"] / max(tokens, 1.0),
    }


def _micro_batches(groups: Sequence[Group], size: int, device: torch.device) -> Iterator[_Batch]:
    # Like prompts together, so that little is padded.
    ordered = sorted(groups, key=lambda g: len(g.prompt))
    for start in range(0, len(ordered), size):
        yield _collate(ordered[start : start + size], device)


def _reference_logprobs(model: nn.Module, batch: _Batch) -> Tensor:
    with torch.no_grad(), reference(model) if hasattr(model, "peft_config") else nullcontext():
        return completion_logprobs(model, batch.prompts, batch.tokens)
