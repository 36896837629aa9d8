"""Group-relative policy optimisation (GRPO): advantages, loss and update.

The losses are those of TRL's `GRPOTrainer` (`grpo`, `dr_grpo`, `dapo`); sources: GRPO arXiv 2402.03300, Dr. GRPO
arXiv 2503.20783, DAPO arXiv 2503.14476. There are two deviations from textbook GRPO. The update omits groups without
reward difference: they have no policy gradient, and their KL term would dilute the other groups. A prompt runs once for
every G (`language.logprobs`), and once for sampling and update together if the group brings its graph (`Group.prefix`;
compare Prefix Grouper, arXiv 2506.05433, Hydragen, arXiv 2402.05099, and the tree training of AReaL). The KL term is
the textbook's; TRL 1.16 by default multiplies it with the ratio (`use_bias_correction_kl`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import reference
from rwml_gym.agents.language.shared_prefix import SharedPrefix
from rwml_gym.agents.learning.distributed import check_distributed, largest, sum_gradients, total
from rwml_gym.agents.learning.mismatch import MISMATCH, check_mismatch, mismatch_sums
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.errors import InvalidConfigError

__all__ = ["Group", "group_advantages", "has_signal", "policy_loss", "update"]


@dataclass(frozen=True)
class Group:
    """One prompt and its G completions, for the update of both training stages.

    Attributes:
        prompt: Token ids.
        completions: G non-empty token lists.
        advantages: One number per completion, or one per token.
        logprobs: Log-probabilities of the tokens at sampling time, to measure the mismatch with training.
        mask: 1 on the model's own tokens, 0 on others (an environment's); all 1 if absent.
        allowed: For each completion and token the ids it was chosen from, `None` for the whole vocabulary
            (constrained decoding). The policy's probabilities are normalised over these ids.
        prefix: The prompt as it ran for sampling, with its graph (`sampling.run_prompts`). The update's first pass over
            the group uses it up: the gradient is that of a prompt that runs again. Later iterations, the reference and
            long completions, which run row by row, run the prompt again.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    advantages: Sequence[float] | Sequence[Sequence[float]]
    logprobs: Sequence[Sequence[float]] | None = None
    mask: Sequence[Sequence[int]] | None = None
    allowed: Sequence[Sequence[Sequence[int] | None]] | None = None
    prefix: SharedPrefix | None = None

    def rows(self) -> list[Group]:
        """Return each completion as a separate group."""
        return [
            replace(
                self,
                completions=self.completions[i : i + 1],
                advantages=self.advantages[i : i + 1],
                logprobs=self.logprobs and self.logprobs[i : i + 1],
                mask=self.mask and self.mask[i : i + 1],
                allowed=self.allowed and self.allowed[i : i + 1],
                prefix=None,
            )
            for i in range(len(self.completions))
        ]


