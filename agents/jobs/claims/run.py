"""Run a table of the claims: every arm with every seed, through the stages that the package has anyway.

A table that was killed and is started again with the same command takes finished runs as they are and goes on in the
one that was interrupted.
"""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rwml_gym.agents.claims.page import table_text
from rwml_gym.agents.claims.records import Record, add_record, measured, read_records
from rwml_gym.agents.claims.tables import Table
from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.config.evaluate_world_model import EvaluateWorldModelConfig
from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.evaluation.agents import check_agent
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.jobs.claims.configs import PlannedRun, PlannedStage
from rwml_gym.agents.jobs.claims.metrics import metrics_of
from rwml_gym.agents.jobs.fork import find_fork
from rwml_gym.agents.jobs.plan import plan_run
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.jobs.sft import run_sft
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.jobs.world_models.evaluate import evaluate_world_models, make_gap
from rwml_gym.agents.runs.folder import check_run, in_use, versions
from rwml_gym.agents.runs.worlds import Source, choose_games
from rwml_gym.agents.seeding import seed_of
from rwml_gym.files import read_json, write_json
from rwml_gym.installed import commit
from rwml_gym.terminal import say

__all__ = ["record_stopped", "reproduce"]

_NOTES = ".reproduce.json"  # in a stage's folder, hidden because a folder with other files is no free one


def reproduce(
    name: str, table: Table, size: str, runs: Sequence[PlannedRun], results: Path, command: str
) -> tuple[str, int]:
    """Run what is missing of a table, and record it.

    Args:
        name: Name of the table.
        table: The table.
        size: Name of the size.
        runs: The planned runs.
        results: Folder of the results.
        command: The command, for the records.

    Returns:
        The table as text, and how many runs failed now.

    Raises:
        InvalidConfigError: A value does not work, such as an unknown room.
        ConfigMismatchError: A run's folder holds something else.
        InvalidDatasetError: The results cannot be read.
    """
    missing = [run for run in runs if _made(run, name, size, results) is None]
    _check(missing)
    say(f"Table {name}, size {size}: {len(runs)} runs, {len(runs) - len(missing)} of them finished.")
    failed = 0
    for number, run in enumerate(missing, 1):
        say(f"\n[{number} of {len(missing)}] {run.arm.name}, seed {run.seed}")
        if _made(run, name, size, results) is not None or _busy(run):
            say("Another command has run it, or runs it now.")
            continue
        record = _record(run, size, command)
        failed += record.status == "failed"
        add_record(results, name, record)
    # With the arms of earlier commands, which these are compared with.
    return table_text(table, measured(read_records(results, name), size)), failed


def _busy(run: PlannedRun) -> bool:
    """Return whether another command trains in one of its folders; a finished stage is only read."""
    return any(in_use(stage.folder) and not _notes(stage)["finished"] for stage in run.stages)


def _made(run: PlannedRun, name: str, size: str, results: Path) -> Record | None:
    """Return the last finished record of a run with today's settings."""
    records = reversed(read_records(results, name))
    return next((r for r in records if r.size == size and r.status == "finished" and run.made(r)), None)


def _check(runs: Sequence[PlannedRun]) -> None:
    """Raise an error for whatever would fail later: other runs in the folders, values that the world does not know."""
    for run in runs:
        for stage in run.stages:
            if isinstance(stage.config, EvaluateConfig):
                check_agent(stage.config, Source(stage.config).world)
            elif not isinstance(stage.config, JobConfig):
                Source(stage.config)
            elif run.seed == runs[0].seed:  # the other seeds differ in nothing else
                plan_run(stage.config, stage.folder)
            else:
                check_run(stage.config, stage.folder)


def _record(run: PlannedRun, size: str, command: str) -> Record:
    """Run an arm; whatever goes wrong in it is recorded, and the other arms run all the same."""
    error, metrics, ran = "", dict[str, float](), list[dict[str, Any]]()
    for stage in run.stages:
        try:
            _run_timed(stage)
            found = metrics_of(stage.stage.run, stage.folder)
            metrics |= {f"{stage.stage.label}.{name}": value for name, value in found.items()}
        except Exception as problem:
            say(traceback.format_exc())
            error = f"{stage.stage.label}: {type(problem).__name__}: {' '.join(str(problem).split())}"[:500]
        ran.append(_notes(stage))
        if error:
            break
    began_with = {"versions": versions(), "commit": commit(), **ran[0]}
    return Record(
        arm=run.arm.name,
        size=size,
        seed=run.seed,
        status="failed" if error else "finished",
        error=error,
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(sum(each["seconds"] for each in ran), 1),
        command=command,
        commit=began_with["commit"],
        versions=_without_kernel(began_with["versions"]),
        stages=[stage.record() for stage in run.stages],
        metrics=metrics,
    )


