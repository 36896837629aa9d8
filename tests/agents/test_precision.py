"""Which data type is chosen for what torch says of the device, what a run does with it, and what stays in float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch
from accelerate import Accelerator

from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import CollectConfig, FilterConfig, StageConfig
from rwml_gym.agents.jobs.sft import run_sft
from rwml_gym.agents.language.models import add_adapter, add_reference, load_adapter, load_model, merged, reference
from rwml_gym.agents.learning.checkpoint import restore, save, save_adapter
from rwml_gym.agents.learning.memory_plan import plan
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.learning.sft import sft_update
from rwml_gym.agents.precision import bfloat16_instructions, choose_precision, default_device
from rwml_gym.errors import ConfigMismatchError, InvalidConfigError
from tests.conftest import policy_weights, randomise, write_model
from tests.helpers.small_world_model import small_config

# What torch says of an Intel Sapphire Rapids, an AMD Zen 4, an ARM Neoverse V1; and of a Skylake, whose AVX-512 torch's
# `_is_mkldnn_bf16_supported` takes for bfloat16 although it only emulates it.
WITH = [
    {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True, "amx_tile": True, "amx_bf16": True},
    {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True, "amx_bf16": False},
    {"architecture": "aarch64", "neon": True, "bf16": True, "sve_bf16": True},
]
WITHOUT = [
    {"architecture": "x86_64", "avx512_f": True, "avx512_bw": True, "avx512_vl": True, "avx512_bf16": False},
    {"architecture": "x86_64", "avx2": True},
    {},
]


@pytest.mark.parametrize("answer", WITH)
def test_auto_is_bfloat16_where_torch_finds_the_instructions(monkeypatch, tiny_folder, answer):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: answer)
    chosen = choose_precision("auto", "cpu")
    assert chosen.dtype == torch.bfloat16
    for name in bfloat16_instructions() or ():
        assert name in str(chosen)
    assert "LoRA weights and optimizer in float32" in str(chosen)
    assert "--dtype float32" in str(chosen)
    assert load_model(str(tiny_folder), "auto", "cpu")[0].dtype == torch.bfloat16


@pytest.mark.parametrize("answer", WITHOUT)
def test_auto_is_float32_where_torch_finds_none(monkeypatch, tiny_folder, answer):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: answer)
    chosen = choose_precision("auto", torch.device("cpu"))
    assert chosen.dtype == torch.float32
    assert str(chosen) == "The model computes in float32: torch finds no bfloat16 instructions on this CPU."
    assert load_model(str(tiny_folder), "auto", "cpu")[0].dtype == torch.float32


def test_auto_is_float32_where_torch_cannot_say(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert bfloat16_instructions() is None
    assert choose_precision("auto", "cpu").name == "float32"
    assert "cannot say" in str(choose_precision("auto", "cpu"))
    assert choose_precision("auto", "mps").name == "float32"


def test_without_onednn_the_instructions_are_not_used(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: WITH[0])
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert bfloat16_instructions() == []


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_a_gpu(monkeypatch, native):
    # An older GPU emulates bfloat16, and torch says so only if it is asked.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_precision("auto", "cuda:1").name == ("bfloat16" if native else "float32")


@pytest.mark.parametrize("answer", [WITH[0], WITHOUT[0]])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_what_is_asked_for_is_chosen_on_every_processor(monkeypatch, answer, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: answer)
    chosen = choose_precision(name, "cpu")
    assert chosen.name == name
    assert "configuration" in str(chosen)
    assert ("slow" in str(chosen)) == (name == "bfloat16" and answer is WITHOUT[0])


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(InvalidConfigError, match="'auto', 'float32' or 'bfloat16', actual: 'float16'"):
        choose_precision("float16")


def test_this_machine_answers():
    assert default_device().type in ("cpu", "cuda")
    assert choose_precision("auto").name in ("float32", "bfloat16")


# A run


def _run(monkeypatch, answer: dict, config: SFTJobConfig, folder: Path) -> str:
    """Run on a processor of which torch says this; return the stored data type."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: answer)
    run_sft(config, folder)
    return str(json.loads((folder / "config.json").read_text())["dtype"])


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> SFTJobConfig:
    return SFTJobConfig(
        env="toy",
        model=str(write_model(tmp_path_factory.mktemp("precision") / "model", max_position_embeddings=2048)),
        lora_rank=2,
        max_prompt_tokens=600,
        target="states",
        games=1,
        held_out_games=1,
        max_steps=2,
        sft=SFTConfig(steps=1, batch_size=1, warmup=0),
    )


@pytest.mark.long
def test_a_run_says_its_data_type_and_keeps_it_on_another_machine(monkeypatch, capsys, config, tmp_path):
    assert config.dtype == "auto"
    folder = tmp_path / "run"
    assert _run(monkeypatch, WITH[0], config, folder) == "bfloat16"
    said = capsys.readouterr().out
    assert said.count("computes in bfloat16") == 1
    assert "amx_bf16" in said
    assert json.loads((folder / "versions.json").read_text())["bfloat16_instructions"] == ["amx_bf16", "avx512_bf16"]
    assert "dtype: bfloat16" in (folder / "config.yaml").read_text()
    assert _run(monkeypatch, WITHOUT[0], config, folder) == "bfloat16"
    assert "computes in bfloat16" in capsys.readouterr().out
    with pytest.raises(ConfigMismatchError, match=r"dtype: 'bfloat16' there, 'float32' now"):
        run_sft(replace(config, dtype="float32"), folder)
    assert _run(monkeypatch, WITHOUT[0], config, tmp_path / "other") == "float32"


