from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rwml_gym.encoders.cached import make_encoder
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.wrappers.embed_text import EmbedText, TextVectors

TOY = "rwml_gym/ToyHouse-v0"


def encode(*texts):
    return make_encoder("hashing").encode(list(texts))


def test_the_observation_is_the_vector_of_the_text():
    text, _ = ToyHouseEnv().reset(seed=0)
    env = EmbedText(ToyHouseEnv(), "hashing")
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation, encode(text)[0])
    np.testing.assert_array_equal(env.step("fly")[0], encode("Nothing happens.")[0])
    assert observation in env.observation_space
    assert env.observation_space == gym.spaces.Box(-1, 1, (1024,), np.float32)


def test_texts_of_the_info_are_appended():
    text, info = ToyHouseEnv().reset(seed=0)
    env = EmbedText(ToyHouseEnv(), "hashing", info_keys=["task", "game"])
    observation, same = env.reset(seed=0)
    np.testing.assert_array_equal(observation, encode(text, info["task"], info["game"]).reshape(-1))
    assert observation in env.observation_space
    assert same == info


@pytest.mark.parametrize("key", ["tasks", "won"])
def test_an_info_without_that_text_is_refused(key):
    with pytest.raises(InvalidConfigError, match=rf"text in info\['{key}'\].*keys task, adm.*`info_keys`"):
        EmbedText(ToyHouseEnv(), "hashing", info_keys=[key]).reset()


class Silent(ToyHouseEnv):
    """Says nothing."""

    def reset(self, *, seed=None, options=None):
        return " ", super().reset(seed=seed, options=options)[1]


def test_blank_text_is_zero_at_the_full_width_whatever_was_encoded_before():
    env = EmbedText(Silent(), lambda texts: np.ones((len(texts), 7)))
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation, np.zeros(7, dtype=np.float32))


def test_a_smaller_width_keeps_distances():
    sentences = [f"You open the {thing} {number}." for thing in ("drawer", "fridge", "safe") for number in range(6)]
    whole, small = TextVectors("hashing")(sentences), TextVectors("hashing", width=256)(sentences)
    assert small.shape == (18, 256)
    pairs = [(i, j) for i in range(18) for j in range(i)]
    ratios = [np.linalg.norm(small[i] - small[j]) / np.linalg.norm(whole[i] - whole[j]) for i, j in pairs]
    # 1/sqrt(2 * 256) is 0.044: five times as much is as good as never.
    assert 0.78 < min(ratios) < max(ratios) < 1.22
    np.testing.assert_array_equal(small, TextVectors("hashing", width=256)(sentences))


def test_a_smaller_width_stays_in_the_space():
    # The vector that the projection makes longest in its first number.
    signs = TextVectors(lambda texts: np.ones((len(texts), 50)), width=2)
    column = signs._projection[:, 0].copy()
    env = EmbedText(ToyHouseEnv(), lambda texts: np.tile(column, (len(texts), 1)), width=2)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation[0] == pytest.approx(5.0) == env.observation_space.high[0]


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (ToyHouseEnv, {"width": 0}, "`width` to be a whole number of at least 1, actual: 0"),
        (ToyHouseEnv, {"width": 1025}, "actual: 1025"),
        (ToyHouseEnv, {"info_keys": "task"}, "list of names, actual: 'task'"),
        (ToyHouseEnv, {"encoder": 3}, "Expected an encoder"),
        (lambda: gym.make("CartPole-v1"), {}, "text observations for EmbedText"),
        (lambda: gym.wrappers.Autoreset(ToyHouseEnv()), {}, "`Autoreset` outside EmbedText"),
    ],
)
def test_bad_input_is_refused(make, arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        EmbedText(make(), **{"encoder": "hashing", **arguments})


@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped version.*")
def test_gymnasium_finds_no_fault():
    check_env(EmbedText(ToyHouseEnv(), "hashing", info_keys=["task"]), skip_render_check=True)


def test_the_spec_makes_the_same_environment():
    env = EmbedText(gym.make(TOY), "hashing", info_keys=("task",), width=32)
    for spec in (EnvSpec.from_json(env.spec.to_json()), pickle.loads(pickle.dumps(env.spec))):
        again = gym.make(spec)
        assert again.spec == env.spec
        assert again.observation_space == env.observation_space
        np.testing.assert_array_equal(again.reset(seed=3)[0], env.reset(seed=3)[0])


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_vector_environments(vectorization):
    envs = gym.make_vec(
        TOY, num_envs=2, vectorization_mode=vectorization, wrappers=[lambda env: EmbedText(env, "hashing")]
    )
    try:
        observations, _ = envs.reset(seed=[0, 1])
    finally:
        envs.close()
    texts = [ToyHouseEnv().reset(seed=seed)[0] for seed in (0, 1)]
    np.testing.assert_array_equal(observations, encode(*texts))


def test_turns_can_be_stacked_as_vectors():
    env = gym.wrappers.FrameStackObservation(EmbedText(ToyHouseEnv(), "hashing"), 3, padding_type="zero")
    text, _ = ToyHouseEnv().reset(seed=0)
    env.reset(seed=0)
    observation = env.step("fly")[0]
    np.testing.assert_array_equal(observation[1:], encode(text, "Nothing happens."))
    assert not observation[0].any()
