"""Views of tool results through the reward wrappers, for one environment and for many."""

from __future__ import annotations

import gymnasium as gym
import pytest
from gymnasium.wrappers import TransformObservation

pytest.importorskip("rouge_score")

from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import schema_view
from rwml_gym.spaces import UnicodeText
from rwml_gym.vector.env import TextVectorEnv
from rwml_gym.wrappers import WorldModelRewardVectorWrapper, WorldModelRewardWrapper

PAPER = {"tool": {"gap": "rouge", "shape": "stepped", "view": "schema"}}
RECORD = '{"room": "kitchen", "things": ["mug"]}'


class Service(gym.Wrapper):
    """A toy house whose answers are results of a tool."""

    def reset(self, **arguments):
        observation, info = self.env.reset(**arguments)
        return observation, {**info, "message_role": "user"}

    def step(self, action):
        *rest, info = self.env.step(action)
        return *rest, {**info, "message_role": "tool"}


def service() -> gym.Env:
    return Service(TransformObservation(ToyHouseEnv(), lambda text: f"tool: {RECORD}", UnicodeText()))


@pytest.mark.parametrize(
    ("prediction", "reward"),
    [(RECORD, 1.0), ('{"things": [""], "room": ""}', 1.0), (schema_view(RECORD), 1.0), ("Nothing.", 0.0), ("", 0.0)],
)
def test_one_environment_and_many_pay_alike(prediction, reward):
    one = WorldModelRewardWrapper(service(), encoder="hashing", measures=PAPER)
    many = WorldModelRewardVectorWrapper(TextVectorEnv([service] * 2), encoder="hashing", measures=PAPER)
    action = f"look <next_state>{prediction}</next_state>"
    one.reset(seed=0)
    many.reset(seed=0)
    _, paid, _, _, info = one.step(action)
    _, rewards, _, _, infos = many.step([action, action])
    assert paid == reward
    assert rewards.tolist() == [reward, reward]
    assert info["world_model"]["view"] == "schema"
    assert infos["world_model"]["view"].tolist() == ["schema", "schema"]
    assert info["world_model"]["shape"] == "stepped"


def test_a_world_without_roles_is_refused_before_its_first_step():
    env = WorldModelRewardWrapper(ToyHouseEnv(), encoder="hashing", measures=PAPER)
    with pytest.raises(InvalidConfigError, match=r"message roles .* Remove `view` from `measures`"):
        env.reset(seed=0)
    envs = WorldModelRewardVectorWrapper(TextVectorEnv([ToyHouseEnv] * 2), encoder="hashing", measures=PAPER)
    with pytest.raises(InvalidConfigError, match="Remove `view` from `measures`"):
        envs.reset(seed=0)


def test_numbers_have_no_view_and_embeddings_neither():
    with pytest.raises(InvalidConfigError, match="the view 'schema'"):
        WorldModelRewardWrapper(gym.make("CartPole-v1"), measures={"tool": {"view": "schema"}})
    with pytest.raises(InvalidConfigError, match="'learned', which returns no text"):
        WorldModelRewardWrapper(
            service(), encoder="hashing", predictor="learned", measures={"tool": {"view": "schema"}}
        )


def test_the_spec_keeps_the_view():
    env = WorldModelRewardWrapper(gym.make("rwml_gym/ToyHouse-v0"), encoder="hashing", measures=PAPER)
    again = gym.make(env.spec)
    assert again.gap.measure("tool") == env.gap.measure("tool")
