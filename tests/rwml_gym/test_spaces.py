"""The text space takes any string and samples readable ones."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.spaces import UnicodeText


@given(st.text())
def test_any_string_is_a_member(text):
    assert text in UnicodeText()


@pytest.mark.parametrize("text", ["", "🙂 café 冰箱", "\x00\n\t", "\ud800"])
def test_odd_strings_are_members(text):
    assert text in UnicodeText()


@pytest.mark.parametrize("thing", [None, 3, b"look", ["look"], {"action": "look"}])
def test_what_is_no_string_is_no_member(thing):
    assert thing not in UnicodeText()


def test_length_is_bounded():
    space = UnicodeText(max_length=3)
    assert "abc" in space
    assert "abcd" not in space


def test_samples_are_printable_members_and_repeat_with_the_seed():
    space, twin = UnicodeText(seed=1), UnicodeText(seed=1)
    samples = [space.sample() for _ in range(50)]
    assert samples == [twin.sample() for _ in range(50)]
    assert all(sample in space and (sample.isprintable() or sample == "") for sample in samples)
    assert len(set(samples)) > 40


def test_samples_of_a_short_space_are_members():
    space = UnicodeText(max_length=2, seed=0)
    assert all(space.sample() in space for _ in range(50))


def test_equality_and_pickling():
    assert UnicodeText() == UnicodeText(seed=4)
    assert UnicodeText(10) != UnicodeText(11)
    assert pickle.loads(pickle.dumps(UnicodeText(10))) == UnicodeText(10)
    assert "10" in repr(UnicodeText(10))
