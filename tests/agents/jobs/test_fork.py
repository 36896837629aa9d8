"""A forked run is the run from the start, without its first half; what does not fit is refused before any work."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from safetensors.torch import load_file

from rwml_gym.agents.cli.main import main
from rwml_gym.agents.config.files import flatten, save_config
from rwml_gym.agents.config.policy import (
    EpisodeConfig,
    EvaluationConfig,
    ImitationConfig,
    PolicyConfig,
    PolicyStageConfig,
)
from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.jobs import imitation, policy, success, world_model
from rwml_gym.agents.jobs.fork import FORK_FILE, begins_with, check_fork, find_fork
from rwml_gym.agents.jobs.plan import plan_run
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.learning.options import GRPOConfig, SFTConfig
from rwml_gym.agents.runs.folder import start_run
from rwml_gym.errors import CheckpointError, ConfigMismatchError, InvalidConfigError
from tests.helpers.small_world_model import small_config


@pytest.fixture(scope="module")
def source(tiny_folder, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("fork") / "source"
    run_world_model(small_config(tiny_folder), folder)
    return folder


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _left(folder: Path) -> dict[str, Any]:
    """What a run leaves, without its times."""
    metrics = {
        path.stem: [{key: value for key, value in row.items() if "seconds" not in key} for row in _json(path)]
        for path in (folder / "metrics").glob("*.json")
    }
    others = {
        str(path.relative_to(folder)): _json(path)
        for pattern in ("predictions/*", "evaluation/*", "forgetting/*", "attempts.json", "filter.json", "results.json")
        for path in folder.glob(pattern)
    }
    weights = {
        path.parent.name: {name: value.tolist() for name, value in load_file(path).items()}
        for path in folder.glob("adapters/*/adapter_model.safetensors")
    }
    return {"metrics": metrics, "files": others, "weights": weights}


CHANGES: dict[str, dict[str, Any]] = {
    "reward": {"reward": "continuous"},
    "gap": {"gap": "exact", "threshold": 0.5},
    "attempts": {"filter": FilterConfig(share=0.2, attempts=2, keep_easy=1.0)},
    "updates": {"stage": StageConfig(steps=2, groups=2, group_size=3), "grpo": GRPOConfig(learning_rate=1e-2)},
    "start": {"warm_start": False},
    "forgets": {"stage": StageConfig(steps=2, groups=4, group_size=4, evaluate_every=1), "threshold": 0.9},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) for name in list(CHANGES)])
def test_a_fork_ends_as_the_same_run_from_the_start(tiny_folder, source, tmp_path, monkeypatch, name):
    config = small_config(tiny_folder, **CHANGES[name])
    run_world_model(config, tmp_path / "whole")
    monkeypatch.setattr(world_model, "sft_step", lambda *args, **named: pytest.fail("SFT is taken over"))
    monkeypatch.setattr(world_model.Run, "collect", _loading(world_model.Run.collect))
    run_world_model(config, tmp_path / "fork", source)
    assert _left(tmp_path / "fork") == _left(tmp_path / "whole")


def _loading(collect: Any) -> Any:
    def load(run: Any, name: str, *args: Any, **named: Any) -> Any:
        assert (run.folder / "transitions" / name).is_dir(), "transitions are taken over"
        return collect(run, name, *args, **named)

    return load


def _policy(model: Path, **changes: Any) -> PolicyConfig:
    settings: dict[str, Any] = {
        "env": "toy",
        "env_arguments": '{"games": 12}',
        "model": str(model),
        "dtype": "float32",
        "lora_rank": 2,
        "history": 1,
        "max_prompt_tokens": 300,
        "episode": EpisodeConfig(max_steps=8, action_tokens=4, slots=4),
        "imitation": ImitationConfig(steps=1, games=4, batch_size=2),
        "stage": PolicyStageConfig(steps=1, games=2, groups=2, group_size=2),
        "evaluation": EvaluationConfig(games=2, repeats=2, temperature=1.0, every=1),
    }
    return PolicyConfig(**{**settings, **changes})


@pytest.mark.long
def test_a_forked_policy_ends_as_the_same_run_from_the_start(tiny_folder, tmp_path, monkeypatch):
    run_policy(_policy(tiny_folder), tmp_path / "source")
    stage = PolicyStageConfig(steps=2, games=2, groups=2, group_size=3, warmup=2)
    config = _policy(tiny_folder, stage=stage, grpo=GRPOConfig(learning_rate=1e-2))
    run_policy(config, tmp_path / "whole")
    monkeypatch.setattr(imitation, "imitation_step", lambda *args, **named: pytest.fail("imitation is taken over"))
    evaluated, evaluate = [], success._evaluate
    monkeypatch.setattr(success, "_evaluate", lambda run, number: evaluated.append(number) or evaluate(run, number))
    run_policy(config, tmp_path / "fork", tmp_path / "source")
    assert evaluated == [1, 2]  # before the second update and at the end
    assert _left(tmp_path / "fork") == _left(tmp_path / "whole")
    report = [_json(tmp_path / name / "report.json") for name in ("fork", "whole")]
    assert report[0] == report[1]


@pytest.mark.long
def test_an_imitation_that_ended_there_is_forked_by_a_policy(tiny_folder, tmp_path):
    nothing = PolicyStageConfig(steps=0, games=2, groups=2, group_size=2)
    run_policy(_policy(tiny_folder, stage=nothing), tmp_path / "imitation")
    assert find_fork(_policy(tiny_folder), tmp_path) == tmp_path / "imitation"


@pytest.mark.long
def test_an_evaluation_is_played_once_however_often_the_run_is_killed(tiny_folder, tmp_path, monkeypatch):
    evaluated, evaluate, update = [], success._evaluate, policy.grpo_step

    def killed(*args: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(success, "_evaluate", lambda run, number: evaluated.append(number) or evaluate(run, number))
    monkeypatch.setattr(policy, "grpo_step", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_policy(_policy(tiny_folder), tmp_path / "run")
    monkeypatch.setattr(policy, "grpo_step", update)
    run_policy(_policy(tiny_folder), tmp_path / "run")
    assert evaluated == [0, 1]


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("imitation.steps", {"imitation": ImitationConfig(steps=2, games=4, batch_size=2)}),
        ("stage.games", {"stage": PolicyStageConfig(steps=1, games=3, groups=2, group_size=2)}),
        ("stage.sequence", {"stage": PolicyStageConfig(steps=1, games=2, groups=2, group_size=2, sequence="turn")}),
        ("episode.max_steps", {"episode": EpisodeConfig(max_steps=9, action_tokens=4, slots=4)}),
        ("evaluation.repeats", {"evaluation": EvaluationConfig(games=2, repeats=3, temperature=1.0, every=1)}),
        ("adapter", {"adapter": "elsewhere"}),
    ],
)
def test_what_the_first_evaluation_depends_on_must_agree(tiny_folder, tmp_path, key, changes):
    start_run(_policy(tiny_folder), tmp_path)
    with pytest.raises(ConfigMismatchError, match=rf"up to the end of its first evaluation.*{key}: .* there, .* now"):
        check_fork(_policy(tiny_folder, **changes), tmp_path)


def test_a_fork_says_where_it_is_from_and_goes_on_without_that_run(tiny_folder, source, tmp_path, capsys):
    copy, fork = tmp_path / "source", tmp_path / "fork"
    shutil.copytree(source, copy)
    config = small_config(tiny_folder, stage=StageConfig(steps=0))
    run_world_model(config, fork, copy)
    assert f"Forked from {copy}" in capsys.readouterr().out
    assert _json(fork / FORK_FILE)["from"] == "source"
    assert _json(fork / FORK_FILE)["versions"] == _json(copy / "versions.json")
    shutil.rmtree(copy)
    (fork / "results.json").unlink()
    run_world_model(config, fork, copy)
    assert (fork / "results.json").is_file()


BEFORE: dict[str, dict[str, Any]] = {
    "sft.steps": {"sft": SFTConfig(steps=3, batch_size=2, learning_rate=1e-2, warmup=0)},
    "filter.share": {"filter": FilterConfig(share=0.3, attempts=1)},
    "grpo.micro_tokens": {"grpo": GRPOConfig(micro_tokens=64)},
    "placebo": {"placebo": "shuffled"},
    "seed": {"seed": 1},
    "nuisance": {"nuisance": 0.3},
    "max_held_out": {"max_held_out": 5},
    "dtype": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("key", list(BEFORE))
def test_what_sft_depends_on_must_agree(tiny_folder, source, tmp_path, key):
    config = small_config(tiny_folder, **BEFORE[key])
    with pytest.raises(ConfigMismatchError, match=rf"same options up to the end of its SFT.*{key}: .* there, .* now"):
        plan_run(config, tmp_path / "fork", source)
    assert find_fork(config, source.parent) is None
    assert not (tmp_path / "fork").exists()


@pytest.mark.parametrize(("config", "beginning"), [(RWMLConfig(), "_WORLD_MODEL"), (PolicyConfig(), "_POLICY")])
def test_every_option_that_may_differ_is_one(config, beginning):
    from rwml_gym.agents.jobs import fork

    found = getattr(fork, beginning)
    assert {name.partition(".")[0] for name in found.after} <= {field.name for field in fields(config)}
    assert {*found.before} <= flatten(config).keys()


def test_the_training_refuses_it_before_its_folder_is_made(tiny_folder, source, tmp_path):
    with pytest.raises(ConfigMismatchError, match=r"seed: 0 there, 1 now"):
        run_world_model(small_config(tiny_folder, seed=1), tmp_path / "fork", source)
    with pytest.raises(InvalidConfigError, match=r"--fork, actual: .*, which holds none"):
        run_world_model(small_config(tiny_folder), tmp_path / "fork", tmp_path / "none")
    assert not (tmp_path / "fork").exists()


@pytest.mark.parametrize("lost", ["metrics/warm_start.json", "adapters/warm_start", "transitions/train"])
def test_a_run_without_its_sft_is_no_source(tiny_folder, source, tmp_path, lost):
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    shutil.rmtree(copy / lost) if (copy / lost).is_dir() else (copy / lost).unlink()
    config = small_config(tiny_folder)
    with pytest.raises(CheckpointError, match=r"finished its SFT in --fork, actual: .*Finish it"):
        check_fork(config, copy)
    assert find_fork(config, tmp_path) is None


def test_a_damaged_prediction_is_not_taken_over(tiny_folder, source, tmp_path, recwarn):
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    (copy / "predictions" / "base.json").write_text("[]", encoding="utf-8")
    run_world_model(small_config(tiny_folder, stage=StageConfig(steps=0)), tmp_path / "fork", copy)
    assert _json(tmp_path / "fork" / "predictions" / "base.json") == _json(source / "predictions" / "base.json")


def test_a_source_is_found_among_runs(tiny_folder, source, tmp_path):
    assert find_fork(small_config(tiny_folder, reward="continuous"), source.parent) == source
    assert find_fork(small_config(tiny_folder, reward="continuous", dtype="auto"), tmp_path) is None
    assert begins_with(small_config(tiny_folder), source) == ""
    assert begins_with(small_config(tiny_folder), tmp_path) == "its SFT"


def test_the_command_plans_a_fork(tiny_folder, source, tmp_path, capsys):
    config = replace(small_config(tiny_folder), stage=StageConfig(steps=3, groups=4, group_size=4))
    save_config(config, tmp_path / "run.yaml")
    words = ["train", "rwml", "--config", str(tmp_path / "run.yaml"), "--run-dir", str(tmp_path / "run"), "--dry-run"]
    assert main([*words, "--fork", str(source)]) == 0
    printed = capsys.readouterr().out
    assert f"All up to its SFT is taken from {source}." in printed
    assert "GRPO: 3 updates of 4 groups of 4" in printed


def test_sft_has_nothing_to_fork(capsys):
    assert main(["train", "sft", "--fork", "runs/demo"]) != 0
    assert "Expected --fork with `train rwml` or `train policy`" in capsys.readouterr().err
