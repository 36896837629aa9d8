"""Episodes that go on from turn to turn, against transformers' own generation on the whole text."""

from __future__ import annotations

import copy
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym.agents.language.sampling import Choices, sample
from rwml_gym.agents.language.sessions import Request, Sessions
from rwml_gym.errors import InvalidConfigError, TrainingDivergedError

NEW = 12


@pytest.fixture(params=["base", "adapter"])
def model_and_tokenizer(request, tiny):
    return request.getfixturevalue("adapted") if request.param == "adapter" else tiny


def _text(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(5, 300) for _ in range(length)]


def _generate(model, prompt: list[int], new: int = NEW) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, pad_token_id=1
    )
    return out[0, len(prompt) :].tolist()


def _turns(sessions: Sessions, prompts: dict[int, list[int]], turns: int, rng: random.Random, **settings):
    """Plays turns: each slot's prompt goes on with what it wrote and a few new tokens; yields (prompt, completion)."""
    for turn in range(turns):
        requests = [Request(slot, list(prompt), seed=100 * slot + turn) for slot, prompt in prompts.items()]
        for request, completion in zip(requests, sessions.generate(requests, **settings), strict=True):
            yield list(request.prompt), completion
            prompts[request.slot] = [*request.prompt, *completion.tokens, *_text(rng, rng.randrange(1, 40))]


@pytest.mark.long
def test_greedy_turns_are_what_transformers_generates(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    rng = random.Random(0)
    prompts = {slot: _text(rng, length) for slot, length in enumerate((3, 40, 17, 300))}
    for prompt, completion in _turns(Sessions(model, tokenizer), prompts, 4, rng, max_new_tokens=NEW, temperature=0.0):
        assert completion.tokens == _generate(model, prompt)


def test_logprobs_are_those_of_the_model(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    rng = random.Random(1)
    prompts = {slot: _text(rng, length) for slot, length in enumerate((9, 20, 2))}
    for prompt, completion in _turns(Sessions(model, tokenizer), prompts, 3, rng, max_new_tokens=6, temperature=0.7):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + completion.tokens])).logits[0].float() / 0.7
        expected = [
            float(logits[len(prompt) - 1 + i].log_softmax(-1)[token]) for i, token in enumerate(completion.tokens)
        ]
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_turn_costs_its_new_tokens(tiny):
    sessions, rng = Sessions(*tiny), random.Random(2)
    prompts = {slot: _text(rng, 120) for slot in range(3)}
    before, known = 0, 0
    for _ in range(4):
        sent = {slot: list(prompt) for slot, prompt in prompts.items()}
        written = [c for _, c in _turns(sessions, prompts, 1, rng, max_new_tokens=NEW)]
        new = sum(map(len, sent.values())) - known + sum(len(c.tokens) for c in written)
        assert sessions.run_tokens - before <= new + 3
        before, known = sessions.run_tokens, sum(map(len, sent.values()))


def test_a_prompt_that_several_share_runs_once(tiny):
    model, tokenizer = tiny
    rng = random.Random(3)
    start, ends = _text(rng, 200), [_text(rng, 50) for _ in range(2)]
    sessions = Sessions(model, tokenizer)
    requests = [Request(slot, start + ends[slot % 2], seed=slot) for slot in range(8)]
    completions = sessions.generate(requests, max_new_tokens=1, temperature=0.0)
    assert sessions.run_tokens == 199 + 2 * 50 + 8  # what all share, what half of them share, and each one's last
    for request, completion in zip(requests, completions, strict=True):
        assert completion.tokens == _generate(model, list(request.prompt), 1)
    # One that comes later finds it read already.
    sessions.forget([0])
    before = sessions.run_tokens
    (late,) = sessions.generate([Request(20, start + ends[0])], max_new_tokens=1, temperature=0.0)
    assert late.tokens == completions[0].tokens
    # Not to the last bit on every processor: a batch of one takes other kernels than a batch of eight.
    assert late.logprobs == pytest.approx(completions[0].logprobs, abs=1e-5)
    assert sessions.run_tokens == before + 1


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_episodes_come_and_go_without_disturbing_one_another(adapted_session, seed):
    """Slots that end, start anew, pause, change their past: always what the prompt alone would give."""
    model, tokenizer = adapted_session
    rng = random.Random(seed)
    sessions = Sessions(model, tokenizer)
    prompts: dict[int, list[int]] = {}
    for turn in range(5):
        for slot in range(5):
            fate = rng.random()
            if slot not in prompts or fate < 0.2:
                sessions.forget([slot])
                prompts[slot] = rng.choice(list(prompts.values()))[:60] if prompts and fate < 0.1 else _text(rng, 30)
            elif fate < 0.3:
                del prompts[slot][rng.randrange(1, max(2, len(prompts[slot]))) :]
        playing = rng.sample(sorted(prompts), rng.randrange(1, 6))
        requests = [Request(slot, list(prompts[slot]), seed=turn * 10 + slot) for slot in playing]
        together = sessions.generate(requests, max_new_tokens=8, stop=("e",))
        for request, completion in zip(requests, together, strict=True):
            alone = Sessions(model, tokenizer).generate([request], max_new_tokens=8, stop=("e",))
            assert completion.tokens == alone[0].tokens
            prompts[request.slot] = [*request.prompt, *completion.tokens, *_text(rng, 5)]


