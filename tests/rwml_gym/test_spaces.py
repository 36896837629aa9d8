"""The text space takes any string and samples readable ones."""

from __future__ import annotations

import pickle
from functools import partial

import gymnasium as gym
import pytest
from gymnasium.spaces import Dict, Discrete, flatdim, flatten, flatten_space, unflatten
from gymnasium.vector.utils import batch_differing_spaces
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.envs.toy import ToyHouseEnv
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


@given(st.text(max_size=20) | st.sampled_from(["\ud800", "a\n🙂\x00", "\U0010ffff"]))
def test_gymnasium_flattens_every_text(text):
    space = UnicodeText(20)
    flat = flatten(space, text)
    assert flat in flatten_space(space)
    assert flat.shape == (flatdim(space),)
    assert unflatten(space, flat) == text


def test_gymnasium_flattens_a_text_among_other_spaces():
    space, member = Dict(text=UnicodeText(9), number=Discrete(3)), {"text": "caf\u00e9\n", "number": 2}
    assert flatten(space, member) in flatten_space(space)
    assert unflatten(space, flatten(space, member)) == member


def test_texts_of_different_lengths_are_batched():
    batched = batch_differing_spaces([UnicodeText(9), UnicodeText(30)])
    assert ("a" * 9, "b" * 30) in batched
    assert ("a" * 30, "b" * 9) not in batched


@pytest.mark.parametrize("shared_memory", [True, False])
def test_vector_environments_with_different_spaces(shared_memory):
    env_fns = [ToyHouseEnv, partial(ToyHouseEnv, games=9)]
    sync = gym.vector.SyncVectorEnv(env_fns, observation_mode="different")
    parallel = gym.vector.AsyncVectorEnv(env_fns, observation_mode="different", shared_memory=shared_memory)
    observations = parallel.reset(seed=0)[0]
    assert observations == sync.reset(seed=0)[0]
    assert observations in parallel.observation_space
    parallel.close()
