"""Adapters of lower rank: the nearest there is, of the size that was asked for, and read by plain PEFT."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from rwml_gym.agents.language.adapters.compress import compress_adapter
from rwml_gym.agents.language.models import load_adapter, load_model
from rwml_gym.agents.learning.checkpoint import save_adapter
from rwml_gym.errors import InvalidConfigError


@pytest.fixture
def saved(adapted, tmp_path):
    save_adapter(adapted[0], tmp_path / "whole")
    return tmp_path / "whole"


def _changes(folder):
    """Each matrix's change of the weights, scaled as PEFT does."""
    config = json.loads((folder / "adapter_config.json").read_text())
    weights = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    for name in sorted(weights):
        if "lora_A" in name:
            yield scale * weights[name.replace("lora_A", "lora_B")].double() @ weights[name].double()


@pytest.mark.parametrize("rank", [1, 3])
def test_each_change_is_the_nearest_of_its_rank(saved, tmp_path, rank):
    kept = compress_adapter(saved, tmp_path / "small", rank, torch.float32)
    squares = wholes = 0.0
    for whole, small in zip(_changes(saved), _changes(tmp_path / "small"), strict=True):
        u, s, vh = torch.linalg.svd(whole)
        nearest = u[:, :rank] * s[:rank] @ vh[:rank]
        assert torch.allclose(small, nearest, atol=1e-5)
        squares, wholes = squares + float(s[:rank].square().sum()), wholes + float(s.square().sum())
    assert kept == pytest.approx(squares / wholes)
    assert 0 < kept < 1


def test_half_precision_halves_the_file_and_loads_here_and_with_plain_peft(saved, tmp_path, tiny_folder):
    compress_adapter(saved, tmp_path / "small", 2)
    sizes = [(f / "adapter_model.safetensors").stat().st_size for f in (saved, tmp_path / "small")]
    assert sizes[1] < 0.5 * sizes[0]
    ids = torch.arange(5)[None]
    fresh = lambda: load_model(str(tiny_folder), "float32", "cpu")[0]  # noqa: E731
    here = load_adapter(fresh(), tmp_path / "small")(input_ids=ids).logits
    plain = PeftModel.from_pretrained(fresh(), tmp_path / "small")
    assert torch.allclose(here, plain.eval()(input_ids=ids).logits, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 4, 9])
def test_a_rank_that_is_no_lower_one_is_refused(saved, tmp_path, rank):
    with pytest.raises(InvalidConfigError, match="rank from 1 to 3"):
        compress_adapter(saved, tmp_path / "small", rank)
    assert not (tmp_path / "small").exists()


def test_another_kind_of_adapter_is_refused(saved, tmp_path):
    path = saved / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    with pytest.raises(InvalidConfigError, match="plain LoRA"):
        compress_adapter(saved, tmp_path / "small", 2)
