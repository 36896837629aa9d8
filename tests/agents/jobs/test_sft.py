"""Supervised fine-tuning as a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alfworld")

from safetensors.torch import load_file

from rwml_gym.agents.config.sft import SFT_PRESETS, SFTJobConfig, sft_preset
from rwml_gym.agents.jobs.sft import run_sft
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.errors import InvalidConfigError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from tests.conftest import write_model

    return write_model(tmp_path_factory.mktemp("sft") / "model", max_position_embeddings=8192)


def config(model: Path, **changes: Any) -> SFTJobConfig:
    settings: dict[str, Any] = {
        "model": str(model),
        "dtype": "float32",
        "task_types": ("pick_and_place_simple",),
        "lora_rank": 4,
        "max_prompt_tokens": 600,
        "games": 2,
        "held_out_games": 2,
        "max_steps": 6,
        "sft": SFTConfig(steps=4, batch_size=4, learning_rate=1e-2, warmup=0),
    }
    return SFTJobConfig(**{**settings, **changes})


def test_next_states_are_learnt(model, tmp_path):
    result = run_sft(config(model, target="states"), tmp_path)
    assert result["loss_after"] < result["loss_before"] - 0.1
    assert (tmp_path / "adapters/sft/adapter_model.safetensors").is_file()
    assert len(json.loads((tmp_path / "metrics/sft.json").read_text())) == 4
    # Again: nothing is done anew.
    stamp = (tmp_path / "adapters/sft/adapter_model.safetensors").stat().st_mtime_ns
    assert run_sft(config(model, target="states"), tmp_path) == result
    assert (tmp_path / "adapters/sft/adapter_model.safetensors").stat().st_mtime_ns == stamp
    # What was recorded serves another run.
    other = config(model, target="states", transitions=str(tmp_path / "transitions/train"))
    assert run_sft(other, tmp_path / "other") == result


def test_actions_are_imitated(model, tmp_path):
    result = run_sft(config(model, max_steps=9, history=0, max_prompt_tokens=4000), tmp_path)
    assert [e["step"] for e in result["evaluations"]] == [0]
    losses = [row["loss"] for row in json.loads((tmp_path / "metrics/imitation.json").read_text())]
    assert losses[-1] < losses[0]
    assert load_file(tmp_path / "adapters/imitation/adapter_model.safetensors")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SFTJobConfig(target="rewards"), "actions"),
        (lambda: SFTJobConfig(games=0), "games"),
        (lambda: sft_preset("none"), "demo"),
    ],
)
def test_what_cannot_be_learnt_is_refused(make, match):
    with pytest.raises(InvalidConfigError, match=match):
        make()


def test_presets_have_their_names():
    assert {"demo", "smollm2", "smoke"} <= SFT_PRESETS.keys()
