"""The memory of each job's updates, planned from its configuration."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.learning.memory_plan import MemoryPlan, plan
from rwml_gym.agents.learning.options import tokens_per_pass

__all__ = ["plan_memory"]


def plan_memory(
    config: JobConfig, model: nn.Module, kept_prompts: int = 0, device: torch.device | None = None
) -> MemoryPlan:
    """Plan the memory of an update on the longest rows that a configuration allows.

    Args:
        config: The configuration of a world model's training, of SFT on next states, or of a policy's.
        model: The model with its adapter; its weights may be on the device `meta`.
        kept_prompts: See `memory_plan.plan`; of a world model's training only.
        device: Device of the training; the model's if absent.

    Raises:
        TypeError: There is no such job.
    """
    device = device or next(model.parameters()).device
    of_model = partial(plan, cast(PreTrainedModel, model), kept_prompts=kept_prompts, device=device)
    if isinstance(config, RWMLConfig):
        return of_model(
            config.stage.groups * config.stage.group_size,
            config.max_prompt_tokens,
            config.max_new_tokens,
            group_size=config.stage.group_size,
            micro_tokens=config.grpo.tokens_per_pass(device.type),
            sampling_rows=config.batch_rows,
        )
    if isinstance(config, SFTJobConfig):
        return of_model(
            config.sft.batch_size,
            config.max_prompt_tokens,
            config.max_new_tokens,
            micro_tokens=tokens_per_pass(device.type),
            sampling_rows=1,
        )
    if isinstance(config, PolicyConfig):
        rows, prompt, written, counted = _rows_of_policy(config)
        return of_model(
            rows,
            prompt,
            written,
            counted,
            micro_tokens=config.grpo.tokens_per_pass(device.type),
            sampling_rows=min(config.episode.slots, config.stage.groups * config.stage.group_size),
            growing=True,
        )
    raise TypeError(f"Expected the configuration of a training, actual: {type(config).__name__}.")


def _rows_of_policy(config: PolicyConfig) -> tuple[int, int, int, int]:
    """Return the number of rows, and the tokens of a prompt, of what follows it, and of those that need logits."""
    stage, episode = config.stage, config.episode
    episodes = stage.groups * stage.group_size
    if stage.sequence == "turn" or config.history:
        rows, prompt, written = episodes * episode.max_steps, config.max_prompt_tokens, config.turn_tokens
        counted = written
    else:
        rows, prompt, written = episodes, 1, config.max_prompt_tokens + config.turn_tokens
        counted = min(written, episode.max_steps * config.turn_tokens)
    if stage.observation_loss.is_on:  # the answers need logits, too; a turn's answer is as long as anything may be
        written = counted = max(written, config.max_prompt_tokens)
    return rows, prompt, written, counted
