"""The configurations that a table runs: what the size stands for, changed by the arm, for each seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwml_gym.agents.claims.records import Record, StageRecord, settings_of
from rwml_gym.agents.claims.tables import Arm, Size, Stage, StageName, Table, Value, resolved
from rwml_gym.agents.config.base import ModelConfig, find_preset, nearest
from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.config.evaluate_world_model import EvaluateWorldModelConfig
from rwml_gym.agents.config.files import changed, flatten
from rwml_gym.agents.config.policy import POLICY_PRESETS
from rwml_gym.agents.config.sft import SFT_PRESETS
from rwml_gym.agents.config.world_model import PRESETS
from rwml_gym.errors import InvalidConfigError

__all__ = ["PlannedRun", "PlannedStage", "plan_runs"]

_PRESETS: Mapping[str, Mapping[str, Any]] = {"rwml": PRESETS, "policy": POLICY_PRESETS, "sft": SFT_PRESETS}


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its configuration.

    Attributes:
        stage: What the table says of it.
        config: Its configuration.
        folder: Its folder, of the same name for the same configuration in every arm and table.
    """

    stage: Stage
    config: ModelConfig
    folder: Path

    def record(self) -> StageRecord:
        """Return what a record says of it."""
        return StageRecord(self.stage.run, settings_of(self.config), self.stage.adapter, self.stage.imagine)


@dataclass(frozen=True)
class PlannedRun:
    """An arm with a seed.

    Attributes:
        arm: The arm.
        seed: The seed.
        stages: Its stages.
    """

    arm: Arm
    seed: int
    stages: tuple[PlannedStage, ...]

    def made(self, record: Record) -> bool:
        """Return whether a record is of this arm and seed, with the settings of today."""
        same = (record.arm, record.seed, len(record.stages)) == (self.arm.name, self.seed, len(self.stages))
        return same and all(
            (old.run, old.adapter, old.imagine) == (new.stage.run, new.stage.adapter, new.stage.imagine)
            and old.has(new.config)
            for old, new in zip(record.stages, self.stages, strict=True)
        )


def plan_runs(
    table: Table,
    size: Size,
    folder: Path,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    changes: Mapping[str, Value] | None = None,
) -> list[PlannedRun]:
    """Make all configurations of a table, so that whatever is wrong with one shows before anything runs.

    Args:
        table: The table.
        size: The size.
        folder: Where the runs' folders are.
        arms: Names of the arms; all if empty.
        seeds: Seeds; those of the size if empty.
        changes: Further changes of every stage that has the key.

    Returns:
        The runs, seed by seed, so that an interrupted table has whole seeds.

    Raises:
        InvalidConfigError: An arm is unknown, a stage has nothing to start from at this size, or a value does not fit.
    """
    chosen = [table.arm(name) for name in arms] if arms else list(table.arms)
    known = {key for arm in chosen for stage in arm.stages for key in flatten(_start(stage.run, size, arm))}
    for key in changes or {}:
        if key not in known:
            raise InvalidConfigError(f"Expected keys of a stage, actual: {key!r}.{nearest(key, known)}")
    return [_plan(table, arm, seed, size, folder, changes or {}) for seed in seeds or size.seeds for arm in chosen]


def _plan(table: Table, arm: Arm, seed: int, size: Size, folder: Path, changes: Mapping[str, Value]) -> PlannedRun:
    stages: list[PlannedStage] = []
    contents: dict[str, list[Any]] = {}  # of each stage, what its hash is of
    for stage in arm.stages:
        config = _start(stage.run, size, arm)
        of_size = size.stages[stage.run]
        content: list[Any] = []
        folders: dict[str, Value] = {}
        for key, named in stage.adapters.items():
            label, _, adapter = named.partition("/")
            before = next(each for each in stages if each.stage.label == label)
            folders[key] = str(before.folder / "adapters" / adapter)
            content += [adapter, contents[label], *([key] if key != "adapter" else [])]
        # An agent that imagines has no meaning without a world model, so its folder comes with what the arm sets.
        for some in (
            of_size.set,
            table.set.get(stage.run, {}),
            {**stage.set, **folders},
            of_size.override,
            {"seed": seed},
            _that_fit(changes, config),
        ):
            config = changed(config, resolved(some, flatten(config)), f"The arm {arm.name!r}")
        content = [stage.run, settings_of(config), *content]
        contents[stage.label] = content
        stages.append(PlannedStage(stage, config, folder / f"{stage.run}-{_hash(content)}"))
    return PlannedRun(arm, seed, tuple(stages))


def _start(run: StageName, size: Size, arm: Arm) -> Any:
    """Return the preset that a stage starts from."""
    if run not in size.stages:
        raise InvalidConfigError(
            f"Expected something to start {run!r} from at this size, actual: nothing, for the arm {arm.name!r}. Choose "
            "another --size."
        )
    if run in _PRESETS:
        return find_preset(_PRESETS[run], size.stages[run].preset)
    return EvaluateConfig() if run == "evaluate" else EvaluateWorldModelConfig()


def _that_fit(changes: Mapping[str, Value], config: ModelConfig) -> dict[str, Value]:
    return {key: value for key, value in changes.items() if key in flatten(config)}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
