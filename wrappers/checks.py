"""Requirements of the wrappers on the environment below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper

from rwml_gym.checks import whole_number
from rwml_gym.errors import InvalidConfigError

__all__ = [
    "new_name",
    "require_new_key",
    "require_no_autoreset",
    "require_text_env",
    "reward_names",
    "text_action",
]


def require_text_env(env: gym.Env, wrapper: str, history: int) -> int:
    """Check an environment before a text wrapper is put around it.

    Args:
        env: The environment.
        wrapper: Name of the wrapper, for the message.
        history: The wrapper's window, in turns.

    Returns:
        The window as an int.

    Raises:
        InvalidConfigError: If observations are not text, `Autoreset` is below, or `history` is not positive.
    """
    history = whole_number("history", history, 1, "turn")
    if not isinstance(env.observation_space, gym.spaces.Text):
        raise InvalidConfigError(
            f"Expected an environment with text observations for {wrapper}, actual: {env.observation_space}. "
            "Put `gymnasium.wrappers.TransformObservation` below it to describe observations in text."
        )
    require_no_autoreset(env, wrapper)
    return history


def new_name(env: gym.Env | VectorEnv, name: str) -> str:
    """Check the name of a reward wrapper.

    Raises:
        InvalidConfigError: If it is no name, or a reward wrapper below has it.
    """
    if not isinstance(name, str) or not name:
        raise InvalidConfigError(f"Expected `name` to be a key for info, actual: {name!r}.")
    if name in reward_names(env):
        raise InvalidConfigError(
            f"Expected another `name` than that of the reward wrapper below, actual: {name!r} twice, and one would "
            'overwrite the results of the other in info. Write `WorldModelRewardWrapper(env, name="…")`.'
        )
    return name


def require_new_key(info: Mapping[str, Any], name: str) -> None:
    """Check, with the info of a reset, that results under the name of a reward wrapper overwrite nothing.

    Raises:
        InvalidConfigError: If the environment's info has the key.
    """
    if name in info:
        raise InvalidConfigError(
            f"Expected a `name` that is no key of the environment's info, actual: {name!r}, which it would overwrite. "
            'Write `WorldModelRewardWrapper(env, name="…")`.'
        )


def reward_names(env: gym.Env | VectorEnv) -> list[str]:
    """Return the keys of `info` that the reward wrappers of an environment write, from the outermost to the inmost."""
    names = []
    while isinstance(env, gym.Wrapper | VectorWrapper):
        if (name := env.__dict__.get("info_key")) is not None:
            names.append(name)
        env = env.env
    return names


def require_no_autoreset(env: gym.Env, wrapper: str) -> None:
    """Check that `Autoreset` is not below, because after the end of an episode its step is a hidden reset.

    Args:
        env: The environment.
        wrapper: Name of the wrapper, for the message.

    Raises:
        InvalidConfigError: If `Autoreset` is below.
    """
    inner = env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, gym.wrappers.Autoreset):
            raise InvalidConfigError(f"Expected `Autoreset` outside {wrapper}, actual: inside. Swap them.")
        inner = inner.env


def text_action(action: Any, info: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the action as the environment saw it: a wrapper below may have removed a prediction or changed its words.

    Args:
        action: The action given to the wrappers.
        info: The info of the step.
        names: `reward_names` of the environment.

    Raises:
        InvalidConfigError: If the action is no text.
    """
    for name in names:
        action = info.get(name, {}).get("action", action)
    action = info.get("played_action", action)  # of `ForgivingActions`
    if not isinstance(action, str):
        raise InvalidConfigError(f"Expected a text action, actual: {action!r} ({type(action).__name__}).")
    return action
