"""The steps of policy training: imitation of demonstrations, and GRPO on episodes that the model itself plays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from rwml_gym.agents.config.policy import ImitationConfig, PolicyConfig
from rwml_gym.agents.jobs.interaction import MakeEnv
from rwml_gym.agents.learning.credit import episode_groups
from rwml_gym.agents.learning.demonstrations import Demonstration
from rwml_gym.agents.learning.distributed import total
from rwml_gym.agents.learning.grpo import Group, update
from rwml_gym.agents.learning.sft import sft_update
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import Job, Played, roll_out
from rwml_gym.agents.seeding import seed_of

__all__ = ["grpo_policy_step", "imitation_step"]


def imitation_step(
    model: nn.Module,
    data: Sequence[Demonstration],
    config: ImitationConfig,
    seed: int,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """Imitates the batch that belongs to step `number`; every epoch is shuffled anew.

    Args:
        model: The policy.
        data: Demonstrations.
        config: Batch size; in several processes each takes its share.
        seed: Of the shuffling.
        accelerator: Where to compute.
        number: Of the step, from 0.
        optimizer: Over the adapter.

    Returns:
        See `sft.sft_update`.
    """
    positions = range(number * config.batch_size, (number + 1) * config.batch_size)
    batch = [data[i] for i in _in_epochs(len(data), positions, seed)]
    mine = batch[accelerator.process_index :: accelerator.num_processes]
    return sft_update(
        model,
        optimizer,
        [demonstration.prompt for demonstration in mine],
        [demonstration.target for demonstration in mine],
        accelerator,
        masks=[demonstration.mask for demonstration in mine],
    )


def grpo_policy_step(
    agent: LanguageModelAgent,
    make_env: MakeEnv,
    games: Sequence[str],
    config: PolicyConfig,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """One policy update: play groups of equal games until enough have a difference to learn from, then update.

    Args:
        agent: The policy, as it plays.
        make_env: Makes the environment, wrapped if its gap reward is wanted.
        games: Training games. Every epoch is shuffled anew; in several processes each plays its share.
        config: Its `stage`, `grpo`, `episode`, `faults` and `seed`.
        accelerator: Where to compute.
        number: Of the step; which games are played and all that is sampled follows from it.
        optimizer: Over the adapter.

    Returns:
        Over all episodes of all processes: `success`, `reward`, `steps` and the share of `invalid` actions, the mean
        `gap_reward`, tokens written in a turn (`tokens`), `episodes`, those that failed (`failed`), `groups`, those
        with a reward difference (`signal_groups`); what `grpo.update` returns; and `seconds_rollout` and
        `seconds_update`.
    """
    stage = config.stage
    began = time.monotonic()
    played: list[Played] = []
    signal: list[Group] = []
    with_signal = 0.0
    for turn in range(stage.rounds):
        start = (number * stage.rounds + turn) * stage.groups
        places = range(start, start + stage.groups)
        chosen = [games[i] for i in _in_epochs(len(games), places, seed_of(config.seed, "epochs"))]
        mine = list(enumerate(chosen))[accelerator.process_index :: accelerator.num_processes]
        jobs = [
            Job(game, seed_of(config.seed, "episode", number, turn, place, member))
            for place, game in mine
            for member in range(stage.group_size)
        ]
        episodes = roll_out(make_env, agent, jobs, config.episode.slots, on_error=config.faults.on_env_error)
        played += episodes
        found = [
            episode_groups(
                episodes[i : i + stage.group_size],
                stage.rows,
                stage.task_weight,
                stage.world_model_weight,
                config.grpo.scale_rewards,
            )
            for i in range(0, len(episodes), stage.group_size)
        ]
        signal += [group for groups in found for group in groups]
        with_signal += total(accelerator, [sum(map(bool, found))])[0]
        if with_signal >= stage.groups:
            break
    agent.sessions.clear()  # the weights change
    rolled_out = time.monotonic()
    model = agent.sessions.model
    # The longest row there can be, the constant of `dr_grpo`: a turn, or all turns of an episode.
    turns = config.episode.max_steps if stage.rows == "episode" and not config.history else 1
    stats = update(model, optimizer, signal, config.grpo, accelerator, turns * config.episode.action_tokens)
    return {
        **_statistics(played, accelerator),
        "groups": (turn + 1) * stage.groups,
        "signal_groups": int(with_signal),
        **stats,
        "seconds_rollout": round(rolled_out - began, 3),
        "seconds_update": round(time.monotonic() - rolled_out, 3),
    }


def _statistics(played: Sequence[Played], accelerator: Accelerator) -> dict[str, Any]:
    whole = [episode for episode in played if episode.error is None]
    completions = [w.completion for episode in whole for w in episode.written if w.completion is not None]
    gaps = [gap for episode in whole for gap in episode.gap_rewards]
    sums = total(
        accelerator,
        [
            len(played),
            len(whole),
            sum(episode.won for episode in whole),
            sum(sum(episode.rewards) for episode in whole),
            sum(len(episode.rewards) for episode in whole),
            sum(sum(episode.invalid) for episode in whole),
            sum(len(completion.tokens) for completion in completions),
            len(completions),
            sum(gaps),
            len(gaps),
        ],
    )
    episodes, ended, won, reward, steps, invalid, tokens, turns, gap, gap_turns = sums
    return {
        "success": won / max(ended, 1),
        "reward": reward / max(ended, 1),
        "steps": steps / max(ended, 1),
        "invalid": invalid / max(steps, 1),
        "tokens": tokens / max(turns, 1),
        "gap_reward": gap / max(gap_turns, 1),
        "episodes": int(episodes),
        "failed": int(episodes - ended),
    }


def _in_epochs(count: int, positions: Sequence[int], seed: int) -> list[int]:
    """What lies at these positions of an endless row of shuffled epochs of 0 … count - 1."""
    result = []
    for position in positions:
        epoch, offset = divmod(position, count)
        result.append(int(np.random.default_rng(seed_of(seed, epoch)).permutation(count)[offset]))
    return result
