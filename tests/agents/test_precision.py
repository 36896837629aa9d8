"""Which data type is chosen for what torch says of the device."""

from __future__ import annotations

import pytest
import torch

from rwml_gym.agents.language.models import load_model
from rwml_gym.agents.precision import bfloat16_instructions, choose_precision, default_device
from rwml_gym.errors import InvalidConfigError

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
