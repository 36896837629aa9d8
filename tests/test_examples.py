"""The examples, each run in a short form as a user would: as a script, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

EXAMPLES = ROOT / "examples"


def run(script: str, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("script", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_example_is_short_and_says_how_to_run_it(script):
    lines = (EXAMPLES / script).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any(f"python examples/{script}" in line for line in lines[:5])


def test_gym_loop_plays_both_agents_and_tells_success_and_gap(tmp_path):
    out = run("gym_loop.py", "--episodes", "2", "--max-steps", "4", "--encoder", "hashing", cwd=tmp_path)
    for agent in ("RandomAgent", "TaskWordsAgent"):
        (line,) = [line for line in out.splitlines() if line.startswith(agent)]
        assert "2 episodes, 8 steps" in line
        assert "success" in line
        assert "mean gap" in line


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A tiny random model with room for whole episodes."""
    from tests.conftest import write_model

    return str(write_model(tmp_path_factory.mktemp("examples") / "model", max_position_embeddings=8192))


@pytest.mark.long
def test_train_policy_goes_from_imitation_to_an_adapter(model, tmp_path):
    pytest.importorskip("alfworld")
    short = "--games 2 --max-steps 6 --imitation-games 4 --imitation-steps 1 --steps 1 --groups 2 --group-size 2"
    out = run("train_policy.py", "--model", model, *short.split(), "--repeats", "1", cwd=tmp_path)
    for words in ("imitation   1  loss", "imitation    success", "groups with signal", "GRPO         success"):
        assert words in out
    assert (tmp_path / "policy" / "adapter_model.safetensors").is_file()


@pytest.mark.long
def test_train_tau2_rewards_predictions_and_stands_beside_those_who_do_nothing(model, tmp_path):
    pytest.importorskip("tau2")
    short = "--tasks 2 --held-out 1 --max-steps 2 --steps 1 --group-size 2 --encoder hashing"
    out = run("train_tau2.py", "--model", model, *short.split(), cwd=tmp_path)
    for words in ("GRPO: 1 steps of 2 groups of 2 episodes", "held-out games: success", "no-op", "transfer"):
        assert words in out
    assert (tmp_path / "runs/tau2-policy/adapters/policy/README.md").is_file()


@pytest.mark.long
def test_a_plain_loop_learns_a_game_with_rewards_for_surprise(tmp_path):
    pytest.importorskip("alfworld")
    out = run("existing_rl_loop.py", "--game", "1", "--episodes", "600", "--encoder", "hashing", cwd=tmp_path)
    lines = out.splitlines()
    assert len(lines) == 10
    assert float(lines[-1].split()[3]) > 0.3
    without = run("existing_rl_loop.py", "--weight", "0", "--episodes", "20", cwd=tmp_path)
    assert "reward +0.00  distinct steps" in without.splitlines()[0]


@pytest.mark.long
def test_cartpole_learns_with_numbers_as_their_own_embedding(tmp_path):
    pytest.importorskip("stable_baselines3")
    out = run("existing_rl_cartpole.py", "--steps", "4000", cwd=tmp_path)
    before, after = (float(line.split()[2]) for line in out.splitlines() if " return " in line)
    assert after > 1.5 * before
    changes, learned = (int(line.split()[3].rstrip("%")) for line in out.splitlines() if " earns in " in line)
    assert changes < 25 < 80 < learned


@pytest.mark.long
def test_trl_learns_to_predict_with_our_reward(model, tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("alfworld")
    short = "--encoder hashing --games 2 --max-steps 4 --prompts 2 --group-size 2 --max-new-tokens 8 --steps 1"
    out = run("trl_world_model.py", "--model", model, *short.split(), cwd=tmp_path)
    for words in ("8 transitions of 2 games", "step   1  reward", "groups with signal"):
        assert words in out
    assert (tmp_path / "trl-world-model" / "adapter_model.safetensors").is_file()


@pytest.mark.long
def test_trl_plays_whole_episodes(model, tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("alfworld")
    short = "--encoder hashing --games 2 --max-steps 2 --group-size 2 --action-tokens 8 --episode-tokens 256 --steps 1"
    out = run("trl_multi_turn.py", "--model", model, *short.split(), cwd=tmp_path)
    assert "step   1  task reward" in out
    assert "world-model reward" in out
    assert (tmp_path / "trl-policy" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_both_stages_run_one_after_the_other(tmp_path):
    out = run("train_world_model_then_policy.py", "--preset", "smoke", "--compare", cwd=tmp_path)
    assert "RWML: held-out reward" in out
    for name in ("after-world-model", "from-scratch"):
        assert f"Stage 2, {name}" in out
        assert (tmp_path / "runs/two-stages" / name / "curves.png").is_file()


@pytest.mark.slow
def test_train_world_model_goes_from_games_to_an_adapter(tmp_path):
    short = "--games 4 --held-out-games 3 --max-steps 4 --sft-steps 1 --grpo-steps 1 --groups 2 --group-size 4"
    out = run(
        "train_world_model.py", *short.split(), "--max-new-tokens", "16", "--calibration-pairs", "5", cwd=tmp_path
    )
    assert "16 training transitions, 12 held out" in out
    for words in ("threshold", "base", "warm start", "groups with signal", "RWML - warm start"):
        assert words in out
    assert (tmp_path / "world-model" / "adapter_model.safetensors").is_file()
