"""Pairs of falsehoods, or of a falsehood and a paraphrase, of which one must be farther from the truth than the other.

A threshold asks whether right and wrong texts can be separated at all. These pairs ask of a single state whether a
distance ranks two texts about it the right way. Similarity is known to fail here: dropping the object that matters can
score higher than dropping a bystander (arXiv 2604.13824).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from rwml_gym.diagnostics.perturbations.paraphrase import paraphrased
from rwml_gym.diagnostics.perturbations.text import DIFFERENT, Perturbation, Pool, left_out, listed
from rwml_gym.transitions import Transition

__all__ = ["RANKINGS", "Ranking", "needed"]


@dataclass(frozen=True)
class Ranking:
    """Two texts about the same state, in the order in which a distance must put them.

    Attributes:
        worse: Makes the text that must be farther from the state.
        better: Makes the text that must be nearer.
    """

    worse: Perturbation
    better: Perturbation


def needed(item: str, task: str) -> bool:
    """Return whether a task needs a thing: whether it names the thing's type (`a mug 2` and `put a clean mug in …`)."""
    types = re.findall(r"([^\W\d_]+) \d+", item.lower())
    return any(re.search(rf"\b{re.escape(name)}s?\b", task.lower()) for name in types)


def _left_out(wanted: bool) -> Perturbation:
    """Leave out one thing that the task needs, or one that it does not, of a list that holds both."""

    def perturb(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
        items = listed(transition.next_state)
        chosen = [item for item in items if needed(item, transition.task) == wanted]
        if not chosen or len(chosen) == len(items):
            return transition.next_state
        return left_out(transition.next_state, chosen[rng.integers(len(chosen))])

    return perturb


def _wrong_entity(transition: Transition, pool: Pool, rng: np.random.Generator) -> str:
    """One thing under another number, or another thing under its number."""
    number, thing = (DIFFERENT[rule](transition, pool, rng) for rule in ("other number", "other thing"))
    return number if rng.random() < 0.5 or thing == transition.next_state else thing


RANKINGS: dict[str, Ranking] = {
    "task's object left out / a bystander left out": Ranking(_left_out(True), _left_out(False)),
    "one wrong entity / paraphrase by template": Ranking(
        _wrong_entity, lambda transition, pool, rng: paraphrased(transition.next_state)
    ),
}
"""Every ranking, named after its worse and its better text."""
