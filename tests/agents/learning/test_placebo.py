"""Placebos: what stands in the place of the world's answers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.agents.learning.placebo import placebo_answers, vocabulary

TURNS = st.lists(st.tuples(st.text(max_size=5), st.sampled_from(["pick", "heat", ""])), max_size=12)


@given(TURNS, st.integers(0, 5))
def test_shuffled_answers_stay_within_their_task_type_and_leave_their_turn(turns, seed):
    answers, kinds = [text for text, _ in turns], [kind for _, kind in turns]
    numbered = [f"{number}:{text}" for number, text in enumerate(answers)]
    found = placebo_answers(numbered, kinds, "shuffled", seed, None, [])
    for kind in set(kinds):
        places = [i for i, other in enumerate(kinds) if other == kind]
        assert Counter(found[i] for i in places) == Counter(numbered[i] for i in places)
        assert len(places) == 1 or all(found[i] != numbered[i] for i in places)
    assert found == placebo_answers(numbered, kinds, "shuffled", seed, None, [])
    assert placebo_answers(answers, kinds, "none", seed, None, []) == answers


def test_random_answers_have_as_many_tokens_of_the_vocabulary(tiny):
    _, tokenizer = tiny
    words = vocabulary(tokenizer)
    assert not set(words) & set(tokenizer.all_special_ids)
    assert len(words) == len(tokenizer) - 5
    answers = ["You are in the kitchen.", "Nothing happens.", ""]
    drawn = placebo_answers(answers, [""] * 3, "random", 0, tokenizer, words)
    assert drawn != answers
    assert drawn == placebo_answers(answers, [""] * 3, "random", 0, tokenizer, words)
    assert drawn != placebo_answers(answers, [""] * 3, "random", 1, tokenizer, words)
