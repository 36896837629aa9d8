"""Next-state SFT."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from rwml_gym.agents.language.sampling import sample
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.learning.sft import sft_update
from rwml_gym.errors import InvalidConfigError
from tests.conftest import policy_weights

PROMPTS = [[9, 30, 41], [12, 13, 200, 77, 60, 8, 21], [50, 51, 52, 53]]
TARGETS = [[20, 21, 22, 23, 24, 25], [70], [90, 91, 92]]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def _optimizer(model, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)


def test_the_loss_is_the_mean_over_target_tokens(adapted, accelerator):
    model, _ = adapted
    values = []
    with torch.no_grad():
        for prompt, target in zip(PROMPTS, TARGETS, strict=True):
            logprobs = model(input_ids=torch.tensor([[*prompt, *target]])).logits[0].log_softmax(-1)
            values += [-float(logprobs[len(prompt) - 1 + t, token]) for t, token in enumerate(target)]
    stats = sft_update(model, _optimizer(model, 0.0), PROMPTS, TARGETS, accelerator)
    assert stats["loss"] == pytest.approx(sum(values) / 10, rel=1e-5)
    assert stats["grad_norm"] > 0


def test_updates_lower_the_loss_until_greedy_answers_with_the_targets(adapted, accelerator):
    model, tokenizer = adapted
    optimizer = _optimizer(model, 2e-2)
    losses = [sft_update(model, optimizer, PROMPTS, TARGETS, accelerator)["loss"] for _ in range(60)]
    assert losses[5] < losses[0]
    # The untrained output layer of a model this narrow leaves a tenth.
    assert losses[-1] < 0.15 * losses[0]
    results = sample(model, tokenizer, PROMPTS, max_new_tokens=6, temperature=0.0)
    written = [row[0].tokens[: len(target)] for row, target in zip(results, TARGETS, strict=True)]
    assert written == TARGETS


def test_only_the_adapter_changes(adapted, accelerator):
    model, _ = adapted
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    sft_update(model, _optimizer(model, 1e-2), PROMPTS, TARGETS, accelerator)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed
    assert all("lora_" in name for name in changed)


def test_a_longer_neighbour_does_not_change_what_a_target_teaches(tiny_folder, accelerator):
    # Two rows together step along the token-weighted mean of their own gradients: padding teaches nothing.
    from rwml_gym.agents.language.models import add_adapter, load_model
    from tests.conftest import randomise

    def gradient(rows: slice) -> dict[str, torch.Tensor]:
        model = randomise(add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4))
        before = policy_weights(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        sft_update(model, optimizer, PROMPTS[rows], TARGETS[rows], accelerator, max_grad_norm=1e9)
        return {name: before[name] - p for name, p in policy_weights(model).items()}

    long, short, both = gradient(slice(0, 1)), gradient(slice(1, 2)), gradient(slice(0, 2))
    for name in both:
        torch.testing.assert_close(both[name], (6 * long[name] + short[name]) / 7, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("change", [{"steps": -1}, {"batch_size": 0}])
def test_wrong_configurations_are_refused(change):
    with pytest.raises(InvalidConfigError, match=next(iter(change))):
        SFTConfig(**change)


def test_no_steps_are_a_valid_configuration():
    assert SFTConfig(steps=0).steps == 0


def test_passes_are_memory_only(tiny_folder, accelerator):
    from rwml_gym.agents.language.models import add_adapter, load_model
    from tests.conftest import randomise

    def step(micro_tokens: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        model = randomise(add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        stats = sft_update(model, optimizer, PROMPTS, TARGETS, accelerator, micro_tokens=micro_tokens)
        return stats, policy_weights(model)

    whole, weights = step(1000)
    for tokens in (1, 30):
        stats, parts = step(tokens)
        assert stats == pytest.approx(whole, rel=1e-4)
        for name in weights:
            torch.testing.assert_close(parts[name], weights[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("budget", "passes"), [(1, 3), (20, 2), (30, 2), (1000, 1)])
def test_a_pass_has_no_more_tokens_than_the_limit_or_one_row(adapted, accelerator, budget, passes):
    model, _ = adapted
    seen: list[torch.Size] = []
    base = model.get_base_model()
    hook = base.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        sft_update(model, _optimizer(model, 0.0), PROMPTS, TARGETS, accelerator, micro_tokens=budget)
    finally:
        hook.remove()
    assert len(seen) == passes
    assert sum(rows for rows, _ in seen) == len(PROMPTS)
    assert all(rows == 1 or rows * width <= budget for rows, width in seen)


@pytest.mark.parametrize("budget", [1, 1000])
def test_rows_with_nothing_to_learn_change_nothing(tiny_folder, accelerator, budget):
    """A demonstration that was cut at the token limit can have no target."""
    from rwml_gym.agents.language.models import add_adapter, load_model
    from tests.conftest import randomise

    def step(prompts, targets, masks) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        model = randomise(add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
        stats = sft_update(model, optimizer, prompts, targets, accelerator, micro_tokens=budget, masks=masks)
        return stats, policy_weights(model)

    masks = [[1] * len(target) for target in TARGETS]
    expected, weights = step(PROMPTS, TARGETS, masks)
    stats, actual = step([*PROMPTS, [5], [9, 30]], [*TARGETS, [], [7, 8]], [*masks, [], [0, 0]])
    assert stats == pytest.approx(expected, rel=1e-4)
    for name in weights:
        torch.testing.assert_close(actual[name], weights[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("loss", "clip"), [("cross_entropy", 1.0), ("clipped_mae", 1.0), ("clipped_mae", 0.995)])
def test_loss_and_gradient_are_those_of_the_loss_as_a_reader_would_write_it(
    tiny_folder, accelerator, loss, clip, masked
):
    from rwml_gym.agents.language.models import add_adapter, load_model
    from tests.conftest import randomise

    model = randomise(add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4))
    masks = [[1, 0, 1, 1, 0, 1], [0], [1, 1, 1]] if masked else [[1] * len(target) for target in TARGETS]
    terms = []
    for prompt, target, mask in zip(PROMPTS, TARGETS, masks, strict=True):
        probabilities = model(input_ids=torch.tensor([[*prompt, *target]])).logits[0].softmax(-1)
        for place, (token, counts) in enumerate(zip(target, mask, strict=True)):
            p = probabilities[len(prompt) - 1 + place, token]
            if counts:
                terms.append(-p.log() if loss == "cross_entropy" else torch.minimum(1 - p, torch.tensor(clip)))
    plain = torch.stack(terms).mean()
    plain.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    before = policy_weights(model)
    stats = sft_update(
        model,
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0),
        PROMPTS,
        TARGETS,
        accelerator,
        max_grad_norm=1e9,
        micro_tokens=30,
        masks=masks if masked else None,
        loss=SFTConfig(loss=loss, clip=clip).token_loss,
    )
    assert stats["loss"] == pytest.approx(float(plain.detach()), rel=1e-5)
    after = policy_weights(model)
    for name, gradient in expected.items():
        torch.testing.assert_close(before[name] - after[name], gradient, atol=1e-6, rtol=1e-3)
    if clip < 1:  # otherwise the clipping would not have been tested
        assert any(float(term.detach()) == pytest.approx(clip) for term in terms)


def test_nothing_to_learn_changes_nothing(adapted, accelerator):
    model, _ = adapted
    before = policy_weights(model)
    stats = sft_update(
        model, _optimizer(model, 1.0), PROMPTS, TARGETS, accelerator, masks=[[0] * len(t) for t in TARGETS]
    )
    assert stats == {"loss": 0.0, "grad_norm": 0.0}
    assert all(torch.equal(p, before[name]) for name, p in policy_weights(model).items())


@pytest.mark.parametrize(
    ("options", "message"), [({"loss": "mse"}, "loss among"), ({"clip": 0.5}, "clip with"), ({"clip": 1.5}, "clip")]
)
def test_a_loss_that_does_not_exist_or_a_clip_without_one_is_refused(options, message):
    with pytest.raises(InvalidConfigError, match=message):
        SFTConfig(**options)
