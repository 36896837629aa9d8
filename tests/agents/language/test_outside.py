"""Adapters and models that others made, or a disk spoilt: each is what it says, or an error that says what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rwml_gym.agents.language.models import add_adapter, load_adapter, load_model
from rwml_gym.errors import InvalidConfigError, ModelNotFoundError, RWMLGymError
from tests.conftest import randomise, write_model

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
IDS = torch.tensor([[9, 40, 77, 12, 200]])


@torch.no_grad()
def _logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


@pytest.fixture
def adapter(adapted, tmp_path) -> Path:
    """An adapter as PEFT itself saves it."""
    adapted[0].save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


@pytest.fixture
def base(tiny_folder) -> nn.Module:
    return load_model(str(tiny_folder), "float32", "cpu")[0]


def _change(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def _change_weights(folder: Path, change: Any) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def _refused(base: nn.Module, folder: Path, *parts: str, error: type[Exception] = ModelNotFoundError) -> None:
    """The adapter is refused in one line that names it, and the base model is as it was."""
    before, names = _logits(base), [name for name, _ in base.named_parameters()]
    with pytest.raises(error) as caught:
        load_adapter(base, folder)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(word in str(caught.value) for word in ("weights_only", "trust_remote_code", "use_safetensors"))
    assert [name for name, _ in base.named_parameters()] == names
    assert torch.equal(_logits(base), before)


def test_an_adapter_that_peft_saved_loads(adapted, adapter, base):
    assert torch.equal(_logits(load_adapter(base, adapter)), _logits(adapted[0]))


@pytest.mark.parametrize(("left", "file"), [(0, WEIGHTS), (7, WEIGHTS), (900, WEIGHTS), (0, CONFIG), (40, CONFIG)])
def test_cut_short(adapter, base, left, file):
    (adapter / file).write_bytes((adapter / file).read_bytes()[:left])
    _refused(base, adapter, str(adapter), file)


@pytest.mark.parametrize("content", [b"null", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"peft_type": "NEW"}', b"{}"])
def test_a_configuration_that_is_none(adapter, base, content):
    (adapter / CONFIG).write_bytes(content)
    _refused(base, adapter, str(adapter))


@pytest.mark.parametrize("file", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(adapter, base, file):
    (adapter / file).unlink()
    _refused(base, adapter, str(adapter), file)


def test_pickled_weights_are_not_even_opened(adapter, base, tmp_path):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was-here",)

    torch.save({"x": Hostile()}, adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()
    _refused(base, adapter, "adapter_model.bin", "pickled")
    assert not (tmp_path / "was-here").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"lora_alpha": float("nan")}, ("lora_alpha = nan", CONFIG)),
        ({"lora_alpha": float("inf")}, ("lora_alpha = inf", CONFIG)),
        ({"alpha_pattern": {"q_proj": float("nan")}}, ("alpha_pattern.q_proj = nan",)),
        ({"r": 8}, ("size mismatch",)),
        ({"r": 0}, ()),
        ({"r": -4}, ()),
        ({"r": "four"}, ()),
        ({"r": None}, ()),
        ({"lora_alpha": "much"}, ()),
        ({"lora_dropout": 2.0}, ()),
        ({"target_modules": ["no_such_layer"]}, ("no_such_layer",)),
        ({"target_modules": "("}, ()),
        ({"target_modules": ["q_proj"]}, ("has no place in this model",)),
        ({"target_modules": ["q_proj", "o_proj", "lm_head"]}, ("lm_head",)),
        ({"modules_to_save": ["lm_head"]}, ("lm_head",)),
        ({"use_dora": True}, ("no weights for", "magnitude")),
        ({"rank_pattern": {"q_proj": 2}}, ("size mismatch",)),
        ({"peft_type": "WORMHOLE"}, ("WORMHOLE",)),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit(adapter, base, changes, parts):
    _change(adapter, **changes)
    _refused(base, adapter, str(adapter), *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda weights: {f"other.{name}": value for name, value in weights.items()}, ("no weights for",)),
        (lambda weights: {"x": torch.zeros(1)}, ("no weights for",)),
        (lambda weights: dict(list(weights.items())[1:]), ("no weights for",)),
        (lambda weights: {**weights, "base_model.model.lm_head.lora_A.weight": torch.zeros(4, 32)}, ("no place",)),
        (lambda weights: {n: v[:, :-1].contiguous() for n, v in weights.items()}, ("size mismatch",)),
        (lambda weights: {n: v * float("nan") for n, v in weights.items()}, ("not finite", WEIGHTS)),
        (lambda weights: {n: v.fill_(float("inf")) for n, v in weights.items()}, ("not finite", WEIGHTS)),
    ],
    ids=["other names", "one other", "one is missing", "one too many", "other shapes", "nan", "infinite"],
)
def test_weights_that_do_not_fit(adapter, base, change, parts):
    _change_weights(adapter, change)
    _refused(base, adapter, str(adapter), *parts)


def test_an_adapter_of_another_kind_is_named(adapter, base, tiny_folder):
    other = get_peft_model(
        load_model(str(tiny_folder), "float32", "cpu")[0],
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    )
    other.save_pretrained(str(adapter))
    _refused(base, adapter, "PROMPT_TUNING", error=InvalidConfigError)


def test_a_refused_adapter_leaves_room_for_the_right_one(adapted, adapter, base):
    whole = shutil.copytree(adapter, adapter.with_name("whole"))
    _change(adapter, r=8)
    _refused(base, adapter, "size mismatch")
    assert torch.equal(_logits(load_adapter(base, whole)), _logits(adapted[0]))


@pytest.mark.long
@given(flips=st.lists(st.tuples(st.sampled_from([WEIGHTS, CONFIG]), st.floats(0, 1), st.integers(0, 7)), max_size=3))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_is_flipped_is_loaded_or_a_typed_error(tiny_folder, adapter, flips):
    """Adapters of others have no hashes: not every flip can be seen, but none may end in an error of a library."""
    copy = adapter.with_name("flipped")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(adapter, copy)
    for file, place, bit in flips:
        content = bytearray((copy / file).read_bytes())
        content[int(place * (len(content) - 1))] ^= 1 << bit
        (copy / file).write_bytes(content)
    said = ""
    try:
        load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], copy)
    except RWMLGymError as error:
        said = str(error)
    assert not said or str(copy) in said or "kinds" in said


# Models


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_model(tmp_path / "model")


def _model_refused(folder: Path, *parts: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        load_model(str(folder), "float32", "cpu")
    for part in (str(folder), *parts):
        assert part in str(caught.value)
    assert not any(word in str(caught.value) for word in ("weights_only", "trust_remote_code", "use_safetensors"))


def test_a_pickled_model_is_named_and_not_opened(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    _model_refused(folder, "pytorch_model.bin", "pickled")


@pytest.mark.parametrize("left", [0, 5, 1000])
def test_a_model_cut_short_is_named(folder, left):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    _model_refused(folder, "model.safetensors")


def test_a_model_without_some_weights_is_not_filled_with_random_ones(folder):
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "q_proj" in name)
    save_file({n: v for n, v in weights.items() if n != gone}, folder / "model.safetensors", metadata={"format": "pt"})
    _model_refused(folder, gone)


def test_weights_of_another_shape(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    weights[name] = weights[name][:-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _model_refused(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "null", "[1, 2]", "{"])
def test_other_files_that_are_broken(folder, file, content):
    (folder / file).write_text(content)
    _model_refused(folder)


def test_code_in_a_model_is_not_run_nor_is_it_said_how(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "of_my_own", "auto_map": {"AutoConfig": "mine.Config"}})
    )
    (folder / "mine.py").write_text("raise SystemExit('was run')")
    _model_refused(folder, "not run")


def test_an_adapter_of_a_larger_model(folder, base, tmp_path):
    other = write_model(tmp_path / "larger", hidden_size=64)
    model = randomise(add_adapter(load_model(str(other), "float32", "cpu")[0], rank=4))
    model.save_pretrained(str(tmp_path / "adapter"))
    _refused(base, tmp_path / "adapter", "size mismatch")
