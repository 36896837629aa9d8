"""Agents that need no model play plain and vector environments."""

from __future__ import annotations

import gymnasium
import pytest

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

import rwml_gym  # noqa: F401 (registers the id)
from rwml_gym.agents.players.baselines import ExpertAgent
from rwml_gym.errors import InvalidConfigError

ID = "rwml_gym/ALFWorld-v0"


def test_the_expert_agent_wins_in_a_plain_loop():
    env, agent = gymnasium.make(ID, expert=True), ExpertAgent()
    for seed in range(2):
        observation, info = env.reset(seed=seed)
        agent.reset([True])
        terminated = truncated = False
        while not (terminated or truncated):
            observation, reward, terminated, truncated, info = env.step(*agent.act([observation], [info]))
        assert terminated
        assert reward == 1.0


@pytest.mark.parametrize("arguments", [{}, {"vectorization_mode": "sync"}])
def test_the_expert_agent_wins_in_a_vector_environment(arguments):
    envs, agent = gymnasium.make_vec(ID, num_envs=4, expert=True, **arguments), ExpertAgent()
    observations, infos = envs.reset(seed=0)
    won = [False] * 4
    for _ in range(60):
        actions = agent.act(observations, [{"expert_action": action} for action in infos["expert_action"]])
        observations, rewards, *_, infos = envs.step(actions)
        won = [before or reward == 1.0 for before, reward in zip(won, rewards, strict=True)]
        if all(won):
            break
    assert all(won)
    envs.close()


def test_without_advice_it_says_how_to_get_some():
    env = gymnasium.make(ID)
    observation, info = env.reset(seed=0)
    with pytest.raises(InvalidConfigError, match=r'gymnasium\.make\("rwml_gym/ALFWorld-v0", expert=True\)'):
        ExpertAgent().act([observation], [info])
