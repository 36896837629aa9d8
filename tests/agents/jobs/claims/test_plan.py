"""The plan of a table: counted beside the committed runs, whole for the first arm, differences for the others."""

from __future__ import annotations

import pytest

pytest.importorskip("alfworld")

from dataclasses import replace

from rwml_gym.agents.claims.records import Record
from rwml_gym.agents.claims.tables import load_sizes, load_table
from rwml_gym.agents.jobs.claims.configs import plan_runs
from rwml_gym.agents.jobs.claims.plan import plan_table
from tests.helpers.command_line import run, said

ARMS = ["task reward alone", "gap, mean only, all", "gap, z-score, all"]


@pytest.fixture
def runs(tmp_path):
    return plan_runs(load_table("delivery"), load_sizes()["tiny"], tmp_path, ARMS, [0, 1])


def _record(planned, seconds):
    return Record(
        planned.arm.name,
        "tiny",
        planned.seed,
        "finished",
        "",
        "2026-01-01",
        seconds,
        "",
        "",
        {},
        [stage.record() for stage in planned.stages],
        {},
    )


@pytest.mark.long
def test_the_other_arms_are_shown_by_what_they_do_otherwise(runs, tmp_path):
    plan = plan_table(load_table("delivery"), load_sizes()["tiny"], runs, [], tmp_path)
    assert plan.count("Plan of `rwml-gym train policy`") == 1
    assert "3 arms with 2 seeds are 6 runs, 0 of them" in plan
    assert "hours" not in plan.partition("\n\n'")[0]  # nothing was run before
    last = plan.split("\n\n")[-1]
    assert last.splitlines() == [
        "'gap, z-score, all', policy: as 'gap, mean only, all', policy, but for",
        "  stage.gap_delivery: z_score instead of mean_only",
    ]


@pytest.mark.long
def test_a_stage_that_another_arm_has_run_is_named(tmp_path):
    table, size = load_table("delivery-unstable"), load_sizes()["tiny"]
    plan = plan_table(table, size, plan_runs(table, size, tmp_path, seeds=[0]), [], tmp_path)
    assert "'gap, z-score, all', imitation: the same run as 'task reward alone', imitation." in plan


@pytest.mark.long
def test_the_time_is_that_of_the_runs_before(runs, tmp_path):
    one, other = runs[0], runs[1]
    records = [_record(one, 3600.0), _record(other, 7200.0), replace(_record(one, 1.0), status="failed")]
    plan = plan_table(load_table("delivery"), load_sizes()["tiny"], runs, records, tmp_path)
    assert "6 runs, 2 of them" in plan
    assert "'gap, mean only, all' 120, 'task reward alone' 60." in plan
    # Missing: the third arm with both seeds, as long as the median of the others, and the other two with one.
    assert "take 6.0 hours" in plan


@pytest.mark.long
def test_a_stage_that_trains_nothing_is_shown_by_its_settings(tmp_path, capsys):
    words = ("reproduce", "using", "--arms", "engine", "most frequent", "--run-dir", tmp_path / "runs", "--dry-run")
    assert run(*words) == 0
    shown = said(capsys)
    assert "2 arms with 3 seeds are 6 runs, 6 of them in" in shown
    assert "imagine: engine" in shown
    assert "imagine: most-frequent instead of engine" in shown
    assert not (tmp_path / "runs").exists()
