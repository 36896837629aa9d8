"""Runs the command line with a reward that even a random model earns now and then: a tenth for every walk.

python -m tests.helpers.policy_run train policy …
"""

from __future__ import annotations

import sys
from typing import Any

from rwml_gym.agents.cli.main import main
from rwml_gym.envs.alfworld.env import ALFWorldEnv

_step = ALFWorldEnv.step


def walk_for_reward(self: ALFWorldEnv, action: str) -> Any:
    observation, reward, *rest = _step(self, action)
    return observation, float(reward) + 0.1 * action.startswith("go to"), *rest


if __name__ == "__main__":
    ALFWorldEnv.step = walk_for_reward  # type: ignore[method-assign]
    sys.exit(main())
