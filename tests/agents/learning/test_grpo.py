"""The GRPO update: what it does to the policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import add_reference, reference
from rwml_gym.agents.language.sampling import run_prompts, sample
from rwml_gym.agents.language.shared_prefix import SharedPrefix, encode_prompts
from rwml_gym.agents.learning.groups import Group, divide
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.options import GRPOConfig
from tests.conftest import policy_weights, randomise
from tests.helpers.grpo_groups import LENGTHS, LONGEST, LOSS_TYPES, PROMPTS, gradients, make_groups, pad, random_tensor


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def _gradients(model, groups: Sequence[Group], config: GRPOConfig, accelerator: Accelerator) -> dict[str, Tensor]:
    """The unclipped gradient of an update."""
    return gradients(model, groups, replace(config, max_grad_norm=1e9), accelerator, LONGEST)[0]


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


# The update


def test_log_probabilities_are_those_of_plain_attention(adapted):
    model, _ = adapted
    groups = make_groups()
    completions = pad([c for g in groups for c in g.completions], 1)
    mask = pad([[1.0] * len(c) for g in groups for c in g.completions], 0.0)
    with torch.no_grad():
        actual = (completion_logprobs(model, PROMPTS, completions) * mask).sum(1)
    expected = torch.tensor([value for row in _logprobs(model, groups) for value in row])
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_micro_batches_do_not_change_the_gradient(adapted, accelerator, loss_type):
    model, _ = adapted
    add_reference(model)
    randomise(model, seed=6)  # away from the reference, so that the KL term has a gradient
    config = GRPOConfig(loss_type=loss_type, beta=0.2)
    expected = _gradients(model, make_groups(), replace(config, micro_tokens=9999), accelerator)
    assert any(g.norm() > 1e-3 for g in expected.values())
    for size in (1, 30, 60):
        actual = _gradients(model, make_groups(), replace(config, micro_tokens=size), accelerator)
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_order_of_the_groups_does_not_matter(adapted, accelerator):
    model, _ = adapted
    config = GRPOConfig(micro_tokens=1)
    expected = _gradients(model, make_groups(), config, accelerator)
    actual = _gradients(model, make_groups()[::-1], config, accelerator)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_an_update_raises_what_was_rewarded_and_lowers_the_rest(adapted, accelerator, loss_type):
    model, _ = adapted
    groups = [replace(g, advantages=[1.0, -1.0, -1.0]) for g in make_groups()]
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
    assert set(stats) == set(_step(model, make_groups(), GRPOConfig(), accelerator))
    assert stats["loss"] == 0


def test_only_the_policy_changes(adapted, accelerator):
    model, _ = adapted
    add_reference(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    _step(model, make_groups(), GRPOConfig(), accelerator)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all(".default." in name for name in changed)


def test_masked_tokens_get_no_gradient(adapted, accelerator):
    model, _ = adapted
    config = GRPOConfig(beta=0.0)
    # The last two tokens of each completion are an environment's: whatever they are, nothing changes.
    groups = [
        replace(
            g,
            completions=[[*c, 17, 18] for c in g.completions],
            mask=[[1] * len(c) + [0, 0] for c in g.completions],
        )
        for g in make_groups()
    ]
    expected = _gradients(model, make_groups(), config, accelerator)
    actual = _gradients(model, groups, config, accelerator)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_advantages_may_be_given_token_by_token(adapted, accelerator):
    model, _ = adapted
    constant = [
        replace(g, advantages=[[a] * len(c) for a, c in zip(g.advantages, g.completions, strict=True)])
        for g in make_groups()
    ]
    config = GRPOConfig(beta=0.0)
    expected = _gradients(model, make_groups(), config, accelerator)
    actual = _gradients(model, constant, config, accelerator)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=1e-7, rtol=1e-5, msg=name)
    # Advantage on the first token only is the same as masking the others, up to the number of counting tokens.
    first = [replace(g, advantages=[[1.0] + [0.0] * (len(c) - 1) for c in g.completions]) for g in make_groups()]
    masked = [
        replace(g, advantages=[1.0] * 3, mask=[[1] + [0] * (len(c) - 1) for c in g.completions]) for g in make_groups()
    ]
    tokens = sum(map(sum, LENGTHS))
    a, b = (_gradients(model, groups, config, accelerator) for groups in (first, masked))
    for name in a:
        torch.testing.assert_close(a[name] * tokens, b[name] * 9, atol=1e-5, rtol=1e-4, msg=name)


def test_the_first_iteration_is_on_policy_and_later_ones_are_not(adapted, accelerator):
    model, _ = adapted
    stats = _step(model, make_groups(), GRPOConfig(iterations=1), accelerator, lr=1e-2)
    assert stats["ratio"] == pytest.approx(1, abs=1e-6)
    assert stats["clip_fraction"] == 0
    stats = _step(model, make_groups(), GRPOConfig(iterations=3), accelerator, lr=1e-2)
    assert abs(stats["ratio"] - 1) > 1e-3
    assert 0 < stats["clip_fraction"] < 1


def test_kl_is_that_to_the_reference(adapted, accelerator):
    model, _ = adapted
    assert _step(model, make_groups(), GRPOConfig(beta=0.0), accelerator, lr=0.0)["kl"] == 0
    add_reference(model)
    assert _step(model, make_groups(), GRPOConfig(beta=0.1), accelerator, lr=0.0)["kl"] == pytest.approx(0, abs=1e-6)
    randomise(model, seed=6)
    groups = make_groups()
    completions = pad([c for g in groups for c in g.completions], 1)
    mask = pad([[1.0] * len(c) for g in groups for c in g.completions], 0.0)
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
    groups = [replace(g, advantages=[0.0, 0.0, 0.0]) for g in make_groups()]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.0)
    kl = [update(model, optimizer, groups, GRPOConfig(beta=1.0), accelerator, LONGEST)["kl"] for _ in range(8)]
    assert kl[-1] < 0.5 * kl[0]


@pytest.mark.filterwarnings("ignore::rwml_gym.agents.learning.mismatch.SamplingMismatchWarning")
def test_sampling_mismatch_is_the_mean_difference_to_the_sampled_logprobs(adapted, accelerator):
    model, _ = adapted
    groups = make_groups()
    with torch.no_grad():
        completions = pad([c for g in groups for c in g.completions], 1)
        rows = completion_logprobs(model, PROMPTS, completions).tolist()
    sampled = [
        replace(g, logprobs=[[p + 0.25 for p in rows[3 * i + j][: len(c)]] for j, c in enumerate(g.completions)])
        for i, g in enumerate(groups)
    ]
    stats = _step(model, sampled, GRPOConfig(beta=0.0, micro_tokens=40), accelerator, lr=0.0)
    assert stats["sampling_mismatch"] == pytest.approx(0.25, abs=1e-4)
    assert stats["sampling_mismatch_max"] == pytest.approx(0.25, abs=1e-4)
    # One token that is further off moves the mean by its part; an environment's token, which nobody sampled, does not.
    further = [[list(row) for row in g.logprobs or ()] for g in sampled]
    further[1][0][0] += 1.0
    groups = [
        replace(
            g,
            completions=[[*c, 17] for c in g.completions],
            logprobs=[[*row, 50.0] for row in rows],
            mask=[[1] * len(c) + [0] for c in g.completions],
        )
        for g, rows in zip(sampled, further, strict=True)
    ]
    stats = _step(model, groups, GRPOConfig(beta=0.0, micro_tokens=40), accelerator, lr=0.0)
    tokens = sum(map(sum, LENGTHS))
    assert stats["sampling_mismatch"] == pytest.approx(0.25 + 1 / tokens, abs=1e-4)
    assert stats["sampling_mismatch_max"] == pytest.approx(1.25, abs=1e-4)


def test_what_was_sampled_has_no_mismatch(adapted, accelerator):
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
    stats = update(model, optimizer, make_groups(), GRPOConfig(max_grad_norm=0.01), accelerator, LONGEST)
    moved = math.sqrt(sum(float((p - before[n]).square().sum()) for n, p in policy_weights(model).items()))
    assert stats["grad_norm"] > 0.02
    assert moved == pytest.approx(0.01, rel=1e-2)


def test_groups_may_differ_in_size(adapted, accelerator):
    model, _ = adapted
    whole = make_groups()
    divided = [*whole[0].rows(), whole[1], *whole[2].rows()]
    config = GRPOConfig(beta=0.1)
    expected = _gradients(model, whole, config, accelerator)
    actual = _gradients(model, divided, config, accelerator)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_the_distance_to_the_policy_that_sampled_is_reported(adapted, accelerator):
    model, _ = adapted
    once = _step(model, make_groups(), GRPOConfig(beta=0.0), accelerator, lr=1e-2)
    assert once["approx_kl"] == pytest.approx(0, abs=1e-9)
    assert _step(model, make_groups(), GRPOConfig(beta=0.0, iterations=3), accelerator, lr=1e-2)["approx_kl"] > 1e-4


# Log-probabilities


@pytest.mark.parametrize("repeats", [1, 3])
def test_logits_are_computed_where_they_count_only(adapted, repeats):
    """Long completions as rows of their own, short ones over a shared prompt: the same numbers."""
    model, _ = adapted
    prompts = [p * 4 for p in PROMPTS] if repeats == 3 else PROMPTS
    generator = torch.Generator().manual_seed(3)
    completions = torch.randint(5, 300, (3 * repeats, 9), generator=generator)
    mask = torch.rand(completions.shape, generator=generator) > 0.6
    mask[0] = False
    widths = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _, inputs, out: widths.append(out.shape))
    with torch.no_grad():
        everywhere = completion_logprobs(model, prompts, completions)
        widths.clear()
        some = completion_logprobs(model, prompts, completions, mask)
    handle.remove()
    torch.testing.assert_close(some, everywhere * mask, atol=1e-5, rtol=1e-5)
    # The head saw the wanted tokens (and, over a shared prompt, each prompt's last).
    assert sum(shape[:-1].numel() for shape in widths) <= int(mask.sum()) + 3 * (repeats > 1)


def test_a_choice_among_few_tokens_has_its_probability_among_them(adapted):
    model, _ = adapted
    completions = torch.tensor([[40, 41, 42]])
    allowed = [[[40, 50], None, [42]]]
    with torch.no_grad():
        actual = completion_logprobs(model, PROMPTS[:1], completions, allowed=allowed)[0]
        logits = model(input_ids=torch.tensor([[*PROMPTS[0], 40, 41, 42]])).logits[0, len(PROMPTS[0]) - 1 : -1]
    assert actual[0] == pytest.approx(float(logits[0, [40, 50]].log_softmax(-1)[0]), abs=1e-5)
    assert actual[1] == pytest.approx(float(logits[1].log_softmax(-1)[41]), abs=1e-5)
    assert actual[2] == pytest.approx(0, abs=1e-6)


# Prompts that run once for sampling and update


def _sampled(model, tokenizer, once: bool) -> list[Group]:
    prompts = [random_tensor(length, seed=length).abs().mul(40).long().add(5).tolist() for length in (9, 14, 11)]
    prefixes = run_prompts(model, prompts) if once else None
    results = sample(model, tokenizer, prompts, 4, max_new_tokens=LONGEST, seed=3, prefixes=prefixes)
    return [
        Group(
            prompt,
            [c.tokens for c in row],
            [1.0, -1.0, 0.5, -0.5],
            [c.logprobs for c in row],
            prefix=prefixes[i] if prefixes else None,
        )
        for i, (prompt, row) in enumerate(zip(prompts, results, strict=True))
    ]


@pytest.mark.parametrize("micro_tokens", [1, 9999])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_prompt_that_runs_once_gives_the_same_samples_and_gradient(adapted, accelerator, loss_type, micro_tokens):
    model, tokenizer = adapted
    config = GRPOConfig(loss_type=loss_type, beta=0.1, micro_tokens=micro_tokens)
    twice, once = _sampled(model, tokenizer, once=False), _sampled(model, tokenizer, once=True)
    assert [g.completions for g in once] == [g.completions for g in twice]
    for a, b in zip(once, twice, strict=True):
        for x, y in zip(a.logprobs or (), b.logprobs or (), strict=True):
            assert x == pytest.approx(y, abs=1e-5)  # beside the weights or merged into them: rounding only
    expected = _gradients(model, twice, config, accelerator)
    with mock.patch("rwml_gym.agents.language.logprobs.encode_prompts", wraps=encode_prompts) as runs:
        actual = _gradients(model, once, config, accelerator)
    # The reference runs every prompt, the policy none.
    assert runs.call_count == (3 if micro_tokens == 1 else 1)
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_kept_prompts_serve_the_first_iteration_only(adapted, accelerator):
    """Afterwards the weights are others, and so are the prompt's keys and values."""
    model, tokenizer = adapted
    config, stats, after = GRPOConfig(beta=0.1, iterations=3), {}, {}
    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    for once in (False, True):
        stats[once] = _step(model, _sampled(model, tokenizer, once), config, accelerator, lr=1e-3)
        after[once] = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        for name, parameter in model.named_parameters():
            if name in start:
                parameter.data.copy_(start[name])
    assert stats[True] == pytest.approx(stats[False], rel=1e-3, abs=1e-5)
    for name, value in after[False].items():
        torch.testing.assert_close(after[True][name], value, atol=1e-4, rtol=1e-4)


