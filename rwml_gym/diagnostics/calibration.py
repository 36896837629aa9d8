"""Calibration: choose the threshold τ_d of the gap reward from recorded transitions, and measure its precision.

The right threshold depends on the encoder and the environment: in one public attempt no threshold separated right from
wrong predictions with a precision above 68 %, and nothing was learned. So measure before training::

    transitions = TransitionDataset.load("runs/alfworld-transitions")
    print(calibrate(transitions, "all-MiniLM-L6-v2").table())
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rwml_gym.checks import one_of
from rwml_gym.diagnostics.predictability import type_of
from rwml_gym.diagnostics.text_perturbations import TEXT, Perturbation, Perturbations, Pool
from rwml_gym.diagnostics.tool_perturbations import perturbations_for
from rwml_gym.encoders.cached import EncoderLike
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, Distance, GapName
from rwml_gym.reward.gap import GapReward
from rwml_gym.text import without_nan
from rwml_gym.transitions import Transition, TransitionDataset, unit_of

__all__ = ["Calibration", "NoPairsError", "PerturbedPairs", "calibrate", "calibrate_by_action", "calibrate_by_role"]

# Below this recall, a paraphrased right prediction is (almost) never rewarded, and the reader must know.
_LOW_RECALL = 0.2
# Precisions closer than this are alike, as they are shares of some hundred pairs.
_NEARLY = 0.02
# A threshold chosen on fewer distinct states would not generalise to others.
_MIN_STATES = 10
_CURVE_POINTS = 100


class NoPairsError(InvalidConfigError):
    """There is too little data for a threshold: too few games, or no pairs of the same or of different states."""


@dataclass(frozen=True)
class PerturbedPairs:
    """The pairs of one perturbation, on the held-out games.

    Attributes:
        name: Name of the perturbation.
        same: Whether the perturbation keeps the state.
        fit_pairs: Number of pairs on the fit games, which chose the threshold.
        pairs: Number of pairs on the held-out games, for the values below.
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
    """A threshold, its precision and its recall, on balanced pairs (see `calibrate`).

    Attributes:
        encoder: Name of the encoder of the threshold.
        threshold: τ_d.
        target_precision: The target precision.
        reached: Whether some threshold reached it on the fit games.
        fit_precision: Share of rewarded pairs that are the same state, on the fit games.
        fit_recall: Share of same pairs that are rewarded, on the fit games.
        precision: `fit_precision`, but on the held-out games.
        recall: `fit_recall`, but on the held-out games.
        perturbations: The pairs of each perturbation.
        fit_games: Number of fit games, which chose the threshold.
        games: Number of held-out games.
        transitions: Number of transitions.
        seed: Seed of the split and of the pairs.
        gap: The distance, a name in `distances.DISTANCES`; only the cosine uses the encoder.
        curve: Other thresholds in ascending order, each with its precision and recall on the held-out games.
        unit: What is counted: `games`, or `episodes` if the environment names no games.
    """

    encoder: str
    threshold: float
    target_precision: float
    reached: bool
    fit_precision: float
    fit_recall: float
    precision: float
    recall: float
    perturbations: tuple[PerturbedPairs, ...]
    fit_games: int
    games: int
    transitions: int
    seed: int
    gap: GapName = "cosine"
    curve: tuple[tuple[float, float, float], ...] = ()
    unit: str = "games"

    @property
    def measure(self) -> dict[str, Any]:
        """The threshold as `GapReward(measures={role: …})` takes it."""
        return {"gap": self.gap, "threshold": self.threshold}

    @property
    def advice(self) -> str:
        """Advice on the threshold; empty if there is no problem."""
        stronger = DISTANCES[self.gap].stronger
        if not self.reached:
            return (
                f"Expected a threshold with a precision of {self.target_precision:.2f} for {self._name!r}, actual: "
                f"about {self.fit_precision:.2f} at best, at a recall of {self.fit_recall:.2f}. "
                f"{1 - self.fit_precision:.0%} of what it rewards is wrong: use {stronger} before training."
            )
        if self.fit_recall < _LOW_RECALL:
            return (
                f"At a precision of {self.fit_precision:.2f} only {self.fit_recall:.0%} of the rewordings are rewarded "
                f"with {self._name!r}: a prediction must have nearly the exact words. Accept this if observations are "
                "templates; otherwise use a stronger encoder or a lower precision."
            )
        return ""

    @property
    def _name(self) -> str:
        return self.encoder if DISTANCES[self.gap].between is None else DISTANCES[self.gap].label

    def table(self) -> str:
        """Return the calibration as text, with one line per perturbation."""
        name = f"Encoder {self.encoder}" if DISTANCES[self.gap].between is None else self._name
        lines = [
            f"{name}, threshold {self.threshold:.4f}: precision {self.precision:.3f}, "
            f"recall {self.recall:.3f} on {self.games} held-out {self.unit}",
            f"(on the {self.fit_games} {self.unit} that chose it: {self.fit_precision:.3f} and {self.fit_recall:.3f}; "
            f"target precision: {self.target_precision:.2f}, {'reached' if self.reached else 'NOT reached'}).",
            "",
            f"{'pairs that say':<16} {'made by':<24} {'pairs':>6} {'median d':>9} {'below':>7}",
        ]
        for made in self.perturbations:
            says = "the same" if made.same else "other things"
            lines.append(
                f"{says:<16} {made.name:<24} {made.pairs:>6} {made.median_distance:>9.3f} {made.share_below:>7.1%}"
            )
        return "\n".join([*lines, *(["", self.advice] if self.advice else [])])

    def to_json(self) -> str:
        """Return the calibration as JSON, without its curve; NaN becomes null."""
        values = {name: value for name, value in asdict(self).items() if name != "curve"}
        return json.dumps(without_nan(values), ensure_ascii=False, indent=2)


