from __future__ import annotations

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.wrappers.admissible_actions import AdmissibleActions
from rwml_gym.wrappers.embed_text import EmbedText
from rwml_gym.wrappers.world_model_reward import WorldModelRewardWrapper

pytest.importorskip("sb3_contrib")

import torch
from gymnasium.utils.env_checker import check_env as gym_check
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from rwml_gym.agents.integrations.sb3 import ActionScoringPolicy
from tests.helpers.paths import ROOT

COUNT, WIDTH = 12, 32


def make_env(**arguments):
    env = WorldModelRewardWrapper(gym.make("rwml_gym/ToyHouse-v0"), "hashing", predictor="nothing-changes")
    env = EmbedText(env, "hashing", **{"info_keys": ["task"], "width": WIDTH, **arguments})
    return AdmissibleActions(env, "hashing", max_actions=COUNT, width=WIDTH)


def make_model(env=None, **arguments):
    arguments = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "seed": 0, "device": "cpu", **arguments}
    return MaskablePPO(ActionScoringPolicy, env or make_env(), **arguments)


def observe(seed=0):
    """The first observation, and a model whose preferences are strong enough to be told apart."""
    model, env = make_model(), make_env()
    torch.nn.init.normal_(model.policy.mlp_extractor.query.weight)
    return model, env.reset(seed=seed)[0]


def probabilities(model, observation):
    tensors, _ = model.policy.obs_to_tensor(observation)
    with torch.no_grad():
        distribution = model.policy.get_distribution(tensors, action_masks=observation["action_mask"].astype(bool))
    return distribution.distribution.probs[0].numpy()


def test_permuted_actions_get_permuted_probabilities():
    model, observation = observe()
    order = np.random.default_rng(0).permutation(COUNT)
    shuffled = {name: observation[name][order] for name in ("actions", "action_mask")}
    expected = probabilities(model, observation)
    np.testing.assert_allclose(probabilities(model, {**observation, **shuffled}), expected[order], atol=1e-6)
    listed = expected[observation["action_mask"].astype(bool)]
    assert np.ptp(listed) > 0.01
    tensors, _ = model.policy.obs_to_tensor(observation)
    same, _ = model.policy.obs_to_tensor({**observation, **shuffled})
    torch.testing.assert_close(model.policy.predict_values(tensors), model.policy.predict_values(same))


def test_masked_actions_have_no_probability():
    model, observation = observe()
    mask = observation["action_mask"].astype(bool)
    chances = probabilities(model, observation)
    assert not chances[~mask].any()
    assert chances[mask].sum() == pytest.approx(1)


def test_the_state_decides_what_is_chosen():
    model, observation = observe()
    other = {**observation, "observation": -observation["observation"]}
    assert np.abs(probabilities(model, observation) - probabilities(model, other)).max() > 0.01


def test_it_begins_near_indifference():
    observation, _ = make_env().reset(seed=0)
    chances = probabilities(make_model(), observation)[observation["action_mask"].astype(bool)]
    np.testing.assert_allclose(chances, 1 / len(chances), rtol=0.2)


@pytest.mark.parametrize("empty", [False, True])
def test_values_log_probabilities_entropy_and_gradients_are_finite(empty):
    model, observation = observe()
    if empty:  # as at the end of an episode
        observation = {**observation, "actions": observation["actions"] * 0, "action_mask": np.zeros(COUNT, np.int8)}
    tensors, _ = model.policy.obs_to_tensor(observation)
    masks = torch.tensor(observation["action_mask"][None])
    values, log_probabilities, entropy = model.policy.evaluate_actions(tensors, torch.tensor([0]), masks)
    (values + log_probabilities + entropy).sum().backward()
    assert all(torch.isfinite(tensor).all() for tensor in (values, log_probabilities, entropy))
    assert all(torch.isfinite(p.grad).all() for p in model.policy.parameters() if p.grad is not None)


def test_every_parameter_is_trained():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    model.learn(64)
    assert all(not torch.equal(before[name], tensor) for name, tensor in model.policy.state_dict().items())
    optimized = {id(p) for group in model.policy.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in model.policy.parameters()}


