"""Forgetting: the loss on general text and the KL divergence from the base model."""

from __future__ import annotations

import copy

import pytest
import torch

from rwml_gym.agents.language.models import add_adapter
from rwml_gym.agents.learning.forgetting import forgetting, make_probe
from tests.conftest import randomise
from tests.helpers.grpo_groups import PROMPTS


@pytest.mark.long
def test_a_model_that_learnt_nothing_forgot_nothing(tiny):
    model = add_adapter(tiny[0], rank=4)
    probe = make_probe(model, tiny[1], PROMPTS, 3, max_new_tokens=5)
    found = forgetting(model, probe)
    assert found.kl == pytest.approx(0.0, abs=1e-6)
    assert found.text_loss > 0


@pytest.mark.long
def test_the_numbers_are_those_of_plain_forward_passes(adapted):
    model, tokenizer = adapted
    probe = make_probe(model, tokenizer, PROMPTS, 3, max_new_tokens=5)
    assert [len(text) for text in probe.texts] == [192] * 3
    assert len({tuple(text) for text in probe.texts}) == 3
    found = forgetting(model, probe)
    with torch.no_grad():
        losses = []
        for text in probe.texts:
            ids = torch.tensor([text])
            losses.append(model(input_ids=ids, labels=ids).loss)
        parts = []
        for prompt, answer in zip(probe.prompts, probe.answers, strict=True):
            ids = torch.tensor([[*prompt, *answer]])
            tuned = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            with model.disable_adapter():
                base = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert base.argmax(-1).tolist() == answer  # greedy answers of the base model, not of the tuned one
            parts.append(torch.nn.functional.kl_div(tuned, base, log_target=True, reduction="none").sum(-1))
    assert found.text_loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    assert found.kl == pytest.approx(float(torch.cat(parts).mean()), rel=1e-3)
    assert found.kl > 0.01


def test_more_change_is_more_forgetting(adapted):
    model, tokenizer = adapted
    probe = make_probe(model, tokenizer, PROMPTS, 2, max_new_tokens=5)
    near = forgetting(randomise(model, 0.02), probe)
    far = forgetting(randomise(model, 0.4), probe)
    assert near.kl < far.kl


@pytest.mark.long
def test_the_share_of_changed_weights_is_that_of_the_merged_model(adapted):
    model, tokenizer = adapted
    probe = make_probe(model, tokenizer, PROMPTS, 2, max_new_tokens=5)
    for scale in (0.2, 1e-4):
        found = forgetting(randomise(model, scale), probe).weight_change
        before = {name: p.detach().clone() for name, p in copy.deepcopy(model).unload().named_parameters()}
        after = dict(copy.deepcopy(model).merge_and_unload().named_parameters())
        adapted_layers = [name for name in before if name.endswith("_proj.weight")]
        assert adapted_layers
        changed = [
            (before[name] - after[name]).abs() > 1e-3 * torch.maximum(before[name].abs(), after[name].abs())
            for name in adapted_layers
        ]
        expected = sum(int(c.sum()) for c in changed) / sum(c.numel() for c in changed)
        assert found == pytest.approx(expected, abs=1e-3)
        assert 0 < found < 1


def test_a_model_that_learnt_nothing_changed_no_weight(tiny):
    model = add_adapter(tiny[0], rank=4)
    assert forgetting(model, make_probe(model, tiny[1], PROMPTS, 2, max_new_tokens=5)).weight_change == 0