def calibrate(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 150,
    gap: GapName = "cosine",
    perturbations: Perturbations = TEXT,
) -> Calibration:
    """Choose the τ_d with the largest recall among those with at least the target precision.

    Every distinct next state is reworded and falsified (`perturbations`). Texts that a rule does not change are
    skipped: every threshold accepts exact copies. Half of the games choose the threshold, the other half measures it.

    *Balance.* All perturbations that keep the state have the same weight, all that change it have the same weight, and
    both sides have the same total weight, so that precision does not depend on the number of pairs per perturbation::

        recall    = mean over perturbations that keep the state of the share below τ_d
        false     = mean over perturbations that change it of the share below τ_d
        precision = recall / (recall + false)

    The threshold of a distance that is 0 or 1, `exact`, is fixed. Its precision and recall are still measured, and its
    precision is 1 if it rewards no pair, because equal texts are the same state.

    A real model's mistakes have other frequencies, so also look at its predictions in training.

    If no threshold reaches the target precision, a warning says so. Then, of the thresholds that reward at least a
    fifth of the rewordings and are within 0.02 of the most precise of these, the result has the largest recall.

    Args:
        transitions: Recorded transitions of at least two games.
        encoder: See `encoders.cached.make_encoder`.
        precision: Target share of right predictions among the rewarded ones, in `(0, 1]`.
        seed: Seed of the split, the choice of states and the pairs.
        pairs_per_perturbation: Maximal number of pairs per perturbation in each half.
        gap: A name in `distances.DISTANCES`.
        perturbations: How states are reworded and falsified; see `tool_perturbations.perturbations_for`.

    Raises:
        InvalidConfigError: If an argument is out of range.
        NoPairsError: If there are fewer than two games, or one half has no same or no different pairs.
        DependencyNotInstalled: If ROUGE or the encoder needs a library that is not installed.
    """
    if not 0 < precision <= 1:
        raise InvalidConfigError(f"Expected `precision` in (0, 1], actual: {precision}.")
    one_of("`gap`", gap, DISTANCES)
    if pairs_per_perturbation < 1:
        raise InvalidConfigError(f"Expected `pairs_per_perturbation` of at least 1, actual: {pairs_per_perturbation}.")
    dataset = TransitionDataset(transitions)
    if len(dataset.games) < 2:
        raise NoPairsError(f"Expected transitions of at least 2 games, actual: {len(dataset.games)}. Record more.")
    halves = dataset.split_by_game(0.5, seed)
    reward = GapReward(encoder, measures={transition.role: {"gap": gap} for transition in dataset})
    fit, check = (
        _Distances(half, reward, seed, pairs_per_perturbation, perturbations, DISTANCES[gap].fixed) for half in halves
    )
    threshold, reached = _choose(fit, precision, DISTANCES[gap])
    fit_precision, fit_recall = fit.precision_recall(threshold)
    check_precision, check_recall = check.precision_recall(threshold)
    made = tuple(
        PerturbedPairs(
            name=name,
            same=name in perturbations.same,
            fit_pairs=len(fit.by_perturbation[name]),
            pairs=len(distances),
            median_distance=float(np.median(distances)) if len(distances) else float("nan"),
            share_below=float(np.mean(distances < threshold)) if len(distances) else float("nan"),
        )
        for name, distances in check.by_perturbation.items()
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
        perturbations=made,
        fit_games=len(halves[0].games),
        games=len(halves[1].games),
        transitions=len(dataset),
        seed=seed,
        gap=gap,
        curve=check.curve(),
        unit=unit_of(dataset.games),
    )
    if not reached:
        warnings.warn(calibration.advice, stacklevel=2)
    return calibration


