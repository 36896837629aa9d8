"""A standard Gymnasium loop over ALFWorld with the world-model reward, for two agents that need no model.

    python examples/gym_loop.py [--episodes 20] [--split generated] [--data FOLDER]

Each agent plays the same games. The world model here predicts that nothing changes: the floor that any other one has
to beat. Put yours in its place (`predictor=…`), or write predictions into the actions:
`go to fridge 1 <next_state>The fridge 1 is closed.</next_state>`.
"""

from __future__ import annotations

import argparse

import gymnasium as gym

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.players.baselines import RandomAgent, TaskWordsAgent
from rwml_gym.statistics import share_interval
from rwml_gym.wrappers import WorldModelRewardWrapper


def main() -> None:
    """Plays and prints a line per agent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=50)
    parser.add_argument("--split", default="generated")
    parser.add_argument("--data", help="folder of official games; $ALFWORLD_DATA if absent")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2", help="'hashing' needs no model")
    arguments = parser.parse_args()

    env = gym.make(
        "rwml_gym/ALFWorld-v0",
        split=arguments.split,
        data=arguments.data,
        max_episode_steps=arguments.max_steps,
    )
    # The one line that adds embedding-gap rewards; mode="add" would pay them, "report" only tells.
    env = WorldModelRewardWrapper(env, encoder=arguments.encoder, predictor="nothing-changes", mode="report")

    for agent in (RandomAgent(seed=0), TaskWordsAgent(seed=0)):
        won, gaps, rewards, invalid, games = [], [], [], [], []
        for episode in range(arguments.episodes):
            observation, info = env.reset(seed=episode)
            agent.reset([True])
            done = False
            while not done:
                (action,) = agent.act([observation], [info])
                observation, _reward, terminated, truncated, info = env.step(action)
                gaps.append(info["world_model"]["distance"])
                rewards.append(info["world_model"]["reward"])
                invalid.append(float(info["invalid_action"]))
                done = terminated or truncated
            won.append(float(info["won"]))
            games.append(info["game"])
        success, low, high = share_interval(won, games)
        print(
            f"{type(agent).__name__:<17} {arguments.episodes} episodes, {len(gaps)} steps: "
            f"success {success:.3f} [{low:.3f}, {high:.3f}]  invalid actions {sum(invalid) / len(invalid):.3f}  "
            f"mean gap {sum(gaps) / len(gaps):.3f}  world-model reward {sum(rewards) / len(rewards):.3f}"
        )
    env.close()


if __name__ == "__main__":
    main()
