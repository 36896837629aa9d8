"""An episode as a chat, on real environments."""

from __future__ import annotations

import gymnasium as gym
import pytest

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.integrations.dialogue import Dialogue, games_to_play, read_command
from rwml_gym.errors import GameNotFoundError, InvalidConfigError


@pytest.fixture
def retail():
    pytest.importorskip("tau2")
    dialogue = Dialogue(gym.make("rwml_gym/Tau2-v0", domain="mock", disable_env_checker=True))
    yield dialogue
    dialogue.close()


def test_a_game_is_won_by_the_first_lines_of_messages():
    dialogue = Dialogue(gym.make("rwml_gym/ToyHouse-v0", expert=True))
    opening = dialogue.start("house-3")
    assert "next command" in opening.system
    assert "You can: " in opening.user
    assert not opening.tools
    while not dialogue.over:
        answer = dialogue.say(f"<think>I know.</think>\n> {dialogue.info['expert_action']}\nbecause I know")
    assert "You can:" not in answer
    result = dialogue.result()
    assert (result["won"], result["reward"], result["invalid_actions"]) == (True, 1.0, 0)
    assert result["steps"] == dialogue.steps


def test_actions_are_shown_only_where_wanted():
    shown, hidden = (Dialogue(gym.make("rwml_gym/ToyHouse-v0"), show).start("house-3").user for show in (True, False))
    assert shown.startswith(hidden)
    assert "You can:" not in hidden


def test_an_unknown_game_is_an_error():
    with pytest.raises(GameNotFoundError, match="nowhere"):
        Dialogue(gym.make("rwml_gym/ToyHouse-v0")).start("nowhere")


def test_a_service_has_its_policy_and_tools(retail):
    opening = retail.start("mock/base/0")
    assert retail.info["policy"] in opening.system
    assert {"done", "get_users"} <= {tool["function"]["name"] for tool in opening.tools}
    assert not opening.user.startswith("user:")
    assert opening.task_type == "mock"


def test_calls_are_answered_with_results_and_errors(retail):
    retail.start("mock/base/0")
    assert "user_1" in retail.call("get_users", {})
    assert retail.call("no_such_tool", {}).startswith("Error")
    assert retail.call("get_users", "no object").startswith("Error")
    assert retail.result()["invalid_actions"] == 2
    assert "__import__" in retail.call("__import__('os').system('true')", {}) or retail.invalid == 3
    retail.call("done", {})
    assert retail.over
    assert set(retail.result()["score_parts"]) >= {"DB", "ACTION"}


@pytest.mark.parametrize(
    ("text", "command"),
    [("look", "look"), ("\n\n> look \nand go", "look"), ("<think>a\nb", ""), ("", ""), ("hm</think> look", "look")],
)
def test_commands_are_read(text, command):
    assert read_command(text) == command


@pytest.mark.parametrize(("name", "value"), [("games", 0), ("games", "5"), ("max_steps", -1)])
def test_counts_are_checked(name, value):
    arguments = {"games": 1, "max_steps": None, name: value}
    with pytest.raises(InvalidConfigError, match=f"{name}.*{value}"):
        games_to_play(EnvConfig("toy"), **arguments)
