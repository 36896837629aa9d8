"""A text environment in which some games fail, at the start or in play."""

from __future__ import annotations

import gymnasium
from gymnasium.spaces import Text


class FailingEnv(gymnasium.Env[str, str]):
    """Seed 1 fails at the reset, seed 2 in the second step."""

    observation_space = Text(100)
    action_space = Text(100)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        if seed == 1:
            raise OSError("no such room")
        return "A room.", self._info()

    def step(self, action):
        self.steps += 1
        if self.seed == 2 and self.steps == 2:
            raise RuntimeError("the door is stuck")
        return "A room.", 0.0, False, self.steps == 3, self._info()

    def _info(self):
        return {"task": "Leave.", "admissible_actions": ["look"], "won": False}


gymnasium.register("Failing-v0", entry_point=FailingEnv)
