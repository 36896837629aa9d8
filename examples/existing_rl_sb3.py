"""Existing RL code on ALFWorld: sb3-contrib's MaskablePPO, with and without the world-model reward, one flag apart.

    python examples/existing_rl_sb3.py [--world-model-weight -0.01] [--predictor retrieval] [--seed 0]

The agent knows no language: it sees vectors of the task and the last turns, and scores those of the admissible actions.
Success is of sampled actions on the 20 generated games it plays again and again, with 95 % intervals by Wilson's score;
the random agent plays them under the same step budget. A weight of 0 leaves the wrapper out, all else stays the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import torch
import tyro
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import DummyVecEnv

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.integrations.sb3 import ActionScoringPolicy
from rwml_gym.agents.jobs.reference import play
from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.statistics import wilson_interval
from rwml_gym.wrappers import AdmissibleActions, EmbedText, TextHistory, WorldModelRewardWrapper

# Wins are rare at first: normalised, the advantages of an update without any would be noise brought to full size.
PPO: dict[str, Any] = {"learning_rate": 1e-3, "n_steps": 128, "batch_size": 256, "n_epochs": 4, "gamma": 0.97}
PPO |= {"ent_coef": 1e-3, "normalize_advantage": False}


@dataclass(frozen=True)
class Config:
    """What is played and how it is learnt.

    Attributes:
        world_model_weight: Of the world-model reward, added to the task reward: below 0 pays for what is not yet known.
        predictor: The world model that predicts what the agent's actions will do.
        seed: Of the networks and of what is sampled; the games stay the same.
        games: How many games.
        max_steps: Step budget of an episode.
        steps: Environment steps of the training.
        evaluations: Episodes a game, of each agent.
        encoder: `hashing` needs no model.
        width: Length of a text's vector, a projection of the encoder's own.
        envs: Environments side by side.
    """

    world_model_weight: float = 0.0
    predictor: str = "retrieval"
    seed: int = 0
    games: int = 20
    max_steps: int = 50
    steps: int = 120_000
    evaluations: int = 10
    encoder: str = "all-MiniLM-L6-v2"
    width: int = 64
    envs: int = 16


class Result(NamedTuple):
    """Episodes won and played by the random and by the trained agent, and the seconds of the training."""

    random: tuple[int, int]
    after: tuple[int, int]
    seconds: float


class OneOf(gym.Wrapper[Any, Any, Any, Any]):
    """Plays one of the named games, drawn anew at each reset."""

    def __init__(self, env: gym.Env[Any, Any], games: list[str]):
        super().__init__(env)
        self.games = games

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws a game, unless one is named."""
        if seed is not None:
            self.np_random, _ = gym.utils.seeding.np_random(seed)
        game = self.games[self.np_random.integers(len(self.games))]
        return self.env.reset(seed=seed, options=options or {"game": game})


def make_world(config: Config) -> gym.Env[Any, Any]:
    """The text environment."""
    return gym.make(
        "rwml_gym/ALFWorld-v0",
        task_types=["pick_and_place_simple"],
        difficulty=(1, 3),  # at most three places to search: a random agent has to win sometimes for PPO to begin
        max_episode_steps=config.max_steps,
        disable_env_checker=True,
    )


def make_env(config: Config, games: list[str]) -> gym.Env[Any, Any]:
    """The environment of the agent: vectors in, a number out."""
    env: gym.Env[Any, Any] = OneOf(make_world(config), games)
    if config.world_model_weight:  # the one line that adds the world-model reward
        env = WorldModelRewardWrapper(env, config.encoder, weight=config.world_model_weight, predictor=config.predictor)
    env = EmbedText(TextHistory(env, history=1), config.encoder, info_keys=["task"], width=config.width)
    env = gym.wrappers.FrameStackObservation(env, 4, padding_type="zero")
    return AdmissibleActions(env, config.encoder, width=config.width)


def evaluate(model: MaskablePPO, config: Config, games: list[str]) -> tuple[int, int]:
    """Episodes won and played with sampled actions, on each game equally often."""
    env, won = make_env(config, games), 0
    for game in games * config.evaluations:
        observation, info = env.reset(options={"game": game})
        done = False
        while not done:
            action, _ = model.predict(observation, action_masks=env.get_wrapper_attr("action_masks")())
            observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        won += info["won"]
    return won, len(games) * config.evaluations


def run(config: Config) -> Result:
    """Trains, and counts what is won."""
    with make_world(config) as world:
        games = list(world.unwrapped.games.names[: config.games])  # type: ignore[attr-defined]
    episodes = play(partial(make_world, config), RandomAgent(config.seed), games * config.evaluations)
    envs = DummyVecEnv([partial(make_env, config, games)] * config.envs)
    model = MaskablePPO(ActionScoringPolicy, envs, **PPO, seed=config.seed, device="cpu")
    start = time.perf_counter()
    model.learn(config.steps)
    seconds = time.perf_counter() - start
    return Result((sum(episode.won for episode in episodes), len(episodes)), evaluate(model, config, games), seconds)


def main() -> None:
    """Runs and prints."""
    torch.set_num_threads(1)  # the networks are small: more threads wait for each other
    config = tyro.cli(Config, description=__doc__.splitlines()[0])
    result, weight = run(config), config.world_model_weight
    print(f"World-model reward: {f'{config.predictor} x {weight:g}' if weight else 'without'}")
    for name, (won, played) in (("random agent", result.random), ("trained", result.after)):
        low, high = wilson_interval(won, played)
        print(f"{name:<12}  success {won / played:.3f} [{low:.3f}, {high:.3f}]  {won} of {played} episodes")
    print(f"{config.steps} steps in {result.seconds:.0f} seconds")


if __name__ == "__main__":
    main()
