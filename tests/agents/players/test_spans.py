"""Which tokens a part of a text came from."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwml_gym.agents.players.spans import find_tokens, prediction_tokens

TEXTS = st.text(alphabet="ab <é字🙂\n", max_size=12)


@given(TEXTS, TEXTS.filter(bool), TEXTS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_tokens_spell_the_text_and_little_more(tiny, before, text, after):
    _, tokenizer = tiny
    tokens = tokenizer.encode(before + text + after, add_special_tokens=False)
    found = find_tokens(tokenizer, tokens, text)
    assert text in tokenizer.decode(tokens[found.start : found.stop])
    assert text not in tokenizer.decode(tokens[found.start + 1 : found.stop])
    assert text not in tokenizer.decode(tokens[found.start : found.stop - 1])


@pytest.mark.parametrize(
    ("text", "decided"),
    [
        (" look <next_state>A mug.</next_state>", "<next_state>A mug.</next_state>"),
        (" look <next_state>A mug", "<next_state>A mug"),  # cut off
        (" look <next_state>A</next_state> <next_state>B</next_state>", "<next_state>B</next_state>"),
    ],
)
def test_a_prediction_begins_with_its_tag(tiny, text, decided):
    _, tokenizer = tiny
    tokens = tokenizer.encode(text, add_special_tokens=False)
    found = prediction_tokens(tokenizer, tokens)
    assert tokenizer.decode(tokens[found.start : found.stop]).strip() == decided


def test_a_turn_without_a_prediction_answers_with_its_end(tiny):
    _, tokenizer = tiny
    tokens = tokenizer.encode(" look\n", add_special_tokens=False)
    assert prediction_tokens(tokenizer, tokens) == range(len(tokens) - 1, len(tokens))
    assert prediction_tokens(tokenizer, []) == range(0)
    assert find_tokens(tokenizer, tokens, "mug") == range(0)
    assert find_tokens(tokenizer, tokens, "") == range(0)
