"""Actions in other words are played as what they plainly mean, and nothing else is."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.wrappers import ForgivingActions, RecordTransitions, WorldModelRewardWrapper
from tests.helpers.alfworld_data import official_data

TOY = "rwml_gym/ToyHouse-v0"


def toy():
    env = ForgivingActions(gymnasium.make(TOY))
    env.reset(options={"game": "house-0"})
    return env


MEANINGS = [
    "TAKE MUG",
    "> take mug",
    ">take mug",
    "take mug.",
    "Action: take mug",
    "action:take mug",
    "  take   mug ",
    "`take mug`",
    '"Take mug."',
    "Thought: it is here.\nAction: take mug",
    "> Action: Take mug.\nObservation: You",
]
OTHERS = ["take mugs", "take", "mug", "take mug now", "take lamp", "", "> ", "Action:", "dance."]
# The grammar, its verb for putting down, and ways to write that.
GRAMMARS = [
    ("installed", "move", ["put {} in/on {}", "Put {} in {}.", "put {} on {}"]),
    ("original", "put", ["move {} to {}", "put {} in {}"]),
]


@pytest.mark.parametrize("written", MEANINGS)
def test_plain_meanings(written):
    observation, _, _, _, info = toy().step(written)
    assert observation == "You pick up the mug from the kitchen."
    assert (info["forgiven"], info["played_action"], info["invalid_action"]) == (True, "take mug", False)


@pytest.mark.parametrize("written", OTHERS)
def test_everything_else_reaches_the_environment_unchanged(written):
    observation, _, _, _, info = toy().step(written)
    assert observation == "Nothing happens."
    assert (info["forgiven"], info["played_action"], info["invalid_action"]) == (False, written, True)


@given(st.text())
def test_any_text_is_answered_as_below_or_is_admissible(text):
    env = toy()
    admissible = ToyHouseEnv()
    listed = admissible.reset(options={"game": "house-0"})[1]["admissible_actions"]
    info = env.step(text)[4]
    assert info["played_action"] == text or info["played_action"] in listed


def test_an_admissible_action_is_played_as_it_is():
    info = toy().step("take mug")[4]
    assert (info["forgiven"], info["played_action"]) == (False, "take mug")


def test_thoughts_cost_a_step_and_change_nothing():
    env = ForgivingActions(gymnasium.make(TOY, max_episode_steps=2))
    _, before = env.reset(options={"game": "house-0"})
    observation, reward, terminated, truncated, info = env.step("think: take mug")
    assert (observation, reward, terminated, truncated) == ("OK.", 0.0, False, False)
    assert (info["forgiven"], info["invalid_action"]) == (True, False)
    assert info["admissible_actions"] == before["admissible_actions"]
    assert env.step("Think: again")[3]


def test_two_meanings_are_none():
    class Twice(gymnasium.Wrapper):
        def reset(self, **arguments):
            observation, info = self.env.reset(**arguments)
            return observation, {**info, "admissible_actions": ["Take mug", "take Mug"]}

    env = ForgivingActions(Twice(gymnasium.make(TOY)))
    env.reset(options={"game": "house-0"})
    assert env.step("TAKE MUG")[4]["forgiven"] is False


@pytest.mark.parametrize(("grammar", "verb", "others"), GRAMMARS)
def test_the_other_grammar(grammar, verb, others):
    for other in others:
        arguments = {"split": "valid_seen", "data": official_data(), "grammar": grammar}
        env = gymnasium.make("rwml_gym/ALFWorld-v0", expert=True, **arguments)
        env = ForgivingActions(env)
        _, info = env.reset(seed=3)
        while not info["expert_action"].startswith(verb):
            info = env.step(info["expert_action"])[4]
        words = info["expert_action"].removeprefix(verb).replace(" in/on ", " to ")
        info = env.step(other.format(*words.strip().split(" to ")))[4]
        assert (info["forgiven"], info["invalid_action"]) == (True, False)


def test_it_goes_with_the_reward_and_the_recorder():
    env = RecordTransitions(WorldModelRewardWrapper(ForgivingActions(gymnasium.make(TOY)), encoder="hashing"))
    env.reset(options={"game": "house-0"})
    truth = "You pick up the mug from the kitchen."
    assert env.step(f"> Take Mug. <next_state>{truth}</next_state>")[1] == 1.0
    assert env.transitions[0].action == "take mug"


def test_around_the_reward_it_is_refused():
    with pytest.raises(InvalidConfigError, match=r"Expected ForgivingActions inside the reward wrapper.*Swap them"):
        ForgivingActions(WorldModelRewardWrapper(gymnasium.make(TOY), encoder="hashing"))


def test_gymnasium_accepts_it_and_makes_it_again():
    env = ForgivingActions(gymnasium.make(TOY))
    check_env(env, skip_render_check=True)
    assert isinstance(gymnasium.make(env.spec).env.env, gymnasium.Env)
    assert "ForgivingActions" in str(gymnasium.make(env.spec))


def test_where_none_is_listed_every_action_reaches_the_environment_unchanged():
    class Unlisted(gymnasium.Wrapper):
        def reset(self, **arguments):
            observation, info = self.env.reset(**arguments)
            return observation, {**info, "admissible_actions": None}

    env = ForgivingActions(Unlisted(gymnasium.make(TOY)))
    env.reset(seed=0)
    assert env.step("LOOK")[4]["played_action"] == "LOOK"


def test_environments_without_a_list_are_refused():
    env = ForgivingActions(gymnasium.make(TOY), key="commands")
    with pytest.raises(InvalidConfigError, match=r"Expected admissible actions in info\['commands'\]"):
        env.reset(seed=0)