def calibrate_by_role(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    gaps: Mapping[str, GapName],
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 150,
) -> dict[str, Calibration | NoPairsError]:
    """Choose a threshold for every message role (`Transition.role`), with the gap of that role.

    Tool results (`"tool"`) are rewritten and falsified as data, all others as text. Use the thresholds as
    `GapReward(measures={role: calibration.measure, …})`. Errors are those of `calibrate`, except for too little data.

    Args:
        transitions: Recorded transitions.
        encoder: See `encoders.cached.make_encoder`.
        gaps: The gap of each role; the cosine for a role that is not named.
        precision: See `calibrate`.
        seed: See `calibrate`.
        pairs_per_perturbation: See `calibrate`.

    Returns:
        The calibration of every role that occurs, in alphabetical order. A role with too little data has the error in
        its place: one with fewer than 10 distinct states (a scripted user has two), or as raised by `calibrate`.
    """
    groups: dict[str, list[Transition]] = defaultdict(list)
    for transition in transitions:
        groups[transition.role].append(transition)
    return {
        role: _calibrated(groups[role], encoder, precision, seed, pairs_per_perturbation, gaps.get(role, "cosine"))
        for role in sorted(groups)
    }


def calibrate_by_action(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    gap: GapName = "cosine",
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 150,
) -> dict[str, Calibration | NoPairsError]:
    """Choose a threshold for every type of action (`predictability.type_of`).

    A reward has one threshold per message role, not per type of action. If the thresholds differ, do not trust the
    reward of the common threshold. Arguments and errors are those of `calibrate`.

    Returns:
        As for `calibrate_by_role`, by type of action, the most frequent first.
    """
    groups: dict[str, list[Transition]] = defaultdict(list)
    for transition in transitions:
        groups[type_of(transition)].append(transition)
    frequent = sorted(groups, key=lambda name: (-len(groups[name]), name))
    return {name: _calibrated(groups[name], encoder, precision, seed, pairs_per_perturbation, gap) for name in frequent}


def _calibrated(
    chosen: Sequence[Transition],
    encoder: EncoderLike,
    precision: float,
    seed: int,
    pairs_per_perturbation: int,
    gap: GapName,
) -> Calibration | NoPairsError:
    distinct = len({transition.next_state for transition in chosen})
    if distinct < _MIN_STATES:
        return NoPairsError(
            f"Expected at least {_MIN_STATES} distinct states, actual: {distinct}. Record a richer environment."
        )
    try:
        return calibrate(chosen, encoder, precision, seed, pairs_per_perturbation, gap, perturbations_for(chosen))
    except NoPairsError as error:  # a result, which the caller judges
        return error