def test_float32_is_a_run_in_float32_on_every_processor(monkeypatch, capsys, config, tmp_path):
    assert _run(monkeypatch, WITH[0], replace(config, dtype="float32"), tmp_path / "run") == "float32"
    assert "computes in float32: the configuration says so" in capsys.readouterr().out


# What stays in float32


def _dtypes(model, *, lora: bool) -> set[torch.dtype]:
    return {p.dtype for n, p in model.named_parameters() if ("lora_" in n) == lora}


def test_lora_weights_gradients_and_optimizer_are_float32(tiny_folder, tmp_path):
    model = randomise(add_adapter(load_model(str(tiny_folder), "bfloat16", "cpu")[0], rank=4))
    add_reference(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    before, gradients = policy_weights(model), []
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(lambda p: gradients.append(p.grad.dtype))
    sft_update(model, optimizer, [[9, 40, 77]] * 2, [[12, 200]] * 2, Accelerator(cpu=True))
    assert set(gradients) == {torch.float32}
    # A step of 1e-6 is far below what bfloat16 can add to such weights.
    assert all(not torch.equal(p, before[n]) for n, p in policy_weights(model).items())

    def check(model, optimizer) -> None:
        assert _dtypes(model, lora=True) == {torch.float32}
        assert _dtypes(model, lora=False) == {torch.bfloat16}
        states = [value for state in optimizer.state.values() for value in state.values()]
        assert states
        assert {value.dtype for value in states} == {torch.float32}

    for context in (merged, reference):
        with context(model):
            check(model, optimizer)
    check(model, optimizer)
    save(tmp_path / "checkpoints", model, optimizer, parameters, [{"loss": 1.0}])
    other = add_adapter(load_model(str(tiny_folder), "bfloat16", "cpu")[0], rank=4)
    own = [p for p in other.parameters() if p.requires_grad]
    restored = torch.optim.AdamW(own, lr=1e-6)
    restore(tmp_path / "checkpoints", other, restored, own)
    check(other, restored)
    assert all(torch.equal(p, policy_weights(model)[n]) for n, p in policy_weights(other).items())

    save_adapter(model, tmp_path / "adapter")
    for dtype in ("bfloat16", "float32"):
        loaded = load_adapter(load_model(str(tiny_folder), dtype, "cpu")[0], tmp_path / "adapter", trainable=True)
        assert all(torch.equal(p, policy_weights(model)[n]) for n, p in policy_weights(loaded).items())


def test_merged_weights_are_rounded_once(tiny_folder):
    models = {
        dtype: randomise(add_adapter(load_model(str(tiny_folder), dtype, "cpu")[0], rank=4))
        for dtype in ("float32", "bfloat16")
    }
    with torch.no_grad():  # the same base weights, which bfloat16 has rounded
        for wide, narrow in zip(models["float32"].parameters(), models["bfloat16"].parameters(), strict=True):
            wide.copy_(narrow)
    with merged(models["float32"]), merged(models["bfloat16"]):
        wide, narrow = (dict(models[dtype].named_parameters()) for dtype in ("float32", "bfloat16"))
        assert all(torch.equal(wide[name].to(narrow[name].dtype), narrow[name]) for name in narrow)


def test_the_memory_plan_counts_bytes_by_data_type(tiny_folder):
    wide, narrow = (
        plan(add_adapter(load_model(str(tiny_folder), dtype, "cpu")[0], rank=4), 8, 30, 10, group_size=2)
        for dtype in ("float32", "bfloat16")
    )
    assert narrow.weights == wide.weights / 2
    assert narrow.adapter == wide.adapter
    assert narrow.activations < wide.activations
    assert narrow.sampling < wide.sampling


@pytest.mark.slow
def test_the_held_out_reward_after_training_differs_less_than_seeds_do(tiny_folder, tmp_path):
    pytest.importorskip("matplotlib")
    from rwml_gym.agents.jobs.world_model import run_world_model

    rewards: dict[str, list[float]] = {}
    for dtype in ("float32", "bfloat16"):
        for seed in range(3):
            config = small_config(tiny_folder, dtype=dtype, seed=seed, **LEARNING)
            results = run_world_model(config, tmp_path / f"{dtype}-{seed}")
            rewards.setdefault("base", []).append(mean(p.reward for p in results["base"]))
            rewards.setdefault(dtype, []).append(mean(p.reward for p in results["RWML"]))
    print(rewards)
    spread = max(max(rewards[dtype]) - min(rewards[dtype]) for dtype in ("float32", "bfloat16"))
    assert abs(mean(rewards["float32"]) - mean(rewards["bfloat16"])) <= spread
    assert mean(rewards["bfloat16"]) > mean(rewards["base"])


LEARNING = {
    "warm_start": True,
    "threshold": 0.5,
    "max_new_tokens": 24,
    "lora_rank": 8,
    "collect": CollectConfig(games=8, held_out_games=6, rollouts=1, max_steps=6, random_share=1.0, action_tokens=4),
    "sft": SFTConfig(steps=100, batch_size=8, learning_rate=1e-2, warmup=4),
    "filter": FilterConfig(share=0.5, attempts=1),
    "stage": StageConfig(steps=10, groups=4, group_size=8),
}
