"""Chooses the threshold τ_d of the gap reward from recorded transitions, and says how far it can be trusted.

A threshold that suits one encoder and world is wrong for another: in one public attempt no threshold separated right
from wrong predictions with a precision above 68 %, and nothing was learnt. So measure before training::

    transitions = TransitionDataset.load("runs/alfworld-transitions")
    print(calibrate(transitions, "all-MiniLM-L6-v2").table())
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rwml_gym.diagnostics.predictability import type_of
from rwml_gym.diagnostics.text_perturbations import TEXT, Perturbation, Perturbations, Pool
from rwml_gym.diagnostics.tool_perturbations import perturbations_for
from rwml_gym.encoders.cached import Encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapName, GapReward
from rwml_gym.text import without_nan
from rwml_gym.transitions import Transition, TransitionDataset

__all__ = ["Calibration", "NoPairsError", "PairKind", "calibrate", "calibrate_by_action", "calibrate_by_kind"]

# Below this recall a right prediction in other words is (almost) never rewarded, and the reader must know.
_LOW_RECALL = 0.2
# A threshold chosen on fewer distinct states than this would say nothing about others.
_LEAST_STATES = 10
_CURVE_POINTS = 100


class NoPairsError(InvalidConfigError):
    """There is too little to choose a threshold from: too few games, or no pairs of the same or of other states."""


@dataclass(frozen=True)
class PairKind:
    """One kind of pairs, on the games that did not choose the threshold.

    Attributes:
        name: What was done to the realised state.
        same: Whether the pair still says the same state.
        fit_pairs: Pairs the threshold was chosen on.
        pairs: Pairs of the other games, to which the following belong.
        median_distance: Median of d; NaN without pairs.
        share_below: Share of the pairs with d below the threshold, which would be rewarded; NaN without pairs.
    """

    name: str
    same: bool
    fit_pairs: int
    pairs: int
    median_distance: float
    share_below: float


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it is worth. Shares are of balanced pairs, see `calibrate`.

    Attributes:
        encoder: Name of the encoder the threshold belongs to.
        threshold: τ_d.
        target_precision: The precision asked for.
        reached: Whether some threshold reached it on the fit games.
        fit_precision: Share of rewarded pairs that are the same state, on the fit games.
        fit_recall: Share of same pairs that are rewarded, on the fit games.
        precision: Like `fit_precision`, on the other games.
        recall: Like `fit_recall`, on the other games.
        kinds: The kinds of pairs.
        fit_games: Number of games the threshold was chosen on.
        games: Number of the other games.
        transitions: Number of transitions given.
        seed: Seed of the split and of the pairs.
        gap: The distance, see `gap.Measure`; for `"rouge"` the encoder has no part in it.
        curve: Other thresholds in ascending order, each with its precision and recall on the other games.
    """

    encoder: str
    threshold: float
    target_precision: float
    reached: bool
    fit_precision: float
    fit_recall: float
    precision: float
    recall: float
    kinds: tuple[PairKind, ...]
    fit_games: int
    games: int
    transitions: int
    seed: int
    gap: GapName = "cosine"
    curve: tuple[tuple[float, float, float], ...] = ()

    @property
    def measure(self) -> dict[str, Any]:
        """The threshold as `GapReward(measures={kind: …})` takes it."""
        return {"gap": self.gap, "threshold": self.threshold}

    @property
    def advice(self) -> str:
        """What to make of it, in plain words; empty if all is well."""
        stronger = "Use a stronger encoder" if self.gap == "cosine" else "ROUGE counts words: use another gap"
        if not self.reached:
            return (
                f"No threshold reaches a precision of {self.target_precision:.2f} with {self._name!r}: the best has "
                f"{self.fit_precision:.2f} at a recall of {self.fit_recall:.2f}, so {1 - self.fit_precision:.0%} of "
                f"what it rewards is wrong. {stronger} before training on this reward."
            )
        if self.fit_recall < _LOW_RECALL:
            return (
                f"At a precision of {self.fit_precision:.2f} only {self.fit_recall:.0%} of the rewordings are rewarded "
                f"with {self._name!r}: the reward asks for nearly the exact words. Fine where the world speaks in "
                "templates; elsewhere use a stronger encoder or accept a lower precision."
            )
        return ""

    @property
    def _name(self) -> str:
        return self.encoder if self.gap == "cosine" else "ROUGE-L"

    def table(self) -> str:
        """The calibration as text, one kind of pairs a line."""
        name = f"Encoder {self.encoder}" if self.gap == "cosine" else self._name
        lines = [
            f"{name}, threshold {self.threshold:.4f}: precision {self.precision:.3f}, "
            f"recall {self.recall:.3f} on {self.games} games it was not chosen on",
            f"(on the {self.fit_games} games it was chosen on: {self.fit_precision:.3f} and {self.fit_recall:.3f}; "
            f"precision asked for: {self.target_precision:.2f}, {'reached' if self.reached else 'NOT reached'}).",
            "",
            f"{'pairs that say':<16} {'made by':<24} {'pairs':>6} {'median d':>9} {'below':>7}",
        ]
        for kind in self.kinds:
            says = "the same" if kind.same else "other things"
            lines.append(
                f"{says:<16} {kind.name:<24} {kind.pairs:>6} {kind.median_distance:>9.3f} {kind.share_below:>7.1%}"
            )
        return "\n".join([*lines, *(["", self.advice] if self.advice else [])])

    def to_json(self) -> str:
        """The calibration as JSON, without its curve; NaN becomes null."""
        values = {name: value for name, value in asdict(self).items() if name != "curve"}
        return json.dumps(without_nan(values), ensure_ascii=False, indent=2)


