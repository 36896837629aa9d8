"""`rwml-gym record`, `calibrate` and `audit` from the command line."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from rwml_gym.transitions import TransitionDataset
from tests.helpers.command_line import run, said
from tests.helpers.webshop import webshop

pytest.importorskip("datasets")
needs_train = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs the train extra")
SMALL = ["--encoder", "hashing", "--pairs", "10"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shop"
    webshop(sessions=20).save(folder)
    return folder


@pytest.mark.long
@needs_train
def test_alfworld_is_recorded_calibrated_and_audited(capsys, tmp_path):
    pytest.importorskip("alfworld")
    pytest.importorskip("matplotlib")
    data = tmp_path / "alfworld"
    assert run("record", "--games", 12, "--max-steps", 20, "--history", 3, "--out", data) == 0
    assert "240 transitions of 12 games" in said(capsys)
    recorded = TransitionDataset.load(data)
    assert (len(recorded), len(recorded.games)) == (240, 12)
    assert max(len(t.history) for t in recorded) == 3
    assert {t.env_id for t in recorded} == {"rwml_gym/ALFWorld-v0"}

    assert run("calibrate", data, "--gap", "cosine", *SMALL, "--out", tmp_path / "calibration") == 0
    out = said(capsys)
    assert "action go" in out
    assert "too little data" in out, "rare actions say so"
    (found,) = json.loads((tmp_path / "calibration" / "calibrations.json").read_text())
    assert found["all"]["encoder"] == "hashing"
    assert f"{found['all']['threshold']:.4g}" in out
    assert found["action"]["go"]["n"] == sum(t.action.startswith("go ") for t in recorded)
    curve = found["all"]["curve"]
    assert [point[0] for point in curve] == sorted(point[0] for point in curve)
    assert curve[-1][2] == 1, "the largest threshold rewards everything"
    assert (tmp_path / "calibration" / "calibrations.png").read_bytes().startswith(b"\x89PNG")

    assert run("audit", data, *SMALL, "--out", tmp_path / "audit") == 0
    assert "Verdict: this reward" in said(capsys)
    assert {p.name for p in (tmp_path / "audit").iterdir()} == {"audit.txt", "audit.json", "audit.png"}


@needs_train
def test_recording_is_repeatable_and_replaces_nothing_unasked(capsys, tmp_path):
    pytest.importorskip("alfworld")
    words = ["record", "--games", 2, "--max-steps", 4, "--out"]
    assert run(*words, tmp_path / "a") == run(*words, tmp_path / "b") == 0
    first = TransitionDataset.load(tmp_path / "a")
    assert first == TransitionDataset.load(tmp_path / "b")
    capsys.readouterr()
    assert run(*words, tmp_path / "a", "--seed", 5) == 2
    assert "add --overwrite" in said(capsys)
    assert TransitionDataset.load(tmp_path / "a") == first
    assert run(*words, tmp_path / "a", "--seed", 5, "--overwrite") == 0
    assert TransitionDataset.load(tmp_path / "a") != first


@pytest.mark.long
@needs_train
def test_tau2_is_recorded_and_audited_by_kind_of_message(capsys, tmp_path):
    pytest.importorskip("tau2")
    pytest.importorskip("rouge_score")
    data = tmp_path / "retail"
    assert run("record", "--env", "tau2", "--domain", "retail", "--games", 12, "--out", data) == 0
    assert {t.role for t in TransitionDataset.load(data)} <= {"tool", "user", ""}
    capsys.readouterr()
    assert run("audit", data, *SMALL) == 0
    out = said(capsys)
    assert "Messages of role 'tool': ROUGE-L" in out
    assert "(words)" in out
    assert run("calibrate", data, "--gap", "rouge", "--by", "role", *SMALL) == 0
    assert "role tool" in said(capsys)
    schema = ["calibrate", data, "--gap", "rouge", "--by", "role", "--view", "schema", *SMALL]
    assert run(*schema, "--choose", "precision", "paper") == 0
    out = said(capsys)
    assert out.count("ROUGE-L of the schema") >= 2
    assert re.search(r"Chosen by paper: \d+% of the triplets are easy", out)
    assert "Lets pass of other things:" in out
    assert "Reward in steps of 0.2, of the same:" in out
    assert run("audit", data, "--view", "schema", "--reward", "stepped", *SMALL) == 0
    assert "ROUGE-L of the schema, reward 1 - d in steps of 0.2" in said(capsys)


@pytest.mark.long
def test_the_shop_is_warned_of_and_a_strict_audit_says_so_to_scripts(capsys, shop):
    assert run("audit", shop, *SMALL) == 0
    assert "Leave out 'search'" in said(capsys)
    assert run("audit", shop, *SMALL, "--strict") == 1


@pytest.mark.long
def test_several_gaps_stand_in_one_table(capsys, shop, tmp_path):
    pytest.importorskip("rouge_score")
    pytest.importorskip("matplotlib")
    words = ["calibrate", shop, *SMALL, "--by", "action", "--precision", "0.8"]
    assert run(*words, "--out", tmp_path / "out") == 0
    out = said(capsys)
    assert out.count("action search") == 3
    names = [each["name"] for each in json.loads((tmp_path / "out" / "calibrations.json").read_text())]
    assert names == ["cosine of hashing", "cosine of hashing with the same names and numbers", "ROUGE-L"]


@pytest.mark.long
@needs_train
def test_a_model_is_sampled_as_training_would(capsys, shop, tiny_folder, tmp_path):
    pytest.importorskip("matplotlib")
    words = ["audit", shop, *SMALL, "--model", tiny_folder, "--samples", 4, "--group-size", 4, "--prompts", 3]
    assert run(*words, "--max-prompt-tokens", 64) == 2
    assert "they alone take" in capsys.readouterr().err
    assert run(*words, "--max-new-tokens", 8, "--max-prompt-tokens", 200, "--out", tmp_path / "out") == 0
    assert "4 samples of each of 3 transitions" in said(capsys)
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert found["signal"]["reward"][0] == 0, "a random model predicts nothing"
    assert found["verdict"] == "will NOT teach as it is"


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["calibrate", "no/such/folder"], "written by `TransitionDataset.save`, actual: 'no/such/folder'"),
        (["audit", "no/such/folder"], "written by `TransitionDataset.save`, actual: 'no/such/folder'"),
        (["audit"], "DATA"),
        (["audit", "SHOP", "--encoder", "no-such-org/none"], "no-such-org/none"),
        (["calibrate", "SHOP", "--encoder", "hashing", "no-such-org/none"], "no-such-org/none"),
        (["calibrate", "SHOP", "--precision", "1.5"], "--precision above 0 and at most 1, actual: 1.5"),
        (["calibrate", "SHOP", "--pairs", "0"], "pairs of at least 1, actual: 0"),
        (["calibrate", "SHOP", "--gap", "bleu"], "bleu"),
        (["calibrate", "SHOP", "--view", "schema"], "Use the view 'raw'"),
        (["calibrate", "SHOP", "--view", "xml"], "xml"),
        (["calibrate", "SHOP", "--threshold", "1.5", "--gap", "rouge"], "(0, 1], the range of the rouge gap"),
        (["calibrate", "SHOP", "--choose", "quantile"], "a --threshold and at least two encoders"),
        (["calibrate", "SHOP", "--choose", "quantile", "--threshold", "0.2"], "at least two encoders"),
        (["calibrate", "SHOP", "--choose", "luck"], "luck"),
        (["calibrate", "SHOP", "--easy-rate", "2"], "easy_rate between 0 and 1"),
        (["audit", "SHOP", "--view", "schema"], "Use the view 'raw'"),
        (["audit", "SHOP", "--threshold", "low"], "--threshold FLOAT|{auto}"),
        (["audit", "SHOP", "--threshold", "3", "--encoder", "hashing"], "`threshold` in (0, 2]"),
        (["audit", "SHOP", "--samples", "0"], "samples of at least 1, actual: 0"),
        (["audit", "SHOP", "--group-size", "1", "--encoder", "hashing"], "at least 2, actual: 1"),
        (["audit", "SHOP", "--adapter", "x"], "Expected --model with --adapter, actual: none. Leave it out, or name"),
        (["audit", "SHOP", "--history", "2", "--samples", "16"], "Expected --model with --history, --samples"),
        (["record", "--games", "0", "--out", "OUT"], "games of at least 1, actual: 0"),
        (["record", "--games", "2"], "--out"),
        (["record", "--env", "toy", "--out", "."], "Expected the name of a folder, actual: '.'. Choose another --out."),
        (["record", "--env", "webshop", "--out", "OUT"], "webshop"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_names_its_fix_before_any_work(capsys, shop, tmp_path, words, fix):
    out = tmp_path / "out"
    places = {"SHOP": str(shop), "OUT": str(out)}
    assert run(*(places.get(word, word) for word in words)) == 2
    assert fix in said(capsys)
    assert not out.exists()


@needs_train
@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["audit", "SHOP", "--model", "no/such/model", "--encoder", "hashing"], "folder with safetensors weights"),
        (["record", "--split", "valid", "--out", "OUT"], "generated_held_out"),
        (["record", "--env", "tau2", "--domain", "railway", "--out", "OUT"], "retail"),
        (["record", "--env", "tau2", "--games", "9999", "--out", "OUT"], "Ask for fewer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_models_and_worlds_that_do_not_exist_are_refused(capsys, shop, tmp_path, words, fix):
    pytest.importorskip("alfworld")
    pytest.importorskip("tau2")
    test_bad_input_names_its_fix_before_any_work(capsys, shop, tmp_path, words, fix)


def test_data_that_says_nothing_of_others_is_refused(capsys, tmp_path):
    data = webshop(sessions=1)
    data.save(tmp_path / "one")
    TransitionDataset([]).save(tmp_path / "none")
    for command in ("calibrate", "audit"):
        assert run(command, tmp_path / "one", *SMALL) == 2
        assert "at least 2 games" in said(capsys)
        assert run(command, tmp_path / "none", *SMALL) == 2
        assert "actual: none. Record games" in said(capsys)


def test_a_file_in_place_of_the_output_folder_is_refused(capsys, shop, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("mine")
    assert run("audit", shop, *SMALL, "--out", tmp_path / "file") == 2
    assert "--out to be a folder" in said(capsys)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["record", "calibrate", "audit"])
def test_help_lists_every_option(capsys, command):
    assert run(command, "--help") == 0
    out = said(capsys)
    assert "--seed" in out
    assert "--out" in out


def test_a_folder_that_cannot_be_replaced_is_told_before_play(capsys, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "notes.txt").write_text("precious")
    words = ("record", "--env", "toy", "--games", 60, "--out", tmp_path / "thesis", "--overwrite")
    assert run(*words) == 2
    assert "Expected a new folder or a saved dataset" in said(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_threshold_that_nothing_would_measure_is_refused(capsys, shop):
    assert run("calibrate", shop, "--encoder", "hashing", "--threshold", 0.1, "--choose", "paper") == 2
    assert "Expected --threshold alone or with --choose quantile, actual: with paper" in said(capsys)


def test_a_target_is_told_where_it_was_reached(capsys, tmp_path):
    run("record", "--env", "toy", "--games", 20, "--out", tmp_path / "toy")
    capsys.readouterr()
    run("calibrate", tmp_path / "toy", "--encoder", "hashing", "--by")
    assert "0.90 reached 0.91 on the games that chose it" in said(capsys)
    run("calibrate", tmp_path / "toy", "--encoder", "hashing", "--threshold", 0.4, "--by")
    assert "at best" not in (told := said(capsys))
    assert "0.90 NOT reached" in told
    run("audit", tmp_path / "toy", "--encoder", "hashing", "--limit", 20)
    assert "caution" in (told := said(capsys))
    assert "it reached 0.91 on the games that chose it" in told
    run("audit", tmp_path / "toy", "--encoder", "hashing", "--threshold", 0.4, "--limit", 20)
    assert "target 0.90 NOT reached" in said(capsys)