def test_a_saved_model_chooses_the_same(tmp_path):
    model = make_model().learn(64)
    model.save(tmp_path / "model")
    again = MaskablePPO.load(tmp_path / "model", device="cpu")
    observation, _ = make_env().reset(seed=5)
    np.testing.assert_array_equal(probabilities(again, observation), probabilities(model, observation))
    again.set_env(make_env())
    again.learn(32)


def test_stable_baselines_finds_the_masks():
    env = make_env()
    envs = DummyVecEnv([make_env, make_env])
    envs.seed(0)
    envs.reset()
    assert is_masking_supported(env)
    assert is_masking_supported(envs)
    masks = get_action_masks(envs)
    assert masks.shape == (2, COUNT)
    observation = envs.step(np.array([np.flatnonzero(mask)[-1] for mask in masks]))[0]
    np.testing.assert_array_equal(observation["action_mask"].astype(bool), get_action_masks(envs))


@pytest.mark.parametrize(
    ("arguments", "likeness"), [({}, 2), ({"info_keys": []}, 1), ({"width": 20, "info_keys": []}, 0)]
)
def test_actions_are_compared_with_the_texts_of_the_observation_where_widths_agree(arguments, likeness):
    model = make_model(make_env(**arguments), policy_kwargs={"net_arch": [16]})
    assert model.policy.mlp_extractor.query.out_features == 16 + likeness
    model.learn(32)


@pytest.mark.long
def test_it_learns_what_is_rewarded():
    class Look(gym.Wrapper):
        """Pays for `look`, wherever it is in the list."""

        def step(self, action):
            observation, _, terminated, truncated, info = self.env.step(action)
            return observation, float(action == "look"), terminated, truncated, info

        def reset(self, **arguments):
            observation, info = self.env.reset(**arguments)
            return observation, info

    def make():
        env = Look(gym.make("rwml_gym/ToyHouse-v0"))
        return AdmissibleActions(EmbedText(env, "hashing", width=WIDTH), "hashing", max_actions=COUNT, width=WIDTH)

    model = make_model(make(), n_steps=128, n_epochs=8, learning_rate=3e-3, gamma=0.5)
    env = make()
    observation, _ = env.reset(seed=3)
    look = env.actions.index("look")
    before = probabilities(model, observation)[look]
    model.learn(1024)
    assert before < 0.4
    assert probabilities(model, observation)[look] > 0.8


def make_unmasked():
    env = WorldModelRewardWrapper(gym.make("rwml_gym/ToyHouse-v0"), "hashing", predictor="nothing-changes")
    env = EmbedText(env, "hashing", info_keys=["task"], width=WIDTH)
    return AdmissibleActions(env, "hashing", max_actions=COUNT, width=WIDTH, masked="nothing-happens")


@pytest.mark.parametrize("hidden", [None, [16]])
def test_a_saved_policy_chooses_the_same(tmp_path, hidden):
    model = make_model(policy_kwargs={} if hidden is None else {"net_arch": hidden}).learn(64)
    model.policy.save(tmp_path / "policy.pt")
    again = ActionScoringPolicy.load(tmp_path / "policy.pt", device="cpu")
    observation, _ = make_env().reset(seed=5)
    mask = observation["action_mask"].astype(bool)
    assert again.net_arch == (hidden or [64])
    for name, value in again.state_dict().items():
        assert torch.equal(value, model.policy.state_dict()[name])
    for _ in range(5):
        expected, _ = model.policy.predict(observation, deterministic=True, action_masks=mask)
        assert again.predict(observation, deterministic=True, action_masks=mask)[0] == expected


@pytest.mark.parametrize(
    ("env_id", "library"),
    [("rwml_gym/ToyHouse-v0", "gymnasium"), ("rwml_gym/ALFWorld-v0", "alfworld"), ("rwml_gym/Tau2-v0", "tau2")],
)
def test_stable_baselines_makes_our_environments(env_id, library):
    """It asks for pictures first, and without on a TypeError only."""
    pytest.importorskip(library)
    plain = make_vec_env(env_id, n_envs=2, env_kwargs={"split": "train"} if "House" in env_id else {})
    texts = plain.reset()
    assert all(isinstance(text, str) and len(text) > 20 for text in texts)
    assert plain.step(["look", "look"])[0].shape == (2,)
    plain.close()
    envs = make_vec_env(env_id, n_envs=2, wrapper_class=_embedded)
    assert envs.reset().shape == (2, WIDTH)
    envs.close()


