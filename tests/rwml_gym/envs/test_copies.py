"""An environment can be pickled and copied at any moment: the copy goes on as the original does and leaves it alone."""

from __future__ import annotations

import copy
import pickle
import random

import cloudpickle
import gymnasium
import pytest

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.envs.alfworld.engine.engine import forget_games
from rwml_gym.wrappers import AdmissibleActions, EmbedText, RecordTransitions, TextHistory, WorldModelRewardWrapper


def through(module):
    return lambda env: module.loads(module.dumps(env))


COPIES = {"pickle": through(pickle), "cloudpickle": through(cloudpickle), "deepcopy": copy.deepcopy}
ENVS = [
    ("rwml_gym/ALFWorld-v0", {"expert": True}),
    pytest.param("rwml_gym/ALFWorld-v0", {"engine": "textworld"}, marks=pytest.mark.slow),
    ("rwml_gym/ToyHouse-v0", {"order": "each-once", "games": 5}),
]


def walk(env, info, steps: int, rng: random.Random) -> list:
    """Play random actions, reset at the end of an episode, and return everything that came back."""
    results = []
    for _ in range(steps):
        result = env.step(rng.choice([*info["admissible_actions"], "dance"]))
        info = result[4]
        results.append(result)
        if result[2] or result[3]:
            results.append(env.reset())
            info = results[-1][1]
    return results


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(("env_id", "arguments"), ENVS)
@pytest.mark.parametrize("steps", [0, 1, 9])
def test_a_copy_goes_on_as_the_original_does(way, env_id, arguments, steps):
    env = gymnasium.make(env_id, max_episode_steps=12, **arguments)
    _, info = env.reset(seed=4)
    for result in walk(env, info, steps, random.Random(0)):
        info = result[-1]
    twin, other = COPIES[way](env), COPIES[way](env)
    walk(other, info, 20, random.Random(1))  # leaves the original alone
    expected = walk(env, info, 20, random.Random(2))
    forget_games()  # as in another process
    assert walk(twin, info, 20, random.Random(2)) == expected


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(("env_id", "arguments"), ENVS)
def test_a_copy_before_the_first_reset_and_after_close(way, env_id, arguments):
    env = gymnasium.make(env_id, **arguments)
    twin = COPIES[way](env)
    assert twin.reset(seed=3) == env.reset(seed=3)
    env.close()
    assert COPIES[way](env).reset(seed=3) == twin.reset(seed=3)


@pytest.mark.parametrize("way", COPIES)
def test_wrapped_environments(way):
    def make(env):
        env = WorldModelRewardWrapper(env, encoder="hashing", predictor="retrieval")
        return AdmissibleActions(EmbedText(TextHistory(RecordTransitions(env)), encoder="hashing"), encoder="hashing")

    env = make(gymnasium.make("rwml_gym/ALFWorld-v0"))
    env.reset(seed=0)
    env.step(1)
    twin = COPIES[way](env)
    for number in (2, 0, 1):
        observation, *rest = env.step(number)
        copied, *others = twin.step(number)
        assert {key: value.tolist() for key, value in copied.items()} == {k: v.tolist() for k, v in observation.items()}
        rest[-1].pop("action_mask"), others[-1].pop("action_mask")
        assert rest == others


class Encoder:
    """An encoder that can be neither copied nor pickled, as one that holds a connection or a GPU's memory."""

    name = "mine"

    def encode(self, texts):
        return [[1.0, float(len(text))] for text in texts]

    def __deepcopy__(self, memo):
        raise AssertionError("copied")


class Predictor:
    def predict(self, histories, actions):
        return ["" for _ in actions]

    def __deepcopy__(self, memo):
        raise AssertionError("copied")


def test_deepcopy_shares_the_users_encoder_and_predictor():
    encoder, predictor = Encoder(), Predictor()
    env = WorldModelRewardWrapper(gymnasium.make("rwml_gym/ToyHouse-v0"), encoder=encoder, predictor=predictor)
    env = gymnasium.wrappers.TimeLimit(AdmissibleActions(EmbedText(env, encoder=encoder), encoder=encoder), 5)
    env.reset(seed=0)
    twin = copy.deepcopy(env)
    assert env.spec is not None  # an outer wrapper's spec copies the arguments of those below
    twin.set_wrapper_attr("weight", 3.0)
    assert twin.get_wrapper_attr("gap").encoder.encoder is encoder
    assert twin.get_wrapper_attr("predictor") is predictor
    assert env.get_wrapper_attr("weight") == 1.0
    assert twin.step(0)[0]["observation"].tolist() == env.step(0)[0]["observation"].tolist()
