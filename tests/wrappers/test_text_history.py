from __future__ import annotations

import pickle

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.spaces import UnicodeText
from rwml_gym.wrappers.text_history import TextHistory
from rwml_gym.wrappers.world_model_reward import WorldModelRewardWrapper

TOY = "rwml_gym/ToyHouse-v0"
GAME = {"game": "house-0"}


def said(*actions):
    """What the world says in house-0: to the reset, then to each action."""
    env = ToyHouseEnv()
    return [env.reset(seed=0, options=GAME)[0], *(env.step(action)[0] for action in actions)]


class Taskless(ToyHouseEnv):
    """Has no task, and says so."""

    def _info(self, invalid):
        return {**super()._info(invalid), "task": None}


def shown(*actions, env=None, **arguments):
    """What `TextHistory` shows in the end."""
    env = TextHistory(env or ToyHouseEnv(), **arguments)
    observation, _ = env.reset(seed=0, options=GAME)
    for action in actions:
        observation = env.step(action)[0]
    return observation


def test_turns_are_joined_oldest_first():
    start, look, fly = said("look", "fly")
    assert shown("look", "fly") == f"{start}\n> look\n{look}\n> fly\n{fly}"


def test_only_the_last_turns_are_shown():
    start, look, fly = said("look", "fly")
    assert shown("look", "fly", history=2) == f"> look\n{look}\n> fly\n{fly}"
    assert shown("look", "fly", history=1) == f"> fly\n{fly}"
    assert shown(history=1) == start


def test_newest_first_below_the_task():
    start, look = said("look")
    task = ToyHouseEnv().reset(seed=0, options=GAME)[1]["task"]
    assert shown("look", task=True, newest_first=True) == f"Task: {task}\n> look\n{look}\n{start}"
    assert shown(task=True) == f"Task: {task}\n{start}"


def test_a_task_that_is_none_is_not_shown():
    assert shown(task=True, env=Taskless()) == said()[0]


def test_a_reset_forgets_the_episode_before():
    env = TextHistory(ToyHouseEnv())
    first, _ = env.reset(seed=0, options=GAME)
    env.step("look")
    assert env.reset(options=GAME)[0] == first == said()[0]


def test_an_empty_action_is_an_action():
    assert shown("", history=1) == f"> \n{said('')[-1]}"


class Wordy(ToyHouseEnv):
    """Says as many letters as it is told."""

    def __init__(self):
        super().__init__()
        self.observation_space = UnicodeText(40)
        self.action_space = UnicodeText()

    def reset(self, *, seed=None, options=None):
        info = super().reset(seed=seed, options=options)[1]
        return "start", {**info, "task": "t" * 10}

    def step(self, action):
        info = super().step("look")[4]
        return action[0] * 40, 0.0, False, False, {**info, "task": "t" * 10}


def test_a_long_text_loses_turns_then_the_task_then_the_action_never_the_observation():
    env = TextHistory(Wordy(), task=True, max_length=110)
    task, a, b = f"Task: {'t' * 10}\n", f"> a\n{'a' * 40}", f"> b\n{'b' * 40}"
    env.reset()
    texts = [env.step(action)[0] for action in ("a", "b", "c" * 60, "d" * 80)]
    assert texts[0] == f"{task}start\n{a}"
    assert texts[1] == f"{task}{a}\n{b}"
    assert texts[2] == f"> {'c' * 60}\n{'c' * 40}"
    assert texts[3] == "d" * 40
    assert all(text in env.observation_space for text in texts)


def test_the_space_holds_what_the_environment_says():
    assert TextHistory(Wordy(), max_length=1).observation_space == UnicodeText(40)


def test_the_action_is_shown_without_its_prediction():
    env = TextHistory(WorldModelRewardWrapper(ToyHouseEnv(), "hashing"), history=1)
    env.reset(seed=0, options=GAME)
    observation, _, _, _, info = env.step("look <next_state>A room.</next_state>")
    assert observation == f"> look\n{said('look')[-1]}"
    assert info["world_model"]["prediction"] == "A room."


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (ToyHouseEnv, {"history": 0}, "at least 1 turn, actual: 0"),
        (ToyHouseEnv, {"max_length": 0}, "at least 1 character, actual: 0"),
        (lambda: gym.make("CartPole-v1"), {}, "text observations for TextHistory"),
        (lambda: gym.wrappers.Autoreset(ToyHouseEnv()), {}, "`Autoreset` outside TextHistory"),
    ],
)
def test_bad_input_is_refused(make, arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        TextHistory(make(), **arguments)


def test_an_action_that_is_no_text_is_refused():
    env = TextHistory(gym.wrappers.TransformAction(ToyHouseEnv(), str, gym.spaces.Discrete(3)))
    env.reset(seed=0)
    with pytest.raises(InvalidConfigError, match="text action, actual: 1"):
        env.step(1)


@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped version.*")
def test_gymnasium_finds_no_fault():
    check_env(TextHistory(ToyHouseEnv(), task=True), skip_render_check=True)


def test_the_spec_makes_the_same_environment():
    env = TextHistory(gym.make(TOY), history=2, task=True, newest_first=True, max_length=999)
    for spec in (EnvSpec.from_json(env.spec.to_json()), pickle.loads(pickle.dumps(env.spec))):
        again = gym.make(spec)
        assert again.spec == env.spec
        assert again.observation_space == env.observation_space
        texts = []
        for each in (env, again):
            each.reset(seed=3)
            texts.append(each.step("look")[0])
        assert texts[0] == texts[1]


def test_an_environment_survives_a_pickle_in_mid_episode():
    env = TextHistory(ToyHouseEnv())
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env))
    assert again.step("look")[0] == env.step("look")[0]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_vector_environments(vectorization):
    envs = gym.make_vec(TOY, num_envs=2, vectorization_mode=vectorization, wrappers=[TextHistory])
    try:
        envs.reset(seed=[0, 1])
        observations = tuple(envs.step(("look", "fly"))[0])
    finally:
        envs.close()
    env = TextHistory(gym.make(TOY))
    for seed, action, observation in ((0, "look", observations[0]), (1, "fly", observations[1])):
        env.reset(seed=seed)
        assert env.step(action)[0] == observation
