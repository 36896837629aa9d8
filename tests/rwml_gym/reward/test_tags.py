from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG, split_prediction

O, C = OPEN_TAG, CLOSE_TAG  # noqa: E741 - short, for the table below
PLAIN = st.text().filter(lambda text: "<" not in text and ">" not in text)
# Texts made of tags, parts of tags and anything else.
MESSY = st.lists(st.one_of(st.sampled_from([O, C, "<", "next_state", ">", "</", " ", "go"]), st.text(max_size=3))).map(
    "".join
)


@pytest.mark.parametrize(
    ("text", "action", "prediction"),
    [
        ("look", "look", None),
        (" look \n", " look \n", None),
        ("", "", None),
        (f"look {O}A room.{C}", "look", "A room."),
        (f"{O}A room.{C}\nlook", "look", "A room."),
        (f"go to {O}A room.{C} fridge 1", "go to fridge 1", "A room."),
        (f"look {O}\n A room. \n{C}", "look", "A room."),
        (f"look {O}A ro", "look", "A ro"),
        (f"look {O}", "look", None),
        (f"look {O}one{C}{O}two{C}", "look", "two"),
        (f"look {O}one{C} {O}tw", "look", "tw"),
        (f"look {O}{C}", "look", None),
        (f"look {O} \n {C}", "look", None),
        (f"look {O}one{C}{O}{C}", "look", None),
        (f"look {O}one {O}two{C}", "look", "one two"),
        (f"look {O}one{O}two{C} three{C}", "look three", "one two"),
        (f"look{C}", "look", None),
        (f"{C}look {O}one{C}", "look", "one"),
        (f"<next_{O}x{C}state> look", "<next_ state> look", "x"),
        (f"look {O}<next_{O}state>{C}", "look", "<next_ state>"),
        (f"schau 🙂 {O}ein Kühlschrank 冷蔵庫{C}", "schau 🙂", "ein Kühlschrank 冷蔵庫"),
        ("look <NEXT_STATE>A room.</NEXT_STATE>", "look <NEXT_STATE>A room.</NEXT_STATE>", None),
    ],
)
def test_what_is_read(text, action, prediction):
    assert split_prediction(text) == (action, prediction)


def test_other_tags():
    assert split_prediction("look [[A room.]]", "[[", "]]") == ("look", "A room.")
    assert split_prediction(f"look {O}A{C}", "[[", "]]") == (f"look {O}A{C}", None)


@given(PLAIN, PLAIN, PLAIN)
def test_an_action_and_a_prediction_come_back(before, prediction, after):
    action, found = split_prediction(f"{before}{O}{prediction}{C}{after}")
    assert found == (prediction.strip() or None)
    assert action == " ".join(part.strip() for part in (before, after) if part.strip())


@given(PLAIN)
def test_text_without_tags_is_the_action_unchanged(text):
    assert split_prediction(text) == (text, None)


@given(MESSY)
def test_no_tag_is_left_and_splitting_again_changes_nothing(text):
    action, prediction = split_prediction(text)
    for result in (action, prediction or ""):
        assert O not in result
    assert C not in action
    assert C not in (prediction or "")
    assert prediction is None or (prediction == prediction.strip() and prediction)
    assert split_prediction(action) == (action, None)


@given(MESSY)
def test_nothing_is_made_up(text):
    action, prediction = split_prediction(text)
    assert not set(action + (prediction or "")) - set(text) - {" "}


@pytest.mark.parametrize("unit", [O, C, O + C, C + O, "<", O + "x", "<next_stat", " "])
def test_long_texts_are_read_whole(unit):
    # Quadratic time would be minutes here; the suite's own patience is the limit.
    text = unit * (2_000_000 // len(unit))
    action, prediction = split_prediction("go " + text)
    assert O not in action
    assert C not in (prediction or "")


@pytest.mark.parametrize(
    "tags", [("", "x"), ("a b", "x"), (" a", "x"), ("x", "x"), ("x", "xy"), ("yx", "x"), ("a", "\n")]
)
def test_tags_that_cannot_be_told_apart_are_refused(tags):
    with pytest.raises(InvalidConfigError, match="Expected t"):
        split_prediction("look", *tags)