def group_advantages(rewards: np.ndarray, scale: bool = True) -> np.ndarray:
    """Return the group-relative advantages, (P, G): rewards minus their group's mean; 0 if all rewards are equal.

    Args:
        rewards: (P, G) rewards.
        scale: Whether to divide by the group's (sample) standard deviation.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    centred = rewards - rewards.mean(1, keepdims=True)
    if not scale:
        return centred
    deviation = rewards.std(1, ddof=1, keepdims=True) if rewards.shape[1] > 1 else np.zeros((len(rewards), 1))
    return centred / (deviation + 1e-4)


def has_signal(rewards: np.ndarray) -> np.ndarray:
    """Return which groups of (P, G) rewards differ, (P,) bool, because only these have a policy gradient."""
    return np.ptp(np.asarray(rewards, dtype=np.float64), axis=1) > 1e-9


@dataclass(frozen=True)
class _Batch:
    """Groups of equal size as tensors with one row per completion; the rows of a group are adjacent."""

    prompts: list[list[int]]
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    sampled: Tensor | None
    allowed: list[Sequence[Sequence[int] | None]] | None

    def logprobs(self, model: nn.Module, prefix: SharedPrefix | None = None) -> Tensor:
        return completion_logprobs(model, self.prompts, self.tokens, self.mask, self.allowed, prefix=prefix)


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
        _allowed(groups),
    )


def _allowed(groups: Sequence[Group]) -> list[Sequence[Sequence[int] | None]] | None:
    if all(g.allowed is None for g in groups):
        return None
    return [row for g in groups for row in (g.allowed or [[None] * len(c) for c in g.completions])]


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
    """Return the clipped, group-relative loss with its KL term, and sums over the tokens that count.

    The sums are `tokens`, `kl`, `clipped`, `ratio` and `approx_kl`.

    Args:
        logprobs: (R, T) log-probabilities of the policy, with gradient.
        old_logprobs: (R, T) log-probabilities of the policy that sampled.
        advantages: (R, T) or (R, 1).
        mask: (R, T), 1 on tokens that count.
        config: Loss type, clipping and β.
        reference_logprobs: (R, T) log-probabilities of the reference; required if β is not 0.
        completions: Number of completions in the whole batch; R if absent.
        tokens: Number of tokens that count in the whole batch; those of this part if absent.
        max_completion_length: Constant of `dr_grpo`; T if absent.
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    low, high = 1 - config.clip, 1 + (config.clip if config.clip_high is None else config.clip_high)
    clipped = ratio.clamp(low, high)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    kl = torch.zeros_like(losses)
    if config.beta:
        if reference_logprobs is None:
            raise InvalidConfigError("Expected `reference_logprobs` if β is not 0, actual: None. Pass them.")
        to_reference = reference_logprobs - logprobs
        kl = to_reference.exp() - to_reference - 1  # unbiased and never negative (Schulman's k3)
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
            "approx_kl": float(((ratio - 1 - log_ratio) * mask).sum()),
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
    """Update the policy once (μ times with `iterations`) on the groups of all processes together.

    Args:
        model: The policy, a PEFT model; its reference is `language.models.reference`.
        optimizer: Optimizer of the adapter's parameters.
        groups: This process's groups with reward difference, of any sizes; without any groups nothing changes.
        config: Options of the update.
        accelerator: The processes and their device, see `learning.distributed.check_distributed`.
        max_completion_length: Constant of `dr_grpo`, in tokens.

    Returns:
        The same numbers in all processes, as means over the tokens that count: `loss`, `kl` (to the reference),
        `clip_fraction`, `ratio`, `approx_kl` (of this update to the policy that sampled, Schulman's k3), `grad_norm`;
        and how far sampling and training are apart, see `learning.mismatch`: `sampling_mismatch`, the mean absolute
        difference of the log-probabilities, `sampling_mismatch_max`, `sampling_kl` and `sampling_outside`.
    """
    check_distributed(accelerator)
    parts = list(_micro_batches(groups, config.tokens_per_pass(accelerator.device.type)))
    local = [sum(len(g.completions) for g in groups), sum(_counting_tokens(g) for g in groups)]
    rows, tokens = total(accelerator, local)
    if not rows:
        return _means(dict.fromkeys(_SUMS, 0.0) | {"ratio": 1.0}, 1.0, 1)
    old: list[Tensor] = []
    frozen: list[Tensor | None] = []
    totals = dict.fromkeys(_SUMS, 0.0)
    mismatch_max = 0.0
    for iteration in range(config.iterations):
        for index, part in enumerate(parts):
            batch = _collate(part, accelerator.device)
            if iteration == 0:
                frozen.append(_reference_logprobs(model, batch) if config.beta else None)
            logprobs = batch.logprobs(model, _kept(part) if iteration == 0 else None)
            if iteration == 0:
                old.append(logprobs.detach())
                if batch.sampled is not None:
                    apart = mismatch_sums(logprobs.detach(), batch.sampled, batch.mask, config.clip)
                    mismatch_max = max(mismatch_max, apart["max"])
                    for name in MISMATCH:
                        totals[name] += apart[name]
            loss, sums = policy_loss(
                logprobs,
                old[index],
                batch.advantages,
                batch.mask,
                config,
                frozen[index],
                completions=int(rows),
                tokens=tokens,
                max_completion_length=max_completion_length,
            )
            accelerator.backward(loss)
            totals["loss"] += float(loss.detach())
            for name in ("kl", "clipped", "ratio", "approx_kl"):
                totals[name] += sums[name]
        trainable = [p for p in model.parameters() if p.requires_grad]
        sum_gradients(accelerator, trainable)
        totals["grad_norm"] += float(accelerator.clip_grad_norm_(trainable, config.max_grad_norm))
        optimizer.step()
        optimizer.zero_grad()
    summed = total(accelerator, [totals[name] for name in _SUMS])
    means = _means(dict(zip(_SUMS, summed, strict=True)), tokens, config.iterations)
    means["grad_norm"] = totals["grad_norm"] / config.iterations  # equal in all processes, so not a sum
    means["sampling_mismatch_max"] = largest(accelerator, mismatch_max)
    if accelerator.is_main_process:
        check_mismatch(means)
    return means


_SUMS = ("loss", "kl", "clipped", "ratio", "approx_kl", "grad_norm", *MISMATCH)


def _means(totals: dict[str, float], tokens: float, iterations: int) -> dict[str, float]:
    seen = max(tokens, 1.0) * iterations
    return {
        "loss": totals["loss"] / iterations,
        "kl": totals["kl"] / seen,
        "clip_fraction": totals["clipped"] / seen,
        "ratio": totals["ratio"] / seen,
        "approx_kl": totals["approx_kl"] / seen,
        "grad_norm": totals["grad_norm"] / iterations,
        **{name: totals[name] / max(tokens, 1.0) for name in MISMATCH},
        "sampling_mismatch_max": 0.0,
    }


def _counting_tokens(group: Group) -> int:
    return sum(map(sum, group.mask)) if group.mask else sum(map(len, group.completions))


def _micro_batches(groups: Sequence[Group], budget: int) -> Iterator[list[Group]]:
    """Yield the groups of each forward pass; a group with long completions is split into its rows."""
    parts = [part for group in groups for part in (group.rows() if _is_long(group) else [group])]
    # Similar lengths share a pass, so that little is padded; all groups of a pass have the same size.
    parts.sort(key=lambda g: (len(g.completions), len(g.prompt) + _longest(g)))
    batch: list[Group] = []
    for part in parts:
        wider = [*batch, part]
        prompts, longest = max(len(g.prompt) for g in wider), max(map(_longest, wider))
        tokens = len(wider) * (prompts + len(part.completions) * longest)
        if batch and (tokens > budget or len(batch[0].completions) != len(part.completions)):
            yield batch
            wider = [part]
        batch = wider
    if batch:
        yield batch


def _kept(groups: Sequence[Group]) -> SharedPrefix | None:
    """Return the prompts as they ran for sampling, if all groups bring them."""
    kept = [group.prefix for group in groups if group.prefix is not None]
    return SharedPrefix.join(kept) if len(kept) == len(groups) else None


def _is_long(group: Group) -> bool:
    """Return whether the completions are too long for sharing the prompt, which needs a table of attention scores."""
    return _longest(group) > len(group.prompt)


def _longest(group: Group) -> int:
    return max(map(len, group.completions))


def _reference_logprobs(model: nn.Module, batch: _Batch) -> Tensor:
    with torch.no_grad(), reference(model) if hasattr(model, "peft_config") else nullcontext():
        return batch.logprobs(model)
