"""Which tokens a part of a text came from."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.players.spans import find_tokens, prediction_tokens
from rwml_gym.reward.tags import split_prediction

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
        (" look <next_state>A mug. <next_state>And a pan.", "<next_state>A mug. <next_state>And a pan."),
        ("<think>a <next_state>b</next_state></think>look <next_state>A mug.", "<next_state>A mug."),
        ("<next_state>A mug.</next_state> look", "<next_state>A mug.</next_state>"),
    ],
)
def test_a_prediction_begins_with_its_tag(tiny, text, decided):
    _, tokenizer = tiny
    tokens = tokenizer.encode(text, add_special_tokens=False)
    prompts = Prompts(tokenizer, "chat" if "think" in text else "transcript", predictions=True)
    found = prediction_tokens(prompts, tokens)
    assert tokenizer.decode(tokens[found.start : found.stop]).strip() == decided
    prediction = split_prediction(prompts.read_action(text))[1]
    assert split_prediction(decided)[1] == prediction


def test_the_end_of_a_turn_belongs_to_its_prediction(tiny):
    _, tokenizer = tiny
    tokens = [
        *tokenizer.encode(" look <next_state>A mug.</next_state>", add_special_tokens=False),
        tokenizer.eos_token_id,
    ]
    assert prediction_tokens(Prompts(tokenizer, predictions=True), tokens).stop == len(tokens)


def test_a_turn_without_a_prediction_answers_with_its_end(tiny):
    _, tokenizer = tiny
    tokens = tokenizer.encode(" look\n", add_special_tokens=False)
    assert prediction_tokens(Prompts(tokenizer, predictions=True), tokens) == range(len(tokens) - 1, len(tokens))
    assert prediction_tokens(Prompts(tokenizer, predictions=True), []) == range(0)
    assert find_tokens(tokenizer, tokens, "mug") == range(0)
    assert find_tokens(tokenizer, tokens, "") == range(0)
