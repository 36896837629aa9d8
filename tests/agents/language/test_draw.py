"""A token is drawn where the cumulated probabilities pass the random number, as one cumulated sum in float64 says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym.agents.language.sampling import Choices, Writer, draw
from rwml_gym.errors import TrainingDivergedError

ALMOST_ONE = 1 - 2**-24  # the largest float32 below 1


def _reference(logits: torch.Tensor, uniform: float) -> tuple[int, float, float]:
    """The token, its log-probability, and how far the number is from the nearest border of a token."""
    logprobs = logits.double().log_softmax(-1)
    cumulated = logprobs.exp().cumsum(-1)
    token = int(torch.searchsorted(cumulated, uniform * cumulated[-1], right=True).clamp(max=len(logits) - 1))
    return token, float(logprobs[token]), float((cumulated - uniform).abs().min())


@settings(deadline=None, max_examples=200)
@given(
    vocabulary=st.sampled_from([1, 2, 5, 17, 255, 256, 257, 330, 512, 1187, 4096]),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 1.0, 30.0]),
    uniform=st.floats(0, ALMOST_ONE, width=32),
)
def test_the_token_and_its_probability_are_those_of_one_cumulated_sum(vocabulary, seed, spread, uniform):
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * spread
    (token,), (logprob,) = draw(logits[None], torch.tensor([uniform]))
    expected, probability, distance = _reference(logits, uniform)
    if distance > 1e-5:  # nearer to a border, rounding decides
        assert int(token) == expected
        assert float(logprob) == pytest.approx(probability, abs=1e-4)


@settings(deadline=None, max_examples=200)
@given(
    vocabulary=st.sampled_from([3, 256, 330, 1024]),
    possible=st.sets(st.integers(0, 2), min_size=1),
    uniform=st.one_of(st.sampled_from([0.0, ALMOST_ONE]), st.floats(0, ALMOST_ONE, width=32)),
    seed=st.integers(0, 2**31),
)
def test_an_impossible_token_is_never_drawn(vocabulary, possible, uniform, seed):
    logits = torch.full((1, vocabulary), -torch.inf)
    for token in possible:
        logits[0, token] = torch.randn(1, generator=torch.Generator().manual_seed(seed + token)) * 20
    (token,), (logprob,) = draw(logits, torch.tensor([uniform]))
    assert int(token) in possible
    assert math.isfinite(logprob)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_told(bad, tiny):
    logits = torch.zeros(2, 300)
    logits[1, 7] = bad
    writer = Writer(tiny[1], {0}, torch.rand(2, 4))
    with pytest.raises(TrainingDivergedError, match="smaller learning rate"):
        writer.append(logits, [0, 1])


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_rows_with_and_without_choices_share_a_step(tiny, temperature):
    torch.manual_seed(0)
    logits, draws = torch.randn(3, 300) * 3, torch.rand(3, 2)
    writer = Writer(tiny[1], {0}, draws, temperature, choices=[Choices([[5, 6], [9, 6], [250, 6]]), None, None])
    writer.rows[1].ended = True
    tokens = writer.append(logits, [2, 1, 0])
    assert tokens.shape == (3, 1)
    chosen, over, free = (writer.rows[row] for row in range(3))
    assert over.tokens == []
    assert chosen.allowed == [[5, 9, 250]]
    scaled = logits.double() / (temperature or 1)
    for row, place, allowed in ((chosen, 2, [5, 9, 250]), (free, 0, list(range(300)))):
        (token,) = row.tokens
        assert int(tokens[place]) == token
        assert token in allowed
        logprobs = scaled[place, allowed].log_softmax(-1)
        assert row.logprobs[0] == pytest.approx(float(logprobs[allowed.index(token)]), abs=1e-4)
        if not temperature:
            assert token == allowed[int(logprobs.argmax())]


def test_tokens_are_drawn_as_often_as_they_are_probable():
    probabilities = torch.tensor([0.5, 0.2, 0.0, 0.3])
    uniforms = (torch.arange(10_000) + 0.5) / 10_000
    tokens, _ = draw(probabilities.log().expand(10_000, 4), uniforms)
    assert torch.bincount(tokens, minlength=4).tolist() == [5000, 2000, 0, 3000]
