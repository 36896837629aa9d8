"""The tables of the claims: each file fits, names what exists, and says beforehand what is expected."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic")

from rwml_gym.agents.claims import tables
from rwml_gym.agents.claims.tables import (
    SIZES,
    Arm,
    Column,
    Stage,
    Table,
    load_sizes,
    load_table,
    resolved,
    table_names,
)
from rwml_gym.agents.jobs.claims.configs import plan_runs
from rwml_gym.errors import InvalidConfigError


def _table(**changes) -> Table:
    arms = (Arm("a", (Stage("rwml"),)), Arm("b", (Stage("rwml"),), placebo_of="a"))
    settings = {"title": "t", "question": "q", "expected": "e", "failure": "f", "columns": (), "arms": arms}
    return Table(**{**settings, **changes})


@pytest.mark.parametrize("name", table_names())
def test_every_table_says_beforehand_what_is_expected_and_what_would_be_a_failure(name):
    table = load_table(name)
    assert table.question.endswith("?")
    assert len(table.expected) > 40
    assert len(table.failure) > 40
    assert any(column.is_difference for column in table.columns)


def test_the_sizes_are_those_that_the_command_offers():
    assert tuple(load_sizes()) == SIZES


def test_tables_use_the_seeds_from_0_and_leave_those_from_100_to_choose_settings_on():
    for name, size in load_sizes().items():
        assert size.seeds == tuple(range(len(size.seeds))), name


def test_an_unknown_table_or_arm_is_told_with_the_nearest_one():
    with pytest.raises(InvalidConfigError, match="Did you mean 'plateau'"):
        load_table("plataeu")
    with pytest.raises(InvalidConfigError, match="Did you mean 'SFT 1 x'"):
        load_table("plateau").arm("SFT 1x")


@pytest.mark.parametrize("size", [name for name, size in load_sizes().items() if size.runs])
@pytest.mark.parametrize("name", table_names())
def test_a_policy_is_measured_at_every_size_on_what_the_columns_show(name, size, tmp_path):
    table = load_table(name)
    shown = {column.metric for column in table.columns}
    for run in plan_runs(table, load_sizes()[size], tmp_path, seeds=[0]):
        policies = [stage for stage in run.stages if stage.stage.run == "policy"]
        for stage in (p for p in policies if any(name.startswith(f"{p.stage.label}.") for name in shown)):
            # Success is of held-out games, and commands can only be invalid where the agent writes them itself.
            assert stage.config.evaluation.games, run.arm.name
            if f"{stage.stage.label}.start_invalid" in shown:
                assert stage.config.episode.decoding == "free", run.arm.name


def test_a_factor_multiplies_what_the_size_has():
    current = {"steps": 80, "rate": 0.5, "games": 3, "flag": True, "sft.steps": "None", "sft.epochs": 2}
    assert resolved(
        {"steps": "x4", "rate": "x0.5", "games": "x0.1", "name": "xylophone", "sft.steps": "x2"}, current
    ) == {
        "steps": 320,
        "rate": 0.25,
        "games": 1,
        "name": "xylophone",
        "sft.epochs": 4,
    }
    for key in ("flag", "absent"):
        with pytest.raises(InvalidConfigError, match="number to multiply"):
            resolved({key: "x2"}, current)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": (Arm("a", (Stage("rwml"),)), Arm("a", (Stage("rwml"),)))}, "different names"),
        ({"columns": (Column("c", "m", against="z"),)}, "'z'"),
        ({"arms": (Arm("a", (Stage("rwml"),), placebo_of="z"),)}, "'z'"),
        ({"arms": (Arm("a", (Stage("policy", adapter="rwml/rwml"),)),)}, "stage before"),
        ({"arms": (Arm("a", (Stage("evaluate", imagine="rwml/rwml"),)),)}, "stage before"),
    ],
)
def test_a_table_that_refers_to_what_is_not_there_is_refused(changes, message):
    with pytest.raises(InvalidConfigError, match=message):
        _table(**changes)


def test_a_file_with_an_unknown_key_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("title: t\nquestion: q\nexpectd: e\n")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    with pytest.raises(InvalidConfigError, match="did you mean 'expected'"):
        load_table("mine")
