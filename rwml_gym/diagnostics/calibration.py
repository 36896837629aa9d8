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
from rwml_gym.diagnostics.calibration_pairs import NoPairsError, PairDistances, RankedPairs, measures_for, ranked
from rwml_gym.diagnostics.perturbations.by_role import perturbations_for
from rwml_gym.diagnostics.perturbations.text import Perturbations
from rwml_gym.diagnostics.predictability import type_of
from rwml_gym.encoders.cached import EncoderLike
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, TOOL_ROLE, Distance, GapName
from rwml_gym.reward.gap import GapReward, Measure
from rwml_gym.reward.views import ViewName, check_view, in_view, view_in_words
from rwml_gym.text import finite
from rwml_gym.transitions import Transition, TransitionDataset, unit_of

__all__ = [
    "Calibration",
    "NoPairsError",
    "PerturbedPairs",
    "calibrate",
    "calibrate_by_action",
    "calibrate_by_role",
    "ranking_line",
]

# Below this recall, a paraphrased right prediction is (almost) never rewarded, and the reader must know.
_LOW_RECALL = 0.2
# Fewer rewarded pairs say nothing about a precision.
_MIN_RECALL = 0.05
# Precisions closer than this are alike, as they are shares of some hundred pairs.
_NEARLY = 0.02
# A threshold chosen on fewer distinct states would not generalise to others.
_MIN_STATES = 10
_STEPPED = Measure(shape="stepped")


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
        stepped: Mean reward of the pairs if it is `1 - d` in steps, see `gap.Measure.reward`; NaN without pairs.
    """

    name: str
    same: bool
    fit_pairs: int
    pairs: int
    median_distance: float
    share_below: float
    stepped: float


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
        view: What of the results of tools was compared.
        chosen_by: How the threshold was chosen: `precision`, or what the caller says of a given one.
        rankings: Pairs of texts about the same state, of which one must be nearer, on the held-out games.
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
    view: ViewName = "raw"
    chosen_by: str = "precision"
    rankings: tuple[RankedPairs, ...] = ()

    @property
    def measure(self) -> dict[str, Any]:
        """The threshold as `GapReward(measures={role: …})` takes it."""
        return {"gap": self.gap, "threshold": self.threshold, **({} if self.view == "raw" else {"view": self.view})}

    @property
    def target(self) -> str:
        """The target precision, and whether it was reached: of a chosen threshold, where it was chosen."""
        if self.chosen_by != "precision":
            return (
                f"{self.target_precision:.2f} {'reached' if self.precision >= self.target_precision else 'NOT reached'}"
            )
        found = "reached" if self.reached else "NOT reached, at best"
        return f"{self.target_precision:.2f} {found} {self.fit_precision:.2f} on the {self.unit} that chose it"

    @property
    def advice(self) -> str:
        """Advice on the threshold; empty if there is no problem."""
        stronger = DISTANCES[self.gap].stronger
        if not self.reached and self.chosen_by != "precision":
            return (
                f"The threshold {self.threshold:.4g} ({self.chosen_by}) has a precision of {self.fit_precision:.2f} "
                f"for {self.name!r}, at a recall of {self.fit_recall:.2f}: {1 - self.fit_precision:.0%} of what it "
                "rewards is wrong."
            )
        if not self.reached:
            return (
                f"Expected a threshold with a precision of {self.target_precision:.2f} for {self.name!r}, actual: "
                f"about {self.fit_precision:.2f} at best, at a recall of {self.fit_recall:.2f}. "
                f"{1 - self.fit_precision:.0%} of what it rewards is wrong: use {stronger} before training."
            )
        if self.fit_recall < _LOW_RECALL:
            return (
                f"At a precision of {self.fit_precision:.2f} only {self.fit_recall:.0%} of the rewordings are rewarded "
                f"with {self.name!r}: a prediction must have nearly the exact words. Accept this if observations are "
                "templates; otherwise use a stronger encoder or a lower precision."
            )
        return ""

    @property
    def name(self) -> str:
        """The gap with its encoder and its view, for tables."""
        return DISTANCES[self.gap].called(self.encoder) + view_in_words(self.view)

    def table(self) -> str:
        """Return the calibration as text, with one line per perturbation."""
        lines = [
            f"{self.name}, threshold {self.threshold:.4f}: precision {self.precision:.3f}, "
            f"recall {self.recall:.3f} on {self.games} held-out {self.unit}",
            f"(on the {self.fit_games} {self.unit} that chose it: {self.fit_precision:.3f} and {self.fit_recall:.3f}; "
            f"target precision: {self.target_precision:.2f}, {'reached' if self.reached else 'NOT reached'}; "
            f"chosen by: {self.chosen_by}).",
            "",
            f"{'pairs that say':<16} {'made by':<32} {'pairs':>6} {'median d':>9} {'below':>7} {'stepped':>8}",
        ]
        for made in self.perturbations:
            says = "the same" if made.same else "other things"
            values = (f"{made.median_distance:.3f}", f"{made.share_below:.1%}", f"{made.stepped:.2f}")
            distance, below, stepped = values if made.pairs else ("-",) * 3
            lines.append(f"{says:<16} {made.name:<32} {made.pairs:>6} {distance:>9} {below:>7} {stepped:>8}")
        lines += [""] * bool(self.rankings) + [ranking_line(ranking) for ranking in self.rankings]
        return "\n".join([*lines, *(["", self.advice] if self.advice else [])])

    def to_json(self) -> str:
        """Return the calibration as JSON, without its curve; NaN becomes null."""
        values = {name: value for name, value in asdict(self).items() if name != "curve"}
        return json.dumps(finite(values), ensure_ascii=False, indent=2)


def calibrate(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 150,
    gap: GapName = "cosine",
    perturbations: Perturbations | None = None,
    *,
    view: ViewName = "raw",
    threshold: float | None = None,
    chosen_by: str = "given",
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

    A precision counts as reached where at least 5 % of the rewordings are rewarded. If no threshold reaches it, a
    warning says so. Then, of the thresholds that reward at least a fifth of the rewordings and are within 0.02 of the
    most precise of these, the result has the largest recall.

    Args:
        transitions: Recorded transitions of at least two games.
        encoder: See `encoders.cached.make_encoder`.
        precision: Target share of right predictions among the rewarded ones, in `(0, 1]`.
        seed: Seed of the split, the choice of states and the pairs.
        pairs_per_perturbation: Maximal number of pairs per perturbation in each half.
        gap: A name in `distances.DISTANCES`.
        perturbations: How states are reworded and falsified; `perturbations.by_role.perturbations_for` if absent.
        view: What of the results of tools is compared, a name in `views.VIEWS`.
        threshold: A threshold that is measured, on both halves, in place of choosing one.
        chosen_by: How that threshold was chosen, for tables; see `thresholds`.

    Raises:
        InvalidConfigError: If an argument is out of range, or there are no results of tools for the view.
        NoPairsError: If there are fewer than two games, or one half has no same or no different pairs.
        DependencyNotInstalled: If ROUGE or the encoder needs a library that is not installed.
    """
    if not 0 < precision <= 1:
        raise InvalidConfigError(f"Expected `precision` in (0, 1], actual: {precision}.")
    one_of("`gap`", gap, DISTANCES)
    if pairs_per_perturbation < 1:
        raise InvalidConfigError(f"Expected `pairs_per_perturbation` of at least 1, actual: {pairs_per_perturbation}.")
    if threshold is not None:
        Measure(gap, threshold)  # rejects a value out of range before anything is encoded
    check_view(transitions, view)
    dataset = TransitionDataset(in_view(transitions, view))
    if len(dataset.games) < 2:
        raise NoPairsError(f"Expected transitions of at least 2 games, actual: {len(dataset.games)}. Record more.")
    rules = perturbations or perturbations_for(dataset, view)
    halves = dataset.split_by_game(0.5, seed)
    reward = GapReward(encoder, measures=measures_for(dataset, gap, view))
    fit, check = (
        PairDistances(half, reward, seed, pairs_per_perturbation, rules, DISTANCES[gap].fixed) for half in halves
    )
    if threshold is None:
        chosen_by = "precision"
        threshold, reached = _choose(fit, precision, DISTANCES[gap])
    else:
        reached = fit.precision_recall(threshold)[0] >= precision
    fit_precision, fit_recall = fit.precision_recall(threshold)
    check_precision, check_recall = check.precision_recall(threshold)
    made = tuple(
        PerturbedPairs(
            name=name,
            same=name in rules.same,
            fit_pairs=len(fit.by_perturbation[name]),
            pairs=len(distances),
            median_distance=float(np.median(distances)) if len(distances) else float("nan"),
            share_below=float(np.mean(distances < threshold)) if len(distances) else float("nan"),
            stepped=float(np.mean([_STEPPED.reward(d) for d in distances])) if len(distances) else float("nan"),
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
        view=view,
        chosen_by=chosen_by,
        rankings=ranked(halves[1], reward, threshold, seed, pairs_per_perturbation),
    )
    if not reached and chosen_by == "precision":
        warnings.warn(calibration.advice, stacklevel=2)
    return calibration


def calibrate_by_role(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    gaps: Mapping[str, GapName],
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 150,
    **options: Any,
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
        **options: Further arguments of `calibrate`; a view is for results of tools only.

    Returns:
        The calibration of every role that occurs, in alphabetical order. A role with too little data has the error in
        its place: one with fewer than 10 distinct states (a scripted user has two), or as raised by `calibrate`.
    """
    groups: dict[str, list[Transition]] = defaultdict(list)
    for transition in transitions:
        groups[transition.role].append(transition)
    return {
        role: _calibrated(
            groups[role], encoder, precision, seed, pairs_per_perturbation, gaps.get(role, "cosine"), options
        )
        for role in sorted(groups)
    }


def calibrate_by_action(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    gap: GapName = "cosine",
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 150,
    **options: Any,
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
    return {
        name: _calibrated(groups[name], encoder, precision, seed, pairs_per_perturbation, gap, options)
        for name in frequent
    }


def _calibrated(
    chosen: Sequence[Transition],
    encoder: EncoderLike,
    precision: float,
    seed: int,
    pairs_per_perturbation: int,
    gap: GapName,
    options: Mapping[str, Any],
) -> Calibration | NoPairsError:
    if all(transition.role != TOOL_ROLE for transition in chosen):
        options = {**options, "view": "raw"}
    viewed = in_view(chosen, options.get("view", "raw"))
    distinct = len({transition.next_state for transition in viewed})
    if distinct < _MIN_STATES:
        return NoPairsError(
            f"Expected at least {_MIN_STATES} distinct states, actual: {distinct}. Record a richer environment."
        )
    try:
        return calibrate(chosen, encoder, precision, seed, pairs_per_perturbation, gap, **options)
    except NoPairsError as error:  # a result, which the caller judges
        return error


def ranking_line(ranking: RankedPairs) -> str:
    """Return a ranking as a line of a table."""
    return (
        f"ranked the wrong way: {ranking.wrong_way:.0%} of {ranking.states} states, {ranking.name} (median d "
        f"{ranking.worse[0]:.3f} and {ranking.better[0]:.3f}; below: {ranking.worse[1]:.0%} and "
        f"{ranking.better[1]:.0%})"
    )


def _choose(fit: PairDistances, precision: float, distance: Distance) -> tuple[float, bool]:
    """Return the threshold, and whether it reaches the precision."""
    distances = np.unique(fit.all)
    # Half-way between neighbours, so that float noise cannot move a pair across the threshold.
    candidates = np.append((distances[1:] + distances[:-1]) / 2, min(distances[-1] + 1e-3, distance.maximum))
    if distance.fixed:
        candidates = np.array([distance.threshold])
    scores = [(float(candidate), *fit.precision_recall(candidate)) for candidate in candidates]
    least = 0.0 if distance.fixed else _MIN_RECALL
    good = [score for score in scores if score[1] >= precision and score[2] >= least]
    if good:
        return max(good, key=lambda score: (score[2], -score[0]))[0], True
    useful = [score for score in scores if score[2] >= _LOW_RECALL] or scores
    best = max(score[1] for score in useful)
    return max((s for s in useful if s[1] >= best - _NEARLY), key=lambda score: (score[2], -score[0]))[0], False
