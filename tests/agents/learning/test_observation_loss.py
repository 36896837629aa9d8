"""The auxiliary loss on the world's answers: its gradient is that of the loss as a reader would write it."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.options import GRPOConfig, ObservationLossConfig
from rwml_gym.errors import InvalidConfigError
from tests.conftest import policy_weights
from tests.helpers.grpo_groups import LONGEST, gradients, make_groups

KINDS = ["cross_entropy", "clipped_mae"]
WEIGHT = 0.3


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def answered(signal: bool = True) -> list[Group]:
    """Groups whose completions go on with an answer of three tokens; two of them are learnt, one as another id."""
    return [
        replace(
            group,
            completions=[[*tokens, 17, 18, 19] for tokens in group.completions],
            advantages=[advantage * signal for advantage in group.advantages],
            mask=[[int(signal)] * len(tokens) + [0] * 3 for tokens in group.completions],
            targets=[[-1] * len(tokens) + [17, 200, -1] for tokens in group.completions],
        )
        for group in make_groups()
    ]


def plain_loss(model, groups: list[Group], loss: ObservationLossConfig) -> Tensor:
    """Each row alone, its probabilities by a softmax over plain logits."""
    terms = []
    margin, clip = torch.tensor(loss.margin), torch.tensor(loss.clip)
    for group in groups:
        for tokens, targets in zip(group.completions, group.targets, strict=True):
            ids = torch.tensor([[*group.prompt, *tokens]])
            probabilities = model(input_ids=ids).logits[0].softmax(-1)
            for place, target in enumerate(targets):
                if target >= 0:
                    p = probabilities[len(group.prompt) + place - 1, target]
                    clipped = torch.maximum(torch.minimum(1 - p, clip), margin)
                    terms.append(group.target_factor * (-p.log() if loss.kind == "cross_entropy" else clipped))
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("kind", "margin"), [("cross_entropy", 0.2), ("clipped_mae", 0.0), ("clipped_mae", 0.992)])
@pytest.mark.parametrize("factors", [(1.0,), (0.25, 1.0, 0.0)])
@pytest.mark.parametrize("micro_tokens", [1, 60, 9999])
def test_without_rewards_the_gradient_is_that_of_the_loss(adapted, accelerator, kind, margin, factors, micro_tokens):
    model, _ = adapted
    loss = ObservationLossConfig(kind, margin=margin, clip=0.995)
    groups = [replace(g, target_factor=f) for g, f in zip(answered(signal=False), cycle(factors), strict=False)]
    config = GRPOConfig(beta=0.1, micro_tokens=micro_tokens, max_grad_norm=1e9)
    actual, stats = gradients(model, groups, config, accelerator, LONGEST, loss, WEIGHT)
    loss_of_all = plain_loss(model, groups, loss)
    model.zero_grad()
    (WEIGHT * loss_of_all).backward()
    expected = float(loss_of_all.detach())
    assert stats["observation_loss"] == pytest.approx(expected, rel=1e-4)
    assert stats["loss"] == pytest.approx(WEIGHT * expected, rel=1e-4)
    assert 0 < stats["observation_probability"] < 1
    assert any(g.norm() > 1e-4 for g in actual.values())
    for name, parameter in model.named_parameters():
        if name in actual:
            torch.testing.assert_close(actual[name], parameter.grad, atol=1e-6, rtol=1e-3, msg=name)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_the_gradients_of_reward_and_answers_add(adapted, accelerator, loss_type):
    model, _ = adapted
    config = GRPOConfig(loss_type=loss_type, beta=0.0, max_grad_norm=1e9)
    loss = ObservationLossConfig("cross_entropy")
    policy, _ = gradients(model, answered(), config, accelerator, LONGEST)
    answers, _ = gradients(model, answered(signal=False), config, accelerator, LONGEST, loss, WEIGHT)
    # Groups without signal beside the others do not dilute the policy's part.
    together, stats = gradients(model, [*answered(), *answered(False)], config, accelerator, LONGEST, loss, WEIGHT)
    assert stats["ratio"] == pytest.approx(1.0)
    for name, value in together.items():
        torch.testing.assert_close(value, policy[name] + answers[name], atol=1e-6, rtol=1e-3, msg=name)


def test_later_iterations_are_finite_where_an_answer_was_unlikely(adapted, accelerator):
    model, _ = adapted
    config = GRPOConfig(beta=0.1, iterations=3, max_grad_norm=1e9)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3)
    stats = update(model, optimizer, answered(), config, accelerator, LONGEST, ObservationLossConfig(KINDS[0]), 10.0)
    assert all(torch.isfinite(torch.tensor(value)) for value in stats.values())
    assert all(torch.isfinite(value).all() for value in policy_weights(model).values())


def test_a_token_that_cannot_be_known_has_no_gradient_if_clipped(adapted, accelerator):
    model, _ = adapted
    loss = ObservationLossConfig("clipped_mae", margin=0.0, clip=1e-6)
    found, stats = gradients(model, answered(False), GRPOConfig(), accelerator, LONGEST, loss, WEIGHT)
    assert all(not value.any() for value in found.values())
    assert stats["observation_loss"] == pytest.approx(1e-6)


def test_a_token_that_is_known_well_enough_has_no_gradient(adapted, accelerator):
    model, _ = adapted
    loss = ObservationLossConfig("clipped_mae", margin=1 - 1e-6)
    found, stats = gradients(model, answered(False), GRPOConfig(), accelerator, LONGEST, loss, WEIGHT)
    assert all(not value.any() for value in found.values())
    assert stats["observation_loss"] == pytest.approx(1 - 1e-6)


def test_the_factor_falls_to_nothing_if_wanted():
    assert ObservationLossConfig("cross_entropy", 0.4).weight_at(9, 10) == 0.4
    falling = ObservationLossConfig("cross_entropy", 0.4, decay=True)
    assert [falling.weight_at(n, 4) for n in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kind": "mse"}, "kind"),
        ({"kind": "cross_entropy", "weight": 0.0}, "weight"),
        ({"kind": "cross_entropy", "turns": 0.0}, "turns"),
        ({"kind": "clipped_mae", "clip": 1.5}, "clip"),
        ({"kind": "clipped_mae", "clip": 0.1}, "margin below clip"),
        ({"by_failure": True}, "kind 'off'"),
        ({"kind": "cross_entropy", "placebo": "noise"}, "placebo"),
        ({"placebo": "shuffled"}, "kind 'off'"),
        ({"weight": 0.1}, "kind 'off'"),
    ],
)
def test_bad_settings_are_refused(settings, named):
    with pytest.raises(InvalidConfigError, match=named):
        ObservationLossConfig(**settings)
