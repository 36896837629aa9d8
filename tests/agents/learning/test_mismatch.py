"""How far sampling and training are apart, in numbers, in the metrics, and in the warning."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from accelerate import Accelerator

from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.sampling import run_prompts, sample
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.learning.grpo import Group, update
from rwml_gym.agents.learning.mismatch import (
    MAX_SAMPLING_KL,
    MISMATCH,
    SamplingMismatchWarning,
    check_mismatch,
    mismatch_sums,
)
from rwml_gym.agents.learning.options import GRPOConfig
from tests.conftest import randomise

PROMPTS = [[9, 40, 77, 12, 200, 31, 64], [15, 8, 120, 44]]


def test_sums_by_hand():
    sampled = torch.tensor([[-1.0, -2.0, 50.0], [-3.0, -0.5, 0.0]])
    trained = torch.tensor([[-1.1, -2.0, 0.0], [-2.0, -0.5, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    found = mismatch_sums(trained, sampled, mask, clip=0.2)
    assert found["sampling_mismatch"] == pytest.approx(1.1)
    assert found["max"] == pytest.approx(1.0)
    assert found["sampling_kl"] == pytest.approx(math.exp(-0.1) - 1 + 0.1 + math.e - 2, rel=1e-5)
    assert found["sampling_outside"] == 1  # e^-0.1 is within 0.8 … 1.2, e is not


def test_the_estimate_is_the_kl_divergence_on_average():
    p, q = (torch.tensor(x, dtype=torch.float64) for x in ([0.6, 0.3, 0.1], [0.5, 0.35, 0.15]))
    each = [mismatch_sums(q.log()[i : i + 1], p.log()[i : i + 1], torch.ones(1), 0.2)["sampling_kl"] for i in range(3)]
    assert sum(w * k for w, k in zip(p.tolist(), each, strict=True)) == pytest.approx(float((p * (p / q).log()).sum()))


def test_within_the_limit_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_mismatch({"sampling_kl": MAX_SAMPLING_KL, "sampling_outside": 0.0})


def test_above_the_limit_the_warning_names_the_fix():
    with pytest.warns(SamplingMismatchWarning, match=r"at most 0\.01 .*actual: 0\.5, with 12\.0% .*--dtype float32"):
        assert not check_mismatch({"sampling_kl": 0.5, "sampling_outside": 0.12})


def _model(folder, dtype: str, scale: float):
    base, tokenizer = load_model(str(folder), dtype, "cpu")
    return randomise(add_adapter(base, rank=4, alpha=8), scale), tokenizer


def _update(model, groups: list[Group]) -> dict[str, float]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    return update(model, optimizer, groups, GRPOConfig(beta=0.0), Accelerator(cpu=True), 24)


def _as_world_model(model, tokenizer, keep: bool = False) -> list[Group]:
    prefixes = run_prompts(model, PROMPTS) if keep else None
    results = sample(model, tokenizer, PROMPTS, 16, max_new_tokens=24, seed=3, prefixes=prefixes)
    return [
        Group(prompt, [c.tokens for c in row], [1.0, -1.0] * 8, [c.logprobs for c in row], prefix=prefix)
        for prompt, row, prefix in zip(PROMPTS, results, prefixes or [None] * 2, strict=True)
    ]


def _as_policy(model, tokenizer) -> list[Group]:
    requests = [Request(slot, PROMPTS[slot % 2], seed=slot) for slot in range(32)]
    written = Sessions(model, tokenizer).generate(requests, max_new_tokens=24)
    return [
        Group(PROMPTS[i], [c.tokens for c in written[i::2]], [1.0, -1.0] * 8, [c.logprobs for c in written[i::2]])
        for i in range(2)
    ]


@pytest.mark.parametrize("stage", ["world model", "kept prompts", "policy"])
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-8), ("bfloat16", MAX_SAMPLING_KL)])
def test_sampling_agrees_with_training(tiny_folder, stage, dtype, limit):
    model, tokenizer = _model(tiny_folder, dtype, 0.02)
    make = _as_policy if stage == "policy" else _as_world_model
    groups = make(model, tokenizer, **({"keep": True} if stage == "kept prompts" else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplingMismatchWarning)
        stats = _update(model, groups)
    assert 0 < stats["sampling_kl"] < limit
    assert 0 < stats["sampling_mismatch"] <= stats["sampling_mismatch_max"]
    assert set(MISMATCH) < set(stats)


def test_an_update_on_samples_of_another_policy_is_warned_of(tiny_folder):
    model, tokenizer = _model(tiny_folder, "float32", 0.02)
    groups = _as_world_model(model, tokenizer)
    randomise(model, 0.5, seed=7)
    with pytest.warns(SamplingMismatchWarning, match="--dtype float32"):
        stats = _update(model, groups)
    assert stats["sampling_kl"] > MAX_SAMPLING_KL
    assert 0 < stats["sampling_outside"] <= 1