def test_long_completions_and_mixed_groups_run_their_prompts_again(adapted, accelerator):
    model, _ = adapted
    config = GRPOConfig(beta=0.0, micro_tokens=9999)
    expected = _gradients(model, make_groups(), config, accelerator)
    long = [replace(g, prefix=run_prompts(model, [g.prompt])[0]) for g in make_groups()]
    mixed = [*long[:1], *make_groups()[1:]]
    for groups in (long, mixed):
        actual = _gradients(model, groups, config, accelerator)
        for name, gradient in expected.items():
            assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


# Prompts that run once for all passes over long completions


def _episodes(prefixes: Sequence[SharedPrefix | None] = (None, None)) -> list[Group]:
    """Two games, with tokens of an environment and constrained choices in the second."""
    generator = torch.Generator().manual_seed(8)

    def tokens(count: int) -> list[int]:
        return torch.randint(5, 300, (count,), generator=generator).tolist()

    lengths = [[60, 44, 71], [50, 66, 58]]
    starts = [tokens(40), tokens(33)]
    groups = [
        Group(start, [tokens(length) for length in row], [1.2, -0.7, -0.5], prefix=prefix)
        for start, row, prefix in zip(starts, lengths, prefixes, strict=True)
    ]
    written = [[int(i % 7 < 4) for i in range(len(row))] for row in groups[1].completions]
    allowed = [[[token, 40, 50] if i % 5 == 0 else None for i, token in enumerate(c)] for c in groups[1].completions]
    return [groups[0], replace(groups[1], mask=written, allowed=allowed)]


