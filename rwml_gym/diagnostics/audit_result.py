"""The result of an audit, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rwml_gym.diagnostics.calibration import Calibration
from rwml_gym.diagnostics.group_signal import GroupSignal
from rwml_gym.diagnostics.predictability import Repeats
from rwml_gym.reward.gap import Measure
from rwml_gym.text import finite

__all__ = ["Audit", "Finding", "Row"]


@dataclass(frozen=True)
class Finding:
    """A reason against training on the reward.

    Attributes:
        level: `warning` if training will be wasted, `caution` if it will cost more or teach less.
        topic: `threshold`, `predictable`, `baselines`, or `signal`.
        reason: The finding, in numbers.
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
        transitions: Number of transitions.
        share: Their share of all transitions.
        predictable: Share of transitions with nothing unseen, see `predictability.unseen_names`.
        scored: Number of transitions that were scored; these are held out.
        earned: Mean reward of each baseline on the scored transitions; empty for fewer than 8.
        reward: Mean reward of the model's samples; `None` without samples.
        signal: Expected share of groups with signal; `None` without samples.
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
    """The result of an audit.

    Attributes:
        transitions: Number of transitions that are not blank.
        silent: Number of blank transitions, which cannot be rewarded; they are left out of everything else.
        games: Number of games.
        unit: What `games` counts: `games`, or `episodes` if the environment names no games.
        scored: Number of held-out transitions for the baselines; constant and most frequent answers are of other games.
        encoder: Name of the encoder.
        chosen_threshold: The given threshold; `None` if calibrated.
        measures: The measure of each message role.
        roles: Number of transitions of each message role.
        calibrations: The calibration of each role, or why there is none.
        quality: Precision and recall of each role's threshold on held-out games, or on the states if these are few.
        predictable: Share of the transitions with nothing unseen, an optimistic bound.
        unseen: Examples of unseen names.
        repeats: Outcomes of situations that occurred more than once.
        repeated_elsewhere: Share of the scored answers that occur word for word in another game.
        to_learn: Share of the scored transitions that are predictable, beyond the reward of the most frequent outcome.
        earned: Mean reward of each baseline, with its 95 % interval over games; the truth earns 1.
        by_action: One row per type of action, the most frequent first.
        by_role: One row per message role.
        signal: Signal of the model's samples; `None` without samples.
        findings: Reasons against training on this reward.
        seed: Seed of the split, the pairs and the samples.
    """

    transitions: int
    silent: int
    games: int
    unit: str
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
        """The verdict, decided by the worst finding."""
        if any(finding.level == "warning" for finding in self.findings):
            return "will NOT teach as it is"
        return "may teach" if self.findings else "should teach"

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON-able data; NaN becomes None."""
        data = {**asdict(self), "calibrations": {}, "verdict": self.level}
        for role, result in self.calibrations.items():
            data["calibrations"][role] = asdict(result) if isinstance(result, Calibration) else {"missing": result}
        return finite(data)