def calibrate(
    transitions: Sequence[Transition],
    encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray],
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_kind: int = 150,
    gap: GapName = "cosine",
    perturbations: Perturbations = TEXT,
) -> Calibration:
    """Choose τ_d: the largest recall with at least the wanted precision.

    Every distinct next state is reworded and falsified (`perturbations`); texts that a rule leaves as they are are
    skipped, and so are exact copies, which any threshold accepts. The threshold is chosen on half of the games and
    measured on the other half.

    *Balance.* The kinds of same pairs weigh equally, the kinds of different pairs weigh equally, and same weighs as
    much as different, so that precision does not depend on how many pairs of a kind a world happens to yield::

        recall    = mean over same kinds of the share below τ_d
        false     = mean over different kinds of the share below τ_d
        precision = recall / (recall + false)

    A real model's mistakes have other frequencies: what it says in training is the thing to look at next.

    If no threshold reaches the precision, the one with the best F0.5 is taken, `reached` is `False`, and a warning
    says what that means.

    Args:
        transitions: Recorded transitions of at least two games.
        encoder: See `embedding.make_encoder`.
        precision: Wanted share of right among the rewarded, in `(0, 1]`.
        seed: Of the split, the choice of states and the pairs.
        pairs_per_kind: Most pairs of a kind in each half.
        gap: `"cosine"` or `"rouge"`, see `gap.Measure`.
        perturbations: How states are reworded and falsified: `perturbations.TEXT` or
            `tool_perturbations.TOOL_RESULTS`.

    Returns:
        The calibration.

    Raises:
        InvalidConfigError: If an argument is out of range.
        NoPairsError: If there are fewer than two games, or a half of them yields no same or no different pairs.
        DependencyNotInstalled: If ROUGE or the encoder needs a library that is not installed.
    """
    if not 0 < precision <= 1:
        raise InvalidConfigError(f"Expected `precision` in (0, 1], actual: {precision}.")
    if pairs_per_kind < 1:
        raise InvalidConfigError(f"Expected `pairs_per_kind` of at least 1, actual: {pairs_per_kind}.")
    dataset = TransitionDataset(transitions)
    if len(dataset.games) < 2:
        raise NoPairsError(f"Expected transitions of at least 2 games to split, actual: {len(dataset.games)}.")
    halves = dataset.split_by_game(0.5, seed)
    reward = GapReward(encoder, measures={transition.kind: {"gap": gap} for transition in dataset})
    fit, check = (_Distances(half, reward, seed, pairs_per_kind, perturbations) for half in halves)
    threshold, reached = _choose(fit, precision, largest=1.0 if gap == "rouge" else 2.0)
    fit_precision, fit_recall = fit.precision_recall(threshold)
    check_precision, check_recall = check.precision_recall(threshold)
    kinds = tuple(
        PairKind(
            name=name,
            same=name in perturbations.same,
            fit_pairs=len(fit.by_kind[name]),
            pairs=len(distances),
            median_distance=float(np.median(distances)) if len(distances) else float("nan"),
            share_below=float(np.mean(distances < threshold)) if len(distances) else float("nan"),
        )
        for name, distances in check.by_kind.items()
    )
    calibration = Calibration(
        encoder=reward.encoder.name,
        threshold=threshold,
        target_precision=precision,
        reached=reached,
        fit_precision=fit_precision,
        fit_recall=fit_recall,
        precision=check_precision,
        recall=check_recall,
        kinds=kinds,
        fit_games=len(halves[0].games),
        games=len(halves[1].games),
        transitions=len(dataset),
        seed=seed,
        gap=gap,
        curve=check.curve(),
    )
    if not reached:
        warnings.warn(calibration.advice, stacklevel=2)
    return calibration


