"""A text environment of somebody else's: no games, no names, and hardly a key in its info."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rwml_gym.spaces import UnicodeText

COLOURS = ("red", "green", "blue", "white", "black")


class PlainEnv(gym.Env[str, str]):
    """Turn a dial until it shows the number of the task; which number follows from the seed."""

    metadata = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, size: int = 9, actions: bool = True) -> None:
        self.observation_space, self.action_space = UnicodeText(), UnicodeText()
        self.size, self.actions = size, actions
        self.games = 3  # no source of games, whatever it is called

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.wanted, self.number = (int(n) for n in self.np_random.integers(self.size, size=2))
        self.colour = COLOURS[int(self.np_random.integers(len(COLOURS)))]
        return self._text(), self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.number = (self.number + {"turn left": -1, "turn right": 1}.get(action, 0)) % self.size
        done = self.number == self.wanted
        return self._text(), float(done), done, False, self._info()

    def _text(self) -> str:
        return f"The {self.colour} dial shows {self.number}. You want {self.wanted}."

    def _info(self) -> dict[str, Any]:
        known = {"numbers": np.arange(self.number), "expert_action": "turn right"}
        return {**known, "admissible_actions": ["turn left", "turn right", "wait"]} if self.actions else known


class CarelessEnv(PlainEnv):
    """Answers, lists its actions, or says whether an episode is won, in a way that later breaks."""

    def __init__(self, listed: str = "list", answers: bool = True, won: Any = False) -> None:
        super().__init__()
        self.listed, self.answers, self.won = listed, answers, won

    def step(self, action: str) -> Any:
        text, reward, terminated, truncated, info = super().step(action)
        return text if self.answers else None, reward, terminated, truncated, info

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        listed: Any = {
            "list": list,
            "array": np.array,
            "set": set,
            "text": lambda actions: "ab",
            "number": len,
        }[self.listed]
        return {**info, "admissible_actions": listed(info["admissible_actions"]), "won": self.won}


gym.register("rwml_gym_tests/Plain-v0", entry_point=PlainEnv, max_episode_steps=6)
gym.register("rwml_gym_tests/Numbers-v0", entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv")
gym.register("rwml_gym_tests/Careless-v0", entry_point=CarelessEnv, max_episode_steps=6)
