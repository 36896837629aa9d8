"""Gymnasium wrappers: rewards from a world model, and what records transitions."""

from __future__ import annotations

from rwml_gym.wrappers.record_transitions import RecordTransitions

__all__ = ["RecordTransitions"]
