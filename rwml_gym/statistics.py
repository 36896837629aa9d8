"""Confidence intervals for means over games, means over seeds, and shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["bootstrap_interval", "student_interval", "wilson_interval", "won_games_interval"]

_RESAMPLES = 2_000
# Quantiles 0.975 of Student's t by degrees of freedom; the normal distribution's beyond.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL = 1.96


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, games: Sequence[str], seed: int = 0
) -> tuple[float, float, float]:
    """Return a mean with its 95 % bootstrap interval; it resamples games, as steps of a game are dependent.

    Args:
        values: `T` numbers.
        games: `T` names of games.
        seed: Seed of the resampling.

    Returns:
        Mean, lower and upper end (percentiles 2.5 and 97.5 of 2,000 resamples).
    """
    array = np.asarray(values, dtype=np.float64)
    _, inverse = np.unique(np.asarray(games), return_inverse=True)
    sums, counts = np.bincount(inverse, array), np.bincount(inverse)
    picks = np.random.default_rng(seed).integers(len(counts), size=(_RESAMPLES, len(counts)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (E. B. Wilson, 1927), valid for few trials and near 0 and 1.

    >>> tuple(round(bound, 3) for bound in wilson_interval(131, 134))
    (0.936, 0.992)
    """
    z = 1.959964
    share, size = successes / trials, z * z / trials
    centre = (share + size / 2) / (1 + size)
    half = z * math.sqrt(share * (1 - share) / trials + size / (4 * trials)) / (1 + size)
    return (centre - half if successes else 0.0), (centre + half if successes < trials else 1.0)


def won_games_interval(won: Sequence[int], played: Sequence[int]) -> tuple[float, float]:
    """Return the 95 % interval of the share of episodes that were won.

    Where a game is played more than once, its episodes are no independent trials, so games are resampled. Where all
    games were won equally often, resampling would say that the share is certain: then it is Wilson's, of the games.

    Args:
        won: Episodes won of each game.
        played: Episodes played of each game, at least one.

    >>> won_games_interval([8] * 4 + [0] * 8, [8] * 12)
    (0.08333333333333333, 0.5833333333333334)
    """
    if max(played) == 1:
        return wilson_interval(sum(won), len(played))
    shares = np.repeat(np.divide(won, played), played)
    _, low, high = bootstrap_interval(shares, np.repeat(np.arange(len(played)), played).astype(str).tolist())
    if low == high:
        return wilson_interval(float(shares.mean()) * len(played), len(played))
    return low, high


def student_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return a mean with its 95 % interval of Student's t, for few independent runs such as seeds.

    Args:
        values: One number a run, at least one. The interval of a single one is infinite.

    Returns:
        Mean, lower and upper end.

    >>> tuple(round(bound, 3) for bound in student_interval([0.1, 0.2, 0.3]))
    (0.2, -0.048, 0.448)
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return mean, -math.inf, math.inf
    quantile = _STUDENT[count - 2] if count - 2 < len(_STUDENT) else _NORMAL
    half = quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean, mean - half, mean + half
