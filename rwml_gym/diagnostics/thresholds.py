"""Three ways to choose τ_d, besides giving it.

- `precision` (`calibration.calibrate`): the largest recall at a target precision, on labelled pairs. It needs no model.
- `paper` (`paper_thresholds`): how the authors choose theirs (arXiv 2602.05842, table A2): for the filter the τ_d at
  which about 30 % of the triplets are easy for a fine-tuned copy of the model, for training 0.15 more, rounded to 0.2.
- `quantile` (`carried_threshold`): an encoder's 0.2 is another one's 0.05, so that a threshold is carried over by the
  share of pairs below it.

None is right by itself: `calibrate(…, threshold=…)` measures what a threshold lets pass, however it was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from rwml_gym.diagnostics.calibration_pairs import NoPairsError
from rwml_gym.encoders.cached import EncoderLike, make_encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, TransitionDataset
from rwml_gym.world_models.retrieval import RetrievalWorldModel

__all__ = [
    "EASY_SHARE",
    "MAX_SENSIBLE",
    "Choice",
    "attempts_by_retrieval",
    "carried_threshold",
    "paper_thresholds",
    "share_easy",
    "too_lax",
    "training_threshold",
]

Choice = Literal["precision", "paper", "quantile"]
"""How a threshold is chosen."""

EASY_SHARE = 0.3
"""Share of the triplets that are easy at the filter's τ_d: "about 30 %" in the paper."""

MARGIN, STEP = 0.15, 0.2
"""What the paper adds for training, and what it rounds to."""

MAX_SENSIBLE = 0.5
"""Above it a threshold "encourages generic next-state descriptions", says the paper."""

# Half-way between two distances beyond the last one, so that float noise moves no pair across the threshold.
_BEYOND = 1e-3


def paper_thresholds(
    distances: np.ndarray, easy_rate: float = 0.9, easy_share: float = EASY_SHARE
) -> tuple[float, float]:
    """Choose the filter's and the training τ_d from attempts, as the paper does.

    A triplet is easy at τ_d if the share of its attempts with d < τ_d is at least `easy_rate`, so each triplet has a
    distance above which it is easy: the m-th smallest of its K, with m = `easy_rate` · K rounded up, and at least 1.
    The filter's τ_d is half-way between the two of these distances that separate the wanted share of the triplets.

    Args:
        distances: `(T, K)` distances of K attempts at each of T triplets, by a model fine-tuned on others.
        easy_rate: Pass rate from which a triplet is easy. 0, the paper's τ_easy taken literally, asks for one right
            attempt; 0.9 reads "consistently achieve high reward".
        easy_share: Share of the triplets that are to be easy.

    Returns:
        The filter's τ_d, and the one for training, see `training_threshold`.

    Raises:
        InvalidConfigError: If there are no attempts, they are not finite, or an argument is out of range.

    >>> paper_thresholds(np.array([[0.0, 0.04], [0.1, 0.16], [0.3, 0.2]]), easy_rate=1.0)
    (0.1, 0.2)
    """
    distances = np.asarray(distances, dtype=np.float64)
    if distances.ndim != 2 or not distances.size or not np.isfinite(distances).all():
        raise InvalidConfigError(
            f"Expected finite distances of K attempts at T triplets, both at least 1, actual: shape {distances.shape}."
        )
    if not (0 <= easy_rate <= 1 and 0 < easy_share < 1):
        raise InvalidConfigError(
            f"Expected `easy_rate` in [0, 1] and `easy_share` between 0 and 1, actual: {easy_rate} and {easy_share}."
        )
    easy_from = _easy_from(distances, easy_rate)
    threshold = _above(easy_from, max(1, round(easy_share * len(easy_from))))
    return threshold, training_threshold(threshold)


def share_easy(distances: np.ndarray, threshold: float, easy_rate: float = 0.9) -> float:
    """Return the share of triplets that are easy at a threshold, see `paper_thresholds`.

    It is above the wanted share where many distances are equal, because then no threshold separates them.

    >>> share_easy(np.array([[0.0, 0.04], [0.1, 0.16], [0.3, 0.2]]), 0.1, easy_rate=1.0)
    0.3333333333333333
    """
    return float(np.mean(_easy_from(np.asarray(distances, dtype=np.float64), easy_rate) < threshold))


