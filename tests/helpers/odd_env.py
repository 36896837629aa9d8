"""A text environment with odd texts and infos, which does what harm its actions ask for."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np

from rwml_gym.spaces import UnicodeText

TEXTS = ("", "café 🙂", "冰箱", "\ud800 alone", "a\x00b\n", "x" * 900)


class TwoPartError(Exception):
    """Cannot be unpickled: what is kept for it is one argument, and it takes two."""

    def __init__(self, place: str, thing: str) -> None:
        super().__init__(f"no {thing} in the {place}")


class OddEnv(gymnasium.Env[str, str]):
    """Episodes of random length; infos of all kinds of values, some now and then."""

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, length: int = 1000, fails: str = "", render_mode: str | None = None) -> None:
        if fails == "constructor":
            raise ValueError("no such length")
        if fails == "exit":
            sys.exit(7)
        self.observation_space = UnicodeText(length)
        self.action_space = UnicodeText()
        self.fails = fails
        self.render_mode = render_mode
        self.steps = 0
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.options = options
        self.steps = 0
        return self._text(), {**self._info(), "fresh": True, "options": sorted(options or {})}

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        self._harm(action)
        self.steps += 1
        reward = [1, 0.5, np.float32(0.1), True][self.np_random.integers(4)]
        terminated, truncated = bool(self.np_random.random() < 0.15), bool(self.np_random.random() < 0.1)
        return self._text(), reward, terminated, truncated, self._info()

    def render(self) -> str:
        return f"{self.steps} steps"

    def close(self) -> None:
        self.closed = True
        if self.fails == "close":
            raise OSError("cannot close")

    def nothing_to_pickle(self) -> Any:
        return lambda: None

    def process(self) -> int:
        return os.getpid()

    def _text(self) -> str:
        return TEXTS[self.np_random.integers(len(TEXTS))]

    def _info(self) -> dict[str, Any]:
        draw = int(self.np_random.integers(5))
        info: dict[str, Any] = {
            "admissible_actions": [str(number) for number in range(draw)],
            "task": self._text(),
            "won": draw == 0,
            "steps": self.steps,
            "share": draw / 7,
            "single": np.float32(draw / 7),
            "flag": np.bool_(draw == 1),
            "pair": (draw, None),
            "nothing": None,
            "vector": np.arange(3, dtype=np.int16) * draw,
            "inner": {"distance": draw / 3, "source": self._text(), "empty": {}, "deeper": {"list": [draw]}},
        }
        if draw > 2:
            info["sometimes"] = draw
        if draw > 3:
            info["inner"]["rarely"] = "yes"
        if draw < 2:
            info["maybe"] = {"here": True}
        return info

    def _harm(self, action: str) -> None:
        if action == "raise":
            raise KeyError("no such thing")
        if action == "raise two":
            raise TwoPartError("kitchen", "mug")
        if action == "exit":
            sys.exit(3)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "hang":
            print("hanging", flush=True)
            time.sleep(600)


class NumberEnv(OddEnv):
    """Not a text environment."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Discrete(3)  # type: ignore[assignment]
