"""An update's metrics as a line of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["policy_line", "world_model_line"]


def world_model_line(row: Mapping[str, Any]) -> str:
    """Return the line of a world model's GRPO update, see `jobs.world_model.grpo_step`."""
    return (
        f"reward {row['reward']:.3f}  gap {row['distance']:.3f}  groups with signal {row['signal_groups']:>2} of "
        f"{row['groups']} ({row['signal_share']:.0%})  KL {row['kl']:.4f}  clipped {row['clip_fraction']:.1%}  "
        f"mismatch {row['sampling_mismatch']:.4f} (KL {row['sampling_kl']:.0e})"
    )


def policy_line(row: Mapping[str, Any]) -> str:
    """Return the line of a policy's GRPO update, see `jobs.policy.grpo_step`."""
    gap = f"  gap reward {row['gap_reward']:.3f}, {row['gap_share']:.0%} of the advantages" if row["gap_reward"] else ""
    if "observation_loss" in row:
        gap += f"  observation loss {row['observation_loss']:.3f}, mean p {row['observation_probability']:.3f}"
    # A run that is older than the key had environments that say it.
    result = f"success {row['success']:.3f}" if row.get("judged", 1) else f"task reward {row['reward']:.3f}"
    failed = f"  failed {row['failed']}" if row["failed"] else ""
    return (
        f"{result}{gap}  steps {row['steps']:.1f}  invalid {row['invalid']:.0%}  groups with "
        f"signal {row['signal_groups']} of {row['groups']}, all lost {row['failed_groups']}  "
        f"KL {row['kl']:.4f}  approx. KL {row['approx_kl']:.4f}  "
        f"clipped {row['clip_fraction']:.1%}  mismatch {row['sampling_mismatch']:.4f} (KL {row['sampling_kl']:.0e})"
        f"{failed}  "
        f"({row['seconds_rollout']:.0f} s play, {row['seconds_update']:.0f} s update)"
    )
