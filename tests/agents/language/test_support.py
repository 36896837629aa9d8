"""Language models that cannot be computed here are refused when they are loaded, with what is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from rwml_gym.agents.language.models import load_model, load_shape
from rwml_gym.errors import UnsupportedModelError
from tests.agents.language.test_shared_prefix import ARCHITECTURES
from tests.conftest import write_model

HYBRID = {
    "num_hidden_layers": 4,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MLA = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
REFUSED = {
    "linear attention": ("Qwen3_5Text", HYBRID, "layers of the kinds linear_attention"),
    "convolutions": ("Lfm2", {"layer_types": ["conv", "full_attention"]}, "layers of the kinds conv"),
    "a state instead of attention": ("Mamba", {}, "layers of the kinds linear_attention"),
    "chunks": ("Llama4Text", {"head_dim": 8, "num_local_experts": 2}, "layers of the kinds chunked_attention"),
    "capped scores": ("Gemma2", {"head_dim": 8}, "capped scores"),
    "sinks": ("GptOss", {"head_dim": 8, **EXPERTS}, "scaled_dot_product_attention cannot compute"),
    "attention that is its own": ("Falcon", {}, "cannot be replaced"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_computed_is_refused_with_the_reason(tmp_path: Path, kind: str):
    architecture, changes, reason = REFUSED[kind]
    folder = write_model(tmp_path, architecture, **changes)
    with pytest.raises(UnsupportedModelError, match="plain attention") as refused:
        load_model(str(folder), "float32", "cpu")
    assert reason in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_plan_refuses_what_the_configuration_shows(tmp_path: Path):
    folder = write_model(tmp_path, "Qwen3_5Text", **HYBRID)
    with pytest.raises(UnsupportedModelError, match="linear_attention"):
        load_shape(str(folder))


def test_what_only_the_numbers_show_is_refused(tmp_path: Path):
    # Keys and values of other sizes than the configuration's heads.
    experts = {"n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
    folder = write_model(tmp_path, "DeepseekV3", n_group=1, topk_group=1, **experts, **MLA)
    with pytest.raises(UnsupportedModelError, match="RuntimeError"):
        load_model(str(folder), "float32", "cpu")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rounding_in_bfloat16_refuses_nothing(tmp_path: Path, name: str):
    architecture, changes = ARCHITECTURES[name]
    load_model(str(write_model(tmp_path, architecture, **changes)), "bfloat16", "cpu")
