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
from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.jobs import world_model
from rwml_gym.agents.jobs.fork import FORK_FILE, check_fork, find_fork, has_sft
from rwml_gym.agents.jobs.plan import plan_run
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.learning.options import GRPOConfig, SFTConfig
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


def test_every_option_that_may_differ_is_one():
    from rwml_gym.agents.jobs import fork

    names = {field.name for field in fields(RWMLConfig)}
    assert {name.partition(".")[0] for name in fork._AFTER_SFT} <= names
    assert {*fork._BEFORE_ITS_END} <= flatten(RWMLConfig()).keys()


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
    assert has_sft(source)
    assert not has_sft(tmp_path)


def test_the_command_plans_a_fork(tiny_folder, source, tmp_path, capsys):
    config = replace(small_config(tiny_folder), stage=StageConfig(steps=3, groups=4, group_size=4))
    save_config(config, tmp_path / "run.yaml")
    words = ["train", "rwml", "--config", str(tmp_path / "run.yaml"), "--run-dir", str(tmp_path / "run"), "--dry-run"]
    assert main([*words, "--fork", str(source)]) == 0
    printed = capsys.readouterr().out
    assert f"SFT of the filter: taken from {source}, with its games and transitions" in printed
    assert "GRPO: 3 updates of 4 groups of 4" in printed


@pytest.mark.parametrize("job", ["policy", "sft"])
def test_other_trainings_have_nothing_to_fork(job, capsys):
    assert main(["train", job, "--fork", "runs/demo"]) != 0
    assert "Expected --fork with `train rwml`" in capsys.readouterr().err
