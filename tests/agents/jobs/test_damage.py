"""Damage in the folder of a finished run: what was lost is made again, and nothing else is believed."""

from __future__ import annotations

import random
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.jobs.sft import run_sft
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.errors import CheckpointError, RWMLGymError, StorageError
from rwml_gym.storage.lock import WriteLock
from tests.conftest import write_model

ADAPTER = "adapters/sft/adapter_model.safetensors"
MADE_AGAIN = ("loss_before.json", "result.json", "metrics/sft.json", ADAPTER, "adapters/sft/adapter_config.json")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> SFTJobConfig:
    model = write_model(tmp_path_factory.mktemp("damage") / "model", max_position_embeddings=2048)
    return SFTJobConfig(
        env="toy",
        model=str(model),
        dtype="float32",
        lora_rank=4,
        max_prompt_tokens=600,
        target="states",
        games=2,
        held_out_games=1,
        max_steps=3,
        sft=SFTConfig(steps=3, batch_size=2, learning_rate=1e-2, warmup=0),
        checkpoint_every=1,
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, run_sft(config, folder)


def _flip(path: Path, seed: int) -> None:
    rng, content = random.Random(seed), bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / ADAPTER)


@pytest.mark.parametrize("file", MADE_AGAIN)
@pytest.mark.parametrize("seed", range(2))
def test_what_is_damaged_is_made_again(config, finished, tmp_path, file, seed):
    folder, result = finished
    copy = shutil.copytree(folder, tmp_path / "run")
    _flip(copy / file, seed)
    with pytest.warns(UserWarning, match="made again"):
        assert run_sft(config, copy) == result
    assert all(torch.equal(value, _weights(folder)[name]) for name, value in _weights(copy).items())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert run_sft(config, copy) == result  # and it is whole again


@pytest.mark.parametrize("content", ["null", "[1, 2]", "", "{"])
@pytest.mark.parametrize("file", ["result.json", "metrics/sft.json", "hashes.json"])
def test_no_json_that_means_nothing_is_believed(config, finished, tmp_path, file, content):
    folder, result = finished
    copy = shutil.copytree(folder, tmp_path / "run")
    (copy / file).write_text(content)
    with pytest.warns(UserWarning, match="made again"):
        assert run_sft(config, copy) == result


def test_a_damaged_checkpoint_under_a_damaged_adapter_costs_the_steps_after_the_one_before(config, finished, tmp_path):
    folder, result = finished
    copy = shutil.copytree(folder, tmp_path / "run")
    _flip(copy / ADAPTER, 3)
    _flip(copy / "checkpoints/sft/step-000003/optimizer.safetensors", 3)
    with pytest.warns(UserWarning, match="goes on from step-000002"):
        assert run_sft(config, copy) == result
    assert all(torch.equal(value, _weights(folder)[name]) for name, value in _weights(copy).items())


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_of_the_configuration_is_an_error_or_means_nothing(config, finished, tmp_path, seed):
    folder, result = finished
    copy = shutil.copytree(folder, tmp_path / "run")
    _flip(copy / "config.json", seed)
    said = ""
    try:
        found = run_sft(config, copy)
    except RWMLGymError as error:
        said = str(error)
    assert re.search(r"config\.json|another configuration", said) if said else found == result


def test_one_process_at_a_time_trains_in_a_folder(config, tmp_path):
    folder = tmp_path / "run"
    with WriteLock(folder / ".lock", folder, ""), pytest.raises(StorageError, match="choose another --run-dir"):
        run_sft(config, folder)
    assert not (folder / "config.json").exists()
    run_sft(config, folder)
    run_sft(config, folder)  # this process holds it, and may go on
    with pytest.raises(StorageError, match="another one does"):
        WriteLock(folder / ".lock", folder, "")


def test_transitions_that_are_damaged_are_named(config, finished, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(copy / "transitions" / "train")
    (copy / "transitions" / "train").mkdir()
    with pytest.raises(CheckpointError, match="Delete that folder"):
        run_sft(config, copy)
