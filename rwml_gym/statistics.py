"""Confidence intervals for means over games, means over seeds, shares, and differences; the exact sign test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = [
    "bootstrap_interval",
    "difference_interval",
    "known_interval",
    "paired_interval",
    "share_interval",
    "sign_test",
    "student_interval",
    "wilson_interval",
    "won_games_interval",
]

_RESAMPLES = 2_000
# Quantiles 0.975 of Student's t by degrees of freedom, and of the normal distribution.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL = 1.959964
_SAME = 1e-12  # below it, the ends of an interval differ by rounding alone


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


def known_interval(
    values: Sequence[float] | np.ndarray, games: Sequence[str]
) -> tuple[float, float | None, float | None]:
    """Return what `bootstrap_interval` returns, with `None` for both ends where all games are alike.

    How far such a mean may be off is not known, because nothing limits what another game may give.

    >>> known_interval([3.0, 3.0], ["a", "b"])
    (3.0, None, None)
    """
    mean, low, high = bootstrap_interval(values, games)
    return (mean, None, None) if high - low < _SAME * max(1.0, abs(mean)) else (mean, low, high)


def share_interval(
    values: Sequence[float] | np.ndarray, games: Sequence[str], most: float = 1.0
) -> tuple[float, float, float]:
    """Return the mean of numbers from 0 to 1, or to `most`, with its 95 % interval over games.

    It is a bootstrap. Where all games are alike, which would make it a point, it is Wilson's for the number of games.

    Args:
        values: `T` numbers, such as whether an episode is won.
        games: `T` names of games.
        most: The largest number that there can be, such as 2 for a cosine gap.

    >>> tuple(round(bound, 3) for bound in share_interval([1, 0, 1, 0], ["a", "a", "b", "b"]))
    (0.5, 0.095, 0.905)
    """
    mean, low, high = bootstrap_interval(values, games)
    if high - low < _SAME:
        count = len(set(games))
        low, high = (most * end for end in wilson_interval(mean / most * count, count))
    return mean, low, high


def difference_interval(values: Sequence[float], games: Sequence[str]) -> tuple[float, float, float]:
    """Return the mean of paired differences from -1 to 1 with its 95 % interval over games.

    It is a bootstrap. Where all games are alike, which would make it a point, as many games may differ from them as
    Wilson's interval allows.

    Args:
        values: `T` differences.
        games: `T` names of games.
    """
    mean, low, high = bootstrap_interval(values, games)
    if high - low < _SAME:
        _, most = wilson_interval(0, len(set(games)))
        low, high = max(mean - most, min(mean, -1.0)), min(mean + most, max(mean, 1.0))
    return mean, low, high


def sign_test(more: int, fewer: int) -> float:
    """Return the two-sided p-value of the exact sign test; of pairs of yes and no, it is McNemar's exact test.

    Args:
        more: Number of pairs whose second value is the larger.
        fewer: Number of pairs whose second value is the smaller. Equal pairs say nothing.

    >>> sign_test(4, 0), sign_test(6, 0)
    (0.125, 0.03125)
    """
    tail = sum(math.comb(more + fewer, k) for k in range(min(more, fewer) + 1))
    return min(2 * tail / 2 ** (more + fewer), 1.0)


def paired_interval(more: int, fewer: int, pairs: int) -> tuple[float, float]:
    """Return a 95 % interval of the difference of two shares on the same games, valid for few of them.

    The difference is the share of pairs that differ, times what is left of their wins less their losses. The latter has
    the exact interval of Clopper and Pearson, the former Wilson's, and each end takes the worse of its ends. The
    interval is a little too wide. It excludes 0 exactly where `sign_test` is below 0.05.

    Args:
        more: Number of pairs that only the second won.
        fewer: Number of pairs that only the first won.
        pairs: Number of all pairs.

    >>> tuple(round(bound, 3) for bound in paired_interval(4, 0, 100))
    (-0.02, 0.098)
    """
    differ = more + fewer
    few, many = wilson_interval(differ, pairs)
    low, high = 1 - 2 * _largest_share(fewer, differ), 2 * _largest_share(more, differ) - 1
    return low * (many if low < 0 else few), high * (many if high > 0 else few)


def _largest_share(successes: int, trials: int) -> float:
    """Return the upper end of Clopper and Pearson's 95 % interval: the share that leaves so few successes 2.5 %."""
    if successes == trials:
        return 1.0
    steps = np.arange(trials)
    ways = np.concatenate([[0.0], np.log((trials - steps) / (steps + 1)).cumsum()])[: successes + 1]  # logarithms
    counts = np.arange(successes + 1)
    low, high = 0.0, 1.0
    for _ in range(50):
        share = (low + high) / 2
        tail = np.exp(ways + counts * math.log(share) + (trials - counts) * math.log1p(-share)).sum()
        low, high = (share, high) if tail > 0.025 else (low, share)
    return low


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (E. B. Wilson, 1927), valid for few trials and near 0 and 1.

    >>> tuple(round(bound, 3) for bound in wilson_interval(131, 134))
    (0.936, 0.992)
    """
    z = _NORMAL
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
    shares, games = np.divide(won, played), np.arange(len(played)).astype(str)
    _, low, high = share_interval(np.repeat(shares, played), np.repeat(games, played).tolist())
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
    half = _student(count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean, mean - half, mean + half


def _student(degrees: int) -> float:
    """Return the quantile 0.975 of Student's t; beyond the table, by its expansion around the normal distribution's."""
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = _NORMAL
    first, second = z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z
    third = 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    return z + first / (4 * degrees) + second / (96 * degrees**2) + third / (384 * degrees**3)
