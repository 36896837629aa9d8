"""A text environment of somebody else's, without `games`, whose `info`, rewards and failures are arguments."""

from __future__ import annotations

from enum import Enum
from typing import Any

import gymnasium as gym
import numpy as np

from rwml_gym.spaces import UnicodeText


class Part(Enum):
    """Part of a score."""

    LIGHT = "light"


class LampEnv(gym.Env[str, str]):
    """One of few lamps is to be switched on; the action `on` does it.

    Args:
        lamps: How many lamps there are; the seed chooses one.
        keys: What `info` has beside the actions: `won`, `game` with the lamp, which many seeds share, and values that
            JSON lacks as `score_parts`, `counted` and `ended`.
        reward: The reward of `on`.
        broken: The seed whose reset fails.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, lamps: int = 3, keys: str = "won", reward: float = 1.0, broken: int = -1) -> None:
        self.observation_space, self.action_space = UnicodeText(), UnicodeText()
        self.lamps, self.keys, self.reward, self.broken = lamps, keys, reward, broken

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        if seed == self.broken:
            raise OSError("no current")
        self.lamp = int(self.np_random.integers(self.lamps))
        return f"Lamp {self.lamp} is off.", self._info(False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        on = action == "on"
        answer = f"Lamp {self.lamp} is {'on' if on else 'off'}."
        return answer, self.reward if on else 0.0, on, False, self._info(on)

    def _info(self, on: bool) -> dict[str, Any]:
        known = {
            "won": on,
            "game": f"lamp-{self.lamp}",
            "score_parts": {Part.LIGHT: np.float32(on), "heat": {Part.LIGHT}},
            "counted": {Part.LIGHT},
            "ended": Part.LIGHT,
        }
        return {"admissible_actions": ["wait", "on"], **{key: known[key] for key in self.keys.split()}}


gym.register("rwml_gym_tests/Lamp-v0", entry_point=LampEnv, max_episode_steps=2)
