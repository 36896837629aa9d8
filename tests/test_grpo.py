"""The GRPO update: its loss against TRL's, and what it does to the policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rwml_gym.agents.grpo import (
    Group,
    GRPOConfig,
    completion_logprobs,
    group_advantages,
    has_signal,
    policy_loss,
    update,
)
from rwml_gym.agents.models import add_reference, reference
from rwml_gym.errors import InvalidConfigError
from tests.conftest import policy_weights, randomise

PROMPTS = [[9, 30, 41], [12, 13, 200, 77, 60, 8, 21], [50, 51, 52, 53]]
LENGTHS = [[5, 2, 7], [3, 3, 1], [6, 4, 2]]
LONGEST = 7
LOSS_TYPES = ["grpo", "dr_grpo", "dapo"]


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _groups(advantages: Sequence[Sequence[float]] = ((1.2, -0.7, -0.5), (-1.0, 1.0, 0.0), (0.3, 0.9, -1.2))):
    generator = torch.Generator().manual_seed(5)
    return [
        Group(
            prompt,
            [torch.randint(5, 300, (length,), generator=generator).tolist() for length in lengths],
            list(group),
        )
        for prompt, lengths, group in zip(PROMPTS, LENGTHS, advantages, strict=True)
    ]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def _gradients(model, groups: Sequence[Group], config: GRPOConfig, accelerator: Accelerator) -> dict[str, Tensor]:
    """The gradient that `update` steps along: by an optimizer that keeps it."""
    seen: dict[str, Tensor] = {}
    names = {p: n for n, p in model.named_parameters()}

    class Keep(torch.optim.SGD):
        def step(self, closure=None):
            seen.update({names[p]: p.grad.clone() for g in self.param_groups for p in g["params"]})

    optimizer = Keep([p for p in model.parameters() if p.requires_grad], lr=0.0)
    update(model, optimizer, groups, replace(config, max_grad_norm=1e9), accelerator, LONGEST)
    return seen


def _logprobs(model, groups: Sequence[Group]) -> list[list[float]]:
    """Summed log-probability of every completion."""
    result = []
    with torch.no_grad():
        for group in groups:
            row = []
            for completion in group.completions:
                logits = model(input_ids=torch.tensor([[*group.prompt, *completion]])).logits[0].log_softmax(-1)
                at = len(group.prompt) - 1
                row.append(sum(float(logits[at + t, token]) for t, token in enumerate(completion)))
            result.append(row)
    return result


def _step(model, groups, config, accelerator, lr=1e-3) -> dict[str, float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    return update(model, optimizer, groups, config, accelerator, LONGEST)


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


def _pad(rows: Sequence[Sequence[float]], value: float, left: bool = False) -> Tensor:
    width = max(map(len, rows))
    fill = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*f, *r] if left else [*r, *f] for r, f in zip(rows, fill, strict=True)])


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

    groups = _groups()
    completions = _pad([c for g in groups for c in g.completions], 1)
    mask = _pad([[1] * len(c) for g in groups for c in g.completions], 0)
    own = (_random(*mask.shape, seed=8) > -0.5).long() if masked else torch.ones_like(mask)
    own[:, 0] = 1
    advantages = torch.tensor([a for g in groups for a in g.advantages])
    logprobs = completion_logprobs(model, PROMPTS, completions)
    # Off policy by up to a factor of about 2, so that many ratios are clipped on either side.
    old = logprobs.detach() + 0.4 * _random(*mask.shape, seed=1)
    frozen = logprobs.detach() + 0.3 * _random(*mask.shape, seed=2)

    prompts = [g.prompt for g in groups for _ in g.completions]
    inputs = {
        "prompt_ids": _pad(prompts, 1, left=True),
        "prompt_mask": _pad([[1] * len(p) for p in prompts], 0, left=True),
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
    logprobs, old, advantages = (_random(6, 5, seed=s) * 0.3 for s in (1, 2, 3))
    mask = (_random(6, 5, seed=4) > -0.3).float()
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
    logprobs, old, frozen, advantages = (_random(2, 3, seed=s) for s in range(4))
    noise = (1 - mask) * _random(2, 3, seed=9)
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


@pytest.mark.parametrize("change", [{"loss_type": "ppo"}, {"iterations": 0}, {"micro_groups": 0}])
def test_wrong_configurations_are_refused(change):
    with pytest.raises(InvalidConfigError, match=next(iter(change))):
        GRPOConfig(**change)


# The update


def test_log_probabilities_are_those_of_plain_attention(adapted):
    model, _ = adapted
    groups = _groups()
    completions = _pad([c for g in groups for c in g.completions], 1)
    mask = _pad([[1.0] * len(c) for g in groups for c in g.completions], 0.0)
    with torch.no_grad():
        actual = (completion_logprobs(model, PROMPTS, completions) * mask).sum(1)
    expected = torch.tensor([value for row in _logprobs(model, groups) for value in row])
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_micro_groups_do_not_change_the_gradient(adapted, accelerator, loss_type):
    model, _ = adapted
    add_reference(model)
    randomise(model, seed=6)  # away from the reference, so that the KL term has a gradient
    config = GRPOConfig(loss_type=loss_type, beta=0.2)
    expected = _gradients(model, _groups(), replace(config, micro_groups=3), accelerator)
    assert any(g.norm() > 1e-3 for g in expected.values())
    for size in (1, 2):
        actual = _gradients(model, _groups(), replace(config, micro_groups=size), accelerator)
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_order_of_the_groups_does_not_matter(adapted, accelerator):
    model, _ = adapted
    config = GRPOConfig(micro_groups=1)
    expected = _gradients(model, _groups(), config, accelerator)
    actual = _gradients(model, _groups()[::-1], config, accelerator)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_an_update_raises_what_was_rewarded_and_lowers_the_rest(adapted, accelerator, loss_type):
    model, _ = adapted
    groups = [replace(g, advantages=[1.0, -1.0, -1.0]) for g in _groups()]
    before = _logprobs(model, groups)
    _step(model, groups, GRPOConfig(loss_type=loss_type, beta=0.0), accelerator, lr=5e-3)
    after = _logprobs(model, groups)
    for (a0, *a), (b0, *b) in zip(after, before, strict=True):
        assert a0 > b0
        assert sum(a) < sum(b)


def test_no_groups_change_nothing(adapted, accelerator):
    model, _ = adapted
    before = policy_weights(model)
    stats = _step(model, [], GRPOConfig(), accelerator)
    assert all(torch.equal(p, before[n]) for n, p in policy_weights(model).items())
    assert set(stats) == set(_step(model, _groups(), GRPOConfig(), accelerator))
    assert stats["loss"] == 0


def test_only_the_policy_changes(adapted, accelerator):
    model, _ = adapted
    add_reference(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    _step(model, _groups(), GRPOConfig(), accelerator)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(".default." in name for name in changed)


def test_masked_tokens_get_no_gradient(adapted, accelerator):
    model, _ = adapted
    config = GRPOConfig(beta=0.0, micro_groups=3)
    # The last two tokens of each completion are an environment's: whatever they are, nothing changes.
    groups = [
        replace(
            g,
            completions=[[*c, 17, 18] for c in g.completions],
            mask=[[1] * len(c) + [0, 0] for c in g.completions],
        )
        for g in _groups()
    ]
    expected = _gradients(model, _groups(), config, accelerator)
    actual = _gradients(model, groups, config, accelerator)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_advantages_may_be_given_token_by_token(adapted, accelerator):
    model, _ = adapted
    constant = [
        replace(g, advantages=[[a] * len(c) for a, c in zip(g.advantages, g.completions, strict=True)])
        for g in _groups()
    ]
    config = GRPOConfig(beta=0.0)
    expected = _gradients(model, _groups(), config, accelerator)
    actual = _gradients(model, constant, config, accelerator)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=1e-7, rtol=1e-5, msg=name)
    # Advantage on the first token only is the same as masking the others, up to the number of counting tokens.
    first = [replace(g, advantages=[[1.0] + [0.0] * (len(c) - 1) for c in g.completions]) for g in _groups()]
    masked = [
        replace(g, advantages=[1.0] * 3, mask=[[1] + [0] * (len(c) - 1) for c in g.completions]) for g in _groups()
    ]
    tokens = sum(map(sum, LENGTHS))
    a, b = (_gradients(model, groups, config, accelerator) for groups in (first, masked))
    for name in a:
        torch.testing.assert_close(a[name] * tokens, b[name] * 9, atol=1e-5, rtol=1e-4, msg=name)


def test_the_first_iteration_is_on_policy_and_later_ones_are_not(adapted, accelerator):
    model, _ = adapted
    stats = _step(model, _groups(), GRPOConfig(iterations=1), accelerator, lr=1e-2)
    assert stats["ratio"] == pytest.approx(1, abs=1e-6)
    assert stats["clip_fraction"] == 0
    stats = _step(model, _groups(), GRPOConfig(iterations=3), accelerator, lr=1e-2)
    assert abs(stats["ratio"] - 1) > 1e-3
    assert 0 < stats["clip_fraction"] < 1


def test_kl_is_that_to_the_reference(adapted, accelerator):
    model, _ = adapted
    assert _step(model, _groups(), GRPOConfig(beta=0.0), accelerator, lr=0.0)["kl"] == 0
    add_reference(model)
    assert _step(model, _groups(), GRPOConfig(beta=0.1), accelerator, lr=0.0)["kl"] == pytest.approx(0, abs=1e-6)
    randomise(model, seed=6)
    groups = _groups()
    completions = _pad([c for g in groups for c in g.completions], 1)
    mask = _pad([[1.0] * len(c) for g in groups for c in g.completions], 0.0)
    with torch.no_grad():
        policy = completion_logprobs(model, PROMPTS, completions)
        with reference(model):
            gap = completion_logprobs(model, PROMPTS, completions) - policy
    expected = ((gap.exp() - gap - 1) * mask).sum() / mask.sum()
    stats = _step(model, groups, GRPOConfig(beta=0.1), accelerator, lr=0.0)
    assert stats["kl"] == pytest.approx(float(expected), rel=1e-4)
    assert stats["kl"] > 0.01


def test_a_strong_kl_term_pulls_the_policy_back(adapted, accelerator):
    model, _ = adapted
    add_reference(model)
    for parameter in (p for n, p in model.named_parameters() if "lora_B.default" in n):
        parameter.data += 0.02
    groups = [replace(g, advantages=[0.0, 0.0, 0.0]) for g in _groups()]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.0)
    kl = [update(model, optimizer, groups, GRPOConfig(beta=1.0), accelerator, LONGEST)["kl"] for _ in range(8)]
    assert kl[-1] < 0.5 * kl[0]


def test_sampling_mismatch_is_the_mean_difference_to_the_sampled_logprobs(adapted, accelerator):
    model, _ = adapted
    groups = _groups()
    with torch.no_grad():
        completions = _pad([c for g in groups for c in g.completions], 1)
        rows = completion_logprobs(model, PROMPTS, completions).tolist()
    sampled = [
        replace(g, logprobs=[[p + 0.25 for p in rows[3 * i + j][: len(c)]] for j, c in enumerate(g.completions)])
        for i, g in enumerate(groups)
    ]
    stats = _step(model, sampled, GRPOConfig(beta=0.0, micro_groups=2), accelerator, lr=0.0)
    assert stats["sampling_mismatch"] == pytest.approx(0.25, abs=1e-4)


def test_what_was_sampled_has_no_mismatch(adapted, accelerator):
    from rwml_gym.agents.generation import sample

    model, tokenizer = adapted
    results = sample(model, tokenizer, PROMPTS, 4, max_new_tokens=LONGEST, seed=3)
    groups = [
        Group(prompt, [c.tokens for c in row], [1.0, -1.0, 0.5, -0.5], [c.logprobs for c in row])
        for prompt, row in zip(PROMPTS, results, strict=True)
    ]
    assert _step(model, groups, GRPOConfig(), accelerator, lr=0.0)["sampling_mismatch"] < 1e-4


def test_gradients_are_clipped(adapted, accelerator):
    model, _ = adapted
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    before = policy_weights(model)
    stats = update(model, optimizer, _groups(), GRPOConfig(max_grad_norm=0.01), accelerator, LONGEST)
    moved = math.sqrt(sum(float((p - before[n]).square().sum()) for n, p in policy_weights(model).items()))
    assert stats["grad_norm"] > 0.02
    assert moved == pytest.approx(0.01, rel=1e-2)


def test_groups_of_unequal_size_are_refused(adapted, accelerator):
    model, _ = adapted
    small, large = _groups()[0], _groups()[1]
    groups = [
        replace(small, completions=small.completions[:1], advantages=[1.0]),
        replace(large, completions=[*large.completions, *large.completions][:5], advantages=[1.0, 0.0, 0.0, 1.0, 0.5]),
    ]
    with pytest.raises(ValueError, match="equal size"):
        _step(model, groups, GRPOConfig(), accelerator)
