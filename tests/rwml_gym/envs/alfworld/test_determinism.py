"""Same seed, same actions, same bytes: a stored trajectory, played again in processes with other hash seeds.

`python -m tests.rwml_gym.envs.alfworld.test_determinism` writes the trajectory anew, after an intended change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import rwml_gym  # noqa: F401 (registers the id)
from tests.helpers.paths import ROOT

STORED = Path(__file__).with_name("trajectory.jsonl")
EPISODES, STEPS = 6, 12


def play() -> str:
    """Some episodes from one seed, with everything that an agent sees: a line of JSON for each step."""
    env = gymnasium.make("rwml_gym/ALFWorld-v0", expert=True)
    steps = []
    for episode in range(EPISODES):
        observation, info = env.reset(seed=7 if episode == 0 else None)
        del info["data_version"]  # follows from the installed alfworld
        steps.append({"observation": observation, "info": info})
        for step in range(STEPS):
            admissible = info["admissible_actions"]
            # every fourth action is anybody's, one is odd; the others are the expert's
            action = {1: admissible[(5 * step) % len(admissible)], 3: "dance"}.get(step % 5, info["expert_action"])
            observation, reward, terminated, truncated, info = env.step(action)
            del info["data_version"]
            steps.append(
                {
                    "action": action,
                    "observation": observation,
                    "reward": reward,
                    "terminated": terminated,
                    "truncated": truncated,
                    "info": info,
                }
            )
            if terminated or truncated:
                break
    env.close()
    return "".join(json.dumps(step, ensure_ascii=False) + "\n" for step in steps)


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_the_stored_trajectory_is_played_again(hash_seed):
    pytest.importorskip("alfworld")
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    script = "from tests.rwml_gym.envs.alfworld.test_determinism import play; print(play(), end='')"
    root = ROOT
    run = subprocess.run([sys.executable, "-c", script], env=environment, cwd=root, capture_output=True, check=True)
    assert run.stdout.decode() == STORED.read_text(encoding="utf-8")


def test_the_stored_trajectory_says_something():
    steps = [json.loads(line) for line in STORED.read_text(encoding="utf-8").splitlines()]
    assert len({step["info"]["game"] for step in steps}) == EPISODES
    assert len({step["observation"] for step in steps}) > EPISODES * STEPS / 2
    assert any(step["info"]["won"] for step in steps)
    assert any(step["info"]["invalid_action"] for step in steps)


if __name__ == "__main__":
    STORED.write_text(play(), encoding="utf-8")
