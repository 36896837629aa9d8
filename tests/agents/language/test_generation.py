"""Sampling against transformers' own generation, and against the model's own distribution."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from rwml_gym.agents.language.models import merged
from rwml_gym.agents.language.sampling import Completion, sample
from rwml_gym.agents.language.shared_prefix import cache_argument
from rwml_gym.errors import TrainingDivergedError

SMALLEST = {"vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
TEXTS = ("look", "You are in the kitchen. Here, you see a mug.\n> take mug\n", "> go to", "Nothing happens. " * 6)


@pytest.fixture(params=["base", "adapter"])
def model_and_tokenizer(request, tiny):
    """With an adapter, greedy must be that of the adapted model, not that of the base."""
    return request.getfixturevalue("adapted") if request.param == "adapter" else tiny


def _encode(tokenizer, texts=TEXTS) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def _tokens(results: list[list[Completion]]) -> list[list[list[int]]]:
    return [[c.tokens for c in row] for row in results]


def _next_logits(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].float()


def test_greedy_is_what_transformers_generates(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    prompts = _encode(tokenizer)
    results = sample(model, tokenizer, prompts, max_new_tokens=30, temperature=0.0)
    for prompt, (completion,) in zip(prompts, results, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30, pad_token_id=1
        )[0, len(prompt) :].tolist()
        assert completion.tokens == expected
        assert completion.finished == (completion.tokens[-1] == tokenizer.eos_token_id)


(REAL,) = cache_argument(LlamaForCausalLM(LlamaConfig(**SMALLEST)), DynamicCache())


class TakesCache(LlamaForCausalLM):
    """Keys and values by their name from transformers 5.24 on."""

    def forward(self, *args, cache=None, **more):
        return super().forward(*args, **{REAL: cache}, **more)


class TakesPast(LlamaForCausalLM):
    """Keys and values by their name until then."""

    def forward(self, *args, past_key_values=None, **more):
        return super().forward(*args, **{REAL: past_key_values}, **more)


@pytest.mark.parametrize("kind", [TakesCache, TakesPast])
def test_keys_and_values_have_the_name_that_transformers_gives_them(model_and_tokenizer, kind):
    model, tokenizer = model_and_tokenizer
    options = {"n": 2, "max_new_tokens": 8, "seed": 3}
    expected = _tokens(sample(model, tokenizer, _encode(tokenizer), **options))
    getattr(model, "get_base_model", lambda: model)().__class__ = kind
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert _tokens(sample(model, tokenizer, _encode(tokenizer), **options)) == expected


def test_the_adapter_changes_what_greedy_writes(adapted, tiny_folder):
    from rwml_gym.agents.language.models import load_model

    model, tokenizer = adapted
    base, _ = load_model(str(tiny_folder), "float32", "cpu")
    prompts = _encode(tokenizer)
    kwargs = {"max_new_tokens": 12, "temperature": 0.0}
    assert _tokens(sample(model, tokenizer, prompts, **kwargs)) != _tokens(sample(base, tokenizer, prompts, **kwargs))


def test_the_shares_of_a_batch_are_sampled_as_the_whole_is(adapted):
    model, tokenizer = adapted
    prompts = _encode(tokenizer)
    kwargs = {"n": 3, "max_new_tokens": 10, "seed": 4}
    whole = _tokens(sample(model, tokenizer, prompts, **kwargs))
    for places in ([0, 2], [1, 3], [3], []):
        part = sample(model, tokenizer, [prompts[i] for i in places], **kwargs, places=places)
        assert _tokens(part) == [whole[i] for i in places]


def test_rows_that_end_early_do_not_disturb_the_others(model_and_tokenizer):
    # Stop strings that are single letters end rows at many different steps: the batch is regrouped again and again.
    model, tokenizer = model_and_tokenizer
    prompts = _encode(tokenizer) * 3
    kwargs = {"n": 4, "max_new_tokens": 24, "stop": ("e", "7"), "seed": 5}
    together = sample(model, tokenizer, prompts, batch_rows=48, **kwargs)
    lengths = {len(c.tokens) for row in together for c in row}
    assert len(lengths) > 4
    assert _tokens(sample(model, tokenizer, prompts, batch_rows=4, **kwargs)) == _tokens(together)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_do_not_depend_on_how_they_are_batched(adapted, temperature):
    model, tokenizer = adapted
    prompts = _encode(tokenizer)
    kwargs = {"n": 3, "max_new_tokens": 16, "temperature": temperature, "seed": 11}
    expected = sample(model, tokenizer, prompts, batch_rows=64, **kwargs)
    for rows in (1, 3, 7):
        actual = sample(model, tokenizer, prompts, batch_rows=rows, **kwargs)
        assert _tokens(actual) == _tokens(expected)


def test_logprobs_are_those_of_the_model(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    prompts = _encode(tokenizer)
    results = sample(model, tokenizer, prompts, 2, max_new_tokens=10, temperature=0.7, seed=2, stop=("a",))
    for prompt, row in zip(prompts, results, strict=True):
        for completion in row:
            assert len(completion.logprobs) == len(completion.tokens)
            for t, (token, logprob) in enumerate(zip(completion.tokens, completion.logprobs, strict=True)):
                logits = _next_logits(model, prompt + completion.tokens[:t])
                assert logprob == pytest.approx((logits / 0.7).log_softmax(-1)[token].item(), abs=1e-4)


def test_seeds_reproduce_and_differ(tiny):
    model, tokenizer = tiny
    prompts = _encode(tokenizer)
    a, b, c = (sample(model, tokenizer, prompts, max_new_tokens=8, seed=seed) for seed in (1, 1, 2))
    assert a == b
    assert _tokens(a) != _tokens(c)


def test_the_global_generator_has_no_part_in_it(tiny):
    model, tokenizer = tiny
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = sample(model, tokenizer, _encode(tokenizer), max_new_tokens=5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert sample(model, tokenizer, _encode(tokenizer), max_new_tokens=5, seed=3) == first


def test_completions_of_one_prompt_differ(tiny):
    model, tokenizer = tiny
    (row,) = sample(model, tokenizer, _encode(tokenizer, ["look"]), 16, max_new_tokens=8)
    assert len({tuple(c.tokens) for c in row}) == 16


def test_equal_prompts_get_different_samples(tiny):
    model, tokenizer = tiny
    a, b = sample(model, tokenizer, _encode(tokenizer, ["look", "look"]), 2, max_new_tokens=12)
    assert _tokens([a]) != _tokens([b])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_tokens_are_distributed_as_the_softmax_says(adapted, temperature):
    model, tokenizer = adapted
    prompt = _encode(tokenizer, ["You see a mug"])[0]
    n = 4_000
    (row,) = sample(model, tokenizer, [prompt], n, max_new_tokens=1, temperature=temperature, batch_rows=n, seed=9)
    p = (_next_logits(model, prompt) / temperature).softmax(-1)
    counts = torch.bincount(torch.tensor([c.tokens[0] for c in row]), minlength=len(p)).float()
    # Pool the rare tokens, as the chi-square statistic wants five expected in every cell.
    common = p * n >= 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    expected = torch.cat([p[common], p[~common].sum()[None]]) * n
    statistic = ((observed - expected) ** 2 / expected).sum().item()
    freedom = len(expected) - 1
    assert freedom >= 10
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_are_no_numbers_are_told(adapted, temperature):
    model, tokenizer = copy.deepcopy(adapted)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    prompts = _encode(tokenizer)
    with pytest.raises(TrainingDivergedError, match="NaN from the language model"):
        sample(model, tokenizer, prompts, max_new_tokens=5, temperature=temperature)


def test_a_stop_string_ends_and_is_cut_off(tiny):
    model, tokenizer = tiny
    prompts = _encode(tokenizer) * 8
    free = sample(model, tokenizer, prompts, max_new_tokens=40, seed=4)
    stopped = sample(model, tokenizer, prompts, max_new_tokens=40, seed=4, stop=("e", "th"))
    hit = 0
    for (a,), (b,) in zip(free, stopped, strict=True):
        ends = [at for at in (a.text.find("e"), a.text.find("th")) if at >= 0]
        assert b.text == (a.text[: min(ends)] if ends else a.text)
        assert b.tokens == a.tokens[: len(b.tokens)]
        if ends:
            hit += 1
            assert b.finished
            written = tokenizer.decode(b.tokens, skip_special_tokens=True)
            assert written.startswith(b.text)
            assert "e" in written or "th" in written
            shorter = tokenizer.decode(b.tokens[:-1], skip_special_tokens=True)
            assert "e" not in shorter
            assert "th" not in shorter
    assert 0 < hit


@pytest.mark.parametrize("stop", ["\n> go to kitchen", "→→", "…"])
def test_a_stop_string_of_many_tokens_ends(tiny, monkeypatch, stop):
    # A model that writes the stop string whatever it is asked: byte-level tokens split one character into several.
    model, tokenizer = tiny
    written = tokenizer.encode(f"You see nothing{stop}AB", add_special_tokens=False)
    (completion,) = _recite(model, tokenizer, monkeypatch, written, stop)
    assert completion.text == "You see nothing"
    assert completion.finished
    assert len(completion.tokens) <= len(tokenizer.encode(f"You see nothing{stop}A", add_special_tokens=False))


def _recite(model, tokenizer, monkeypatch, written: list[int], stop: str) -> list[Completion]:
    forward = type(model).forward
    prompt = tokenizer.encode("look", add_special_tokens=False)

    def recite(self, *args, **kwargs):
        out = forward(self, *args, **kwargs)
        positions = kwargs["position_ids"][:, -1].tolist()
        out.logits = torch.full_like(out.logits, -30.0)
        for row, position in enumerate(positions):
            out.logits[row, -1, written[min(position - len(prompt) + 1, len(written) - 1)]] = 30.0
        return out

    monkeypatch.setattr(type(model), "forward", recite)
    (row,) = sample(model, tokenizer, [prompt], max_new_tokens=len(written), temperature=0.0, stop=(stop,))
    return row


def test_the_end_token_ends_and_stays_out_of_the_text(tiny, monkeypatch):
    model, tokenizer = tiny
    written = [*tokenizer.encode("You see", add_special_tokens=False), tokenizer.eos_token_id, 40, 41]
    (completion,) = _recite(model, tokenizer, monkeypatch, written, "\n>")
    assert completion.tokens == written[:-2]
    assert completion.text == "You see"
    assert completion.finished


def test_the_token_limit_leaves_a_completion_unfinished(tiny):
    model, tokenizer = tiny
    results = sample(model, tokenizer, _encode(tokenizer), 4, max_new_tokens=3, seed=1)
    cut = [c for row in results for c in row if tokenizer.eos_token_id not in c.tokens]
    assert cut
    assert all(not c.finished and len(c.tokens) == 3 for c in cut)


def test_a_limit_of_one_token_and_no_prompts(tiny):
    model, tokenizer = tiny
    results = sample(model, tokenizer, _encode(tokenizer), max_new_tokens=1)
    assert [len(row[0].tokens) for row in results] == [1] * len(TEXTS)
    assert sample(model, tokenizer, [], max_new_tokens=4) == []


def test_progress_counts_every_prompt_once(tiny):
    model, tokenizer = tiny
    seen: list[int] = []
    sample(model, tokenizer, _encode(tokenizer), 2, max_new_tokens=2, batch_rows=6, progress=seen.append)
    assert seen == [3, 1]


def test_sampling_leaves_the_model_trainable_and_unchanged(adapted):
    model, tokenizer = adapted
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    sample(model, tokenizer, _encode(tokenizer), max_new_tokens=4)
    for name, parameter in model.named_parameters():
        value, trainable = before[name]
        assert torch.equal(parameter, value), name
        assert parameter.requires_grad == trainable, name
    with merged(model):
        pass
    loss = model(input_ids=torch.tensor([[7, 8, 9]])).logits.square().sum()
    loss.backward()
    assert any(p.grad is not None for p in model.parameters())
