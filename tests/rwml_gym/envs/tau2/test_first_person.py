"""A scripted user speaks as a customer, in every task, and does not read his directions aloud."""

from __future__ import annotations

import re

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.envs.tau2.first_person import in_first_person

pytest.importorskip("tau2")


@pytest.mark.parametrize(
    ("directions", "told"),
    [
        ("You want to cancel your flight because you were ill.", "I want to cancel my flight because I was ill."),
        ("You are Emma Kim.\nYour user id is emma_kim_9957.", "I am Emma Kim. My user id is emma_kim_9957."),
        ("Make sure you mention both. You're in a hurry.", "I'm in a hurry."),
        ("If the agent asks for your order, you don't know it. You name is Lei.", "My name is Lei."),
        ("You want to know if the agent can help you.", "I want to know if you can help me."),
        ("You bought a lamp (you do not reveal it). It cost you $3.50.", "I bought a lamp. It cost me $3.50."),
        ("Pretend that you are angry.", ""),
        ("", ""),
    ],
)
def test_what_is_said(directions, told):
    assert in_first_person(directions) == told


@pytest.mark.parametrize("domain", ["airline", "retail", "telecom", "mock"])
def test_no_task_is_read_aloud(domain):
    env = gymnasium.make("rwml_gym/Tau2-v0", domain=domain, split="base")
    for game in env.unwrapped.games.names:
        observation, _ = env.reset(options={"game": game})
        first = observation.removeprefix("user: ").split("\n")[0]
        assert len(first) > 15, game
        assert not re.search(r"\b(?:the agent|yours?|you are|you want|pretend|reveal|make sure)\b", first, re.I), first


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_told(text):
    assert isinstance(in_first_person(text), str)