@pytest.fixture(scope="module")
def adapted_session(tiny_folder):
    from rwml_gym.agents.language.models import add_adapter, load_model
    from tests.conftest import randomise

    model, tokenizer = load_model(str(tiny_folder), "float32", "cpu")
    return randomise(add_adapter(model, rank=4, alpha=8, seed=3)), tokenizer


def test_what_is_written_follows_from_seed_and_prompt(adapted_session):
    rng = random.Random(5)
    requests = [Request(slot, _text(rng, 10 + slot), seed=slot) for slot in range(6)]
    settings = {"max_new_tokens": NEW, "stop": ("a",)}
    together = Sessions(*adapted_session).generate(requests, **settings)
    backwards = Sessions(*adapted_session).generate(requests[::-1], **settings)[::-1]
    assert [c.tokens for c in together] == [c.tokens for c in backwards]
    assert len({len(c.tokens) for c in together}) > 2  # rows end at different steps
    other = Sessions(*adapted_session).generate([Request(0, requests[0].prompt, seed=99)], **settings)
    assert other[0].tokens != together[0].tokens


@pytest.mark.long
def test_samples_are_distributed_as_those_of_sample(adapted_session):
    model, tokenizer = adapted_session
    prompt = tokenizer.encode("You see a mug", add_special_tokens=False)
    n = 2_000
    (theirs,) = sample(model, tokenizer, [prompt], n, max_new_tokens=1, batch_rows=n, seed=1)
    ours = Sessions(model, tokenizer).generate([Request(i, prompt, seed=i) for i in range(n)], max_new_tokens=1)
    a, b = (torch.bincount(torch.tensor([c.tokens[0] for c in row]), minlength=330) for row in (theirs, ours))
    common = a + b >= 20
    statistic = ((a - b)[common].float() ** 2 / (a + b)[common]).sum().item()
    freedom = int(common.sum())
    assert freedom >= 10
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_a_pattern_ends_a_completion(tiny):
    requests = [Request(i, [7, 8, 9 + i], seed=i) for i in range(12)]
    free = Sessions(*tiny).generate(requests, max_new_tokens=30)
    stopped = Sessions(*tiny).generate(requests, max_new_tokens=30, stop=(re.compile("[aeiou].*t"),))
    assert any(len(a.tokens) < len(b.tokens) for a, b in zip(stopped, free, strict=True))
    for a, b in zip(stopped, free, strict=True):
        assert a.tokens == b.tokens[: len(a.tokens)]
        match = re.search("[aeiou].*?t", b.text)
        if match:
            assert a.finished
            assert a.text.endswith("t")
            assert re.search("[aeiou].*t", a.text)


# Choices


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_weights_that_are_no_numbers_choose_nothing(adapted, temperature):
    model, tokenizer = copy.deepcopy(adapted)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(torch.nan)
    requests = [Request(0, [5, 6, 7], choices=Choices([[8, 9], [10, 11]]))]
    with pytest.raises(TrainingDivergedError, match="NaN from the language model"):
        Sessions(model, tokenizer).generate(requests, max_new_tokens=4, temperature=temperature)


def test_only_what_may_be_chosen_is_written(adapted_session):
    model, tokenizer = adapted_session
    options = [tokenizer.encode(t, add_special_tokens=False) for t in (" look\n", " look around\n", " go to kitchen\n")]
    choices = Choices(options)
    prompts = [[30 + i, 40] for i in range(30)]
    requests = [Request(i, p, seed=i, choices=choices if i % 2 else None) for i, p in enumerate(prompts)]
    completions = Sessions(model, tokenizer).generate(requests, max_new_tokens=20)
    assert {tuple(c.tokens) for c in completions[1::2]} == set(map(tuple, options))
    assert all(c.finished for c in completions[1::2])
    assert all(c.allowed is None for c in completions[::2])
    for request, completion in list(zip(requests, completions, strict=True))[1::2]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*request.prompt, *completion.tokens]])).logits[0]
        for t, (token, ids) in enumerate(zip(completion.tokens, completion.allowed, strict=True)):
            assert token in ids
            expected = logits[len(request.prompt) - 1 + t, ids].log_softmax(-1)[ids.index(token)]
            assert completion.logprobs[t] == pytest.approx(float(expected), abs=1e-4)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(InvalidConfigError, match="none"):
        Choices([])
    with pytest.raises(InvalidConfigError, match="empty"):
        Choices([[3], []])


def test_scores_are_those_of_the_model_and_leave_no_trace(adapted_session):
    model, tokenizer = adapted_session
    rng = random.Random(8)
    sessions = Sessions(model, tokenizer)
    requests = [Request(slot, _text(rng, 12 * (slot + 1)), seed=slot) for slot in range(3)]
    options = [[_text(rng, rng.randrange(1, 6)) for _ in range(4)], [_text(rng, 1)], [_text(rng, 3), _text(rng, 7)]]
    scores = sessions.score(requests, options)
    for request, row, expected in zip(requests, options, scores, strict=True):
        for option, score in zip(row, expected, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*request.prompt, *option]])).logits[0].log_softmax(-1)
            total = sum(float(logits[len(request.prompt) - 1 + t, token]) for t, token in enumerate(option))
            assert score == pytest.approx(total, abs=1e-3)
    fresh = Sessions(model, tokenizer).generate(requests, max_new_tokens=6)
    assert [c.tokens for c in sessions.generate(requests, max_new_tokens=6)] == [c.tokens for c in fresh]
