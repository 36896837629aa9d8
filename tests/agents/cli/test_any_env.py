"""Every command and every job plays the toy house, and any registered environment of texts, without a line for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft")
pytest.importorskip("matplotlib")

from rwml_gym.agents.config.base import EnvConfig, mapping_of
from rwml_gym.agents.runs.worlds import Source
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import TransitionDataset
from tests.helpers.command_line import run, said

PLAIN = "tests.helpers.plain_env:rwml_gym_tests/Plain-v0"
ENVS = ["toy", PLAIN]
MODEL = ["--dtype", "float32", "--lora-rank", "4", "--max-prompt-tokens", "300"]
SMALL = ["--encoder", "hashing", "--pairs", "5"]


@pytest.fixture
def model(tiny_folder: Path) -> list[str]:
    return ["--model", str(tiny_folder), *MODEL]


@pytest.mark.long
@pytest.mark.parametrize(("env", "unit"), [("toy", "games"), (PLAIN, "episodes")])
def test_transitions_are_recorded_calibrated_and_audited(capsys, tmp_path, env, unit):
    data = tmp_path / "data"
    assert run("record", "--env", env, "--games", 12, "--max-steps", 6, "--out", data) == 0
    assert f"of 12 {unit} in" in said(capsys)
    recorded = TransitionDataset.load(data)
    assert len(recorded.games) == 12, "where the environment names no games, each episode is its own"
    assert run("calibrate", data, "--gap", "cosine", "rouge", "exact", *SMALL, "--out", tmp_path / "c") == 0
    out = said(capsys)
    assert "ROUGE-L" in out
    assert "exact match" in out
    assert run("audit", data, *SMALL, "--out", tmp_path / "a") == 0
    assert f"transitions of 12 {unit}" in said(capsys)


@pytest.mark.long
@pytest.mark.parametrize(("env", "unit"), [("toy", "games"), (PLAIN, "episodes")])
def test_a_world_model_is_trained(capsys, tmp_path, model, env, unit):
    words = ["train", "rwml", "--preset", "smoke", "--env", env, "--run-dir", tmp_path / "run", *model]
    words += ["--encoder", "hashing", "--threshold", "0.5", "--max-new-tokens", "24", "--collect.games", "6"]
    words += ["--collect.held-out-games", "4", "--collect.random-share", "1"]
    assert run(*words) == 0
    out = said(capsys)
    assert f"{unit} held out" in out
    report = (tmp_path / "run" / "report.txt").read_text()
    assert f"{unit}, greedy predictions" in report
    assert list((tmp_path / "run").rglob("README.md")), "a model card"
    # Once more: everything is there, nothing is computed.
    assert run(*words) == 0


@pytest.mark.long
@pytest.mark.parametrize("env", ENVS)
def test_a_policy_is_trained_and_evaluated(capsys, tmp_path, model, env):
    folder = tmp_path / "run"
    words = ["train", "policy", "--preset", "smoke", "--env", env, "--run-dir", folder, *model]
    if env != "toy":  # which never says what is won, so nothing can be imitated
        assert run(*words) == 2
        assert "Expected won episodes to imitate" in said(capsys)
        words[words.index(folder)] = folder = tmp_path / "without"
        words += ["--imitation.steps", "0"]
    assert run(*words) == 0
    assert ("reward 0." in (out := said(capsys)).partition("Success of")[2]) == (env == PLAIN), "success nobody told of"
    assert ("held-out episodes: " in out) == (env == PLAIN)
    evaluations = json.loads((folder / "report.json").read_text())
    assert {row["name"] for row in evaluations} == {"held-out"}
    adapter = folder / "adapters" / "policy"
    evaluate = ["evaluate", "--env", env, "--agent", "model", "--model", model[1], "--adapter", adapter]
    assert run(*evaluate, "--dtype", "float32", "--episodes", "3", "--max-steps", "3", "--history", "0") == 0
    out = said(capsys)
    assert "3 episodes." in out
    assert ('gives no info["won"]' in out) == (env == PLAIN)
    # What differs from the training is told, and nothing where nothing does.
    assert "trained to play otherwise: --action-tokens 12 (here 16)." in out
    again = [*evaluate, "--dtype", "float32", "--episodes", "1", "--max-steps", "1", "--action-tokens", "12"]
    assert run(*again) == 0
    assert "trained to play otherwise: --history 0 (here 4)." in said(capsys)
    assert run(*again, "--history", "0") == 0
    assert "otherwise" not in said(capsys)
    (adapter / "agent.json").write_text("[1, 2]")
    assert run(*again) == 2
    assert "Delete that file" in said(capsys)


@pytest.mark.long
@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("target", ["states", "actions"])
def test_supervised_fine_tuning(capsys, tmp_path, model, env, target):
    words = ["train", "sft", "--preset", "smoke", "--env", env, "--target", target, "--run-dir", tmp_path / "run"]
    if target == "actions" and env != "toy":
        assert run(*words, *model) == 2
        assert "Expected won episodes to imitate" in said(capsys)
        return
    assert run(*words, *model, "--max-steps", "6") == 0
    name = "sft" if target == "states" else "imitation"
    assert (tmp_path / "run" / "adapters" / name / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("agent", "success"), [("expert", "1.000"), ("random", "0."), ("task-words", "0.")])
def test_the_toy_house_is_played(capsys, agent, success):
    assert run("evaluate", "--env", "toy", "--agent", agent, "--episodes", "12") == 0
    out = said(capsys)
    assert "12 episodes. [95 % interval]" in out
    assert "data toy-1" in out
    assert f"all 12 {success}" in out


def test_advice_that_is_there_anyway_is_not_asked_for(capsys):
    assert run("evaluate", "--env", PLAIN, "--agent", "expert", "--episodes", "4") == 0
    assert "4 episodes." in said(capsys)


def test_a_split_among_the_arguments_is_the_one_that_is_trained_on():
    source = Source(EnvConfig("tau2", '{"split": "test", "domain": "mock"}'))
    assert source.held_out_split is None, "its games are divided, not held out against themselves"
    assert Source(EnvConfig("toy", '{"split": "train"}')).held_out_split == "held_out"


def test_a_known_id_that_misses_a_library_is_not_called_unknown(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rwml_gym.envs.alfworld.env", None)
    with pytest.raises(ImportError):  # of ours, so it is no extra that is missing
        run("evaluate", "--env", "rwml_gym/ALFWorld-v0")


def test_arguments_reach_the_environment(capsys):
    assert run("evaluate", "--env", PLAIN, "--env-arguments", '{"size": 1}', "--episodes", "4") == 0
    assert "mean reward of an episode: 1.000" in said(capsys)
    assert run("evaluate", "--env", PLAIN, "--env-arguments", "size: 1", "--episodes", "4") == 0
    assert run("evaluate", "--env", PLAIN, "--env-arguments", '{\n\t"size": 1\n}', "--episodes", "4") == 0
    assert "mean reward of an episode: 1.000" in said(capsys)


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--env", "toy", "--env-arguments", "[1]"], 'a mapping such as {"size": 4}'),
        (["--env", "toy", "--env-arguments", "{"], "invalid YAML"),
        (["--env", "toy", "--env-arguments", "{split: train}", "--split", "train"], "['split'] twice"),
        (["--env", "toy", "--env-arguments", "{gmaes: 3}"], "gmaes"),
        (["--env", PLAIN, "--env-arguments", "{sise: 3}"], "Change --env-arguments"),
        (["--env", "toy", "--rooms", "kitchen"], "rooms. Remove it"),
        (["--env", "not an id"], "Malformed environment ID"),
        (["--env", "alfwrld"], "Did you mean 'alfworld'?"),
        (["--env", "no_such_module:Some-v0"], "a registered Gymnasium id"),
        (["--env", "tests.helpers.plain_env:rwml_gym_tests/Numbers-v0"], "text observations and actions"),
        (["--env", "toy", "--split", "test"], "held_out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("command", ["evaluate", "record", "train rwml"])
def test_bad_input_names_its_fix_before_any_work(capsys, tmp_path, command, words, fix):
    out = {"record": ["--out", tmp_path / "x"], "train rwml": ["--preset", "smoke", "--run-dir", tmp_path / "x"]}
    assert run(*command.split(), *words, *out.get(command, [])) == 2
    assert fix in said(capsys)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"rate": 1e-3, "high": 1E5}', {"rate": 0.001, "high": 100_000.0}),
        ("{rate: 1e-3}", {"rate": 0.001}),
        ('{"face": "\\ud83d\\ude00"}', {"face": "😀"}),
    ],
)
def test_arguments_are_read_as_they_are_meant(text, found):
    assert mapping_of("env_arguments", text) == found
    with pytest.raises(InvalidConfigError, match="a key twice"):
        mapping_of("env_arguments", '{"a": 1, "a": 2}')


def test_a_random_player_needs_to_know_the_actions(capsys, tmp_path):
    words = ["--env", PLAIN, "--env-arguments", "{actions: false}", "--out", tmp_path / "x"]
    assert run("record", *words) == 2
    assert 'Expected info["admissible_actions"] or info["tools"] for a random player' in said(capsys)


@pytest.mark.parametrize(
    ("env", "there", "missing", "problem"),
    [
        ("toy", "expert_action", "task_type", "Nothing to object to."),
        (PLAIN, "expert_action", "won", "each episode is its own game"),
    ],
)
def test_check_env_says_what_is_there_and_what_more_would_give(capsys, env, there, missing, problem):
    assert run("check-env", env) == 0
    out = capsys.readouterr().out
    marks = {line.split()[1]: line.split()[0] for line in out.splitlines() if line.startswith("  ")}
    assert (marks[there], marks[missing]) == ("yes", "-")
    assert problem in out
    assert run("check-env", "tests.helpers.plain_env:rwml_gym_tests/Numbers-v0") == 2
    assert "Register an id that wraps it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{listed: text}", "Expected a list of texts in info['admissible_actions'], actual: 'ab'"),
        ("{listed: array}", "each episode is its own game"),
        ("{listed: set}", "Expected a list of texts in info['admissible_actions']"),
        ("{listed: number}", "Expected a list of texts in info['admissible_actions'], actual: '3'"),
        ("{answers: false}", "The observation of step is not in the observation space: 'None' (NoneType)"),
        ("{won: 'no'}", "`won` is no bool: 'no'"),
    ],
)
def test_check_env_sees_what_breaks_later(capsys, arguments, problem):
    assert run("check-env", "tests.helpers.plain_env:rwml_gym_tests/Careless-v0", "--env-arguments", arguments) == 0
    assert problem in capsys.readouterr().out
