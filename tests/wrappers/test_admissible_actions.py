from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from rwml_gym.encoders.cached import make_encoder
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.wrappers.admissible_actions import AdmissibleActions
from rwml_gym.wrappers.embed_text import EmbedText
from rwml_gym.wrappers.forgiving_actions import ForgivingActions
from rwml_gym.wrappers.text_history import TextHistory
from rwml_gym.wrappers.world_model_reward import WorldModelRewardWrapper

TOY = "rwml_gym/ToyHouse-v0"
GAME = {"game": "house-0"}
WINNING = ("take mug", "go to bedroom", "drop mug")


def toy(env=None, **arguments):
    env = AdmissibleActions(env or ToyHouseEnv(), **{"encoder": "hashing", "max_actions": 12, **arguments})
    env.reset(seed=0, options=GAME)
    return env


def play(env, *actions):
    """Steps by the numbers of texts; the last step."""
    return [env.step(env.actions.index(action)) for action in actions][-1]


def test_a_number_plays_the_text_that_the_info_lists():
    env, plain = toy(), ToyHouseEnv()
    plain.reset(seed=0, options=GAME)
    for action in WINNING:
        observation, *rest, info = play(env, action)
        text, *same, known = plain.step(action)
        assert observation["observation"] == text
        assert rest == same
        assert {name: info[name] for name in known} == known
    assert info["won"]


def alfworld():
    pytest.importorskip("alfworld")
    pytest.importorskip("textworld")
    from rwml_gym.envs.alfworld.env import ALFWorldEnv

    return ALFWorldEnv(), "generated/look_at_obj_in_light/1"


@pytest.mark.parametrize("make", [lambda: (ToyHouseEnv(), "house-0"), alfworld], ids=["toy", "alfworld"])
def test_every_number_plays_the_action_at_its_place_in_the_list(make):
    inner, game = make()
    plain, _ = make()
    env = AdmissibleActions(inner, encoder="hashing")
    options = {"game": game}
    _, info = env.reset(options=options)
    numbers = range(len(info["admissible_actions"]))
    assert len(numbers) > 3
    for number in numbers:
        _, info = env.reset(options=options)
        _, known = plain.reset(options=options)
        assert info["admissible_actions"] == known["admissible_actions"]
        observation, *rest, info = env.step(number)
        text, *same, known = plain.step(known["admissible_actions"][number])
        assert (observation["observation"], rest, info["won"]) == (text, same, known["won"])
        assert env.actions == tuple(known["admissible_actions"])


def test_the_observation_has_the_vectors_of_the_listed_actions():
    env = toy()
    observation, _, _, _, info = play(env, "go to bedroom")
    listed = info["admissible_actions"]
    assert env.actions == tuple(listed)
    np.testing.assert_array_equal(observation["actions"][: len(listed)], make_encoder("hashing").encode(listed))
    assert not observation["actions"][len(listed) :].any()
    assert observation in env.observation_space


def test_the_mask_is_told_in_three_places():
    env = toy()
    observation, _, _, _, info = play(env, "take mug")
    expected = [1] * len(env.actions) + [0] * (12 - len(env.actions))
    assert observation["action_mask"].tolist() == info["action_mask"].tolist() == expected
    assert env.action_masks().dtype == bool
    assert env.action_masks().tolist() == [bool(number) for number in expected]
    assert {int(env.action_space.sample(info["action_mask"])) for _ in range(200)} == set(range(len(env.actions)))


def test_a_mask_that_was_given_out_can_be_changed_without_harm():
    env = toy()
    observation, _, _, _, info = play(env, "look")
    observation["action_mask"][:] = 0
    info["action_mask"][:] = 0
    assert env.action_masks().any()


@pytest.mark.parametrize("number", [-1, 11, 12])
def test_a_masked_number_is_refused(number):
    env = toy()
    assert len(env.actions) < 11
    with pytest.raises(InvalidConfigError, match=rf"one of {len(env.actions)} admissible actions, actual: {number}\."):
        env.step(number)


def test_numpy_numbers_are_numbers():
    env = toy()
    np.testing.assert_equal(env.step(np.int64(0))[0], toy().step(0)[0])


