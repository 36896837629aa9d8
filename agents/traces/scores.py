"""The scores of an evaluation, and how sure they are: success, pass^k, steps, tokens, time and cost, by row.

Episodes of one game are alike, so intervals over several trials resample games; over one trial they are Wilson's. What
two evaluations differ in is told only where the exact sign test tells it, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, comb
from typing import Any

from rwml_gym.agents.traces.records import EpisodeRecord
from rwml_gym.errors import InvalidConfigError
from rwml_gym.statistics import difference_interval, paired_interval, share_interval, sign_test, wilson_interval

__all__ = ["Difference", "Scores", "compare", "groups_of", "pass_hat", "says_who_won", "score", "success_interval"]

Z_95, Z_80_POWER = 1.959964, 0.841621  # quantiles 0.975 and 0.8 of the normal distribution


@dataclass(frozen=True)
class Scores:
    """The scores of some episodes.

    Attributes:
        episodes: Number of episodes.
        games: Number of distinct games.
        success: Share of won episodes, with both ends of its 95 % interval.
        reward: Mean sum of the rewards of an episode.
        steps: Mean number of actions of an episode.
        invalid: Share of actions that the environment rejected.
        inefficient: Share of actions that are invalid, `look` or `examine`, as the paper counts.
        failed: Number of episodes that agent or environment ended by a failure.
        tokens: Mean number of tokens of an episode, shown and written.
        seconds: Mean time of an episode.
        cost: Sum of what the calls cost, in US dollars.
        cost_per_win: That, for each won episode; `None` if none is.
        pass_hat: For each k from 1 to the number of trials, pass^k with both ends of its 95 % interval; empty for one.
        parts: For each part of the score, how often it counted and how often it was right then.
    """

    episodes: int
    games: int
    success: tuple[float, float, float]
    reward: float
    steps: float
    invalid: float
    inefficient: float
    failed: int
    tokens: float
    seconds: float
    cost: float
    cost_per_win: float | None
    pass_hat: dict[int, tuple[float, float, float]]
    parts: dict[str, tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def score(episodes: Sequence[EpisodeRecord]) -> Scores:
    """Return the scores of at least one episode."""
    count, won = len(episodes), sum(e.won for e in episodes)
    actions = max(sum(e.steps for e in episodes), 1)
    cost = sum(e.cost for e in episodes)
    return Scores(
        episodes=count,
        games=len({e.game for e in episodes}),
        success=success_interval(episodes),
        reward=sum(e.reward for e in episodes) / count,
        steps=sum(e.steps for e in episodes) / count,
        invalid=sum(e.invalid for e in episodes) / actions,
        inefficient=sum(e.inefficient for e in episodes) / actions,
        failed=sum(e.error is not None for e in episodes),
        tokens=sum(e.prompt_tokens + e.completion_tokens for e in episodes) / count,
        seconds=sum(e.seconds for e in episodes) / count,
        cost=cost,
        cost_per_win=cost / won if won else None,
        pass_hat=pass_hat(episodes),
        parts=_parts(episodes),
    )


def says_who_won(episodes: Sequence[EpisodeRecord]) -> bool:
    """Return whether the environment says which episodes are won; one that ended by a failure is lost in any case."""
    return any(e.judged for e in episodes) or all(e.error is not None for e in episodes)


def success_interval(episodes: Sequence[EpisodeRecord]) -> tuple[float, float, float]:
    """Return the share of won episodes with its 95 % interval: Wilson's, or over games where some are played twice."""
    won, count = sum(e.won for e in episodes), len(episodes)
    games = [e.game for e in episodes]
    if len(set(games)) == count:
        return (won / count, *wilson_interval(won, count))
    return share_interval([float(e.won) for e in episodes], games)


def pass_hat(episodes: Sequence[EpisodeRecord]) -> dict[int, tuple[float, float, float]]:
    """Return pass^k, the probability that all of k trials of a game are won, with its 95 % interval over games.

    The estimate of a game with n trials, c of them won, is C(c, k) / C(n, k), as in τ-bench (arXiv 2406.12045). k goes
    to the smallest number of trials; the result is empty if that is 1.
    """
    trials: dict[str, list[bool]] = {}
    for episode in episodes:
        trials.setdefault(episode.game, []).append(episode.won)
    result = {}
    most = min((len(won) for won in trials.values()), default=0)
    for k in range(1, most + 1 if most > 1 else 1):
        values = [comb(sum(won), k) / comb(len(won), k) for won in trials.values()]
        result[k] = share_interval(values, list(trials))
    return result


def groups_of(episodes: Sequence[EpisodeRecord]) -> dict[str, list[EpisodeRecord]]:
    """Return the episodes by row of the table: all, those of sound tasks, each domain and each task type.

    A domain or task type that has the name of another row says in brackets what it is.
    """
    rows = {"all": list(episodes)}
    sound = [e for e in episodes if not e.known_problem]
    if 0 < len(sound) < len(episodes):
        rows["without known problems"] = sound
    for name, what in (("domain", "domain"), ("task_type", "task type")):
        found = sorted({getattr(e, name) for e in episodes} - {""})
        if len(found) > 1:
            rows |= {
                f"{value} ({what})" if value in rows else value: [e for e in episodes if getattr(e, name) == value]
                for value in found
            }
    return rows


