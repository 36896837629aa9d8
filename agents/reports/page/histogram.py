"""Histograms of gaps, with the threshold at the border of two bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rwml_gym.statistics import known_interval, share_interval

__all__ = ["histogram"]

_BELOW = 8  # bars below the threshold, each √2 wide, beside the one that begins at 0
_MOST = 24  # bars above it
_LINEAR = 20  # bars without a threshold


def histogram(gaps: Sequence[float], games: Sequence[str], threshold: float | None) -> dict[str, Any] | None:
    """Count gaps in bars whose borders are multiples of the threshold by powers of √2; equal bars without a threshold.

    The gaps that decide are near the threshold, and most others are far above it: a linear axis would show neither.

    Args:
        gaps: `T` gaps.
        games: `T` names of games, which the intervals resample.
        threshold: τ_d, if there is one.

    Returns:
        `edges`, `counts`, `n`, `mean` and, with a threshold, `below` (its share), each mean with its 95 % interval; or
        `None` if there are no gaps.

    Example:
        >>> found = histogram([0.0, 0.01, 0.3], ["a", "b", "c"], 0.02)
        >>> sum(found["counts"]), round(found["below"][0], 2), 0.02 in found["edges"]
        (3, 0.67, True)
    """
    known = [(gap, game) for gap, game in zip(gaps, games, strict=True) if math.isfinite(gap)]
    if not known:
        return None
    values = np.array([gap for gap, _ in known])
    names = [game for _, game in known]
    most = float(values.max())
    if threshold:
        above = min(_MOST, max(2, math.ceil(2 * math.log2(most / threshold) + 1e-9) if most > threshold else 2))
        edges = [0.0, *(threshold * 2 ** (place / 2) for place in range(-_BELOW, above + 1))]
        edges[_BELOW + 1] = threshold  # exactly
    else:
        edges = [most * place / _LINEAR if most else place / _LINEAR for place in range(_LINEAR + 1)]
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return {
        "edges": [float(edge) for edge in edges],
        "counts": np.bincount(places, minlength=len(edges) - 1).tolist(),
        "n": len(values),
        "threshold": threshold or None,
        "mean": known_interval(values, names),
        "below": share_interval(values < threshold, names) if threshold else None,
    }
