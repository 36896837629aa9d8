"""A model in this process speaks for the user of a conversation."""

from __future__ import annotations

import pytest

pytest.importorskip("tau2")

import rwml_gym.agents.players.chat_model as chat_model
from rwml_gym.agents.language.sampling import Completion
from rwml_gym.agents.players.chat_model import LocalChatModel
from rwml_gym.envs.tau2.env import Tau2Env

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "toggle_data",
            "description": "Turns data on or off.",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]


@pytest.fixture
def model(tiny_folder):
    return LocalChatModel(str(tiny_folder), max_new_tokens=8, dtype="float32", device="cpu")


def test_the_same_conversation_gets_the_same_answer(model):
    messages = [{"role": "user", "content": "Hi! How can I help you today?"}]
    first, second = model(messages, []), model(messages, [])
    assert first == second
    assert first["role"] == "assistant"


def test_it_plays_the_user_of_an_episode(model):
    model.temperature = 1.0
    env = Tau2Env("mock", user="model", user_model=model, on_user_error="truncate")
    observation, info = env.reset(seed=0)
    observation, _, terminated, truncated, info = env.step("What can I do for you?")
    assert truncated == bool(info["user_error"])
    assert terminated or truncated or observation.startswith("user: ")


@pytest.mark.parametrize(
    ("written", "content", "called"),
    [
        ("My phone is broken.", "My phone is broken.", None),
        ("<think>I should act.</think> Hello", "Hello", None),
        ('<tool_call>{"name": "toggle_data", "arguments": {}}</tool_call>', None, "toggle_data"),
        ("toggle_data()", None, "toggle_data"),
        ("toggle_data(1, 2", "toggle_data(1, 2", None),
    ],
)
def test_what_it_writes_becomes_words_or_a_call(model, monkeypatch, written, content, called):
    monkeypatch.setattr(chat_model, "sample", lambda *a, **k: [[Completion([], [], written, True)]])
    answer = model([{"role": "user", "content": "Hi"}], TOOLS)
    assert answer["content"] == content
    assert [call["function"]["name"] for call in answer.get("tool_calls", [])] == ([called] if called else [])
