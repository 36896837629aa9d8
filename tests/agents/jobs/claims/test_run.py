"""Tables of the claims run for real on small games with a tiny model: recorded, repeated, interrupted, failing."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("alfworld")

from rwml_gym.agents.claims.records import COMMITTED, measured, read_records
from rwml_gym.agents.claims.tables import load_sizes, load_table, table_names
from rwml_gym.agents.config.policy import POLICY_PRESETS
from rwml_gym.agents.jobs.claims import run as module
from rwml_gym.agents.jobs.claims.configs import plan_runs
from rwml_gym.agents.jobs.claims.metrics import _at_equal_reward, metrics_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.storage.lock import WriteLock
from tests.helpers.alfworld_data import official_data
from tests.helpers.command_line import run, said

ARMS = ("--arms", "SFT 1 x", "SFT 2 x")


def _words(folder, model, *more):
    return ("reproduce", "plateau", "--size", "smoke", "--set", f"model={model}", "--run-dir", folder, *more)


def _records(folder, table="plateau"):
    return json.loads((folder / "results" / f"{table}.json").read_text())


@pytest.fixture(scope="module")
def ran(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    assert run(*_words(folder, tiny_folder, *ARMS)) == 0
    return folder


@pytest.mark.long
def test_each_arm_is_recorded_with_what_it_ran(ran):
    records = _records(ran)
    assert [(r["arm"], r["seed"], r["status"]) for r in records] == [
        ("SFT 1 x", 0, "finished"),
        ("SFT 2 x", 0, "finished"),
    ]
    steps = [r["stages"][0]["settings"]["sft.steps"] for r in records]
    assert steps == [1, 2]
    for record in records:
        assert {"rwml.warm_start.all", "rwml.rwml.all", "rwml.sft_same_time.kl", "rwml.signal"} <= set(
            record["metrics"]
        )
        assert record["seconds"] > 0
        assert record["versions"]["torch"]
        assert str(ran) not in record["command"]


@pytest.mark.long
def test_finished_arms_are_taken_as_they_are(ran, tiny_folder, capsys):
    before = _records(ran)
    assert run(*_words(ran, tiny_folder, *ARMS)) == 0
    assert "2 runs, 2 of them finished" in said(capsys)
    assert _records(ran) == before


@pytest.mark.long
def test_other_settings_are_run_and_leave_the_first_ones_finished(ran, tiny_folder, tmp_path, capsys):
    shutil.copytree(ran, tmp_path / "copy")
    one = _words(tmp_path / "copy", tiny_folder, "--arms", "SFT 1 x")
    assert run(*one[:6], "sft.steps=3", *one[6:]) == 0
    assert run(*one) == 0
    assert "1 runs, 1 of them finished" in said(capsys)
    assert [r["stages"][0]["settings"]["sft.steps"] for r in _records(tmp_path / "copy")] == [1, 2, 3]


@pytest.mark.long
def test_arms_that_differ_after_sft_share_it(tiny_folder, tmp_path, capsys):
    words = ("reproduce", "filter", "--size", "smoke", "--set", f"model={tiny_folder}", "--run-dir", tmp_path)
    assert run(*words, "--arms", "window", "no filter") == 0
    assert said(capsys).count("Forked from") == 1
    first, second = sorted(tmp_path.glob("rwml-*"), key=lambda folder: (folder / "config.json").stat().st_mtime)
    assert not (first / "fork.json").exists()
    assert json.loads((second / "fork.json").read_text())["from"] == first.name
    assert [record["status"] for record in _records(tmp_path, "filter")] == ["finished", "finished"]


@pytest.mark.long
def test_two_commands_share_a_table(ran, tiny_folder, tmp_path, capsys):
    """What another command runs is left to it, and what it has recorded meanwhile stays."""
    folder = tmp_path / "copy"
    shutil.copytree(ran, folder)
    words = (*_words(folder, tiny_folder, *ARMS), "--seeds", 1)
    before, model = _records(folder), {"model": str(tiny_folder)}
    (planned,) = plan_runs(load_table("plateau"), load_sizes()["smoke"], folder, ["SFT 2 x"], [1], model)
    place = planned.stages[0].folder
    with WriteLock(place / ".lock", place, ""):
        assert run(*words) == 0
    assert said(capsys).count("Another command has run it, or runs it now.") == 1
    assert [(r["arm"], r["seed"]) for r in _records(folder)[len(before) :]] == [("SFT 1 x", 1)]
    assert [path.name for path in (folder / "results").iterdir()] == ["plateau.json"]
    assert run(*words) == 0
    assert [(r["arm"], r["seed"]) for r in _records(folder)[len(before) :]] == [("SFT 1 x", 1), ("SFT 2 x", 1)]


@pytest.mark.long
def test_the_table_can_be_shown_without_running(ran, tiny_folder, capsys):
    assert run(*_words(ran, tiny_folder, "--show")) == 0
    shown = said(capsys)
    assert "| arm | SFT 1 x | SFT 2 x |" in shown
    assert "| seeds | 0 | 0 |" in shown
    assert "Not run: SFT 4 x; SFT 8 x; shuffled answers." in shown


@pytest.mark.long
def test_an_interrupted_arm_goes_on_and_has_the_same_metrics(ran, tiny_folder, tmp_path, monkeypatch):
    from rwml_gym.agents.jobs import world_model

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world_model, "grpo_step", stop)
        assert run(*_words(tmp_path, tiny_folder, "--arms", "SFT 1 x")) == 130
    assert not (tmp_path / "results").exists()
    assert run(*_words(tmp_path, tiny_folder, "--arms", "SFT 1 x")) == 0
    # SFT for the same time takes as many steps as the clock says.
    kept = [{k: v for k, v in _records(f)[0]["metrics"].items() if "same_time" not in k} for f in (ran, tmp_path)]
    assert kept[0] == kept[1]


@pytest.mark.long
def test_a_run_that_was_killed_is_recorded_with_what_it_had_measured(ran, tiny_folder, tmp_path, capsys):
    one = _words(tmp_path, tiny_folder, "--arms", "SFT 1 x", "--stopped")
    assert run(*one) == 0
    assert "0 stopped runs are recorded" in said(capsys)
    (folder,) = (path for path in ran.glob("rwml-*") if '"steps": 1,' in (path / "config.json").read_text())
    copy = shutil.copytree(folder, tmp_path / folder.name)
    for lost in ("results.json", ".reproduce.json", "evaluation/sft_same_time.json", "forgetting/sft_same_time.json"):
        (copy / lost).unlink()
    assert run(*one) == 0
    (record,) = _records(tmp_path)
    assert (record["status"], record["seed"]) == ("stopped", 0)
    whole = _records(ran)[0]["metrics"]
    assert record["metrics"] == {name: value for name, value in whole.items() if "sft_same_time" not in name}
    assert run(*one) == 0
    assert len(_records(tmp_path)) == 1
    assert run(*_words(tmp_path, tiny_folder, "--arms", "SFT 1 x", "--show")) == 0
    assert "stopped early: seeds 0" in said(capsys)
    for lost in ("evaluation", "metrics"):
        shutil.rmtree(copy / lost)
    (tmp_path / "results" / "plateau.json").unlink()
    assert run(*one) == 0
    assert "0 stopped runs are recorded" in said(capsys)


@pytest.mark.long
def test_a_failed_arm_is_recorded_and_the_others_run(tiny_folder, tmp_path, monkeypatch, capsys):
    run_world_model = module.run_world_model

    def fail(config, folder, fork):
        if config.sft.steps == 1:
            raise RuntimeError("out of luck")
        return run_world_model(config, folder)

    monkeypatch.setattr(module, "run_world_model", fail)
    assert run(*_words(tmp_path, tiny_folder, *ARMS)) == 1
    assert [r["status"] for r in _records(tmp_path)] == ["failed", "finished"]
    assert _records(tmp_path)[0]["error"] == "rwml: RuntimeError: out of luck"


@pytest.mark.long
def test_the_time_of_starts_that_failed_or_were_killed_counts(ran, tiny_folder, tmp_path, monkeypatch):
    def fail(config, folder, fork):
        time.sleep(0.2)
        raise RuntimeError("out of luck")

    one = _words(tmp_path, tiny_folder, "--arms", "SFT 1 x")
    with monkeypatch.context() as patch:
        patch.setattr(module, "run_world_model", fail)
        assert run(*one) == 1
    assert _records(tmp_path)[0]["seconds"] >= 0.2
    (notes,) = tmp_path.glob("rwml-*/.reproduce.json")
    assert "since" not in json.loads(notes.read_text())
    # A start of an hour ago was killed just now.
    shutil.rmtree(notes.parent)
    (folder,) = (path for path in ran.glob("rwml-*") if '"steps": 1,' in (path / "config.json").read_text())
    shutil.copytree(folder, notes.parent)
    left = {**json.loads(notes.read_text()), "finished": False, "seconds": 5.0, "since": time.time() - 3600}
    notes.write_text(json.dumps(left))
    assert run(*one) == 0
    assert 3600 < _records(tmp_path)[1]["seconds"] - 5 < 4000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reproduce", "platau"), "Did you mean 'plateau'"),
        (("reproduce", "plateau", "--size", "huge"), "Expected a size among"),
        (("reproduce", "plateau", "--size", "paper"), "--dry-run"),
        (("reproduce", "plateau", "--arms", "SFT 9 x"), "Expected an arm among"),
        (("reproduce", "plateau", "--set", "lora_rank"), "KEY=VALUE"),
        (("reproduce", "plateau", "--set", "lora_rank=many"), "lora_rank: expected"),
        (("reproduce", "transfer", "--set", "rooms=[attic]"), "attic"),
        (("reproduce", "plateau", "--show", "--dry-run"), "Expected one of --dry-run, --show and --stopped"),
        (("reproduce", "plateau", "--dry-run", "--page", "x.md"), "Expected no --page with --dry-run"),
        (("reproduce", "plateau", "--show", "--page", "no-such.md"), "no such file"),
        (("reproduce", "--arms", "x", "--show"), "Expected the name of a table with --arms, --show"),
    ],
)
def test_bad_input_is_told_before_anything_runs(words, message, tmp_path, capsys):
    assert run(*words, "--run-dir", tmp_path / "runs") == 2
    assert message in said(capsys)
    assert not (tmp_path / "runs").exists()


def test_a_change_that_no_stage_has_is_refused(tmp_path):
    table, size = load_table("plateau"), load_sizes()["smoke"]
    with pytest.raises(InvalidConfigError, match="lora_rnk"):
        plan_runs(table, size, tmp_path, changes={"lora_rnk": 3})


def test_the_same_stage_has_the_same_folder_in_every_table_and_an_adapters_history_counts(tmp_path):
    size = load_sizes()["tiny"]
    plain = plan_runs(load_table("plateau"), size, tmp_path, ["SFT 1 x"], [0])[0]
    start = {run.arm.name: run for run in plan_runs(load_table("start"), size, tmp_path, seeds=[0])}
    assert start["RWML"].stages[0].folder == plain.stages[0].folder
    assert start["RWML"].stages[1].config.adapter == str(plain.stages[0].folder / "adapters" / "rwml")
    policies = [run.stages[-1].folder for run in start.values()]
    assert len(set(policies)) == len(policies)
    other = plan_runs(load_table("plateau"), size, tmp_path, ["SFT 1 x"], [1])[0]
    assert other.stages[0].folder != plain.stages[0].folder


def test_an_evaluation_imagines_with_the_world_model_of_its_arm(tmp_path):
    runs = {run.arm.name: run for run in plan_runs(load_table("using"), load_sizes()["tiny"], tmp_path, seeds=[0])}
    both = runs["policy, RWML judges 8"].stages
    assert both[2].config.imagine == str(both[0].folder / "adapters" / "rwml")
    assert both[2].config.adapter == str(both[1].folder / "adapters" / "imitation")
    # What is trained is the same run in every arm, and a record names no folder of this machine.
    assert both[0].folder == runs["RWML"].stages[0].folder == runs["SFT"].stages[0].folder
    record = both[2].record()
    assert (record.adapter, record.imagine) == ("policy/imitation", "rwml/rwml")
    assert str(tmp_path) not in str(record)
    assert record.has(both[2].config)
    assert runs["engine"].stages[0].record().settings["imagine"] == "engine"
    assert not runs["engine"].stages[0].record().has(runs["most frequent"].stages[0].config)


@pytest.mark.long
def test_the_seeds_of_an_evaluation_play_games_of_their_own(tmp_path):
    words = ("reproduce", "using", "--size", "smoke", "--arms", "random", "--seeds", 0, 1, "--run-dir", tmp_path)
    assert run(*words) == 0
    first, second = (set(json.loads(path.read_text())) for path in sorted(tmp_path.glob("*/panel.json")))
    assert len(first) == len(second) == 2
    assert not first & second


def test_the_splits_of_a_policys_evaluation_count_together(tmp_path):
    def row(name, step, won, played, invalid=0.0):
        return {"name": name, "step": step, "won": won, "played": played, "invalid": invalid, "steps": 3.0}

    found = [row("valid_seen", 0, 6, 10), row("valid_unseen", 0, 1, 10)]
    found += [row("valid_seen", 5, 8, 10, 0.4), row("valid_unseen", 5, 2, 30), row("training", 5, 10, 10)]
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "policy.json").write_text("[]")
    (tmp_path / "report.json").write_text(json.dumps(found))
    metrics = metrics_of("policy", tmp_path)
    assert metrics["start"] == pytest.approx(0.35)
    assert metrics["end"] == pytest.approx(0.25)
    assert metrics["area"] == pytest.approx(0.3)
    assert metrics["end_invalid"] == pytest.approx(0.1)
    assert metrics["episodes"] == 40


def test_success_in_training_is_that_of_the_first_and_the_last_two_updates(tmp_path):
    updates = [(0.1, 0.0), (0.3, 0.2), (0.9, 0.9), (0.5, 0.4), (0.7, 0.8)]
    rows = [{"success": won, "gap_reward": gap, "signal_groups": 1, "groups": 2} for won, gap in updates]
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "policy.json").write_text(json.dumps(rows))
    (tmp_path / "report.json").write_text("[]")
    metrics = metrics_of("policy", tmp_path)
    assert [metrics[f"training_{part}"] for part in ("start", "end", "area")] == pytest.approx([0.2, 0.6, 0.5])
    assert [metrics[f"gap_{part}"] for part in ("start", "end")] == pytest.approx([0.1, 0.6])


@pytest.mark.long
def test_every_arm_of_every_table_has_a_configuration_at_every_size(tmp_path):
    for name in table_names():
        for size in load_sizes().values():
            runs = plan_runs(load_table(name), size, tmp_path)
            assert len(runs) == len(load_table(name).arms) * len(size.seeds)
            if size.runs and size is not load_sizes()["smoke"]:  # which has one encoder
                assert len({tuple(stage.folder for stage in run.stages) for run in runs}) == len(runs), name


@pytest.mark.parametrize("name", table_names())
def test_committed_results_are_of_todays_settings(name, tmp_path):
    for size in load_sizes():
        runs = plan_runs(load_table(name), load_sizes()[size], tmp_path)
        for record in measured(read_records(COMMITTED, name), size):
            assert any(run.made(record) for run in runs), f"{record.arm}, seed {record.seed}: run it again"


def test_the_presets_arms_deviate_from_the_size_only_where_they_say(tmp_path):
    size = load_sizes()["tiny"]
    first, second = plan_runs(load_table("plateau"), size, tmp_path, ["SFT 1 x", "SFT 2 x"], [0])
    a, b = first.stages[0].config, second.stages[0].config
    assert replace(a, sft=replace(a.sft, steps=160)) == b


def test_the_preset_with_the_gap_reward_has_the_settings_of_its_table(tmp_path):
    (planned,) = plan_runs(load_table("delivery"), load_sizes()["tiny"], tmp_path, ["gap, mean only, prediction"], [0])
    (stage,) = planned.stages
    assert replace(stage.config, evaluation=POLICY_PRESETS["demo"].evaluation) == POLICY_PRESETS["demo-gap"]


@pytest.mark.long
def test_an_arm_is_compared_with_those_of_earlier_commands(tmp_path, capsys):
    words = ("reproduce", "using", "--size", "smoke", "--seeds", 0, "--run-dir", tmp_path)
    assert run(*words, "--arms", "nothing changes") == 0
    capsys.readouterr()
    assert run(*words, "--arms", "random") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| random |"))
    assert "(1 seed)" in row
    assert run(*words, "--arms", "engine") == 0
    capsys.readouterr()
    assert run(*words, "--arms", "random", "--show") == 0
    shown = capsys.readouterr().out
    assert row in shown  # with what it is compared with
    assert "| nothing changes |" in shown
    assert "| engine |" not in shown


@pytest.mark.parametrize(
    ("sft", "expected"),
    [
        ([(0.4, 1.0), (0.6, 2.0), (0.8, 9.0)], 3.0 - 1.5),  # halfway between the first two
        ([(0.6, 1.0), (0.4, 2.0), (0.6, 9.0)], 3.0 - 1.0),  # the start, and not when it comes back
        ([(0.7, 1.0), (0.8, 2.0)], 3.0 - 1.0),  # the start is there already
        ([(0.1, 1.0), (0.2, 2.0)], None),  # never there
    ],
)
def test_forgetting_is_compared_where_sft_first_has_the_reward(sft, expected):
    names = ["warm_start", *(f"sft_same_time_step_{4 * i}" for i in range(1, len(sft)))]
    found = {"rwml.all": 0.5, "rwml.kl": 3.0, "rwml.text_loss": 0.0, "sft_same_time_step_4.all": 0.0}
    for name, (reward, kl) in zip(names, sft, strict=True):
        found |= {f"{name}.all": reward, f"{name}.kl": kl, f"{name}.text_loss": 0.0}
    result = _at_equal_reward(found)
    assert result.get("equal.kl") == (None if expected is None else pytest.approx(expected))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Expected a threshold with a precision:UserWarning")  # of very few transitions
@pytest.mark.parametrize("name", table_names())
def test_every_table_runs_at_the_smallest_size_and_fills_every_column(name, tiny_folder, tmp_path, monkeypatch):
    if name == "transfer-official":
        monkeypatch.setenv("ALFWORLD_DATA", str(official_data()))
    words = ("reproduce", name, "--size", "smoke", "--set", f"model={tiny_folder}", "--run-dir", tmp_path)
    assert run(*words) == 0
    metrics = [record["metrics"] for record in _records(tmp_path, name)]
    for column in load_table(name).columns:
        if column.metric.partition(".")[2] not in ("equal.kl", "rwml.read", "signal_start"):
            assert any(column.metric in found for found in metrics), column.label
