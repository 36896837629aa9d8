"""The shared prompt against plain attention over prompt and completion, repeated for every completion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.sampling import sample
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.agents.language.shared_prefix import SharedPrefix, encode_prompts, rest_logits
from tests.conftest import randomise, write_model

PAD = 1
SLIDES_AND_SEES_ALL = ["sliding_attention", "full_attention"]
ARCHITECTURES = {
    "llama": ("Llama", {}),
    "llama-without-grouped-queries": ("Llama", {"num_key_value_heads": 4}),
    "llama-one-key-value-head": ("Llama", {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    # Windows shorter than the prompts: in every layer, in every other, in the last.
    "mistral-with-windows": ("Mistral", {"sliding_window": 8}),
    "gemma3": ("Gemma3Text", {"head_dim": 8, "sliding_window": 8, "layer_types": SLIDES_AND_SEES_ALL}),
    "qwen2-with-windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "phi3-with-windows": ("Phi3", {"sliding_window": 8}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "olmo2": ("Olmo2", {}),
    "granite": ("Granite", {}),
}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture, changes = ARCHITECTURES[request.param]
    return write_model(tmp_path_factory.mktemp("models") / request.param, architecture, **changes)


def _tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 300, shape, generator=torch.Generator().manual_seed(seed))


def _prompts(lengths: Sequence[int]) -> list[list[int]]:
    return [_tokens(length, seed=i).tolist() for i, length in enumerate(lengths)]


def _plain_logits(model: nn.Module, prompts: Sequence[Sequence[int]], completions: Tensor) -> Tensor:
    """One row at a time, without padding, cache or anything shared: what the words of the docstring promise."""
    group = len(completions) // len(prompts)
    rows = []
    for i, completion in enumerate(completions):
        prompt = torch.tensor(prompts[i // group])
        logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
        rows.append(logits[len(prompt) - 1 : -1])
    return torch.stack(rows)


def test_one_token_after_another_attends_as_plain_rows_do(folder: Path):
    model, tokenizer = load_model(str(folder), "float32", "cpu")
    prompts = _prompts([1, 9, 23])
    done = sample(model, tokenizer, prompts, 2, max_new_tokens=9, temperature=0.0)
    for prompt, completions in zip(prompts, done, strict=True):
        for completion in completions:
            expected = _plain_logits(model, [prompt], torch.tensor([completion.tokens]))
            assert completion.tokens == expected.argmax(-1)[0].tolist()


def test_turns_of_an_episode_attend_as_plain_rows_do(folder: Path):
    model, tokenizer = load_model(str(folder), "float32", "cpu")
    sessions, prompts = Sessions(model, tokenizer), {slot: p for slot, p in enumerate(_prompts([3, 9, 23]))}
    for turn in range(3):
        requests = [Request(slot, list(prompt)) for slot, prompt in prompts.items()]
        for request, completion in zip(
            requests, sessions.generate(requests, max_new_tokens=6, temperature=0.0), strict=True
        ):
            expected = _plain_logits(model, [request.prompt], torch.tensor([completion.tokens]))
            assert completion.tokens == expected.argmax(-1)[0].tolist()
            prompts[request.slot] = [*request.prompt, *completion.tokens, *_tokens(5, seed=turn).tolist()]


def completion_logits(model: nn.Module, prefix: SharedPrefix, completions: torch.Tensor) -> torch.Tensor:
    """The logits of all tokens of the completions."""
    first = prefix.last_logits.repeat_interleave(len(completions) // len(prefix.mask), 0)[:, None]
    rest = [rest_logits(model, prefix, completions)] if completions.shape[1] > 1 else []
    return torch.cat([first, *rest], dim=1)


@pytest.mark.parametrize("group", [1, 3, 8])
@pytest.mark.parametrize("adapter", [False, True])
def test_logits_are_those_of_plain_attention(folder: Path, adapter: bool, group: int):
    model: nn.Module = load_model(str(folder), "float32", "cpu")[0]
    if adapter:
        model = randomise(add_adapter(model, rank=4, alpha=8))
    prompts = _prompts([1, 9, 4, 23])
    completions = _tokens(4 * group, 7, seed=9)
    with torch.no_grad():
        expected = _plain_logits(model, prompts, completions)
        actual = completion_logits(model, encode_prompts(model, prompts, PAD), completions)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("group", [1, 8])
def test_gradients_are_those_of_plain_attention(folder: Path, group: int):
    model = randomise(add_adapter(load_model(str(folder), "float32", "cpu")[0], rank=4, alpha=8))
    prompts = _prompts([3, 17])
    completions = _tokens(2 * group, 6, seed=4)
    weights = torch.randn(completions.shape, generator=torch.Generator().manual_seed(2))
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def gradients(logits: Tensor) -> list[Tensor]:
        logprobs = logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]
        return list(torch.autograd.grad((logprobs * weights).sum(), list(trainable.values())))

    expected = gradients(_plain_logits(model, prompts, completions))
    actual = gradients(completion_logits(model, encode_prompts(model, prompts, PAD), completions))
    for name, a, e in zip(trainable, actual, expected, strict=True):
        assert e.norm() > 0, name  # the prompt's keys and values are trained, too
        assert (a - e).norm() <= 1e-4 * e.norm(), name


def test_a_completion_of_one_token_costs_no_second_pass(tiny):
    model, _ = tiny
    prefix = encode_prompts(model, _prompts([5, 2]), PAD)
    logits = completion_logits(model, prefix, _tokens(6, 1))
    torch.testing.assert_close(logits[:, 0], prefix.last_logits.repeat_interleave(3, 0))


def test_padding_on_the_right_changes_nothing_before_it(tiny):
    model, _ = tiny
    prefix = encode_prompts(model, _prompts([5, 8]), PAD)
    short = _tokens(4, 3)
    padded = torch.cat([short, torch.full((4, 5), PAD)], dim=1)
    torch.testing.assert_close(completion_logits(model, prefix, padded)[:, :3], completion_logits(model, prefix, short))


def test_select_gives_the_prefix_of_the_chosen_prompts(tiny):
    model, _ = tiny
    prompts = _prompts([4, 11, 6])
    completions = _tokens(4, 5)
    chosen = encode_prompts(model, prompts, PAD).select(torch.tensor([2, 0]))
    assert chosen.lengths.tolist() == [6, 4]
    actual = completion_logits(model, chosen, completions)
    expected = _plain_logits(model, [prompts[2], prompts[0]], completions)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_joined_prefixes_are_those_of_prompts_that_ran_together(tiny):
    model, _ = tiny
    prompts, completions = _prompts([4, 11, 6]), _tokens(6, 5)
    joined = SharedPrefix.join([encode_prompts(model, [prompt], PAD) for prompt in prompts])
    together = encode_prompts(model, prompts, PAD)
    assert torch.equal(joined.mask, together.mask)
    assert torch.equal(joined.lengths, together.lengths)
    actual, expected = (completion_logits(model, prefix, completions) for prefix in (joined, together))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_without_a_prefix_the_attention_is_that_of_transformers(tiny, tiny_folder):
    from transformers import AutoModelForCausalLM

    model, _ = tiny
    stock = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation="eager")
    ids, mask = _tokens(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[1, :4] = 0
    actual, expected = (m(input_ids=ids, attention_mask=mask).logits for m in (model, stock))
    torch.testing.assert_close(actual[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(actual[1, 4:], expected[1, 4:], atol=1e-5, rtol=1e-5)


def test_the_half_precision_model_agrees_with_itself(tiny_folder):
    model, _ = load_model(str(tiny_folder), "bfloat16", "cpu")
    prompts, completions = _prompts([7, 3]), _tokens(6, 5)
    with torch.no_grad():
        actual = completion_logits(model, encode_prompts(model, prompts, PAD), completions)
        expected = _plain_logits(model, prompts, completions)
    # bfloat16 keeps 8 bits: a percent of the spread of the logits.
    assert (actual - expected).abs().mean() < 0.02 * expected.std()