def _embedded(env):
    return EmbedText(env, "hashing", width=WIDTH)


@pytest.mark.parametrize("mode", ["rgb_array", "human", "rgb_array_list"])
def test_a_render_mode_that_is_not_there_is_an_error_of_both_kinds(mode):
    for error in (InvalidConfigError, TypeError):
        with pytest.raises(error, match=f"actual: '{mode}'"):
            ToyHouseEnv(render_mode=mode)


@pytest.mark.filterwarnings("ignore")
def test_both_checks_of_environments_pass_where_masked_numbers_do_nothing():
    gym_check(make_unmasked(), skip_render_check=True)
    sb3_check(make_unmasked())


@pytest.mark.long
def test_an_unmasked_agent_learns():
    """Stable-Baselines3's own PPO knows no masks; it learns to choose numbers that mean something."""
    model = PPO("MultiInputPolicy", make_unmasked(), n_steps=256, batch_size=64, n_epochs=6, seed=0, device="cpu")
    model.set_random_seed(0)

    def invalid() -> float:
        env, count, found = make_unmasked(), 0, []
        observation, _ = env.reset(seed=1)
        while count < 300:
            observation, _, terminated, truncated, info = env.step(model.predict(observation)[0])
            found.append(info["invalid_action"])
            count += 1
            if terminated or truncated:
                observation, _ = env.reset()
        return float(np.mean(found))

    class PaysForPlaying(gym.Wrapper):
        def step(self, action):
            observation, _, terminated, truncated, info = self.env.step(action)
            return observation, float(not info["invalid_action"]), terminated, truncated, info

    before = invalid()
    model.set_env(PaysForPlaying(make_unmasked()))
    model.learn(2048)
    assert before > 0.2
    assert invalid() < before / 2


@pytest.mark.long
@pytest.mark.parametrize("vec", [DummyVecEnv, SubprocVecEnv])
def test_the_weight_that_is_set_is_the_one_that_counts(vec):
    envs = vec([make_env, make_env])
    envs.seed(0)
    envs.reset()
    envs.set_attr("weight", 0.25)
    envs.set_attr("weight", 0.75, indices=[1])
    assert envs.get_attr("weight") == [0.25, 0.75]
    _, rewards, _, infos = envs.step(np.array([0, 0]))
    for reward, info, weight in zip(rewards, infos, [0.25, 0.75], strict=True):
        told = info["world_model"]
        assert told["weight"] == weight
        assert reward == pytest.approx(told["task_reward"] + weight * told["reward"])
    envs.close()


def test_the_weight_reaches_below_wrappers_of_others_as_gymnasium_sets_it():
    model = make_model()  # which puts a Monitor around the environment
    model.get_env().env_method("set_wrapper_attr", "weight", 0.5)
    assert model.get_env().get_attr("weight") == [0.5]
    model.get_env().reset()
    assert model.get_env().step(np.array([0]))[3][0]["world_model"]["weight"] == 0.5


@pytest.mark.parametrize(
    "make",
    [ToyHouseEnv, lambda: EmbedText(ToyHouseEnv(), "hashing"), lambda: AdmissibleActions(ToyHouseEnv(), "hashing", 12)],
)
def test_other_observations_are_refused(make):
    env = make()
    with pytest.raises(InvalidConfigError, match=r"Wrap the environment: `AdmissibleActions\(EmbedText\(env\)\)`"):
        ActionScoringPolicy(env.observation_space, gym.spaces.Discrete(12), lambda _: 1e-3)


@pytest.mark.long
def test_the_example_trains_with_and_without_the_wrapper(tmp_path):
    pytest.importorskip("alfworld")
    short = "--steps 256 --games 2 --encoder hashing --max-steps 8 --evaluations 2 --envs 2"
    outs = []
    for weight in ("0", "-0.1"):
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples/existing_rl_sb3.py"), *short.split(), "--world-model-weight", weight],
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        outs.append(done.stdout)
    for out in outs:
        for words in ("random agent  success", "trained       success", "256 steps"):
            assert words in out
    assert "without" in outs[0]
    assert "retrieval x -0.1" in outs[1]
