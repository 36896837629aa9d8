"""The labelled pairs of a calibration, their distances, and how many of them a distance ranks the wrong way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwml_gym.diagnostics.perturbations.by_role import perturbations_for
from rwml_gym.diagnostics.perturbations.ranking import RANKINGS, Ranking
from rwml_gym.diagnostics.perturbations.text import Perturbation, Perturbations, Pool
from rwml_gym.encoders.cached import EncoderLike
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import TOOL_ROLE, GapName
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.views import ViewName, in_view
from rwml_gym.transitions import Transition, TransitionDataset

__all__ = [
    "NoPairsError",
    "PairDistances",
    "RankedPairs",
    "distinct_states",
    "measures_for",
    "pair_distances",
    "ranked",
]

_CURVE_POINTS = 100


class NoPairsError(InvalidConfigError):
    """There is too little data for a threshold: too few games, or no pairs of the same or of different states."""


class PairDistances:
    """The distances of the pairs of some games, by perturbation.

    The pairs follow from the transitions and the seed alone, so several distances can be compared on the same pairs.

    Attributes:
        by_perturbation: The distances of the pairs of each perturbation.
    """

    def __init__(
        self,
        transitions: TransitionDataset,
        gap: GapReward,
        seed: int,
        pairs_per_perturbation: int,
        perturbations: Perturbations,
        exact: bool = False,
    ):
        """Make the pairs and measure them.

        Args:
            transitions: The transitions.
            gap: The reward whose distances are measured.
            seed: Seed of the choice of states and of the pairs.
            pairs_per_perturbation: Maximal number of pairs per perturbation.
            perturbations: How states are reworded and falsified.
            exact: Whether only equal texts have the distance 0, and are the same state even if no pair is rewarded.

        Raises:
            NoPairsError: If there are no pairs of the same or of different states.
        """
        self._empty = float(exact)
        self._same, self._different = perturbations.same, perturbations.different
        rng = np.random.default_rng(seed)
        states, pool = distinct_states(transitions), Pool(transitions)
        pairs = {
            name: _pairs(perturb, states, pool, rng, pairs_per_perturbation)
            for name, perturb in {**self._same, **self._different}.items()
        }
        for group, says in ((self._same, "the same"), (self._different, "something else")):
            if not any(pairs[name] for name in group):
                raise NoPairsError(
                    f"Expected states that can be made to say {says}, actual: none in {len(states)} distinct states "
                    f"of {len(transitions.games)} games. Record more games."
                )
        flat = [pair for made in pairs.values() for pair in made]
        scored = gap([text for text, _ in flat], [of.next_state for _, of in flat], [of.role for _, of in flat])
        ends = np.cumsum([len(made) for made in pairs.values()])[:-1]
        self.by_perturbation: dict[str, np.ndarray] = dict(zip(pairs, np.split(scored.distances, ends), strict=True))

    @property
    def all(self) -> np.ndarray:
        """The distances of all pairs; the same pair has the same place whatever the distance."""
        return np.concatenate(list(self.by_perturbation.values()))

    def precision_recall(self, threshold: float) -> tuple[float, float]:
        """Return balanced precision and recall; a threshold that rewards nothing has precision 0, or 1 if exact."""
        recall, false = self._share_below(self._same, threshold), self._share_below(self._different, threshold)
        return (recall / (recall + false) if recall + false > 0 else self._empty), recall

    def curve(self) -> tuple[tuple[float, float, float], ...]:
        """Return precision and recall over the thresholds at which they change, for at most 100 thresholds."""
        distances = np.unique(self.all)
        chosen = distances[np.unique(np.linspace(0, len(distances) - 1, _CURVE_POINTS).astype(int))]
        return tuple((float(d), *self.precision_recall(d)) for d in np.nextafter(chosen, np.inf))

    def _share_below(self, group: Mapping[str, Perturbation], threshold: float) -> float:
        found = [self.by_perturbation[name] for name in group if len(self.by_perturbation[name])]
        return float(np.mean([np.mean(distances < threshold) for distances in found]))


@dataclass(frozen=True)
class RankedPairs:
    """How a distance ranks two texts about the same state, see `perturbations.ranking`.

    Attributes:
        name: Name of the ranking: its worse and its better text.
        states: Number of states that both texts exist for.
        wrong_way: Share of the states for which the worse text is nearer than the better one; ties count half.
        worse: Median distance of the worse text, and the share below the threshold.
        better: The same of the better text.
    """

    name: str
    states: int
    wrong_way: float
    worse: tuple[float, float]
    better: tuple[float, float]


def ranked(
    transitions: TransitionDataset, gap: GapReward, threshold: float, seed: int, limit: int
) -> tuple[RankedPairs, ...]:
    """Measure every ranking that some states have both texts for.

    Args:
        transitions: The transitions.
        gap: The reward whose distances are measured.
        threshold: τ_d.
        seed: Seed of the choice of states and of the texts.
        limit: Maximal number of states per ranking.
    """
    states, pool = distinct_states(transitions), Pool(transitions)
    found = []
    for name, ranking in RANKINGS.items():
        chosen = _both(ranking, states, pool, np.random.default_rng(seed), limit)
        if not chosen:
            continue
        of = [state for state, _, _ in chosen]
        worse, better = (
            gap([made[place] for made in chosen], [t.next_state for t in of], [t.role for t in of]).distances
            for place in (1, 2)
        )
        found.append(
            RankedPairs(
                name,
                len(chosen),
                float(np.mean((worse < better) + 0.5 * (worse == better))),
                (float(np.median(worse)), float(np.mean(worse < threshold))),
                (float(np.median(better)), float(np.mean(better < threshold))),
            )
        )
    return tuple(found)


def measures_for(transitions: Sequence[Transition], gap: GapName, view: ViewName = "raw") -> dict[str, dict[str, Any]]:
    """Return one gap for all message roles as `GapReward(measures=…)` takes it; the view is for results of tools."""
    return {t.role: {"gap": gap, "view": view if t.role == TOOL_ROLE else "raw"} for t in transitions}


def pair_distances(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    gap: GapName = "cosine",
    view: ViewName = "raw",
    seed: int = 0,
    pairs: int = 150,
) -> np.ndarray:
    """Return the distances of all labelled pairs, in an order that is the same for every encoder and gap."""
    viewed = TransitionDataset(in_view(transitions, view))
    reward = GapReward(encoder, measures=measures_for(viewed, gap, view))
    return PairDistances(viewed, reward, seed, pairs, perturbations_for(viewed, view)).all


def distinct_states(transitions: Sequence[Transition]) -> list[Transition]:
    """Return a transition for each distinct state, as "Nothing happens." would otherwise dominate a random walk."""
    return list({t.next_state: t for t in transitions if t.next_state.strip()}.values())


def _pairs(
    perturb: Perturbation, states: list[Transition], pool: Pool, rng: np.random.Generator, limit: int
) -> list[tuple[str, Transition]]:
    """Make at most `limit` pairs of a perturbed text and its transition, for randomly chosen states."""
    pairs: list[tuple[str, Transition]] = []
    for index in rng.permutation(len(states)):
        text = perturb(states[index], pool, rng)
        if _changed(text, states[index]):
            pairs.append((text, states[index]))
            if len(pairs) == limit:
                break
    return pairs


def _both(
    ranking: Ranking, states: list[Transition], pool: Pool, rng: np.random.Generator, limit: int
) -> list[tuple[Transition, str, str]]:
    """Make at most `limit` triples of a transition, its worse and its better text."""
    found: list[tuple[Transition, str, str]] = []
    for index in rng.permutation(len(states)):
        state = states[index]
        worse, better = ranking.worse(state, pool, rng), ranking.better(state, pool, rng)
        if _changed(worse, state) and _changed(better, state):
            found.append((state, worse, better))
            if len(found) == limit:
                break
    return found


def _changed(text: str, state: Transition) -> bool:
    return bool(text.strip()) and text != state.next_state
