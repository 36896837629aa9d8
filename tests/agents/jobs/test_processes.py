"""World-model training and SFT in two processes: the data, metrics and weights of one, also after a failure.

No batch here divides by two: a step has 3 groups or 3 rows, and 5 transitions are filtered and evaluated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from safetensors.torch import load_file

from rwml_gym.agents.config.files import save_config
from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import CollectConfig, FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.jobs.sft import run_sft
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.learning.options import GRPOConfig, SFTConfig
from rwml_gym.transitions import TransitionDataset
from tests.helpers.launch import launch
from tests.helpers.small_world_model import small_config


def rwml(model: Path) -> RWMLConfig:
    """The model plays half of the actions, and every stage has something to do."""
    return small_config(
        model,
        threshold=0.9,
        collect=CollectConfig(
            games=3, held_out_games=3, rollouts=2, max_steps=5, random_share=0.5, slots=2, action_tokens=4
        ),
        sft=SFTConfig(steps=3, batch_size=3, learning_rate=1e-2, warmup=0),
        warm_start=True,
        filter=FilterConfig(share=0.2, attempts=3, easy_rate=1.0, limit=5),
        stage=StageConfig(steps=2, groups=3, group_size=4, rounds=2, checkpoint_every=1),
        grpo=GRPOConfig(beta=0.1, learning_rate=1e-3),
        max_held_out=5,
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _assert_same(actual: Any, expected: Any, where: str = "") -> None:
    """The same keys, texts and whole numbers; numbers to the rounding of sums in another order; times of any length."""
    assert type(actual) is type(expected), where
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for key in expected:
            if not key.startswith("seconds"):
                _assert_same(actual[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for number, pair in enumerate(zip(actual, expected, strict=True)):
            _assert_same(*pair, f"{where}/{number}")
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-3, abs=1e-5), where
    else:
        assert actual == expected, where


def _assert_same_run(actual: Path, expected: Path) -> None:
    """Everything that a run computes; its texts are made from that."""
    folders = ("evaluation", "metrics", ".")
    for file in (file for folder in folders for file in sorted((expected / folder).glob("*.json"))):
        name = str(file.relative_to(expected))
        if name not in ("versions.json", "hashes.json"):
            _assert_same(_json(actual / name), _json(file), name)
    for name in ("train", "held_out"):
        played = [list(TransitionDataset.load(run / "transitions" / name)) for run in (actual, expected)]
        assert played[0] == played[1], name
    for file in (expected / "adapters").rglob("adapter_model.safetensors"):
        weights = load_file(actual / file.relative_to(expected))
        for name, value in load_file(file).items():
            assert (weights[name] - value).abs().median() < 1e-5, name


@pytest.fixture(scope="module")
def one(tiny_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    run_world_model(rwml(tiny_folder), folder)
    return folder


def _config(config: Any, folder: Path) -> Path:
    save_config(config, folder / "config.yaml")
    return folder / "config.yaml"


@pytest.mark.long
def test_a_world_model_is_trained_by_two_processes_as_by_one(one, tiny_folder, tmp_path):
    done = launch("rwml", _config(rwml(tiny_folder), tmp_path), tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = _json(tmp_path / "two/metrics/rwml.json")
    assert all(row["groups"] % 2 for row in rows)  # neither process has the same share as the other
    assert all(row["signal_groups"] and row["grad_norm"] for row in rows)
    _assert_same_run(tmp_path / "two", one)
    assert (tmp_path / "two/report.txt").read_text() == (one / "report.txt").read_text()
    assert done.stdout.count("Run folder:") == 1  # one process tells


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failure_of_one_process_ends_both_and_the_run_goes_on_from_the_last_checkpoint(
    processes, one, tiny_folder, tmp_path
):
    """With any number of processes, as no random number depends on it."""
    config, folder = _config(rwml(tiny_folder), tmp_path), tmp_path / "two"
    failed = launch("rwml", config, folder, "tests.helpers.failing_process")
    assert failed.returncode != 0
    assert "the encoder is gone" in failed.stderr
    assert [path.name for path in sorted((folder / "checkpoints/rwml").glob("step-*"))] == ["step-000001"]
    if processes == 1:
        run_world_model(rwml(tiny_folder), folder)
    else:
        done = launch("rwml", config, folder)
        assert done.returncode == 0, done.stderr[-3000:]
    _assert_same_run(folder, one)


@pytest.mark.long
def test_next_states_are_learnt_by_two_processes_as_by_one(tiny_folder, tmp_path):
    config = SFTJobConfig(
        target="states",
        env="toy",
        model=str(tiny_folder),
        dtype="float32",
        lora_rank=2,
        max_prompt_tokens=150,
        games=3,
        held_out_games=1,
        max_steps=5,
        sft=SFTConfig(steps=3, batch_size=3, learning_rate=1e-2, warmup=0),
    )
    done = launch("sft", _config(config, tmp_path), tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    result = run_sft(config, tmp_path / "one")
    assert result["loss_after"] < result["loss_before"]
    _assert_same_run(tmp_path / "two", tmp_path / "one")