def test_too_many_actions_name_the_number_that_works():
    with pytest.raises(InvalidConfigError, match=r"at most 2 admissible actions, actual: 8\. Use `max_actions=8`"):
        toy(max_actions=2)
    assert toy(max_actions=8).action_masks().all()


def test_an_info_without_the_key_is_refused():
    with pytest.raises(InvalidConfigError, match=r"info\['commands'\], actual: keys task, admissible_actions.*`key`"):
        toy(key="commands")


class Listing(ToyHouseEnv):
    """Lists its actions under another name, and none after `look`, which may end the episode."""

    ends = True

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return observation, {"commands": info["admissible_actions"]}

    def step(self, action):
        observation, reward, _, _, _ = super().step(action)
        return observation, reward, self.ends, False, {"commands": []}


class Stuck(Listing):
    ends = False


def test_the_mask_is_empty_where_an_episode_ends_and_lists_nothing():
    env = toy(Listing(), key="commands")
    observation, _, terminated, _, info = env.step(0)
    assert terminated
    assert not observation["action_mask"].any()
    assert not info["action_mask"].any()
    assert observation in env.observation_space
    with pytest.raises(InvalidConfigError, match="one of 0 admissible actions"):
        env.step(0)
    env.reset()
    assert env.action_masks().any()


def test_no_action_in_mid_episode_is_refused():
    env = toy(Stuck(), key="commands")
    with pytest.raises(InvalidConfigError, match="at least one admissible action while the episode runs"):
        env.step(0)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (ToyHouseEnv, {"max_actions": 0}, "`max_actions` to be a whole number of at least 1, actual: 0"),
        (ToyHouseEnv, {"width": 2000}, "1 to 1024, the encoder's own, actual: 2000"),
        (lambda: gym.make("CartPole-v1"), {}, r"text actions for AdmissibleActions, actual: Discrete\(2\)"),
        (lambda: gym.wrappers.Autoreset(ToyHouseEnv()), {}, "`Autoreset` outside AdmissibleActions"),
    ],
)
def test_bad_input_is_refused(make, arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        toy(make(), **arguments)


class Choosing(gym.ActionWrapper):
    """Any number is a number of the list, as `check_env` samples without a mask."""

    def action(self, action):
        return action % len(self.env.actions)


@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped version.*")
def test_gymnasium_finds_no_fault():
    env = AdmissibleActions(EmbedText(ToyHouseEnv(), "hashing"), "hashing", max_actions=12, width=16)
    check_env(Choosing(env), skip_render_check=True)


def stack(env):
    env = WorldModelRewardWrapper(env, encoder="hashing", predictor="nothing-changes", weight=0.5)
    env = EmbedText(TextHistory(env, history=2), "hashing", info_keys=["task"], width=64)
    return AdmissibleActions(env, "hashing", max_actions=12, width=64)


def test_all_wrappers_together():
    env = stack(gym.make(TOY))
    observation, _ = env.reset(seed=0, options=GAME)
    assert observation in env.observation_space
    assert observation["observation"].shape == (128,)
    _, reward, _, _, info = play(env, "look")
    assert (reward, info["world_model"]["action"], info["world_model"]["reward"]) == (0.5, "look", 1.0)


def test_the_spec_makes_the_same_environment():
    env = stack(gym.make(TOY))
    for spec in (EnvSpec.from_json(env.spec.to_json()), pickle.loads(pickle.dumps(env.spec))):
        again = gym.make(spec)
        assert again.spec == env.spec
        assert again.observation_space == env.observation_space
        np.testing.assert_equal(again.reset(seed=3), env.reset(seed=3))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_vector_environments(vectorization):
    envs = gym.make_vec(TOY, num_envs=2, vectorization_mode=vectorization, wrappers=[stack])
    try:
        observations, infos = envs.reset(seed=[0, 1])
        numbers = [int(np.flatnonzero(mask)[-1]) for mask in infos["action_mask"]]
        observations, *_ = envs.step(np.array(numbers))
        masks = np.stack(envs.call("action_masks"))
    finally:
        envs.close()
    for slot, number in enumerate(numbers):
        env = stack(gym.make(TOY))
        env.reset(seed=slot)
        for name, value in env.step(number)[0].items():
            np.testing.assert_array_equal(observations[name][slot], value)
        np.testing.assert_array_equal(masks[slot], env.action_masks())


# Masked numbers that do nothing


def test_a_masked_number_leaves_everything_as_it_was():
    env = toy(masked="nothing-happens")
    observation, *_, info = play(env, "take mug")
    again, nothing, *ends, told = env.step(len(env.actions))
    assert (nothing, ends) == (0.0, [False, False])
    assert told["invalid_action"]
    assert not info["invalid_action"]
    assert again["observation"] == observation["observation"]
    for name in ("actions", "action_mask"):
        np.testing.assert_array_equal(again[name], observation[name])
        again[name][:] = 7  # what is handed out can be changed
    repeated = env.step(11)[0]
    for name in ("actions", "action_mask"):
        np.testing.assert_array_equal(repeated[name], observation[name])
    assert {k: v for k, v in told.items() if k not in ("action_mask", "invalid_action")} == {
        k: v for k, v in info.items() if k not in ("action_mask", "invalid_action")
    }
    assert play(env, "go to bedroom", "drop mug")[1:3] == (1.0, True)


def test_a_masked_number_earns_nothing_for_the_last_prediction():
    names = {"world_model", "gap"}
    inner = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="nothing-changes")
    inner = WorldModelRewardWrapper(inner, "hashing", predictor="nothing-changes", name="gap")
    env = toy(inner, masked="nothing-happens")
    assert names <= play(env, "look")[4].keys()
    _, reward, _, _, info = env.step(11)
    assert reward == 0.0
    assert not names & info.keys()


