"""Settings of the reward wrapper that are set on a wrapper around it, as Stable-Baselines3's `set_attr` does."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

__all__ = ["ForwardsRewardSettings"]

_SETTINGS = ("weight", "mode")


class ForwardsRewardSettings:
    """Part of a wrapper that hands `weight` and `mode` on to the reward wrapper below it, if there is one.

    `VecEnv.set_attr` sets an attribute of the outermost wrapper. There it would be read back, and never used.
    """

    env: gym.Env[Any, Any]

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, here or on the wrapper below that has this setting."""
        if name in _SETTINGS and "env" in self.__dict__ and self.env.has_wrapper_attr(name):
            self.env.set_wrapper_attr(name, value)
        else:
            super().__setattr__(name, value)