def _easy_from(distances: np.ndarray, easy_rate: float) -> np.ndarray:
    """Return the distances above which the triplets are easy, in ascending order."""
    needed = max(1, math.ceil(round(easy_rate * distances.shape[1], 9)))
    return np.asarray(np.sort(np.sort(distances, axis=1)[:, needed - 1]))


def training_threshold(filter_threshold: float) -> float:
    """Return the paper's τ_d for training: 0.15 above the filter's, rounded to the nearest 0.2, halves up.

    Both of the paper's pairs follow: 0.1 and 0.2 (ALFWorld), 0.15 and 0.4 (τ²-bench, half-way between 0.2 and 0.4).

    >>> training_threshold(0.1), training_threshold(0.15)
    (0.2, 0.4)
    """
    return round(math.floor(round((filter_threshold + MARGIN) / STEP, 9) + 0.5) * STEP, 9)


def too_lax(threshold: float) -> str:
    """Return a warning as the end of a sentence, if the paper's way led beyond what the paper uses; else no text."""
    if threshold <= MAX_SENSIBLE:
        return ""
    return (
        f"; {threshold:.4g} is above {MAX_SENSIBLE}, where generic predictions are rewarded: too few attempts come "
        "near, so make better ones, or choose otherwise"
    )


def carried_threshold(threshold: float, source: np.ndarray, target: np.ndarray) -> float:
    """Carry a threshold from one encoder to another: below both is the same share of the same pairs.

    Args:
        threshold: τ_d of the first encoder.
        source: `(n,)` distances of n pairs with the first encoder.
        target: `(n,)` distances of the same pairs with the second.

    Returns:
        τ_d of the second encoder. If all pairs or none are below the first one's, it is beyond all distances.

    Raises:
        InvalidConfigError: If there are no pairs, or not as many of both.

    >>> carried_threshold(0.2, np.array([0.1, 0.3, 0.5]), np.array([0.02, 0.04, 0.3]))
    0.03
    """
    if len(source) != len(target) or not len(source):
        raise InvalidConfigError(
            f"Expected distances of the same pairs, at least 1, with both encoders, actual: {len(source)} and "
            f"{len(target)}."
        )
    return _above(np.sort(np.asarray(target, dtype=np.float64)), int(np.sum(np.asarray(source) < threshold)))


def attempts_by_retrieval(
    transitions: Sequence[Transition],
    gap: GapReward,
    encoder: EncoderLike = "hashing",
    attempts: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """Make attempts without a model, for `paper_thresholds`: each from a retrieval model that knows other tenths.

    The paper's attempts come from a copy of the model that was fine-tuned on a tenth of the triplets. Where there is no
    model, each attempt is that of a retrieval model that knows a random tenth of the transitions of half of the games;
    the triplets are those of the other half. A run with a model takes the model's attempts.

    Args:
        transitions: Recorded transitions of at least two games.
        gap: The reward whose distances are measured.
        encoder: Encoder by which the nearest transition is found.
        attempts: Attempts per triplet, K.
        seed: Seed of the split and of the tenths.

    Returns:
        Distances of shape (T, K).

    Raises:
        NoPairsError: If there are fewer than two games.
    """
    dataset = TransitionDataset(transitions)
    if len(dataset.games) < 2:
        raise NoPairsError(f"Expected transitions of at least 2 games, actual: {len(dataset.games)}. Record more.")
    known, tried = dataset.split_by_game(0.5, seed)
    rng, encode = np.random.default_rng(seed), make_encoder(encoder)
    columns = []
    for _ in range(attempts):
        tenth = [known[i] for i in rng.permutation(len(known))[: max(1, len(known) // 10)]]
        made = RetrievalWorldModel(tenth, encode).predict([t.history for t in tried], [t.action for t in tried])
        columns.append(gap(made, [t.next_state for t in tried], [t.role for t in tried]).distances)
    return np.stack(columns, axis=1)


def _above(ascending: np.ndarray, count: int) -> float:
    """Return a threshold above so many of the distances, half-way to the next one."""
    if count >= len(ascending):
        return float(ascending[-1]) + _BEYOND
    below = float(ascending[count - 1]) if count else 0.0
    # Equal distances cannot be separated: then the threshold is above all of them.
    later = ascending[ascending > below]
    return round((below + float(later[0])) / 2, 9) if len(later) else below + _BEYOND
