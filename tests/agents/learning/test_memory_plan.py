"""The plan counts what is really kept, byte for byte where that is known, and says in time what will not fit."""

from __future__ import annotations

import sys
import warnings

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.language.shared_prefix import encode_prompts
from rwml_gym.agents.learning.memory_plan import MemoryWarning, available_memory, plan, release_memory
from rwml_gym.errors import InvalidConfigError
from tests.conftest import write_model

VOCABULARY = 330
WIDE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4}


def _kept(model, prompts: int, group: int, prompt: int, completion: int) -> int:
    """Bytes that autograd keeps for the gradient of a real training pass, the model's own weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            alive.append(tensor)  # so that no address is used twice
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.randint(5, 300, (prompts * group, completion))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        completion_logprobs(model, [[7] * prompt] * prompts, tokens).sum().backward()
    return sum(storages.values())


@pytest.mark.long
@pytest.mark.parametrize("architecture", ["Llama", "Qwen2", "Mistral"])
@pytest.mark.parametrize(
    ("prompts", "group", "prompt", "completion"), [(1, 1, 64, 64), (5, 1, 30, 90), (2, 4, 100, 20), (1, 8, 60, 60)]
)
def test_activations_are_what_autograd_keeps(tmp_path, monkeypatch, architecture, prompts, group, prompt, completion):
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    folder = write_model(tmp_path / "model", architecture, **WIDE)
    model = add_adapter(load_model(str(folder), "float32", "cpu")[0], rank=4)
    rows = prompts * group
    estimate = plan(model, rows, prompt, completion, group_size=group)
    # Less what the allocator wastes, and the copies of the logits that are there at the peak only.
    expected = (estimate.activations + estimate.logits / 3) / 1.15
    assert expected == pytest.approx(_kept(model, prompts, group, prompt, completion), rel=0.04)


def test_weights_adapter_keys_and_merged_weights_are_exact(adapted, tmp_path):
    model, _ = adapted
    trainable = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    layers = sum(p.nbytes for n, p in model.named_parameters() if "base_layer" in n)
    one, two = (plan(model, rows, 30, 10, group_size=2) for rows in (2, 4))
    assert (one.weights, one.adapter, one.loaded) == (frozen, 4 * trainable, frozen + trainable)
    # Two rows more are a prompt and two completions more: keys and values of 50 tokens.
    prefix = encode_prompts(model, [[5] * 50], 0)
    keys = sum(tensor.nbytes for tensor in (*prefix.keys, *prefix.values))
    drawn = 2 * VOCABULARY * 8
    assert two.sampling - one.sampling == keys + drawn
    assert one.sampling == keys + drawn + layers


def test_there_is_room_for_keys_that_grow_from_turn_to_turn(adapted):
    model, tokenizer = adapted
    sessions = Sessions(model, tokenizer)
    prompts, held = [[5 + row] * 120 for row in range(3)], 0
    for _ in range(8):
        completions = sessions.generate([Request(i, p, i) for i, p in enumerate(prompts)], max_new_tokens=2)
        prompts = [[*p, *done.tokens, *[9] * 30] for p, done in zip(prompts, completions, strict=True)]
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in sessions._cache.layers)
        longest = max(map(len, sessions._read))
        as_they_are, growing = (plan(model, 3, 1, longest - 1, growing=grow).sampling for grow in (False, True))
        assert held <= 2 * (growing - as_they_are)
    assert held > growing - as_they_are  # the room is larger than what is in it


def test_the_peak_is_the_larger_of_sampling_and_training(adapted):
    model, _ = adapted
    training = plan(model, 64, 100, 50, sampling_rows=1)
    sampling = plan(model, 64, 100, 50, micro_tokens=1, sampling_rows=5000)
    assert training.total == training.weights + training.adapter + training.activations + training.logits
    assert sampling.total == sampling.weights + sampling.adapter + sampling.sampling


@pytest.mark.long
@given(
    rows=st.integers(1, 64),
    prompt=st.integers(1, 300),
    completion=st.integers(1, 300),
    micro=st.integers(1, 5000),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_less_asked_for_is_less_planned(adapted, rows, prompt, completion, micro):
    model, _ = adapted
    whole = plan(model, rows, prompt, completion)
    parts = plan(model, rows, prompt, completion, micro_tokens=micro)
    assert parts.activations <= whole.activations
    assert parts.activations >= plan(model, 1, prompt, completion).activations  # one row at least
    assert plan(model, rows + 1, prompt, completion).total >= whole.total
    assert plan(model, rows, prompt + 1, completion).total >= whole.total
    assert plan(model, rows, prompt, completion + 1).total >= whole.total
    counted = plan(model, rows, prompt, completion, 1)
    assert counted.logits == pytest.approx(whole.logits / completion, abs=1)
    assert counted.activations == whole.activations
    assert plan(model, rows, prompt, completion, checkpointing=True).activations < whole.activations


def test_a_plan_that_fits_says_nothing(adapted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan(adapted[0], 1, 10, 10).check(10**9)
        assert plan(adapted[0], 1, 10, 10).check()


def test_what_is_loaded_already_needs_no_room(adapted):
    estimate = plan(adapted[0], 1, 10, 10)
    assert estimate.check(estimate.total - estimate.loaded)
    with pytest.warns(MemoryWarning):
        assert not estimate.check(estimate.total - estimate.loaded - 1)


def test_a_plan_that_does_not_fit_says_why_and_what_lowers_it(adapted, monkeypatch):
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    estimate = plan(adapted[0], 4000, 1000, 100, 50, group_size=4, sampling_rows=8)
    with pytest.warns(MemoryWarning) as caught:
        assert not estimate.check(2 * 10**9)
    text = str(caught[0].message)
    for part in ("2.00 GB are free", "micro_tokens", "shorter prompts or episodes", "bfloat16", "MALLOC_MMAP_MAX_=0"):
        assert part in text
    assert [line.split()[0] for line in str(estimate).splitlines()] == [
        *("weights", "adapter", "sampling", "activations", "logits")
    ]
    assert "1,400,000 tokens in a pass" in text
    assert f"200,000 tokens that count · {VOCABULARY}" in text
    assert text.endswith(str(estimate))
    assert caught[0].filename == __file__
    with pytest.warns(MemoryWarning, match="batch_rows"):
        plan(adapted[0], 1, 10, 10, sampling_rows=10**6).check(10**6)


def test_memory_of_this_machine():
    assert 0 < available_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize("name", ["rows", "prompt_tokens", "completion_tokens"])
def test_nothing_cannot_be_planned(adapted, name):
    with pytest.raises(InvalidConfigError, match=f"`{name}` of at least 1, actual: 0"):
        plan(adapted[0], **{"rows": 1, "prompt_tokens": 1, "completion_tokens": 1, name: 0})


def test_kept_prompts_are_in_the_plan_of_sampling_and_update(adapted):
    model, _ = adapted
    without, kept = plan(model, 16, 100, 20, group_size=4), plan(model, 16, 100, 20, group_size=4, kept_prompts=4)
    # The graphs of 4 prompts are what a pass over 4 prompts with completions of no length would keep.
    assert kept.kept == pytest.approx(plan(model, 4, 99, 1).activations, rel=0.01)
    assert kept.total == without.total + kept.kept
    assert "tokens kept from sampling to update" in str(kept)
    assert kept.fits(kept.total)
    assert not kept.fits(0)


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries keep no freed memory")
def test_freed_memory_goes_back_to_the_system():
    own = psutil.Process()
    blocks = [bytearray(50_000) for _ in range(8_000)]  # below the size that is mapped by itself
    kept = blocks[::1_000]
    full = own.memory_info().rss
    del blocks
    release_memory()
    assert own.memory_info().rss < full - 200e6
    assert len(kept) == 8
