"""The configuration of a whole world-model run on the toy house that takes about a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rwml_gym.agents.config.world_model import CollectConfig, FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.learning.options import SFTConfig

__all__ = ["small_config"]


def small_config(model: Path, **changes: Any) -> RWMLConfig:
    """Three training and three held-out games, one GRPO step; `changes` replace fields."""
    settings: dict[str, Any] = {
        "env": "toy",
        "model": str(model),
        "dtype": "float32",
        "lora_rank": 2,
        "max_prompt_tokens": 150,
        "max_new_tokens": 6,
        "encoder": "hashing",
        "threshold": 0.995,
        "collect": CollectConfig(
            games=3, held_out_games=3, rollouts=1, max_steps=6, random_share=1.0, slots=3, action_tokens=4
        ),
        "sft": SFTConfig(steps=2, batch_size=2, learning_rate=1e-2, warmup=0),
        "filter": FilterConfig(share=0.2, attempts=1),
        "stage": StageConfig(steps=1, groups=4, group_size=4),
        "baseline": False,
    }
    return RWMLConfig(**{**settings, **changes})