@dataclass(frozen=True)
class Difference:
    """What two evaluations of the same games say of their difference.

    Attributes:
        pairs: Number of episodes that both have, by game and trial.
        games: Number of their games.
        success: Share that the first and that the second won of those.
        difference: The second's share less the first's, with both ends of its 95 % interval over games.
        p: Two-sided p-value of the exact sign test over games; of one trial a game, it is McNemar's exact test.
        only_first: Games, with their trials, that only the first won.
        only_second: The same for the second.
        needed: Episodes of new games that it would take to see a difference of `effect` with a power of 80 %.
        effect: That difference.
    """

    pairs: int
    games: int
    success: tuple[float, float]
    difference: tuple[float, float, float]
    p: float
    only_first: list[tuple[str, int]]
    only_second: list[tuple[str, int]]
    needed: int
    effect: float

    @property
    def significant(self) -> bool:
        """Whether the episodes tell which evaluation is better: interval and sign test both say so."""
        _, low, high = self.difference
        return self.p < 0.05 and (low > 0 or high < 0)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def compare(first: Sequence[EpisodeRecord], second: Sequence[EpisodeRecord], effect: float = 0.05) -> Difference | None:
    """Compare two evaluations, paired by game and trial; return `None` if they share no episode.

    Args:
        first: Episodes of one evaluation.
        second: Episodes of the other.
        effect: The difference whose detection is planned.

    Raises:
        InvalidConfigError: If an evaluation has a game and trial twice, or does not say who won.
    """
    if unsaid := [episodes for episodes in (first, second) if not says_who_won(episodes)]:
        rewards = ", ".join(f"{sum(e.reward for e in episodes) / len(episodes):.3f}" for episodes in (first, second))
        raise InvalidConfigError(
            f"Expected evaluations that say which episodes are won, actual: {len(unsaid)} of 2 without it. Let the "
            f'environment give info["won"]. The mean rewards of an episode are {rewards}.'
        )
    ours, others = _by_trial(first), _by_trial(second)
    pairs = [(e, others[place]) for place, e in ours.items() if place in others]
    if not pairs:
        return None
    values = [float(b.won) - float(a.won) for a, b in pairs]
    games = [a.game for a, _ in pairs]
    return Difference(
        pairs=len(pairs),
        games=len(set(games)),
        success=(sum(a.won for a, _ in pairs) / len(pairs), sum(b.won for _, b in pairs) / len(pairs)),
        difference=_difference(values, games),
        p=sign_test(*_signs(values, games)),
        only_first=[(a.game, a.trial) for a, b in pairs if a.won and not b.won],
        only_second=[(a.game, a.trial) for a, b in pairs if b.won and not a.won],
        needed=_needed(values, effect),
        effect=effect,
    )


def _by_trial(episodes: Sequence[EpisodeRecord]) -> dict[tuple[str, int], EpisodeRecord]:
    """Return the episodes by game and trial."""
    found = {(e.game, e.trial): e for e in episodes}
    if len(found) < len(episodes):
        (game, trial), times = Counter((e.game, e.trial) for e in episodes).most_common(1)[0]
        raise InvalidConfigError(
            f"Expected each game and trial of an evaluation once, actual: {game!r}, trial {trial}, {times} times. Play "
            "it again: earlier versions wrote the same name for several seeds."
        )
    return found


def _signs(values: Sequence[float], games: Sequence[str]) -> tuple[int, int]:
    """Return how many games the second won more often, and how many the first."""
    sums: Counter[str] = Counter()
    for value, game in zip(values, games, strict=True):
        sums[game] += int(value)
    return sum(total > 0 for total in sums.values()), sum(total < 0 for total in sums.values())


def _difference(values: Sequence[float], games: Sequence[str]) -> tuple[float, float, float]:
    """Return the mean of differences of -1, 0 and 1 with its interval over games."""
    if len(set(games)) < len(games):
        return difference_interval(values, games)
    return (sum(values) / len(values), *paired_interval(*_signs(values, games), len(games)))


def _needed(values: Sequence[float], effect: float) -> int:
    """Return the number of pairs whose mean has a standard error small enough for the effect.

    The variance is that of differences of -1, 0 and 1; one more pair than seen counts as different, and one as equal,
    because none may have been seen by chance.
    """
    share = (sum(value != 0 for value in values) + 1) / (len(values) + 2)
    mean = sum(values) / len(values)
    variance = max(share - mean * mean, share * (1 - share))
    return ceil((Z_95 + Z_80_POWER) ** 2 * variance / effect**2)


def _parts(episodes: Sequence[EpisodeRecord]) -> dict[str, tuple[int, int]]:
    counted: dict[str, tuple[int, int]] = {}
    for episode in episodes:
        for name in episode.counted:
            played, right = counted.get(name, (0, 0))
            counted[name] = (played + 1, right + (episode.score_parts.get(name) == 1))
    return counted
