"""The dark room: an agent that learns to do what it can predict, not what it should.

A reward for right predictions can be earned by staying where nothing changes. It shows as prediction accuracy that
rises while success falls ("The Dark Room in the Reward Channel", arXiv 2607.21273).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["dark_room"]

_ERRORS = 2.0  # standard errors that a change must exceed


def dark_room(rows: Sequence[Mapping[str, Any]], window: int = 10) -> str:
    """Return a warning with numbers if accuracy rose while success fell, over the last updates; else an empty text.

    Args:
        rows: Metrics of updates, with `gap_reward`, `success`, `judged` and `reward`.
        window: Number of last updates, whose halves are compared. With fewer there is no warning.
    """
    last = rows[-window:]
    if len(last) < max(window, 4):
        return ""
    before, after = last[: window // 2], last[window // 2 :]
    accuracy = _change([row["gap_reward"] for row in before], [row["gap_reward"] for row in after])
    # Where the environment does not say which episodes are won, the task's reward says it.
    key, name = ("success", "success") if all(row.get("judged", 1) for row in last) else ("reward", "the task reward")
    success = _change([row[key] for row in before], [row[key] for row in after])
    if not (accuracy[2] > _ERRORS and success[2] < -_ERRORS):
        return ""
    return (
        f"Expected {name} to rise with accuracy, actual: over the last {window} updates the gap reward rose from "
        f"{accuracy[0]:.3f} to {accuracy[1]:.3f} and {name} fell from {success[0]:.3f} to {success[1]:.3f}. The "
        "agent may be choosing what is easy to predict. Lower stage.world_model_weight, keep gap_delivery 'mean_only' "
        "and gap_tokens 'prediction', or use stage.observation_loss in its place."
    )


def _change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return both means, and their difference in standard errors; of rounding alone it is 0."""
    first, second = float(np.mean(before)), float(np.mean(after))
    if abs(second - first) < 1e-6:
        return first, second, 0.0
    error = np.sqrt(np.var(before, ddof=1) / len(before) + np.var(after, ddof=1) / len(after))
    return first, second, float((second - first) / max(error, 1e-9))
