"""The page of the claims: numbers, intervals over seeds, and that the committed page is the committed results."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from xml.sax.saxutils import unescape

import pytest

pytest.importorskip("pydantic")

from rwml_gym.agents.claims.figure import draw_figure, figure_rows
from rwml_gym.agents.claims.page import figure_path, page_text, shown_tables, table_text, write_page
from rwml_gym.agents.claims.records import (
    COMMITTED,
    Record,
    StageRecord,
    add_record,
    measured,
    read_records,
    settings_of,
)
from rwml_gym.agents.claims.tables import Arm, Column, Stage, Table, Withdrawn, load_table
from rwml_gym.agents.config.world_model import PRESETS
from rwml_gym.errors import InvalidConfigError
from rwml_gym.statistics import student_interval
from rwml_gym.transitions import InvalidDatasetError
from tests.helpers.paths import ROOT

TABLE = Table(
    title="t",
    question="q?",
    expected="e",
    failure="f",
    columns=(
        Column("value", "s.x"),
        Column("gain", "s.x", minus="s.y"),
        Column("against a", "s.x", against="a"),
    ),
    arms=(Arm("a", (Stage("rwml"),)), Arm("b", (Stage("rwml"),), placebo_of="a"), Arm("c", (Stage("rwml"),))),
)


def record(arm: str, seed: int, status: str = "finished", size: str = "tiny", **metrics) -> Record:
    versions = {"device": "cpu", "threads": 2}
    numbers = {f"s.{name}": value for name, value in metrics.items()}
    return Record(
        arm, size, seed, status, "", "2026-01-01T00:00:00+00:00", 36.0, "command", "abc", versions, [], numbers
    )


def test_a_row_holds_means_over_seeds_and_differences_with_their_interval():
    records = [record("a", seed, x=x, y=0.1) for seed, x in enumerate((0.2, 0.3, 0.4))]
    mean, low, high = student_interval([0.1, 0.2, 0.3])
    row = next(line for line in table_text(TABLE, records).splitlines() if line.startswith("| a "))
    assert row == f"| a | 0, 1, 2 | 0.300 | {mean:+.3f} [{low:+.3f}, {high:+.3f}] | - |"


def test_arms_are_compared_on_the_same_seeds_only():
    records = [record("a", 0, x=0.5), record("a", 1, x=0.1), record("b", 1, x=0.2)]
    row = next(line for line in table_text(TABLE, records).splitlines() if line.startswith("| b "))
    assert "(placebo of a)" in row
    assert "+0.100 (1 seed)" in row


def test_an_arm_that_did_not_run_says_so_and_no_difference_is_made_up():
    text = table_text(TABLE, [record("a", 0, x=0.5)])
    assert "Not run: b; c." in text
    assert "| a | 0 | 0.500 | - | - |" in text


def test_a_number_that_was_withdrawn_is_not_shown_but_its_reason_is():
    gone = Withdrawn("b", ("s.x*",), "2026-01-02T00:00:00", "It was measured with a bent ruler.")
    table = replace(TABLE, withdrawn=(gone,))
    old, new = record("b", 0, x=0.5, y=0.1), replace(record("b", 1, x=0.25), ended="2026-01-03T00:00:00+00:00")
    text = table_text(table, [record("a", 0, x=0.5), old])
    assert "| b (placebo of a) | 0 | - | - | - |" in text
    assert "- b, numbers that were withdrawn: It was measured with a bent ruler." in text
    assert "| b (placebo of a) | 0, 1 | 0.250 | - | - |" in table_text(table, [old, new])
    assert "withdrawn" not in table_text(table, [new])
    with pytest.raises(InvalidConfigError, match="Expected an arm among"):
        replace(TABLE, withdrawn=(replace(gone, arm="z"),))


def test_a_mean_is_of_one_setting():
    def at(seed, rate, x, **more):
        return replace(record("a", seed, x=x), stages=[StageRecord("rwml", {"seed": seed, "rate": rate, **more})])

    other = [at(0, 0.1, 0.5), at(1, 0.1, 0.7)]
    assert measured([*other, at(0, 9.0, 0.0)], "tiny") == [at(0, 9.0, 0.0)]
    assert measured([at(0, 9.0, 0.0), *other], "tiny") == other
    # An option that is younger than a record does not part it from the others.
    assert len(measured([*other, at(2, 0.1, 0.6, young=True)], "tiny")) == 3


def test_what_was_expected_stands_above_the_numbers():
    text = table_text(TABLE, [record("a", 0, x=0.5)])
    assert text.index("*Expected beforehand*: e") < text.index("| arm |")


def test_a_table_with_more_quantities_than_arms_has_one_a_row():
    more = tuple(Column(f"value {n}", f"s.{n}") for n in range(9))
    text = table_text(replace(TABLE, columns=more), [record("a", 0, **{str(n): n for n in range(9)})])
    assert "| arm | a |" in text
    assert "| value 7 | 7.000 |" in text


def test_only_the_last_finished_run_of_a_size_counts():
    records = [record("a", 0, x=1), record("a", 0, x=3), record("a", 0, "failed", x=4), record("a", 0, size="paper")]
    assert [r.metrics["s.x"] for r in measured(records, "tiny")] == [3]
    assert measured(records, "smoke") == []


def test_a_stopped_run_counts_where_none_is_finished():
    records = [record("a", 0, x=1, y=1), record("a", 0, "stopped", x=9, y=1), record("a", 1, "stopped", x=3)]
    chosen = measured(records, "tiny")
    assert [(r.seed, r.status, r.metrics["s.x"]) for r in chosen] == [(0, "finished", 1), (1, "stopped", 3)]
    text = table_text(TABLE, chosen)
    assert "- a, stopped early: seeds 1. They count where they had measured something." in text


def test_a_stage_is_the_same_with_younger_options_at_their_defaults_and_another_with_a_changed_default():
    demo = PRESETS["demo"]
    stored = StageRecord("rwml", settings_of(demo))
    assert stored.has(demo)
    assert not stored.has(replace(demo, seed=1))
    assert stored.has(replace(demo, seed=1), free=("seed",))
    younger = StageRecord("rwml", {k: v for k, v in stored.settings.items() if k != "placebo"})
    assert younger.has(demo)
    assert not younger.has(replace(demo, placebo="shuffled"))
    assert demo.grpo.clip == type(demo)().grpo.clip  # a default, which was another one when this was recorded
    assert not StageRecord("rwml", {**stored.settings, "grpo.clip": 0.1}).has(demo)
    assert not StageRecord("rwml", {**stored.settings, "gone": 1}).has(demo)


def test_records_are_appended_and_failed_ones_stay(tmp_path):
    for each in (record("a", 0, "failed"), record("a", 0, x=0.5)):
        add_record(tmp_path, "t", each)
    assert [r.status for r in read_records(tmp_path, "t")] == ["failed", "finished"]


def test_damaged_results_are_told_and_never_overwritten(tmp_path):
    (tmp_path / "t.json").write_text("[{]")
    with pytest.raises(InvalidDatasetError, match="Restore the file"):
        add_record(tmp_path, "t", record("a", 0))
    assert (tmp_path / "t.json").read_text() == "[{]"


def test_the_committed_page_holds_the_committed_results():
    page = (ROOT / "docs" / "claims-tables.md").read_text(encoding="utf-8")
    assert page_text(page, COMMITTED) == page


def test_tables_without_results_of_their_own_stay_as_they_are_committed(tmp_path):
    page = (ROOT / "docs" / "claims-tables.md").read_text(encoding="utf-8")
    assert page_text(page, tmp_path) == page


def test_the_committed_figures_hold_the_committed_results():
    page = (ROOT / "docs" / "claims-tables.md").read_text(encoding="utf-8")
    names = shown_tables(page)
    assert len(names) > 1
    for name, size in names:
        table = load_table(name)
        rows = figure_rows(table, measured(read_records(COMMITTED, name), size))
        if not any(column.figure for column in table.columns):
            continue
        assert described(ROOT / "docs" / figure_path(name, size)) == [asdict(row) for row in rows]


def test_a_figure_shows_every_seed_and_is_the_same_file_for_the_same_numbers(tmp_path):
    pytest.importorskip("matplotlib")
    columns = (Column("value", "s.x"), Column("gain", "s.x", minus="s.y", figure=True))
    records = [record("a", seed, x=x, y=0.1) for seed, x in enumerate((0.2, 0.3, 0.4))] + [record("b", 5, x=0.3, y=0.1)]
    rows = figure_rows(replace(TABLE, columns=columns), records)
    assert [(row.arm, row.label, list(row.by_seed)) for row in rows] == [
        ("a", "gain", ["0", "1", "2"]),
        ("b", "gain", ["5"]),
    ]
    assert (rows[0].mean, rows[0].low, rows[0].high) == pytest.approx(student_interval([0.1, 0.2, 0.3]))
    for name in ("one.svg", "two.svg"):
        draw_figure(rows, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert described(tmp_path / "one.svg") == [asdict(row) for row in rows]


def described(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(unescape(re.search(r"<dc:description>(.*?)</dc:description>", text, re.DOTALL)[1]))


def test_a_page_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidConfigError, match="no such file"):
        write_page(tmp_path / "none.md", tmp_path)
