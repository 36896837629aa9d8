"""The gap between the predicted and the realised next state, and the reward computed from it.

With a frozen encoder E, the predicted state ŝ and the realised state s (RWML, arXiv 2602.05842)::

    d(ŝ, s)    = 1 - cos(E(ŝ), E(s))
    r_WM(ŝ, s) = 1 if d(ŝ, s) < τ_d else 0

For structured states, such as tool results, the paper uses ROUGE instead of the cosine::

    d(ŝ, s)    = 1 - ROUGE-L F1(ŝ, s)

Numeric observations are their own embedding (`encoders.numbers`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from rwml_gym.checks import one_of, real_number
from rwml_gym.encoders.cached import DEFAULT_ENCODER, Embedded, EncoderLike
from rwml_gym.encoders.local import unit_rows
from rwml_gym.encoders.numbers import SpaceEncoder, make_row_encoder
from rwml_gym.errors import InvalidConfigError, WorldModelError
from rwml_gym.reward.distances import DEFAULT_THRESHOLD, DISTANCES, GapName
from rwml_gym.reward.views import VIEWS, ViewName, view_in_words
from rwml_gym.text import is_blank

__all__ = ["STEPS", "GapReward", "Gaps", "Measure", "RewardShape"]

RewardShape = Literal["binary", "continuous", "stepped"]

STEPS = 5
"""Steps of the stepped reward between 0 and 1; the paper rounds ROUGE to steps of 0.2 for results of tools."""

# An encoder's float noise, which depends on the other texts in the batch, stays well below the sixth decimal.
_DECIMALS = 6


@dataclass(frozen=True)
class Measure:
    """How predictions of the messages of one role are measured.

    Attributes:
        gap: A name in `distances.DISTANCES`: `"cosine"` of the encoder's vectors; `"entities"`, see
            `entities.entity_distance`; `"rouge"`, see `rouge.rouge_distance`; or `"exact"`, 0 for the same words and 1
            for others, ignoring white space.
        threshold: τ_d, above 0 and at most the gap's maximum (2 for the cosine, 1 for ROUGE). Distances strictly below
            it are rewarded. Only the binary reward uses it.
        shape: `"binary"`, `"continuous"` or `"stepped"`.
        view: What of both texts is compared, a name in `views.VIEWS`: `"raw"`, the texts; `"schema"`; or
            `"without-nuisance"`.

    Raises:
        InvalidConfigError: If a value is out of range.
    """

    gap: GapName = "cosine"
    threshold: float = DEFAULT_THRESHOLD
    shape: RewardShape = "binary"
    view: ViewName = "raw"

    def __post_init__(self) -> None:
        one_of("`gap`", self.gap, DISTANCES)
        one_of("`shape`", self.shape, get_args(RewardShape))
        one_of("`view`", self.view, VIEWS)
        largest = DISTANCES[self.gap].maximum
        threshold = real_number(self.threshold)
        if not 0 < threshold <= largest:
            raise InvalidConfigError(
                f"Expected `threshold` in (0, {largest:g}], the range of the {self.gap} gap, "
                f"actual: {self.threshold!r}. Measure it with `rwml-gym calibrate`."
            )
        object.__setattr__(self, "threshold", threshold)  # an int would make a column of ints in the infos

    @property
    def reads_text(self) -> bool:
        """Whether it needs texts, so that a prediction in the embedding space cannot be measured."""
        return DISTANCES[self.gap].reads_text or self.view != "raw"

    @property
    def pays(self) -> str:
        """What it pays, in words: a threshold, or the reward as a function of d."""
        steps = f" in steps of {1 / STEPS:g}" if self.shape == "stepped" else ""
        return f"τ_d {self.threshold:.4g}" if self.shape == "binary" else f"reward 1 - d{steps}"

    def described(self, encoder: str) -> str:
        """Describe it in words, with the encoder's name: distance, view, and what it pays."""
        return f"{DISTANCES[self.gap].called(encoder)}{view_in_words(self.view)}, {self.pays}"

    def reward(self, distance: float) -> float:
        """Return the reward of a distance, in `[0, 1]`.

        The stepped reward is `1 - d`, at least 0, rounded to the nearest fifth, halves up: 0.5 earns 0.6, and all
        distances up to 0.1 earn 1.
        """
        if self.shape == "binary":
            return float(distance < self.threshold)
        near = min(max(1.0 - distance, 0.0), 1.0)
        # Distances have six decimals, so that 1 - 0.9 is not below a half of a step.
        return math.floor(round(near * STEPS, _DECIMALS) + 0.5) / STEPS if self.shape == "stepped" else near