def _one_by_one(groups: Sequence[Group]) -> list[Group]:
    """The same work, in which every completion runs its prompt."""
    return [replace(row, prefix=None) for group in groups for row in group.rows()]


@pytest.mark.parametrize("micro_tokens", [1, 180, 9999])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_beginning_of_a_game_runs_once_and_the_gradient_is_the_same(adapted, accelerator, loss_type, micro_tokens):
    model, _ = adapted
    add_reference(model)
    randomise(model, seed=6)
    config = GRPOConfig(loss_type=loss_type, beta=0.2, micro_tokens=micro_tokens)
    groups = _episodes()
    expected = _gradients(model, _one_by_one(groups), config, accelerator)
    with mock.patch("rwml_gym.agents.language.sampling.encode_prompts", wraps=encode_prompts) as runs:
        actual = _gradients(model, groups, config, accelerator)
    assert runs.call_count == 2 * len(groups)  # the policy and the reference
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_beginnings_run_again_after_each_of_several_updates(adapted, accelerator):
    model, _ = adapted
    config = GRPOConfig(beta=0.2, iterations=3, max_grad_norm=1e9)
    start = policy_weights(model)
    stats, moved = {}, {}
    for way in ("rows", "once", "kept"):
        kept = run_prompts(model, [group.prompt for group in _episodes()]) if way == "kept" else (None, None)
        groups = _one_by_one(_episodes()) if way == "rows" else _episodes(kept)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        stats[way] = update(model, optimizer, groups, config, accelerator, LONGEST)
        moved[way] = {name: weight - start[name] for name, weight in policy_weights(model).items()}
        for name, parameter in model.named_parameters():
            if name in start:
                parameter.data.copy_(start[name])
    assert stats["rows"]["ratio"] != pytest.approx(1, abs=1e-6)
    for way in ("once", "kept"):
        assert stats[way] == pytest.approx(stats["rows"], rel=1e-4, abs=1e-6)
        for name, change in moved["rows"].items():
            assert (moved[way][name] - change).norm() <= 1e-4 * change.norm() + 1e-9, name


