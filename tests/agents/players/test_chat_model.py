"""A model in this process speaks for the user of a conversation."""

from __future__ import annotations

import dataclasses

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


def test_a_template_with_tools_is_used_natively(tiny_folder, tmp_path):
    """The schemas reach the model as its template writes them, and what it writes is played."""
    import shutil

    from rwml_gym.agents.config.evaluate import EvaluateConfig
    from rwml_gym.agents.evaluation.run import evaluate
    from rwml_gym.errors import InvalidConfigError

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = EvaluateConfig(
        env="tau2", domain="mock", agent="model", model=str(folder), episodes=1, max_steps=2, action_tokens=4
    )
    with pytest.raises(InvalidConfigError, match=r"chat template with tools for --tool-calls native"):
        evaluate(dataclasses.replace(config, tool_calls="native"))
    template = (
        "{% for t in tools or [] %}<tool>{{ t.function.name }}</tool>{% endfor %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    for name in ("chat_template.jinja", "hashes.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    told = []
    episodes = evaluate(dataclasses.replace(config, tool_calls="native"), watchers=[told.append]).episodes
    assert [(e.error, e.steps) for e in episodes] == [(None, 2)]
    steps = [record for record in told if hasattr(record, "action")]
    assert [message["role"] for message in steps[0].shown] == ["system", "user"]
    assert steps[0].prompt_tokens > 50
