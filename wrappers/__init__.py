"""Gymnasium wrappers: rewards from a world model, and what records transitions."""

from __future__ import annotations

from rwml_gym.wrappers.record_transitions import RecordTransitions
from rwml_gym.wrappers.world_model_reward import WorldModelRewardWrapper

__all__ = ["RecordTransitions", "WorldModelRewardWrapper"]
