"""What an audit found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rwml_gym.diagnostics.calibration import Calibration
from rwml_gym.diagnostics.group_signal import GroupSignal
from rwml_gym.diagnostics.predictability import Repeats
from rwml_gym.reward.gap import Measure
from rwml_gym.text import without_nan

__all__ = ["Audit", "Finding", "Row"]


@dataclass(frozen=True)
class Finding:
    """Something that speaks against training on the reward.

    Attributes:
        level: `warning` if training will be wasted, `caution` if it will cost more or teach less.
        topic: `threshold`, `predictable`, `baselines`, or `signal`.
        reason: What was found, in numbers.
        advice: What to do.
    """

    level: Literal["warning", "caution"]
    topic: str
    reason: str
    advice: str


@dataclass(frozen=True)
class Row:
    """The transitions of one type of action, or of one message role.

    Attributes:
        name: The type or role.
        transitions: How many there are.
        share: Of all transitions.
        predictable: Share that says nothing unseen, see `predictability.unseen_names`.
        scored: How many of them were scored: held-out ones.
        earned: Mean reward of each baseline on those; empty if they are fewer than 8.
        reward: Mean reward of the model's samples, `None` without any.
        signal: Expected share of groups with signal, `None` likewise.
    """

    name: str
    transitions: int
    share: float
    predictable: float
    scored: int
    earned: Mapping[str, float]
    reward: float | None = None
    signal: float | None = None


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        transitions: Transitions that say something.
        silent: Blank ones, from which nothing can be earned; they are left out of all else.
        games: Number of games.
        scored: Held-out transitions that baselines were scored on; constant and most frequent answers come from the
            other games.
        encoder: Its name.
        chosen_threshold: The threshold that was given, `None` if calibrated.
        measures: How each message role is measured.
        roles: How many transitions each message role has.
        calibrations: The calibration of each role, or why there is none.
        quality: Precision and recall of each role's threshold on games it was not chosen on; of a role that says too
            little to be calibrated, how far the threshold tells its few states apart.
        predictable: Share of the transitions that say nothing unseen: an optimistic bound.
        unseen: Examples of what is unseen.
        repeats: What followed situations that occurred more than once.
        repeated_elsewhere: Share of the scored answers that occur word for word in another game.
        to_learn: Share of the scored transitions that are predictable, beyond what the most frequent outcome earns.
        earned: Mean reward of each baseline, with its 95 % interval over games; the truth earns 1.
        by_action: One row a type of action, the most frequent first.
        by_role: One row a message role.
        signal: What the model's samples say, `None` without any.
        findings: What speaks against training on this reward.
        seed: Of the split, the pairs and the samples.
    """

    transitions: int
    silent: int
    games: int
    scored: int
    encoder: str
    chosen_threshold: float | None
    measures: Mapping[str, Measure]
    roles: Mapping[str, int]
    calibrations: Mapping[str, Calibration | str]
    quality: Mapping[str, tuple[float, float]]
    predictable: float
    unseen: tuple[str, ...]
    repeats: Repeats
    repeated_elsewhere: float
    to_learn: float
    earned: Mapping[str, tuple[float, float, float]]
    by_action: tuple[Row, ...]
    by_role: tuple[Row, ...]
    signal: GroupSignal | None
    findings: tuple[Finding, ...]
    seed: int

    @property
    def level(self) -> Literal["should teach", "may teach", "will NOT teach as it is"]:
        """The verdict: by the worst finding."""
        if any(finding.level == "warning" for finding in self.findings):
            return "will NOT teach as it is"
        return "may teach" if self.findings else "should teach"

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it; NaN becomes null."""
        data = {**asdict(self), "calibrations": {}, "verdict": self.level}
        for role, result in self.calibrations.items():
            data["calibrations"][role] = asdict(result) if isinstance(result, Calibration) else {"missing": result}
        checked: dict[str, Any] = without_nan(data)
        return checked