def test_a_masked_number_plays_no_action():
    env = toy(ForgivingActions(ToyHouseEnv()), masked="nothing-happens")
    assert play(env, "look")[4]["played_action"] == "look"
    info = env.step(11)[4]
    assert (info["played_action"], info["forgiven"]) == ("", False)


def test_masked_numbers_count_towards_the_budget():
    env = AdmissibleActions(gym.make(TOY, max_episode_steps=6), "hashing", 12, masked="nothing-happens")
    env.reset(seed=0)
    ends = [env.step(number)[3] for number in (11, 0, 11, 11, 0, 11)]
    assert ends == [False] * 5 + [True]
    with pytest.raises(ResetNeeded):
        env.step(11)
    env.reset()
    assert [env.step(11)[3] for _ in range(6)] == [False] * 5 + [True]


@pytest.mark.parametrize("number", [-1, 12, 99])
def test_numbers_outside_the_action_space_are_refused_all_the_same(number):
    with pytest.raises(InvalidConfigError, match=f"actual: {number}"):
        toy(masked="nothing-happens").step(number)


def test_after_the_end_nothing_happens_no_more():
    env = toy(masked="nothing-happens")
    play(env, *WINNING)
    with pytest.raises(ResetNeeded):
        env.step(11)


def test_masked_is_one_of_two():
    with pytest.raises(InvalidConfigError, match="'raise', 'nothing-happens'"):
        toy(masked="ignore")


def test_masked_is_in_the_spec():
    env = gym.make(AdmissibleActions(gym.make(TOY), "hashing", 12, masked="nothing-happens").spec)
    assert env.masked == "nothing-happens"


@pytest.mark.parametrize("name", ["weight", "mode"])
def test_settings_reach_the_reward_wrapper(name):
    inner = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="nothing-changes")
    env = AdmissibleActions(EmbedText(TextHistory(inner), "hashing"), "hashing")
    value = {"weight": 0.5, "mode": "replace"}[name]
    setattr(env, name, value)
    assert getattr(inner, name) == value
    assert name not in vars(env)
    with pytest.raises(InvalidConfigError):
        setattr(env, name, "much")
    plain = AdmissibleActions(ToyHouseEnv(), "hashing")
    setattr(plain, name, value)  # nobody below has it
    assert getattr(plain, name) == value
