from __future__ import annotations

import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError, InvalidObservationError
from rwml_gym.transitions import TransitionDataset, Turn
from rwml_gym.wrappers import RecordTransitions, WorldModelRewardWrapper
from tests.helpers.odd_env import OddEnv

TOY = "rwml_gym/ToyHouse-v0"


def play(env, seed, choose=lambda info, rng: str(rng.choice(info["admissible_actions"])), steps=1000):
    """Play an episode; returns what was seen and done, as a log to compare the record with."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    log = [("", observation)]
    for _ in range(steps):
        action = choose(info, rng)
        observation, _, terminated, truncated, info = env.step(action)
        log.append((action, observation))
        if terminated or truncated:
            break
    return log, info


def test_every_step_is_recorded_with_its_history():
    env = RecordTransitions(gym.make(TOY), history=3)
    log, info = play(env, seed=3)
    turns = [Turn(*pair) for pair in log]
    assert len(env.transitions) == len(log) - 1
    for step, transition in enumerate(env.transitions):
        assert transition.history == tuple(turns[max(0, step - 2) : step + 1])
        assert (transition.action, transition.next_state) == log[step + 1]
        assert transition.state == log[step][1]
        assert (transition.episode, transition.step) == (0, step)
        assert (transition.env_id, transition.task) == (TOY, info["task"])
        assert (transition.game, transition.data_version) == (info["game"], "toy-1")


def test_invalid_actions_are_marked():
    env = RecordTransitions(ToyHouseEnv())
    play(env, seed=0, choose=lambda info, rng: "fly", steps=1)
    play(env, seed=0, choose=lambda info, rng: "look", steps=1)
    assert [transition.invalid_action for transition in env.transitions] == [True, False]
    assert env.transitions[0].env_id == "ToyHouseEnv"


def test_message_roles_are_recorded():
    pytest.importorskip("tau2")
    env = RecordTransitions(gym.make("rwml_gym/Tau2-v0", domain="mock"))
    env.reset(seed=0)
    for action in ("get_users()", "get_users(1, 2)", "Goodbye"):
        env.step(action)
    assert [(t.role, t.invalid_action) for t in env.transitions] == [("tool", False), ("tool", True), ("user", False)]
    env = RecordTransitions(gym.make(TOY))
    play(env, seed=0, steps=1)
    assert env.transitions[0].role == ""


def test_won_is_filled_in_for_the_whole_episode():
    env = RecordTransitions(gym.make(TOY))
    play(env, seed=0, choose=lambda info, rng: "look", steps=3)
    assert {transition.won for transition in env.transitions} == {None}  # running
    play(env, seed=0, choose=lambda info, rng: "look")  # abandons the first, runs into the time limit
    env.reset(seed=1, options={"game": "house-0"})
    for action in ("take mug", "go to bedroom", "drop mug"):
        _, _, terminated, _, _ = env.step(action)
    assert terminated
    by_episode = {number: {t.won for t in env.transitions if t.episode == number} for number in range(3)}
    assert by_episode == {0: {None}, 1: {False}, 2: {True}}
    assert [t.step for t in env.transitions] == [*range(3), *range(20), *range(3)]


def test_won_is_unknown_where_the_world_does_not_say():
    class Silent(gym.Wrapper):
        def step(self, action):
            observation, reward, terminated, truncated, _ = self.env.step(action)
            return observation, reward, terminated, truncated, {}

    env = RecordTransitions(gym.wrappers.TimeLimit(Silent(ToyHouseEnv()), 2))
    play(env, seed=0, choose=lambda info, rng: "look")
    assert {transition.won for transition in env.transitions} == {None}
    assert env.transitions[1].task  # from the reset's info


def test_what_a_step_says_of_its_task_counts_more_than_what_the_reset_said():
    class Changing(gym.Wrapper):
        def step(self, action):
            *rest, info = self.env.step(action)
            return *rest, {"task": action, "game": f"{info['game']}-{action}"}

    env = RecordTransitions(Changing(ToyHouseEnv()))
    env.reset(options={"game": "house-0"})
    for action in ("look", "take mug"):
        env.step(action)
    assert [(t.task, t.game, t.data_version) for t in env.transitions] == [
        ("look", "house-0-look", "toy-1"),
        ("take mug", "house-0-take mug", "toy-1"),
    ]


def test_steps_after_the_end_are_not_recorded():
    env = RecordTransitions(gym.wrappers.TimeLimit(ToyHouseEnv(), 2))
    play(env, seed=0)
    env.step("look")
    assert len(env.transitions) == 2


@pytest.mark.parametrize("over", [True, False])
def test_predictions_are_not_part_of_the_action(over):
    env = gym.make(TOY)
    if over:
        env = recorder = RecordTransitions(WorldModelRewardWrapper(env, "hashing"))
    else:
        recorder = RecordTransitions(env)
        env = WorldModelRewardWrapper(recorder, "hashing")
    env.reset(seed=0)
    env.step("look <next_state>A room.</next_state>")
    env.step({"action": "look", "prediction": "A room."})
    assert [transition.action for transition in recorder.transitions] == ["look", "look"]
    assert recorder.transitions[1].history[1].action == "look"


def test_the_dataset_survives_the_disk(tmp_path):
    env = RecordTransitions(gym.make(TOY))
    for seed in range(4):
        play(env, seed)
    env.dataset().save(tmp_path / "set")
    assert TransitionDataset.load(tmp_path / "set") == env.dataset()


def test_the_list_is_a_copy():
    env = RecordTransitions(ToyHouseEnv())
    play(env, seed=0, steps=1)
    env.transitions.clear()
    assert len(env.transitions) == 1


@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped version")
def test_environment_is_left_as_it_is():
    check_env(RecordTransitions(gym.make(TOY)), skip_render_check=True)
    assert play(RecordTransitions(gym.make(TOY)), 5) == play(gym.make(TOY), 5)


def test_the_spec_makes_the_same_wrapper():
    env = RecordTransitions(gym.make(TOY), history=7)
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec == env.spec
    assert gym.make(spec).history == 7
    assert pickle.loads(pickle.dumps(env.spec)) == spec


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(InvalidConfigError, match="text observations for RecordTransitions, actual: Box"):
        RecordTransitions(gym.make("CartPole-v1"))
    with pytest.raises(InvalidConfigError, match="`history` to be a whole number of at least 1 turn, actual: 0"):
        RecordTransitions(ToyHouseEnv(), history=0)
    with pytest.raises(InvalidConfigError, match="`Autoreset` outside RecordTransitions"):
        RecordTransitions(gym.wrappers.OrderEnforcing(gym.wrappers.Autoreset(ToyHouseEnv())))
    gym.wrappers.Autoreset(RecordTransitions(ToyHouseEnv()))
    env = RecordTransitions(OddEnv())  # which takes any action
    env.reset(seed=0)
    with pytest.raises(InvalidConfigError, match="Expected a text action, actual: 3"):
        env.step(3)


class Speechless(ToyHouseEnv):
    """Its step answers nothing, and nobody knows whether an episode is won."""

    said: str | None = None

    def step(self, action):
        _, reward, _, truncated, info = super().step(action)
        return self.said, reward, True, truncated, {**info, "won": None}


def test_an_observation_that_is_no_text_is_refused_and_an_unknown_outcome_is_not_lost():
    env = RecordTransitions(Speechless())
    env.reset(seed=0)
    with pytest.raises(InvalidObservationError, match=r"actual: None \(NoneType\). Return text"):
        env.step("look")
    env.unwrapped.said = "It is dark."
    env.reset(seed=0)
    env.step("look")
    assert [transition.won for transition in env.transitions] == [None]


def test_the_action_is_recorded_and_not_its_description():
    env = WorldModelRewardWrapper(ToyHouseEnv(), encoder="hashing", describe_action=lambda action: f"I will {action}")
    env = RecordTransitions(env)
    env.reset(seed=0)
    _, _, _, _, info = env.step("look")
    assert env.transitions[0].action == "look"
    assert info["world_model"]["action"] == "look"


def test_joined_transitions_of_several_recorders_are_of_different_episodes():
    parts = []
    for _ in range(2):
        env = RecordTransitions(OddEnv())
        for _ in range(2):
            env.reset(seed=0)
            env.step("look")
        parts.append([replace(transition, game=f"episode-{transition.episode}") for transition in env.transitions])
    joined = TransitionDataset.join(parts)
    assert joined.games == ("episode-0", "episode-1", "episode-2", "episode-3")
    assert sorted({transition.episode for transition in joined}) == [0, 1, 2, 3]