class _Distances:
    """The distances of the pairs of one half of the games, by perturbation."""

    def __init__(
        self,
        half: TransitionDataset,
        gap: GapReward,
        seed: int,
        pairs_per_perturbation: int,
        perturbations: Perturbations,
        exact: bool,
    ):
        self._empty = float(exact)  # equal texts are the same state, even if no pair is rewarded
        self._same, self._different = perturbations.same, perturbations.different
        rng = np.random.default_rng(seed)
        # Each distinct state once, because "Nothing happens." would otherwise dominate a random walk.
        states = list({t.next_state: t for t in half if t.next_state.strip()}.values())
        pool = Pool(half)
        pairs = {
            name: _pairs(perturb, states, pool, rng, pairs_per_perturbation)
            for name, perturb in {**self._same, **self._different}.items()
        }
        for group, says in ((self._same, "the same"), (self._different, "something else")):
            if not any(pairs[name] for name in group):
                raise NoPairsError(
                    f"Expected states that can be made to say {says}, actual: none in {len(states)} distinct states "
                    f"of {len(half.games)} games. Record more games."
                )
        flat = [pair for made in pairs.values() for pair in made]
        scored = gap([text for text, _ in flat], [of.next_state for _, of in flat], [of.role for _, of in flat])
        ends = np.cumsum([len(made) for made in pairs.values()])[:-1]
        self.by_perturbation: dict[str, np.ndarray] = dict(zip(pairs, np.split(scored.distances, ends), strict=True))

    def precision_recall(self, threshold: float) -> tuple[float, float]:
        """Return balanced precision and recall; a threshold that rewards nothing has precision 0, or 1 if exact."""
        recall, false = self._share_below(self._same, threshold), self._share_below(self._different, threshold)
        return (recall / (recall + false) if recall + false > 0 else self._empty), recall

    def curve(self) -> tuple[tuple[float, float, float], ...]:
        """Return precision and recall over the thresholds at which they change, for at most 100 thresholds."""
        distances = np.unique(np.concatenate(list(self.by_perturbation.values())))
        chosen = distances[np.unique(np.linspace(0, len(distances) - 1, _CURVE_POINTS).astype(int))]
        return tuple((float(d), *self.precision_recall(d)) for d in np.nextafter(chosen, np.inf))

    def _share_below(self, group: Mapping[str, Perturbation], threshold: float) -> float:
        found = [self.by_perturbation[name] for name in group if len(self.by_perturbation[name])]
        return float(np.mean([np.mean(distances < threshold) for distances in found]))


def _pairs(
    perturb: Perturbation, states: list[Transition], pool: Pool, rng: np.random.Generator, limit: int
) -> list[tuple[str, Transition]]:
    """Make at most `limit` pairs of a perturbed text and its transition, for randomly chosen states."""
    pairs: list[tuple[str, Transition]] = []
    for index in rng.permutation(len(states)):
        text = perturb(states[index], pool, rng)
        if text.strip() and text != states[index].next_state:
            pairs.append((text, states[index]))
            if len(pairs) == limit:
                break
    return pairs


def _choose(fit: _Distances, precision: float, distance: Distance) -> tuple[float, bool]:
    """Return the threshold, and whether it reaches the precision."""
    distances = np.unique(np.concatenate(list(fit.by_perturbation.values())))
    # Half-way between neighbours, so that float noise cannot move a pair across the threshold.
    candidates = np.append((distances[1:] + distances[:-1]) / 2, min(distances[-1] + 1e-3, distance.maximum))
    if distance.fixed:
        candidates = np.array([distance.threshold])
    scores = [(float(candidate), *fit.precision_recall(candidate)) for candidate in candidates]
    good = [score for score in scores if score[1] >= precision]
    if good:
        return max(good, key=lambda score: (score[2], -score[0]))[0], True
    useful = [score for score in scores if score[2] >= _LOW_RECALL] or scores
    best = max(score[1] for score in useful)
    return max((s for s in useful if s[1] >= best - _NEARLY), key=lambda score: (score[2], -score[0]))[0], False
