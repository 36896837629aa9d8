"""The operations that are counted on paper are those that torch counts in a real model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import Decoder, matmul_rate
from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.sampling import sample

PROMPTS, LENGTHS = (9, 9), (5, 5, 5)
GROUPS = [(length, LENGTHS) for length in PROMPTS]


@pytest.fixture(scope="module", params=["Llama", "Qwen2"])
def folder(request, tmp_path_factory) -> Path:
    from tests.conftest import write_model

    return write_model(tmp_path_factory.mktemp("flops") / "model", request.param)


def test_a_forward_pass(folder):
    model, _ = load_model(str(folder), "float32", "cpu")
    model.set_attn_implementation("eager")  # its products are counted one by one, masked pairs included
    tokens = 12
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.randint(5, 300, (1, tokens)))
    expected = Decoder.of(model.config).forward(tokens, tokens * tokens, tokens)
    assert flops.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.long
def test_an_update_costs_what_its_forward_and_backward_passes_do(folder):
    base, _ = load_model(str(folder), "float32", "cpu")
    model = add_adapter(base, rank=4)
    prompts = [torch.randint(5, 300, (length,)).tolist() for length in PROMPTS]
    completions = torch.randint(5, 300, (len(PROMPTS) * len(LENGTHS), LENGTHS[0]))
    with FlopCounterMode(display=False) as flops:
        completion_logprobs(model, prompts, completions).sum().backward()
    expected = Decoder.of(base.config, rank=4).update(GROUPS)
    # Scores of later tokens are computed and masked.
    assert 0.9 * expected < flops.get_total_flops() < 1.25 * expected


def test_sampling_costs_prompts_once_and_every_written_token_but_the_last(folder):
    model, tokenizer = load_model(str(folder), "float32", "cpu")
    assert model.generation_config is not None
    model.generation_config.eos_token_id = tokenizer.eos_token_id = 1  # never sampled: every row has its full length
    prompts = [torch.randint(5, 300, (length,)).tolist() for length in PROMPTS]
    with FlopCounterMode(display=False) as flops:
        rows = sample(model, tokenizer, prompts, len(LENGTHS), max_new_tokens=LENGTHS[0], seed=1)
    groups = [(len(p), [len(c.tokens) for c in row]) for p, row in zip(prompts, rows, strict=True)]
    expected = Decoder.of(model.config).sampling(groups)
    assert 0.85 * expected < flops.get_total_flops() < 1.15 * expected


def test_the_adapter_is_counted_in_updates_and_not_in_sampling(folder):
    config = load_model(str(folder), "float32", "cpu")[0].config
    plain, adapted = Decoder.of(config), Decoder.of(config, rank=8)
    assert adapted.sampling(GROUPS) == plain.sampling(GROUPS)
    assert adapted.update(GROUPS) > plain.update(GROUPS)


def test_a_machine_multiplies_matrices_at_some_rate():
    assert matmul_rate("cpu", torch.float32, 0.05, [64]) > 1e6
