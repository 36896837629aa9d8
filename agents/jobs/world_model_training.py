"""The steps of world-model training: next-state SFT, the too-easy filter, and GRPO on the gap reward."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig
from rwml_gym.agents.language.generation import Completion
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.grpo import Group, group_advantages, has_signal, update
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.learning.sft import sft_update
from rwml_gym.agents.players.language_model import LanguageWorldModel
from rwml_gym.agents.seeding import seed_of
from rwml_gym.reward.gap import GapReward, Gaps
from rwml_gym.transitions import Transition

__all__ = ["drop_too_easy", "grpo_step", "score_attempts", "sft_step"]


def sft_step(
    world_model: LanguageWorldModel,
    data: Sequence[Transition],
    config: SFTConfig,
    seed: int,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """Next-state SFT on the batch that belongs to step `number`; every epoch is shuffled anew.

    Args:
        world_model: The model, its prompts and the longest target.
        data: Transitions.
        config: Batch size and learning rate.
        seed: Of the shuffling.
        accelerator: Where to compute.
        number: Of the step, from 0.
        optimizer: Over the adapter.

    Returns:
        See `sft.sft_update`.
    """
    batch = []
    for position in range(number * config.batch_size, (number + 1) * config.batch_size):
        epoch, offset = divmod(position, len(data))
        batch.append(data[random.Random(seed_of(seed, epoch)).sample(range(len(data)), len(data))[offset]])
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * min(1.0, (number + 1) / max(1, config.warmup))
    prompts = world_model.prompts
    return sft_update(
        world_model.model,
        optimizer,
        [prompts.predict(t.history, t.action, t.task) for t in batch],
        [prompts.target(t.next_state)[: world_model.max_new_tokens] for t in batch],
        accelerator,
        config.max_grad_norm,
    )


def score_attempts(
    prompts: Prompts, transitions: Sequence[Transition], attempts: Sequence[Sequence[Completion]], gap: GapReward
) -> Gaps:
    """Rewards and distances of n attempts at each of T transitions, (T, n) arrays; one encoder call."""
    gaps = gap(
        [prompts.read_prediction(c.text) for row in attempts for c in row],
        [t.next_state for t, row in zip(transitions, attempts, strict=True) for _ in row],
        [t.role for t, row in zip(transitions, attempts, strict=True) for _ in row],
    )
    shape = (len(attempts), len(attempts[0]))
    return Gaps(gaps.distances.reshape(shape), gaps.rewards.reshape(shape))


def drop_too_easy(rates: Sequence[float], config: FilterConfig, seed: int) -> list[int]:
    """Which triplets to train on: too-easy ones only with a small probability, hopeless ones as configured.

    Args:
        rates: Share of right attempts, one a triplet.
        config: What is too easy and how much of it is kept.
        seed: Of the draws.

    Returns:
        Indices that are kept, ascending.
    """
    rng = random.Random(seed)
    keep = [config.keep_easy if r >= config.easy_rate else config.keep_hard if r == 0 else 1.0 for r in rates]
    return [i for i, probability in enumerate(keep) if rng.random() < probability]


def grpo_step(
    world_model: LanguageWorldModel,
    data: Sequence[Transition],
    gap: GapReward,
    config: RWMLConfig,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """One world-model GRPO update: sample groups until enough have a reward difference, then update on those.

    Args:
        world_model: The policy and its prompts.
        data: The triplets.
        gap: The reward.
        config: Its `stage`, `grpo` and `seed`.
        accelerator: Where to compute.
        number: Of the step; which triplets are taken and what is sampled follow from it.
        optimizer: Over the adapter.

    Returns:
        Means over all sampled groups (`reward`, `distance`), their number (`groups`), how many of them had a reward
        difference (`signal_groups`, `signal_share`), mean length (`tokens`), and what `grpo.update` returns.
    """
    stage, prompts = config.stage, world_model.prompts
    order = random.Random(seed_of(config.seed, "prompts", number)).sample(range(len(data)), len(data))
    signal: list[Group] = []
    scores: list[Gaps] = []
    lengths: list[int] = []
    for turn in range(stage.rounds):
        chosen = [data[i] for i in order[turn * stage.groups : (turn + 1) * stage.groups]]
        if not chosen or len(signal) >= stage.groups:
            break
        seed = seed_of(config.seed, "sample", number, turn)
        attempts = world_model.attempts(chosen, stage.group_size, seed=seed)
        score = score_attempts(prompts, chosen, attempts, gap)
        advantages = group_advantages(score.rewards, config.grpo.scale_rewards)
        scores.append(score)
        lengths += [len(c.tokens) for row in attempts for c in row]
        signal += [
            Group(
                prompts.predict(t.history, t.action, t.task),
                [c.tokens for c in row],
                advantage.tolist(),
                [c.logprobs for c in row],
            )
            for t, row, advantage, differs in zip(chosen, attempts, advantages, has_signal(score.rewards), strict=True)
            if differs
        ]
    # All groups that were paid for are used; more than were wanted do no harm.
    stats = update(world_model.model, optimizer, signal, config.grpo, accelerator, world_model.max_new_tokens)
    sampled = sum(len(score.rewards) for score in scores)
    return {
        "reward": float(np.concatenate([score.rewards for score in scores]).mean()),
        "distance": float(np.concatenate([score.distances for score in scores]).mean()),
        "groups": sampled,
        "signal_groups": len(signal),
        "signal_share": len(signal) / sampled,
        "tokens": float(np.mean(lengths)),
        **stats,
    }