def calibrate_by_kind(
    transitions: Sequence[Transition],
    encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray],
    gaps: Mapping[str, GapName],
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_kind: int = 150,
) -> dict[str, Calibration | NoPairsError]:
    """Choose a threshold for every kind of message (`Transition.kind`), with the gap that belongs to it.

    Tool results (`"tool"`) are rewritten and falsified as data, everything else as words. The thresholds are what
    `GapReward(measures={kind: calibration.measure, …})` takes.

    Args:
        transitions: Recorded transitions.
        encoder: See `embedding.make_encoder`.
        gaps: The gap of each kind; the cosine where a kind is not named.
        precision: See `calibrate`.
        seed: See `calibrate`.
        pairs_per_kind: See `calibrate`.

    Returns:
        The calibration of every kind that occurs, in alphabetical order; what is missing for one, where there is too
        little to choose from: fewer than 10 distinct states (a scripted user says two), or `calibrate` says so.

    Raises:
        InvalidConfigError: If an argument is out of range.
        DependencyNotInstalled: If ROUGE or the encoder needs a library that is not installed.
    """
    groups: dict[str, list[Transition]] = defaultdict(list)
    for transition in transitions:
        groups[transition.kind].append(transition)
    return {
        kind: _calibrated(groups[kind], encoder, precision, seed, pairs_per_kind, gaps.get(kind, "cosine"))
        for kind in sorted(groups)
    }


def calibrate_by_action(
    transitions: Sequence[Transition],
    encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray],
    gap: GapName = "cosine",
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_kind: int = 150,
) -> dict[str, Calibration | NoPairsError]:
    """Choose a threshold for every type of action (`predictability.type_of`).

    A reward has one threshold for a kind of message, not one for a type of action. Where they differ, the reward of
    the common threshold is not to be trusted. Arguments and errors are those of `calibrate`.

    Returns:
        As `calibrate_by_kind`, by type of action, the most frequent first.
    """
    groups: dict[str, list[Transition]] = defaultdict(list)
    for transition in transitions:
        groups[type_of(transition)].append(transition)
    frequent = sorted(groups, key=lambda name: (-len(groups[name]), name))
    return {name: _calibrated(groups[name], encoder, precision, seed, pairs_per_kind, gap) for name in frequent}


def _calibrated(
    chosen: Sequence[Transition],
    encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray],
    precision: float,
    seed: int,
    pairs_per_kind: int,
    gap: GapName,
) -> Calibration | NoPairsError:
    distinct = len({transition.next_state for transition in chosen})
    if distinct < _LEAST_STATES:
        return NoPairsError(
            f"Expected at least {_LEAST_STATES} distinct states, actual: {distinct}. Record a world that says more."
        )
    try:
        return calibrate(chosen, encoder, precision, seed, pairs_per_kind, gap, perturbations_for(chosen))
    except NoPairsError as error:  # a finding, for the caller to decide on
        return error


