"""What answers without a world model earn: what a reward pays for nothing, and what it pays for a leak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rwml_gym.diagnostics.predictability import nearest_elsewhere
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges

__all__ = ["BASELINES", "baseline_answers", "choose", "rewards_of_answers"]

BASELINES = {
    "nothing said": "an empty answer",
    "best constant": "the one answer that earns most in the other games",
    "nothing changes": "the last observation again",
    "words of the state": "words of state and action, the world's most frequent first",
    "most frequent": "what followed the same action, or type of action, most often in the other games",
    "nearest elsewhere": "the most similar answer of any other game, chosen with the truth in hand",
    "shuffled truth": "the truth's words in random order: what a leak would pay",
}
"""Every baseline and what it answers."""

# Constant answers that are tried, the most frequent outcomes first.
_CONSTANTS = 40


def baseline_answers(
    fit: Sequence[Transition],
    chosen: Sequence[Transition],
    said: Sequence[Transition],
    score: GapReward,
    rng: np.random.Generator,
) -> dict[str, list[str]]:
    """The answer of each baseline to each transition.

    Args:
        fit: What constants and frequencies are taken from; no game of it is among the others.
        chosen: n transitions.
        said: Where the nearest answer of another game is looked for.
        score: The reward, by which the constant is chosen.
        rng: Shuffles.

    Returns:
        n answers by the baseline's name.
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
        "shuffled truth": [_shuffled(t.next_state, rng) for t in chosen],
    }


def _bag(text: str, counts: Counter[str]) -> str:
    """The distinct words, those first that the world says most often."""
    return " ".join(sorted(dict.fromkeys(text.split()), key=lambda word: -counts[word]))


def _shuffled(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    # Two words in another order are still nearly the sentence: nothing is said in their place.
    return " ".join(str(word) for word in rng.permutation(words)) if len(words) > 2 else ""


def choose(data: Sequence[Transition], limit: int, rng: np.random.Generator) -> list[Transition]:
    """At most `limit` random transitions, in their order."""
    return [data[i] for i in sorted(rng.permutation(len(data))[:limit])]


def rewards_of_answers(score: GapReward, answers: Sequence[str], of: Sequence[Transition]) -> np.ndarray:
    """(n,) rewards of n answers to n transitions."""
    return score(answers, [t.next_state for t in of], [t.role for t in of]).rewards
