"""World-model rewards where observations are numbers: Stable-Baselines3's PPO on CartPole, and one line.

    python examples/existing_rl_cartpole.py [--weight -0.2] [--steps 30000]

Numbers are their own embedding: no text, no encoder. The predictor is a small network that learns from the steps PPO
takes. How close is close enough, nobody can say in advance: the threshold is set so that "nothing changes", which is
nearly right in every step, earns in one step of ten, and the last lines tell how often each predictor earned. A
negative weight pays PPO for states the network does not know yet. `--weight 0` is PPO as it was. Half a minute on a
CPU.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from rwml_gym.wrappers import WorldModelRewardWrapper

# The change of a typical step of position, speed, angle and turn: the unit in which states are compared.
UNIT = [0.02, 0.2, 0.03, 0.3]


def distances(steps: int, predictor: str) -> np.ndarray:
    """How far a predictor is from what happens under random play."""
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor=predictor, scale=UNIT, mode="report")
    env.action_space.seed(0)
    env.reset(seed=0)
    found = []
    for _ in range(steps):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        found.append(info["world_model"]["distance"])
        if terminated or truncated:
            env.reset()
    return np.array(found)


def main() -> None:
    """Trains and prints returns before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weight", type=float, default=-0.2, help="0: no world-model reward")
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    threshold = float(np.quantile(distances(1000, "nothing-changes"), 0.1))
    print(f"threshold {threshold:.4f}: below it lie one in ten steps where nothing is said to change")

    env = gym.make("CartPole-v1")
    if arguments.weight:
        # The one line.
        env = WorldModelRewardWrapper(
            env, predictor="learned", weight=arguments.weight, threshold=threshold, scale=UNIT
        )
    plain = Monitor(gym.make("CartPole-v1"))  # the score is the task's alone
    plain.reset(seed=arguments.seed)
    agent = PPO("MlpPolicy", env, seed=arguments.seed, n_steps=1024, device="cpu")
    for when in ("before", "after"):
        if when == "after":
            agent.learn(arguments.steps)
        mean, deviation = evaluate_policy(agent, plain, n_eval_episodes=20, deterministic=False)
        print(f"{when:<7} return {float(np.mean(mean)):6.1f} ± {float(np.mean(deviation)):.1f} of 500")

    for predictor in ("nothing-changes", "learned"):
        earned = np.mean(distances(3000, predictor)[2000:] < threshold)
        print(f"{predictor:<15} earns in {earned:.0%} of the steps of a random player, after 2,000 others")


if __name__ == "__main__":
    main()
