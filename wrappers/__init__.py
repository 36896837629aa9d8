"""Gymnasium wrappers: world-model rewards, recording of transitions, and text environments for vector agents."""

from __future__ import annotations

from rwml_gym.wrappers.admissible_actions import AdmissibleActions
from rwml_gym.wrappers.embed_text import EmbedText
from rwml_gym.wrappers.forgiving_actions import ForgivingActions
from rwml_gym.wrappers.record_transitions import RecordTransitions
from rwml_gym.wrappers.text_history import TextHistory
from rwml_gym.wrappers.world_model_reward import WorldModelRewardWrapper
from rwml_gym.wrappers.world_model_reward_vector import WorldModelRewardVectorWrapper

__all__ = [
    "AdmissibleActions",
    "EmbedText",
    "ForgivingActions",
    "RecordTransitions",
    "TextHistory",
    "WorldModelRewardVectorWrapper",
    "WorldModelRewardWrapper",
]