@dataclass(frozen=True)
class Gaps:
    """The results of `GapReward` for `n` predictions.

    Attributes:
        distances: float64 array of shape `(n,)`, in `[0, 2]`; 1 for a missing or blank prediction.
        rewards: float64 array of shape `(n,)`, in `[0, 1]`; 0 for a missing or blank prediction.
    """

    distances: np.ndarray
    rewards: np.ndarray


class GapReward:
    """Reward for predictions of the next state, computed from their distance to the realised one.

    The binary reward is the paper's. The continuous reward is `1 - d`, clipped at 0: otherwise no prediction, which
    earns 0, would beat a prediction with a negative cosine. The stepped reward rounds it to steps of 0.2, as the paper
    does with ROUGE for results of tools.

    A missing or blank prediction (`text.is_blank`: zero-width characters are blank, too) has distance 1 and reward 0
    for every threshold. The same holds for a blank realised state.

    Each message role (`info["message_role"]`, `Transition.role`) may have its own measure: the paper compares tool
    results by ROUGE. The role at the beginning of a text (`tool: 5`) is removed first, as it may be half of the text.
    Then both texts are put into the measure's view: with `"view": "schema"` a predicted value and a predicted schema
    count alike, and a prediction that is not JSON is compared as the text that it is.

    >>> gap = GapReward("hashing", threshold=0.1)
    >>> gap(["The fridge 1 is open.", "Nothing happens.", None], ["The fridge 1 is open."] * 3).rewards.tolist()
    [1.0, 0.0, 0.0]
    >>> gap = GapReward("hashing", measures={"tool": {"gap": "rouge", "shape": "continuous"}})
    >>> gap(['{"id": 1, "open": true}'], ['{"id": 2, "open": true}'], ["tool"]).rewards.tolist()
    [0.75]
    >>> gap = GapReward("hashing", measures={"tool": {"gap": "rouge", "shape": "stepped", "view": "schema"}})
    >>> gap(['{"id": 1, "open": true}'], ['{"open": false, "id": 2}'], ["tool"]).rewards.tolist()
    [1.0]
    """

    def __init__(
        self,
        encoder: EncoderLike | SpaceEncoder = DEFAULT_ENCODER,
        threshold: float | None = None,
        shape: RewardShape = "binary",
        measures: Mapping[str, Mapping[str, Any]] | None = None,
        gap: GapName = "cosine",
        view: ViewName = "raw",
    ):
        """Load the encoder.

        Args:
            encoder: See `encoders.cached.make_encoder`; with a `SpaceEncoder`, states are members of its space.
            threshold: τ_d, see `Measure`; the gap's default if absent.
            shape: `"binary"`, `"continuous"` or `"stepped"`.
            measures: Changes for message roles: `{"tool": {"gap": "rouge", "threshold": 0.05}}`, with the fields of
                `Measure` as keys. Other fields are as above, but a changed gap brings its own default threshold.
                Other roles, and messages without a role, are measured as above.
            gap: A name in `distances.DISTANCES`.
            view: What of both texts is compared, see `Measure`.

        Raises:
            InvalidConfigError: If a value is out of range, a name is unknown, or a text gap is given for other states.
            DependencyNotInstalled: If the encoder or ROUGE needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        one_of("`gap`", gap, DISTANCES)
        self._default = Measure(gap, DISTANCES[gap].threshold if threshold is None else threshold, shape, view)
        if not isinstance(measures, Mapping | None):
            raise InvalidConfigError(f"Expected `measures` as a mapping from message roles, actual: {measures!r}.")
        self._measures = {name: self._changed(changes) for name, changes in (measures or {}).items()}
        gaps = {measure.gap for measure in (self._default, *self._measures.values())}
        for name in gaps:
            DISTANCES[name].require()
        read = [m for m in (self._default, *self._measures.values()) if m.reads_text]
        if isinstance(encoder, SpaceEncoder) and read:
            raise InvalidConfigError(
                "Expected the cosine gap and the view 'raw' for observations that are not text, actual: the gap "
                f"{read[0].gap!r} and the view {read[0].view!r}. Give `describe` to compare them as text."
            )
        self.encoder = make_row_encoder(encoder)

    @property
    def threshold(self) -> float:
        """The default τ_d, for roles without their own measure."""
        return self._default.threshold

    @property
    def shape(self) -> RewardShape:
        """The default shape of the reward, for roles without their own measure."""
        return self._default.shape

    @property
    def measures(self) -> dict[str, Measure]:
        """The measures of the message roles that have their own."""
        return dict(self._measures)

    def measure(self, role: str = "") -> Measure:
        """Return the measure for messages of a role."""
        return self._measures.get(role, self._default)

    def viewed(self, text: str, role: str = "") -> str:
        """Return what of a text is compared: without its role, in the role's view."""
        return VIEWS[self.measure(role).view](_without(role, text))

    def __call__(
        self, predictions: Sequence[Any], next_states: Sequence[Any], roles: Sequence[str] | None = None
    ) -> Gaps:
        """Score predictions against the realised states, in at most one encoder call.

        If the encoder's rows do not depend on the batch, a pair's distance does not either, to the last bit.

        Args:
            predictions: `n` predicted next states, or `Embedded` ones; `None` for a missing prediction.
            next_states: `n` realised next states.
            roles: `n` message roles, `""` if unknown; all `""` if absent.

        Raises:
            InvalidConfigError: If the lengths differ, or something is one text and no list.
            WorldModelError: If an embedded prediction is not as wide as the states, not finite, or its gap needs text.
        """
        n = len(predictions)
        for what, values in (("predictions", predictions), ("next states", next_states), ("roles", roles)):
            if isinstance(values, str):
                raise InvalidConfigError(
                    f"Expected a list of {what}, actual: {values[:200]!r}. Write `[text]` for one."
                )
            if values is not None and len(values) != n:
                raise InvalidConfigError(f"Expected as many {what} as predictions ({n}), actual: {len(values)}.")
        roles = [""] * n if roles is None else roles
        distances, rewards = [1.0] * n, [0.0] * n
        scored: list[int] = []
        vectors: list[tuple[int, Any, Any]] = []
        asked: list[Any] = []
        for i, (prediction, state, role) in enumerate(zip(predictions, next_states, roles, strict=True)):
            prediction, state = (self.viewed(x, role) if isinstance(x, str) else x for x in (prediction, state))
            if _missing(prediction) or _missing(state):
                continue
            scored.append(i)
            measure = self.measure(role)
            odd = state if isinstance(prediction, str) else prediction
            if measure.reads_text and not isinstance(odd, str):
                raise WorldModelError(
                    f"Expected text for the {measure.gap} gap and the view {measure.view!r} of role {role!r}, actual: "
                    f"{type(odd).__name__}. Use a predictor that returns text, or the cosine gap of raw texts."
                )
            between = DISTANCES[measure.gap].between
            if between is None:
                vectors.append((i, prediction, state))
                # An embedded prediction needs no encoder; the state takes its place in the call.
                asked += (state if isinstance(prediction, Embedded) else prediction, state)
            else:
                distances[i] = _rounded(between(prediction, state))
        rows = self.encoder.rows(asked) if asked else []
        for place, (i, prediction, state) in enumerate(vectors):
            guess, truth = rows[2 * place], rows[2 * place + 1]
            if isinstance(prediction, Embedded):
                guess = _unit(prediction.vector, len(truth))
            cosine = float(np.dot(guess.astype(np.float64), truth.astype(np.float64)))
            distance = min(max(1.0 - cosine, 0.0), 2.0)
            adjust = DISTANCES[self.measure(roles[i]).gap].adjust
            distances[i] = _rounded(distance if adjust is None else adjust(prediction, state, distance))
        for i in scored:
            rewards[i] = self.measure(roles[i]).reward(distances[i])
        return Gaps(distances=np.array(distances, dtype=np.float64), rewards=np.array(rewards, dtype=np.float64))

    def _changed(self, changes: Mapping[str, Any]) -> Measure:
        names = {field.name for field in fields(Measure)}
        if not isinstance(changes, Mapping) or set(changes) - names:
            raise InvalidConfigError(
                f"Expected a measure as a mapping with keys from {sorted(names)}, actual: {changes!r}."
            )
        gap = changes.get("gap", self._default.gap)
        one_of("`gap`", gap, DISTANCES)
        usual = self.threshold if gap == self._default.gap else DISTANCES[gap].threshold
        return Measure(**{"gap": gap, "threshold": usual, "shape": self.shape, "view": self._default.view, **changes})


def _without(role: str, text: Any) -> Any:
    return text.removeprefix(f"{role}: ") if role and isinstance(text, str) else text


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
    return unit_rows(vector[np.newaxis])[0]
