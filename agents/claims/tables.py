"""The tables of the claims, one YAML file each: arms, columns, and what is expected before anything runs.

A table runs the package's own stages (`rwml-gym train …`, `evaluate`, `evaluate-world-model`) at a size. `sizes.yaml`
says which preset, seeds and changes a size stands for; an arm changes single values of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rwml_gym.agents.config.base import nearest
from rwml_gym.agents.config.files import load_config
from rwml_gym.errors import InvalidConfigError

__all__ = [
    *("SIZES", "Arm", "Column", "Size", "Stage", "StageName", "StageSize", "Table", "Value", "Withdrawn"),
    *("load_sizes", "load_table", "resolved", "table_names"),
]

Value = bool | int | float | str | list[str] | list[int] | None
StageName = Literal["rwml", "sft", "policy", "evaluate-world-model", "evaluate"]
SIZES = ("smoke", "tiny", "gpu-small", "paper")
FOLDER = Path(__file__).with_name("tables")
_TIMES = re.compile(r"x(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Stage:
    """One run of an arm.

    Attributes:
        run: What runs: `rwml`, `sft` or `policy` of `rwml-gym train`, `evaluate`, or `evaluate-world-model`.
        name: Its name in the names of metrics; that of what runs if absent.
        adapter: Adapter of an earlier stage that this one starts from, such as `rwml/warm_start`: the stage's name, and
            the adapter's.
        imagine: World model of an earlier stage that the agent of `evaluate` imagines with, named in the same way.
        set: Changes by dotted key. A text such as `x2` multiplies what the size has.
    """

    run: StageName
    name: str = ""
    adapter: str | None = None
    imagine: str | None = None
    set: dict[str, Value] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name in the names of metrics."""
        return self.name or self.run

    @property
    def adapters(self) -> dict[str, str]:
        """The adapters of earlier stages, by the field of its configuration that takes their folder."""
        named = {"adapter": self.adapter, "imagine": self.imagine}
        return {field: adapter for field, adapter in named.items() if adapter is not None}


@dataclass(frozen=True)
class Arm:
    """A row of a table.

    Attributes:
        name: Its name.
        stages: What runs, one after the other.
        placebo_of: The arm that this one is the placebo of, if it is one.
    """

    name: str
    stages: tuple[Stage, ...]
    placebo_of: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table: a metric of each arm, or a difference.

    Attributes:
        label: Its heading.
        metric: Name of the metric, such as `rwml.warm_start.all`, see `jobs.claims.metrics`.
        minus: Metric of the same arm and seed to subtract.
        against: Arm whose same metric and seed is subtracted.
        figure: Whether the table's figure shows it.
    """

    label: str
    metric: str
    minus: str | None = None
    against: str | None = None
    figure: bool = False

    @property
    def is_difference(self) -> bool:
        """Whether the column holds differences."""
        return self.minus is not None or self.against is not None


@dataclass(frozen=True)
class Withdrawn:
    """Numbers of an arm that turned out to be wrong; the records keep them, no table shows them.

    Attributes:
        arm: The arm.
        metrics: Names of the metrics, with `*` for any text.
        until: They are wrong in records that ended before this time (UTC, ISO 8601).
        reason: Why, as a sentence.
    """

    arm: str
    metrics: tuple[str, ...]
    until: str
    reason: str


@dataclass(frozen=True)
class Table:
    """A table of the claims.

    Attributes:
        title: What is compared.
        question: The question that it answers.
        expected: What is expected, written before it ran.
        failure: What would count against the claim.
        columns: The columns.
        arms: The rows.
        set: Changes that all arms share, by what runs and by dotted key; before those of an arm.
        episodes: Whether success in episodes is compared, which needs many of them.
        withdrawn: Numbers that are not shown.
    """

    title: str
    question: str
    expected: str
    failure: str
    columns: tuple[Column, ...]
    arms: tuple[Arm, ...]
    set: dict[StageName, dict[str, Value]] = field(default_factory=dict)
    episodes: bool = False
    withdrawn: tuple[Withdrawn, ...] = ()

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise InvalidConfigError(f"Expected arms of different names, actual: {names}.")
        for other in (
            [c.against for c in self.columns] + [arm.placebo_of for arm in self.arms] + [w.arm for w in self.withdrawn]
        ):
            if other is not None and other not in names:
                raise InvalidConfigError(f"Expected an arm among {names}, actual: {other!r}.")
        for arm in self.arms:
            before: list[str] = []
            for stage in arm.stages:
                for adapter in stage.adapters.values():
                    if adapter.partition("/")[0] not in before:
                        raise InvalidConfigError(
                            f"Expected the adapter of a stage before, {before}, actual: {adapter!r} in {arm.name!r}."
                        )
                before.append(stage.label)

    def arm(self, name: str) -> Arm:
        """Return an arm by its name; the `InvalidConfigError` of an unknown name says which is nearest."""
        return {arm.name: arm for arm in self.arms}[_known("an arm", name, [arm.name for arm in self.arms])]


@dataclass(frozen=True)
class StageSize:
    """What a stage starts from at a size.

    Attributes:
        preset: Preset of the stage; none for `evaluate` and `evaluate-world-model`.
        set: Changes by dotted key, before those of an arm.
        override: Changes after those of an arm, where a size cannot do what arms ask.
    """

    preset: str = ""
    set: dict[str, Value] = field(default_factory=dict)
    override: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """How large a table runs.

    Attributes:
        about: Model, machine and time in words.
        seeds: Seeds of each arm. Settings are chosen on seeds from 100 on.
        stages: What each stage starts from.
        runs: Whether it can run; a size that cannot is there to be planned (`--dry-run`).
    """

    about: str
    seeds: tuple[int, ...]
    stages: dict[StageName, StageSize]
    runs: bool = True


@dataclass(frozen=True)
class _Sizes:
    sizes: dict[str, Size]


def table_names() -> list[str]:
    """List the names of the tables."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "sizes")


@cache
def load_table(name: str) -> Table:
    """Load a table by its name.

    Raises:
        InvalidConfigError: There is none of that name; the message says which is nearest.
    """
    return load_config(Table, FOLDER / f"{_known('a table', name, table_names())}.yaml")


@cache
def load_sizes() -> Mapping[str, Size]:
    """Load what the sizes stand for, by name."""
    return load_config(_Sizes, FOLDER / "sizes.yaml").sizes


def resolved(changes: Mapping[str, Value], current: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes with `x2` and the like replaced by numbers.

    Args:
        changes: Changes by dotted key.
        current: The values that they multiply, by dotted key. Where there are epochs in place of steps, these are
            multiplied.

    Raises:
        InvalidConfigError: A value that is no number is to be multiplied.
    """
    found: dict[str, Any] = {}
    for key, value in changes.items():
        times = _TIMES.fullmatch(value) if isinstance(value, str) else None
        if times is None:
            found[key] = value
            continue
        epochs = key.removesuffix("steps") + "epochs"
        if current.get(key) in (None, "None") and epochs in current:
            key = epochs
        before = current.get(key)
        if isinstance(before, bool) or not isinstance(before, int | float):
            raise InvalidConfigError(f"Expected a number to multiply at {key!r}, actual: {before!r}. Give the value.")
        product = before * float(times[1])
        found[key] = max(1, round(product)) if isinstance(before, int) else product
    return found


def _known(what: str, name: str, names: list[str]) -> str:
    if name not in names:
        raise InvalidConfigError(f"Expected {what} among {names}, actual: {name!r}.{nearest(name, names)}")
    return name