def test_passes_over_a_group_are_within_the_limit():
    group = _episodes()[0]
    assert [len(part.completions) for [part] in next(divide([group], 9999)).parts] == [3]
    assert [len(part.completions) for [part] in next(divide([group], 170)).parts] == [2, 1]
    assert [len(part.completions) for [part] in next(divide([group], 1)).parts] == [1, 1, 1]
    short = replace(group, prompt=group.prompt[:8])  # not worth a pass of its own
    assert all(passes.prompt is None for passes in divide([short], 170))


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_the_policy_of_the_update_has_the_temperature_of_the_sampling(adapted, accelerator, beta):
    model, tokenizer = adapted
    config = GRPOConfig(beta=beta, temperature=1.7, max_grad_norm=1e9)
    groups = []
    for prompt, row in zip(
        PROMPTS, sample(model, tokenizer, PROMPTS, 4, max_new_tokens=6, temperature=1.7), strict=True
    ):
        groups.append(Group(prompt, [c.tokens for c in row], [1.0, -1.0, 1.0, -1.0], [c.logprobs for c in row]))
    stats = _step(model, groups, config, accelerator, lr=0.0)
    assert stats["sampling_mismatch_max"] < 1e-4
    assert stats["ratio"] == pytest.approx(1.0)
    cold = _step(model, groups, replace(config, temperature=1.0), accelerator, lr=0.0)
    assert cold["sampling_mismatch"] > 0.01
    # The gradient is that of the tempered log-probabilities.
    actual = _gradients(model, groups[:1], replace(config, beta=0.0), accelerator)
    model.zero_grad()
    (group,) = groups[:1]
    total, count = 0.0, sum(map(len, group.completions))
    for tokens, advantage in zip(group.completions, group.advantages, strict=True):
        logits = model(input_ids=torch.tensor([[*group.prompt, *tokens]])).logits[0] / 1.7
        logprobs = logits.log_softmax(-1)[len(group.prompt) - 1 : -1].gather(-1, torch.tensor(tokens)[:, None])
        total = total - advantage * logprobs.sum() / count
    total.backward()
    for name, parameter in model.named_parameters():
        if name in actual:
            torch.testing.assert_close(actual[name], parameter.grad, atol=1e-6, rtol=1e-3, msg=name)