def record_stopped(name: str, size: str, runs: Sequence[PlannedRun], results: Path, command: str) -> int:
    """Record runs that were killed and cannot go on, with what they had measured; run nothing.

    Args:
        name: Name of the table.
        size: Name of the size.
        runs: The planned runs. Left out are those that finished, measured nothing, or are recorded as they are.
        results: Folder of the results.
        command: The command, for the records.

    Returns:
        How many were recorded.
    """
    recorded = 0
    for run in runs:
        began = [stage for stage in run.stages if (stage.folder / "versions.json").is_file()]
        if not began or _made(run, name, size, results) is not None:
            continue
        metrics = dict[str, float]()
        for stage in began:
            found = metrics_of(stage.stage.run, stage.folder)
            metrics |= {f"{stage.stage.label}.{metric}": value for metric, value in found.items()}
        known = [(each.arm, each.size, each.seed, each.metrics) for each in read_records(results, name)]
        if not metrics or (run.arm.name, size, run.seed, metrics) in known:
            continue
        times = [_times(stage.folder) for stage in began]
        record = Record(
            arm=run.arm.name,
            size=size,
            seed=run.seed,
            status="stopped",
            error="",
            ended=datetime.fromtimestamp(times[-1][1], UTC).isoformat(timespec="seconds"),
            seconds=round(sum(last - first for first, last in times), 1),
            command=command,
            commit="",
            versions=_without_kernel(read_json(began[0].folder / "versions.json")),
            stages=[stage.record() for stage in began],
            metrics=metrics,
        )
        add_record(results, name, record)
        recorded += 1
    return recorded


def _times(folder: Path) -> tuple[float, float]:
    """Return when a run began and last wrote a file."""
    return (folder / "versions.json").stat().st_mtime, _last_written(folder)


def _last_written(folder: Path) -> float:
    return max(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())


def _without_kernel(versions: dict[str, Any]) -> dict[str, Any]:
    """Return versions without the name of the kernel, which is one machine's."""
    return {**versions, "platform": f"{platform.system()} {platform.machine()}"}


def _run_timed(stage: PlannedStage) -> None:
    """Run a stage, or what is left of it, and note how long it took over all its starts, and what it began with."""
    notes = _notes(stage)
    if notes["finished"]:
        say(f"{stage.stage.label}: taken as it is from {stage.folder}")
        return
    if "since" in notes:  # the last start was killed
        notes["seconds"] += max(_last_written(stage.folder) - notes["since"], 0.0)
    began = time.monotonic()
    notes = {"commit": commit(), "versions": versions(), **notes, "since": time.time()}
    stage.folder.mkdir(parents=True, exist_ok=True)
    write_json(stage.folder / _NOTES, notes)
    try:
        _run(stage)
        notes["finished"] = True
    finally:
        notes["seconds"] = round(notes["seconds"] + time.monotonic() - began, 1)
        del notes["since"]
        write_json(stage.folder / _NOTES, notes)


def _notes(stage: PlannedStage) -> dict[str, Any]:
    path = stage.folder / _NOTES
    return dict(read_json(path)) if path.is_file() else {"seconds": 0.0, "finished": False}


def _run(stage: PlannedStage) -> None:
    """Run a stage. Runs of all tables that begin alike share their beginning."""
    config, folder = stage.config, stage.folder
    if isinstance(config, RWMLConfig):
        run_world_model(config, folder, find_fork(config, folder.parent))
    elif isinstance(config, PolicyConfig):
        run_policy(config, folder, find_fork(config, folder.parent))
    elif isinstance(config, SFTJobConfig):
        run_sft(config, folder)
    elif isinstance(config, EvaluateWorldModelConfig):
        gap = make_gap(config, Source(config).world.roles)
        found = evaluate_world_models(config, gap, say)
        write_json(folder / "results.json", found.to_json())
    elif isinstance(config, EvaluateConfig):
        _evaluate(config, folder)
    else:
        raise TypeError(f"no stage: {type(config).__name__}")


def _evaluate(config: EvaluateConfig, folder: Path) -> None:
    """Evaluate on games of this seed's own, so that intervals over seeds contain how far games vary."""
    if config.episodes is None or config.panel is not None:
        evaluate(config, folder)
        return
    source = Source(config)
    with source.make(config.max_steps, source.world.evaluation_split)() as env:
        games = choose_games(env, config.episodes, seed_of(config.seed, "games"))
    path = folder / "games.json"
    write_json(path, games)
    evaluate(replace(config, episodes=None, panel=str(path)), folder)
