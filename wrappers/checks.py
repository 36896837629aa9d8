"""Requirements of the wrappers on the environment below."""

from __future__ import annotations

import gymnasium as gym

from rwml_gym.errors import InvalidConfigError

__all__ = ["require_no_autoreset", "require_text_env"]


def require_text_env(env: gym.Env, wrapper: str, history: int) -> None:
    """Check an environment before a text wrapper is put around it.

    Args:
        env: The environment.
        wrapper: Name of the wrapper, for the message.
        history: The wrapper's window, in turns.

    Raises:
        InvalidConfigError: If observations are not text, `Autoreset` is below, or `history` is not positive.
    """
    if history < 1:
        raise InvalidConfigError(f"Expected `history` of at least 1 turn, actual: {history}.")
    if not isinstance(env.observation_space, gym.spaces.Text):
        raise InvalidConfigError(
            f"Expected an environment with text observations for {wrapper}, actual: {env.observation_space}. "
            "Put `gymnasium.wrappers.TransformObservation` below it to describe observations in text."
        )
    require_no_autoreset(env, wrapper)


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
