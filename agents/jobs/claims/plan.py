"""The plan of a table, as `--dry-run` prints it: how many runs, how long they took before, and what each stage does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rwml_gym.agents.claims.records import Record
from rwml_gym.agents.claims.tables import Size, Table
from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.files import flatten
from rwml_gym.agents.jobs.claims.configs import PlannedRun, PlannedStage
from rwml_gym.agents.jobs.plan import plan_run

__all__ = ["plan_table"]


def plan_table(table: Table, size: Size, runs: Sequence[PlannedRun], records: Sequence[Record], results: Path) -> str:
    """Return the plan of a table as text.

    A stage of the first arm is shown whole. What another arm does otherwise is the difference to the stage that is
    nearest to it among those before.

    Args:
        table: The table.
        size: The size.
        runs: The planned runs.
        records: Records of the table at this size.
        results: Where the records are.

    Raises:
        InvalidConfigError: A stage would refuse its configuration.
        ConfigMismatchError: A run's folder holds something else.
        PromptTooLongError: What a prompt must hold does not fit into it.
    """
    lines = [table.title, size.about, "", *_count(runs, records, results)]
    shown: list[tuple[str, PlannedStage]] = []
    for run in (run for run in runs if run.seed == runs[0].seed):
        for stage in run.stages:
            name = f"{shlex.quote(run.arm.name)}, {stage.stage.label}"
            # Every stage is planned, because each may be refused; most are shown by their differences.
            whole = plan_run(stage.config, stage.folder) if isinstance(stage.config, JobConfig) else _settings(stage)
            lines += ["", *_described(name, stage, whole, shown)]
            shown.append((name, stage))
    return "\n".join(lines)


def _described(name: str, stage: PlannedStage, whole: str, shown: Sequence[tuple[str, PlannedStage]]) -> list[str]:
    alike = [(other, _differences(before, stage)) for other, before in shown if before.stage.run == stage.stage.run]
    if not alike:
        return [f"{name}:", whole]
    nearest, differences = min(alike, key=lambda found: len(found[1]))
    if not differences:
        return [f"{name}: the same run as {nearest}."]
    return [f"{name}: as {nearest}, but for", *(f"  {difference}" for difference in differences)]


def _differences(before: PlannedStage, stage: PlannedStage) -> list[str]:
    if before.folder == stage.folder:  # what it starts from is part of the folder's name
        return []
    old, new = flatten(before.config), flatten(stage.config)
    found = [f"{key}: {new[key]} instead of {old[key]}" for key in new if new[key] != old[key]]
    return found or [f"what it starts from: {stage.folder}"]


def _settings(stage: PlannedStage) -> str:
    return "\n".join(f"  {key}: {value}" for key, value in flatten(stage.config).items())


def _count(runs: Sequence[PlannedRun], records: Sequence[Record], results: Path) -> list[str]:
    """Return how many runs are missing, and how long they took where they were run before."""
    finished = [record for record in records if record.status == "finished"]
    missing = [run for run in runs if not any(run.made(record) for record in finished)]
    arms, seeds = len({run.arm.name for run in runs}), len({run.seed for run in runs})
    lines = [f"{arms} arms with {seeds} seeds are {len(runs)} runs, {len(runs) - len(missing)} of them in {results}."]
    seconds = {
        name: median(times)
        for name in {run.arm.name for run in runs}
        if (times := [record.seconds for record in finished if record.arm == name and record.seconds])
    }
    if not seconds or not missing:
        return lines
    usual = median(seconds.values())
    hours = sum(seconds.get(run.arm.name, usual) for run in missing) / 3600
    names = ", ".join(f"{shlex.quote(name)} {seconds[name] / 60:.0f}" for name in sorted(seconds))
    lines.append(
        f"Minutes that a run took there: {names}. If the other arms take as long as these, the missing runs take "
        f"{hours:.1f} hours, one after the other; less where arms share a stage."
    )
    return lines
