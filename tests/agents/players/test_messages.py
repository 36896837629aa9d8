"""What a chat model's answer says: the action behind its last mark, however it is set."""

from __future__ import annotations

import pytest

from rwml_gym.agents.players.messages import ChatPlayer


@pytest.mark.parametrize(
    ("answer", "action", "thought"),
    [
        ("Thought: I look.\nAction: look", "look", "I look."),
        ("Thought: I look.\n**Action:** look", "look", "I look.\n**"),
        ("**Thought:** I look.\n**Action: look**", "look", None),
        ("Thought: I look. Action: look", "look", "I look."),
        ("Action: go to shelf 1\nAction: `look`", "look", None),
        ("action:\nlook", "look", ""),
        ("My reaction: none.\nlook", "look", "My reaction: none."),
        ("I look.\n> look", "look", "I look."),
        ("", "", ""),
    ],
)
def test_the_action_stands_behind_the_last_mark(answer, action, thought):
    move = ChatPlayer(lambda messages, tools: answer).move("You are in a room.", {"task": "Look."})
    assert move.action == action
    if thought is not None:
        assert move.thought.strip("*\n ") == thought.strip("*\n ")
