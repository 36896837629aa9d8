"""The share of GRPO's groups with a reward difference, estimated from a few rewards per prompt.

A group of G completions with equal rewards has zero advantages and no gradient. If p is a prompt's probability of a
right answer, a group has signal with probability 1 - p^G - (1 - p)^G. p is estimated from k samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rwml_gym.errors import InvalidConfigError
from rwml_gym.statistics import bootstrap_interval, share_interval

__all__ = ["GroupSignal", "expected_signal", "group_signal"]

# `group_advantages` ignores differences below this, too.
_DECIMALS = 9


@dataclass(frozen=True)
class GroupSignal:
    """Expected signal in training, estimated from sampled rewards.

    Attributes:
        prompts: Number of prompts.
        samples: Samples per prompt, k.
        group_size: Completions per group, G.
        share: Expected share of groups with signal: estimate, and its 95 % interval over games.
        reward: Mean reward, and its 95 % interval over games.
        hopeless: Share of prompts without any rewarded sample.
        perfect: Share of prompts whose samples all have reward 1.
        rates: Mean reward of each prompt.
        by_prompt: Expected share of groups with signal, per prompt.
    """

    prompts: int
    samples: int
    group_size: int
    share: tuple[float, float, float]
    reward: tuple[float, float, float]
    hopeless: float
    perfect: float
    rates: tuple[float, ...]
    by_prompt: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        return asdict(self)


def group_signal(rewards: np.ndarray, group_size: int, games: Sequence[str] | None = None) -> GroupSignal:
    """Estimate the signal from rewards that were sampled before training.

    Args:
        rewards: `(n, k)` rewards of k samples for each of n prompts, at the temperature of training.
        group_size: Completions per group, G.
        games: Game of each prompt, for the resampling of the intervals; each prompt is its own game if absent.

    Raises:
        InvalidConfigError: If there are no rewards, they are not finite, or the group is smaller than 2.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or not rewards.size:
        raise InvalidConfigError(
            f"Expected rewards as an array of n prompts by k samples, both at least 1, actual: shape {rewards.shape}."
        )
    if not np.isfinite(rewards).all():
        raise InvalidConfigError("Expected finite rewards, actual: NaN or infinity. Leave those prompts out.")
    if games is not None and len(games) != len(rewards):
        raise InvalidConfigError(f"Expected as many games as prompts ({len(rewards)}), actual: {len(games)}.")
    by_prompt = expected_signal(rewards, group_size)
    named = list(games) if games is not None else [str(i) for i in range(len(rewards))]
    share = bootstrap_interval(by_prompt, named)
    if share[2] - share[1] < 1e-12:
        # All games are alike, or there is one: resampling shows no spread, but another may differ (rule of three).
        spread = 1 - 0.05 ** (1 / len(set(named)))
        share = (share[0], max(0.0, share[0] - spread), min(1.0, share[0] + spread))
    rates = rewards.mean(1)
    return GroupSignal(
        prompts=len(rewards),
        samples=rewards.shape[1],
        group_size=group_size,
        share=share,
        reward=(share_interval if 0 <= rates.min() and rates.max() <= 1 else bootstrap_interval)(rates, named),
        hopeless=float(np.mean((rewards <= 0).all(1))),
        perfect=float(np.mean((rewards >= 1).all(1))),
        rates=tuple(rates.tolist()),
        by_prompt=tuple(by_prompt.tolist()),
    )


def expected_signal(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """Return, for each prompt, the probability that a group has a reward difference, `(n,)` in all.

    For k ≥ G the estimate is unbiased: it is the share, among all groups of G drawn from the k samples without
    replacement, of groups with a difference. c samples of the same reward make C(c, G) of C(k, G) groups without one.

    For k < G it needs a distribution of rates: a Beta prior of the rate is fitted to all prompts' counts by maximum
    likelihood (beta-binomial), and the result is the posterior mean of 1 - p^G - (1 - p)^G. This extrapolates: in tests
    with k = 4 and G = 8 the mean is up to 0.06 off if there are three distinct rates. A fixed prior would be worse:
    under Jeffreys', four wrong answers out of four still promise signal in 40 % of the groups of 8, even for every
    prompt of a task that nobody can solve. If rewards take more than two values, p is the rate of a prompt's most
    frequent value and all others count as one value, which underestimates the signal.

    Args:
        rewards: `(n, k)` rewards.
        group_size: Completions per group, G.

    Raises:
        InvalidConfigError: If the group is smaller than 2, or there is one sample per prompt.
    """
    if group_size < 2:
        raise InvalidConfigError(
            f"Expected a group size of at least 2, actual: {group_size}. Raise it: one reward has no spread."
        )
    rewards = np.round(np.asarray(rewards, dtype=np.float64), _DECIMALS)
    k = rewards.shape[1]
    if k < 2:
        raise InvalidConfigError(
            f"Expected at least 2 samples per prompt, actual: {k}. Take {group_size}: one sample cannot show whether "
            "a prompt is always right."
        )
    counts = [Counter(row.tolist()) for row in rewards]
    if k >= group_size:
        groups = math.comb(k, group_size)
        return np.array([1 - sum(math.comb(c, group_size) for c in found.values()) / groups for found in counts])
    if len(np.unique(rewards)) <= 2:
        hits = np.array([found[float(rewards.max())] if np.ptp(rewards) else 0 for found in counts])
    else:
        hits = np.array([max(found.values()) for found in counts])
    a, b = _fit_beta(hits, k)
    by_hits = {int(c): _posterior_signal(a + c, b + k - c, group_size) for c in np.unique(hits)}
    return np.array([by_hits[int(c)] for c in hits])


def _fit_beta(hits: np.ndarray, k: int) -> tuple[float, float]:
    """Return the Beta prior with the highest likelihood of the counts, on a grid of means and concentrations."""
    counts = Counter(hits.tolist())
    logits = np.linspace(-7, 7, 57)
    best, likeliest = (1.0, 1.0), -math.inf
    for mean in 1 / (1 + np.exp(-logits)):
        for concentration in np.geomspace(0.05, 200, 34):
            a, b = float(mean * concentration), float((1 - mean) * concentration)
            likelihood = sum(n * (_log_beta(a + c, b + k - c) - _log_beta(a, b)) for c, n in counts.items())
            if likelihood > likeliest + 1e-9:
                best, likeliest = (a, b), likelihood
    return best


def _posterior_signal(a: float, b: float, group_size: int) -> float:
    """Return the mean of 1 - p^G - (1 - p)^G under Beta(a, b)."""
    start = _log_beta(a, b)
    return max(0.0, 1 - math.exp(_log_beta(a + group_size, b) - start) - math.exp(_log_beta(a, b + group_size) - start))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
