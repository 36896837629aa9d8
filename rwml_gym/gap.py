"""The gap between a predicted and the realised next state, and the reward for closing it.

With a frozen encoder E, the predicted state ŝ and the realised state s (RWML, arXiv 2602.05842)::

    d(ŝ, s)    = 1 - cos(E(ŝ), E(s))
    r_WM(ŝ, s) = 1 if d(ŝ, s) < τ_d else 0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from rwml_gym.embedding import DEFAULT_ENCODER, Encoder, make_encoder
from rwml_gym.errors import InvalidConfigError

__all__ = ["DEFAULT_THRESHOLD", "GapReward", "Gaps", "RewardKind"]

RewardKind = Literal["binary", "continuous"]

DEFAULT_THRESHOLD = 0.015
"""τ_d for all-MiniLM-L6-v2 on ALFWorld: `calibrate(…, precision=0.9)` on 60 games of a random player.

Measured 0.0147 and 0.0158 on generated games (two ways of playing) and 0.0154 on official ones, with a precision of
0.88 to 0.90 and a recall of 0.38 to 0.44 on games it was not chosen on; `pytest -m slow -s tests/test_calibration.py`
measures it again. What slips through are other numbers ("drawer 3" for "drawer 2") and opposite states ("open" for
"closed"): about a quarter and a fifth of them lie below. At a precision of 0.8 the threshold is 0.06 to 0.09 and the
recall 0.8 to 0.9. None of this holds for another encoder or world: calibrate there.
"""

# Float noise of an encoder, which depends on the texts that shared a batch, stays well below the sixth decimal.
_DECIMALS = 6


@dataclass(frozen=True)
class Gaps:
    """What `GapReward` computed for `n` predictions.

    Attributes:
        distances: float64 array of shape `(n,)`, in `[0, 2]`; 1 for a missing or blank prediction.
        rewards: float64 array of shape `(n,)`, in `[0, 1]`; 0 for a missing or blank prediction.
    """

    distances: np.ndarray
    rewards: np.ndarray


class GapReward:
    """Rewards predictions of the next state by their distance to the realised one.

    Binary is the paper's reward. Continuous is `1 - d`, not below 0: otherwise saying nothing, which earns 0, would
    beat a prediction that points away from the truth.

    A missing or blank prediction earns 0 whatever the threshold. Its distance is 1: a blank text is the zero vector,
    whose cosine with everything is 0. The same holds for a blank realised state, so nothing can be earned from it.

    >>> gap = GapReward("hashing", threshold=0.1)
    >>> gap(["The fridge 1 is open.", "Nothing happens.", None], ["The fridge 1 is open."] * 3).rewards.tolist()
    [1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] = DEFAULT_ENCODER,
        threshold: float = DEFAULT_THRESHOLD,
        kind: RewardKind = "binary",
    ):
        """Load the encoder.

        Args:
            encoder: See `embedding.make_encoder`.
            threshold: τ_d, in `(0, 2]`; the reward is for distances strictly below it. Unused by the continuous kind.
            kind: `"binary"` or `"continuous"`.

        Raises:
            InvalidConfigError: If `threshold` or `kind` is out of range.
            DependencyNotInstalled: If the encoder needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        if kind not in get_args(RewardKind):
            raise InvalidConfigError(f"Expected `kind` to be one of {get_args(RewardKind)}, actual: {kind!r}.")
        if not (math.isfinite(threshold) and 0 < threshold <= 2):
            raise InvalidConfigError(
                f"Expected `threshold` in (0, 2], the range of 1 - cos, actual: {threshold}. "
                "Measure it with `rwml_gym.calibration.calibrate`."
            )
        self.threshold = float(threshold)
        self.kind: RewardKind = kind
        self.encoder = make_encoder(encoder)

    def __call__(self, predictions: Sequence[str | None], next_states: Sequence[str]) -> Gaps:
        """Score predictions against the realised states, in one encoder call.

        Args:
            predictions: `n` predicted next states, `None` where there is none.
            next_states: `n` realised next states.

        Returns:
            Distances and rewards.

        Raises:
            InvalidConfigError: If the lengths differ.
        """
        n = len(predictions)
        if len(next_states) != n:
            raise InvalidConfigError(f"Expected as many next states as predictions ({n}), actual: {len(next_states)}.")
        texts = [prediction or "" for prediction in predictions]
        vectors = self.encoder.encode([*texts, *next_states]).astype(np.float64)
        cosines = np.einsum("nd,nd->n", vectors[:n], vectors[n:])
        # Adding 0.0 turns a negative zero into a plain one.
        distances = np.clip(np.round(1.0 - cosines, _DECIMALS), 0.0, 2.0) + 0.0
        present = np.array([bool(text.strip()) for text in texts], dtype=bool)
        if self.kind == "binary":
            rewards = (distances < self.threshold) & present
        else:
            rewards = np.where(present, np.clip(1.0 - distances, 0.0, 1.0), 0.0)
        return Gaps(distances=distances, rewards=rewards.astype(np.float64))
