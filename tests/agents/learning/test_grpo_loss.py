"""The GRPO loss: its advantages, and itself against TRL's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.learning.grpo import group_advantages, has_signal, policy_loss
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.errors import InvalidConfigError
from tests.helpers.grpo_groups import LONGEST, LOSS_TYPES, PROMPTS, make_groups, pad, random_tensor

# Advantages


def test_advantages_are_rewards_less_the_mean_over_the_deviation():
    rewards = np.array([[1.0, 0.0, 0.0, 0.0], [0.2, 0.4, 0.6, 0.8]])
    scaled, plain = group_advantages(rewards), group_advantages(rewards, scale=False)
    np.testing.assert_allclose(plain, [[0.75, -0.25, -0.25, -0.25], [-0.3, -0.1, 0.1, 0.3]], atol=1e-12)
    # Sample standard deviations 0.5 and 0.2582; TRL's 1e-4 keeps a group of equal rewards from dividing by 0.
    np.testing.assert_allclose(scaled[0], plain[0] / 0.5001, rtol=1e-6)
    np.testing.assert_allclose(scaled[1], plain[1] / (math.sqrt(0.2 / 3) + 1e-4), rtol=1e-6)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_advantages_sum_to_zero_and_order_as_the_rewards(rows):
    rewards = np.array(rows)
    for scale in (False, True):
        advantages = group_advantages(rewards, scale)
        np.testing.assert_allclose(advantages.sum(1), 0, atol=1e-9)
        for reward, advantage, signal in zip(rewards, advantages, has_signal(rewards), strict=True):
            differences = np.subtract.outer(reward, reward) * np.subtract.outer(advantage, advantage)
            assert (differences >= 0).all()
            assert signal == (len(set(reward)) > 1) == bool(np.abs(advantage).max() > 1e-9)


@given(st.floats(0, 1), st.integers(2, 9))
def test_equal_rewards_give_no_advantage_and_no_signal(reward, size):
    rewards = np.full((1, size), reward)
    assert not has_signal(rewards)[0]
    np.testing.assert_allclose(group_advantages(rewards), 0, atol=1e-9)


def test_a_group_of_one_has_no_advantage():
    assert group_advantages(np.array([[1.0]])).tolist() == [[0.0]]


# The loss against TRL


@pytest.fixture(scope="module")
def trl(tiny_folder, tmp_path_factory):
    """Makes TRL's own trainer, on a model of ours.

    Its `_compute_loss` is called as it is, on batches of the form that its `_generate_and_score_completions` hands
    over. The model is in evaluation mode, in which TRL neither divides by accumulation steps nor rescales
    `num_items_in_batch`, so the loss is that of one whole batch: `grpo` is a mean over completions, `dr_grpo` divides
    by completions times `max_completion_length`, `dapo` by the counting tokens of the batch. Its correction of the KL
    term by the ratio (DeepSeek-V3.2) is switched off: ours is the textbook's.
    """
    module = pytest.importorskip("trl")
    from datasets import Dataset

    def make(model, tokenizer, **settings: Any):
        arguments = module.GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trl")),
            per_device_train_batch_size=9,
            num_generations=3,
            max_completion_length=LONGEST,
            temperature=1.0,
            bf16=False,
            use_bias_correction_kl=False,
            use_cpu=True,
            report_to=[],
            **settings,
        )
        trainer = module.GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "look"}] * 9),
            processing_class=tokenizer,
        )
        trainer.model.eval()
        return trainer

    return make


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradient_are_those_of_trl(adapted, trl, loss_type, beta, masked):
    model, tokenizer = adapted
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    config = GRPOConfig(loss_type=loss_type, beta=beta, clip=0.2, clip_high=0.28)
    trainer = trl(model, tokenizer, loss_type=loss_type, beta=beta, epsilon=0.2, epsilon_high=0.28)
    for name, parameter in trainable.items():  # TRL may freeze or wrap what it is given
        assert parameter.requires_grad, name

    groups = make_groups()
    completions = pad([c for g in groups for c in g.completions], 1)
    mask = pad([[1] * len(c) for g in groups for c in g.completions], 0)
    own = (random_tensor(*mask.shape, seed=8) > -0.5).long() if masked else torch.ones_like(mask)
    own[:, 0] = 1
    advantages = torch.tensor([a for g in groups for a in g.advantages])
    logprobs = completion_logprobs(model, PROMPTS, completions)
    # Off policy by up to a factor of about 2, so that many ratios are clipped on either side.
    old = logprobs.detach() + 0.4 * random_tensor(*mask.shape, seed=1)
    frozen = logprobs.detach() + 0.3 * random_tensor(*mask.shape, seed=2)

    prompts = [g.prompt for g in groups for _ in g.completions]
    inputs = {
        "prompt_ids": pad(prompts, 1, left=True),
        "prompt_mask": pad([[1] * len(p) for p in prompts], 0, left=True),
        "completion_ids": completions,
        "completion_mask": mask,
        "tool_mask": own,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": frozen,
        "num_items_in_batch": (mask * own).sum(),
    }
    theirs = trainer._compute_loss(trainer.model, inputs)
    expected = torch.autograd.grad(theirs, list(trainable.values()))
    ours, sums = policy_loss(
        logprobs,
        old,
        advantages[:, None],
        (mask * own).float(),
        config,
        frozen if beta else None,
        max_completion_length=LONGEST,
    )
    actual = torch.autograd.grad(ours, list(trainable.values()))

    assert 0 < sums["clipped"] < sums["tokens"]
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for name, a, e in zip(trainable, actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-5, rtol=1e-4, msg=name)
    share = trainer._metrics["eval"]["clip_ratio/region_mean"][-1]
    assert sums["clipped"] / sums["tokens"] == pytest.approx(share, abs=1e-6)
    if beta:
        assert sums["kl"] / sums["tokens"] == pytest.approx(trainer._metrics["eval"]["kl"][-1], rel=1e-3, abs=1e-5)


# The loss by itself


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_parts_of_a_batch_add_up_to_the_whole(loss_type):
    config = GRPOConfig(loss_type=loss_type, beta=0.0)
    logprobs, old, advantages = (random_tensor(6, 5, seed=s) * 0.3 for s in (1, 2, 3))
    mask = (random_tensor(6, 5, seed=4) > -0.3).float()
    whole = policy_loss(logprobs, old, advantages, mask, config, max_completion_length=5)[0]
    tokens = float(mask.sum())
    parts = [
        policy_loss(
            logprobs[rows],
            old[rows],
            advantages[rows],
            mask[rows],
            config,
            completions=6,
            tokens=tokens,
            max_completion_length=5,
        )[0]
        for rows in (slice(0, 2), slice(2, 3), slice(3, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_masked_tokens_have_no_influence_on_the_loss(loss_type):
    config = GRPOConfig(loss_type=loss_type, beta=0.1)
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    logprobs, old, frozen, advantages = (random_tensor(2, 3, seed=s) for s in range(4))
    noise = (1 - mask) * random_tensor(2, 3, seed=9)
    a = policy_loss(logprobs, old, advantages, mask, config, frozen)
    b = policy_loss(logprobs + noise, old - noise, advantages + noise, mask, config, frozen + noise)
    torch.testing.assert_close(a[0], b[0])
    assert a[1] == pytest.approx(b[1])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_completion_without_counting_tokens_is_no_division_by_zero(loss_type):
    logprobs = torch.zeros(2, 3, requires_grad=True)
    loss, _ = policy_loss(
        logprobs, torch.zeros(2, 3), torch.ones(2, 1), torch.zeros(2, 3), GRPOConfig(loss_type=loss_type, beta=0.0)
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logprobs.grad, torch.zeros(2, 3))


def test_kl_without_reference_is_refused():
    zeros = torch.zeros(1, 2)
    with pytest.raises(InvalidConfigError, match="reference"):
        policy_loss(zeros, zeros, zeros, zeros, GRPOConfig(beta=0.1))


@pytest.mark.parametrize("change", [{"loss_type": "ppo"}, {"iterations": 0}, {"micro_tokens": 0}])
def test_wrong_configurations_are_refused(change):
    with pytest.raises(InvalidConfigError, match=next(iter(change))):
        GRPOConfig(**change)
