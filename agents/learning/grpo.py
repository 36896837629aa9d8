"""Group-relative policy optimisation (GRPO): advantages, loss and update.

The losses are those of TRL's `GRPOTrainer` (`grpo`, `dr_grpo`, `dapo`); sources: GRPO arXiv 2402.03300, Dr. GRPO
arXiv 2503.20783, DAPO arXiv 2503.14476. There are two deviations from textbook GRPO. The update omits groups without
reward difference: they have no policy gradient, and their KL term would dilute the other groups. A prompt runs once for
every G (`learning.groups`), and once for sampling and update together if the group brings its graph (`Group.prefix`;
compare Prefix Grouper, arXiv 2506.05433, Hydragen, arXiv 2402.05099, and the tree training of AReaL). The KL term is
the textbook's; TRL 1.16 by default multiplies it with the ratio (`use_bias_correction_kl`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rwml_gym.agents.language.models import reference
from rwml_gym.agents.language.sampling import run_prompts
from rwml_gym.agents.language.shared_prefix import SharedPrefix
from rwml_gym.agents.learning.distributed import check_distributed, largest, sum_gradients, total
from rwml_gym.agents.learning.groups import Batch, Group, Passes, collate, divide
from rwml_gym.agents.learning.mismatch import MISMATCH, check_mismatch, mismatch_sums
from rwml_gym.agents.learning.options import GRPOConfig, ObservationLossConfig
from rwml_gym.errors import InvalidConfigError

__all__ = ["group_advantages", "has_signal", "observation_loss", "policy_loss", "update"]


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


def observation_loss(logprobs: Tensor, config: ObservationLossConfig, factors: Tensor | None = None) -> Tensor:
    """Return the sum of an auxiliary loss over the tokens of observations.

    Args:
        logprobs: (N,) log-probabilities of the targets, with gradient.
        config: Its kind and clipping.
        factors: (N,) factor of each target; 1 if absent.
    """
    if config.kind == "clipped_mae":
        losses = (1 - logprobs.exp()).clamp(config.margin, config.clip)
    else:
        losses = -logprobs
    return losses.sum() if factors is None else (losses * factors).sum()


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    config: GRPOConfig,
    accelerator: Accelerator,
    max_completion_length: int,
    observation: ObservationLossConfig | None = None,
    observation_weight: float = 0.0,
) -> dict[str, float]:
    """Update the policy once (μ times with `iterations`) on the groups of all processes together.

    Args:
        model: The policy, a PEFT model; its reference is `language.models.reference`.
        optimizer: Optimizer of the adapter's parameters.
        groups: This process's groups with reward difference, of any sizes, and groups without any token that counts
            for the observation loss alone; without any groups nothing changes.
        config: Options of the update.
        accelerator: The processes and their device, see `learning.distributed.check_distributed`.
        max_completion_length: Constant of `dr_grpo`, in tokens.
        observation: The loss on the groups' `targets`; none if absent.
        observation_weight: Its factor; its mean is over the targets of all processes.

    Returns:
        The same numbers in all processes, as means over the tokens that count: `loss`, `kl` (to the reference),
        `clip_fraction`, `ratio`, `approx_kl` (of this update to the policy that sampled, Schulman's k3), `grad_norm`;
        how far sampling and training are apart, see `learning.mismatch`: `sampling_mismatch`, the mean absolute
        difference of the log-probabilities, `sampling_mismatch_max`, `sampling_kl` and `sampling_outside`;
        with an observation loss `observation_loss`, without its weight, and `observation_probability`, both means over
        the targets. `loss` is the sum of both losses.
    """
    check_distributed(accelerator)
    work = [
        (passes, [collate(part, accelerator.device) for part in passes.parts])
        for passes in divide(groups, config.tokens_per_pass(accelerator.device.type))
    ]
    local = [
        sum(len(group.completions) for group in groups if group.counted),
        sum(group.counted for group in groups),
        sum(group.observed for group in groups) if observation is not None else 0,
    ]
    rows, tokens, observed = total(accelerator, local)
    names = (*_SUMS, *_OBSERVATION) if observation is not None else _SUMS
    if not rows and not observed:
        return _means(dict.fromkeys(names, 0.0) | {"ratio": 1.0}, 1.0, 1)
    old: dict[tuple[int, int], Tensor] = {}
    frozen: dict[int, list[Tensor | None]] = {}
    totals = dict.fromkeys(names, 0.0)
    mismatch_max = 0.0
    for iteration in range(config.iterations):
        for number, (passes, batches) in enumerate(work):
            if iteration == 0:
                frozen[number] = (
                    _reference_logprobs(model, passes, batches, config.temperature)
                    if config.beta
                    else [None] * len(batches)
                )
            with _prompt_once(model, passes, keep=iteration == 0) as shared:
                for index, batch in enumerate(batches):
                    kept = shared
                    if kept is None and iteration == 0:
                        kept = _kept(passes.parts[index])
                    logprobs = batch.logprobs(model, kept, observation is not None, config.temperature)
                    if iteration == 0:
                        old[number, index] = logprobs.detach() * batch.mask
                        if batch.sampled is not None:
                            apart = mismatch_sums(logprobs.detach(), batch.sampled, batch.mask, config.clip)
                            mismatch_max = max(mismatch_max, apart["max"])
                            for name in MISMATCH:
                                totals[name] += apart[name]
                    loss, sums = policy_loss(
                        logprobs * batch.mask,
                        old[number, index],
                        batch.advantages,
                        batch.mask,
                        config,
                        frozen[number][index],
                        completions=max(int(rows), 1),
                        tokens=tokens,
                        max_completion_length=max_completion_length,
                    )
                    if observation is not None and batch.targets is not None:
                        learnt = logprobs[batch.targets >= 0]
                        factors = batch.target_factors[:, None].expand_as(logprobs)[batch.targets >= 0]
                        auxiliary = observation_loss(learnt, observation, factors) / max(observed, 1.0)
                        loss = loss + observation_weight * auxiliary
                        totals["observation_loss"] += float(auxiliary.detach())
                        totals["observation_probability"] += float(learnt.detach().exp().sum()) / max(observed, 1.0)
                    accelerator.backward(loss)
                    totals["loss"] += float(loss.detach())
                    for name in ("kl", "clipped", "ratio", "approx_kl"):
                        totals[name] += sums[name]
        trainable = [p for p in model.parameters() if p.requires_grad]
        sum_gradients(accelerator, trainable)
        totals["grad_norm"] += float(accelerator.clip_grad_norm_(trainable, config.max_grad_norm))
        optimizer.step()
        optimizer.zero_grad()
    summed = total(accelerator, [totals[name] for name in names])
    means = _means(dict(zip(names, summed, strict=True)), tokens, config.iterations)
    means["grad_norm"] = totals["grad_norm"] / config.iterations  # equal in all processes, so not a sum
    means["sampling_mismatch_max"] = largest(accelerator, mismatch_max)
    if accelerator.is_main_process:
        check_mismatch(means)
    return means


_OBSERVATION = ("observation_loss", "observation_probability")
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
        **{name: totals[name] / iterations for name in _OBSERVATION if name in totals},
        **{name: totals[name] / max(tokens, 1.0) for name in MISMATCH},
        "sampling_mismatch_max": 0.0,
    }


def _kept(groups: Sequence[Group]) -> SharedPrefix | None:
    """Return the prompts as they ran for sampling, if all groups bring them."""
    kept = [group.prefix for group in groups if group.prefix is not None]
    return SharedPrefix.join(kept) if len(kept) == len(groups) else None


@contextmanager
def _prompt_once(model: nn.Module, passes: Passes, keep: bool) -> Iterator[SharedPrefix | None]:
    """Run the prompt that passes share; after them, run its backward pass with the gradients that they left.

    Args:
        model: The policy.
        passes: The passes; without a shared prompt nothing happens.
        keep: Whether the weights are still those of the sampling, so that a kept prompt is valid.
    """
    if passes.prompt is None:
        yield None
        return
    prefix = passes.prefix if keep and passes.prefix is not None else run_prompts(model, [passes.prompt])[0]
    entrance = prefix.entrance()
    yield entrance
    prefix.backward(entrance)


def _reference_logprobs(
    model: nn.Module, passes: Passes, batches: Sequence[Batch], temperature: float
) -> list[Tensor | None]:
    with torch.no_grad(), reference(model) if hasattr(model, "peft_config") else nullcontext():
        shared = None if passes.prompt is None else run_prompts(model, [passes.prompt])[0]
        return [batch.logprobs(model, shared, temperature=temperature) for batch in batches]
