"""A plain reinforcement-learning loop, and the one line that adds world-model rewards to it.

    python examples/existing_rl_loop.py [--weight -0.03] [--predictor retrieval] [--episodes 1000]

The agent is Monte Carlo control over the texts of one ALFWorld game: the last two answers and each admissible action
have a value. `--weight 0` is the loop as it was. A positive weight pays for steps whose outcome the predictor knew, a
negative one for those that surprised it: watch the columns "success" and "distinct steps" to see what either does to
exploration. Runs on a CPU in a minute.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import gymnasium as gym
import numpy as np

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.wrappers import WorldModelRewardWrapper


def main() -> None:
    """Trains, and prints a line for every tenth of the episodes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weight", type=float, default=-0.03, help="0: no world-model reward")
    parser.add_argument("--predictor", default="retrieval", help="nothing-changes, most-frequent, retrieval or learned")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2", help="'hashing' needs no model")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--game", type=int, default=0, help="seed of the game")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    env = gym.make(
        "rwml_gym/ALFWorld-v0",
        task_types=["pick_and_place_simple"],
        rooms=["bathroom"],
        difficulty=(1, 4),
        max_episode_steps=30,
    )
    if arguments.weight:
        # The one line.
        env = WorldModelRewardWrapper(env, arguments.encoder, weight=arguments.weight, predictor=arguments.predictor)

    rng = np.random.default_rng(arguments.seed)
    values: dict[tuple[str, str], float] = defaultdict(float)
    won, earned, steps = [], [], 0
    for episode in range(arguments.episodes):
        observation, info = env.reset(seed=arguments.game)
        exploration = max(0.05, 1 - episode / (0.6 * arguments.episodes))
        # What is held is not said by every answer, so the state is told by the last two.
        state, played, ended = observation, [], False
        while not ended:
            actions = info["admissible_actions"]
            if rng.random() < exploration:
                action = str(rng.choice(actions))
            else:  # among equals at random
                action = max(actions, key=lambda a: (values.get((state, a), 0.0), rng.random()))
            before, (observation, reward, terminated, truncated, info) = observation, env.step(action)
            played.append((state, action, float(reward)))
            state, steps = before + observation, steps + 1
            ended = terminated or truncated
        gain = 0.0
        for state, action, reward in reversed(played):
            gain = reward + 0.95 * gain
            values[state, action] += 0.2 * (gain - values[state, action])
        earned.append(sum(reward for *_, reward in played))
        won.append(info["won"])
        if (episode + 1) % max(arguments.episodes // 10, 1) == 0:
            last = slice(-max(arguments.episodes // 10, 1), None)
            print(
                f"episode {episode + 1:5d}  success {np.mean(won[last]):.2f}  reward {np.mean(earned[last]):+.2f}  "
                f"distinct steps {len(values)} of {steps}"
            )
    env.close()


if __name__ == "__main__":
    main()