class _Distances:
    """The distances of the pairs of one half of the games, by kind."""

    def __init__(
        self, half: TransitionDataset, gap: GapReward, seed: int, pairs_per_kind: int, perturbations: Perturbations
    ):
        self._same, self._different = perturbations.same, perturbations.different
        rng = np.random.default_rng(seed)
        # Each distinct state once: "Nothing happens." would otherwise make up most of a random walk.
        states = list(
            {transition.next_state: transition for transition in half if transition.next_state.strip()}.values()
        )
        pool = Pool(half)
        pairs = {
            name: _pairs(perturb, states, pool, rng, pairs_per_kind)
            for name, perturb in {**self._same, **self._different}.items()
        }
        for group, says in ((self._same, "the same"), (self._different, "something else")):
            if not any(pairs[name] for name in group):
                raise NoPairsError(
                    f"Expected states that can be made to say {says}, actual: none in {len(states)} distinct states "
                    f"of {len(half.games)} games. Record more games."
                )
        flat = [pair for kind in pairs.values() for pair in kind]
        distances = gap(
            [text for text, _ in flat], [of.next_state for _, of in flat], [of.kind for _, of in flat]
        ).distances
        ends = np.cumsum([len(kind) for kind in pairs.values()])[:-1]
        self.by_kind: dict[str, np.ndarray] = dict(zip(pairs, np.split(distances, ends), strict=True))

    def precision_recall(self, threshold: float) -> tuple[float, float]:
        """Balanced precision and recall of a threshold; a threshold that rewards nothing has precision 0."""
        recall, false = self._share_below(self._same, threshold), self._share_below(self._different, threshold)
        return (recall / (recall + false) if recall + false > 0 else 0.0), recall

    def curve(self) -> tuple[tuple[float, float, float], ...]:
        """Precision and recall over the thresholds at which they change, at most 100 of them."""
        distances = np.unique(np.concatenate(list(self.by_kind.values())))
        chosen = distances[np.unique(np.linspace(0, len(distances) - 1, _CURVE_POINTS).astype(int))]
        return tuple((float(d), *self.precision_recall(d)) for d in np.nextafter(chosen, np.inf))

    def _share_below(self, group: Mapping[str, Perturbation], threshold: float) -> float:
        kinds = [self.by_kind[name] for name in group if len(self.by_kind[name])]
        return float(np.mean([np.mean(distances < threshold) for distances in kinds]))


def _pairs(
    perturb: Perturbation, states: list[Transition], pool: Pool, rng: np.random.Generator, limit: int
) -> list[tuple[str, Transition]]:
    """At most `limit` pairs of a made text and the transition it is about, of randomly chosen states."""
    pairs: list[tuple[str, Transition]] = []
    for index in rng.permutation(len(states)):
        text = perturb(states[index], pool, rng)
        if text.strip() and text != states[index].next_state:
            pairs.append((text, states[index]))
            if len(pairs) == limit:
                break
    return pairs


def _choose(fit: _Distances, precision: float, largest: float) -> tuple[float, bool]:
    """The threshold, and whether it reaches the precision."""
    distances = np.unique(np.concatenate(list(fit.by_kind.values())))
    # Half-way between neighbours, so that the choice does not sit on a pair that float noise can push over it.
    candidates = np.append((distances[1:] + distances[:-1]) / 2, min(distances[-1] + 1e-3, largest))
    scores = [(float(candidate), *fit.precision_recall(candidate)) for candidate in candidates]
    good = [score for score in scores if score[1] >= precision]
    if good:
        return max(good, key=lambda score: (score[2], -score[0]))[0], True
    return max(scores, key=lambda score: _f_half(score[1], score[2]))[0], False


def _f_half(precision: float, recall: float) -> float:
    """F0.5: precision counts twice as much as recall."""
    return 1.25 * precision * recall / (0.25 * precision + recall) if precision + recall > 0 else 0.0
