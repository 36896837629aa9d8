"""Answers without a world model, whose rewards show what a reward gives for nothing and for a leak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rwml_gym.diagnostics.perturbations.text import reshuffled
from rwml_gym.diagnostics.predictability import nearest_elsewhere
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges

__all__ = ["BASELINES", "baseline_answers", "choose", "rewards_of_answers"]

BASELINES = {
    "nothing said": "an empty answer",
    "best constant": "the one answer with the highest reward in the other games",
    "nothing changes": "the last observation again",
    "words of the state": "words of state and action, the most frequent of all first",
    "most frequent": "what followed the same action, or type of action, most often in the other games",
    "nearest elsewhere": "the answer of any other game that is most similar to the truth",
    "shuffled truth": "the truth's words in random order: the reward for a leak",
}
"""Every baseline and its answer."""

# Number of constant answers that are tried, the most frequent outcomes first.
_CONSTANTS = 40


def baseline_answers(
    fit: Sequence[Transition],
    chosen: Sequence[Transition],
    said: Sequence[Transition],
    score: GapReward,
    rng: np.random.Generator,
) -> dict[str, list[str]]:
    """Return the answer of each baseline to each transition.

    Args:
        fit: Transitions for constants and frequencies; their games do not occur in `chosen`.
        chosen: `n` transitions.
        said: Transitions among which the nearest answer of another game is sought.
        score: The reward, by which the constant is chosen.
        rng: Random generator for the shuffled answers.

    Returns:
        For each baseline, by name, `n` answers.
    """
    histories, actions = [t.history for t in chosen], [t.action for t in chosen]
    frequent = [state for state, _ in Counter(t.next_state for t in fit).most_common(_CONSTANTS)]
    trial = choose(fit, len(chosen), rng)
    constant = max(frequent, key=lambda state: float(rewards_of_answers(score, [state] * len(trial), trial).mean()))
    counts = Counter(word for t in fit for word in t.next_state.split())
    return {
        "nothing said": [""] * len(chosen),
        "best constant": [constant] * len(chosen),
        "nothing changes": NothingChanges().predict(histories, actions),
        "words of the state": [_bag(f"{t.state} {t.action}", counts) for t in chosen],
        "most frequent": MostFrequentOutcome(fit).predict(histories, actions),
        "nearest elsewhere": nearest_elsewhere(chosen, said),
        "shuffled truth": [reshuffled(t.next_state.split(), rng) for t in chosen],
    }


def _bag(text: str, counts: Counter[str]) -> str:
    """Return the distinct words, those first that are most frequent in observations."""
    return " ".join(sorted(dict.fromkeys(text.split()), key=lambda word: -counts[word]))


def choose(data: Sequence[Transition], limit: int, rng: np.random.Generator) -> list[Transition]:
    """Choose at most `limit` random transitions, in their original order."""
    return [data[i] for i in sorted(rng.permutation(len(data))[:limit])]


def rewards_of_answers(score: GapReward, answers: Sequence[str], of: Sequence[Transition]) -> np.ndarray:
    """Return the `(n,)` rewards of `n` answers to `n` transitions."""
    return score(answers, [t.next_state for t in of], [t.role for t in of]).rewards
