"""Forgetting: the loss on general text and the KL divergence from the base model."""

from __future__ import annotations

import pytest
import torch

from rwml_gym.agents.language.models import add_adapter
from rwml_gym.agents.learning.forgetting import forgetting, make_probe
from tests.conftest import randomise
from tests.helpers.grpo_groups import PROMPTS


def test_a_model_that_learnt_nothing_forgot_nothing(tiny):
    model = add_adapter(tiny[0], rank=4)
    probe = make_probe(model, tiny[1], PROMPTS, 3, max_new_tokens=5)
    found = forgetting(model, probe)
    assert found.kl == pytest.approx(0.0, abs=1e-6)
    assert found.text_loss > 0


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
