"""Text observations as vectors, for agents with ordinary networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from rwml_gym.checks import whole_number
from rwml_gym.encoders.cached import DEFAULT_ENCODER, Encoder, make_encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.wrappers.arguments import recorded, unshared
from rwml_gym.wrappers.checks import require_text_env
from rwml_gym.wrappers.forwarding import ForwardsRewardSettings

__all__ = ["EmbedText", "TextVectors"]

_PROJECTION_SEED = 0


class TextVectors:
    """Texts as vectors of a frozen encoder, at full or reduced width.

    The width is reduced by a random projection (Achlioptas, 2003): a fixed matrix of ±1/√width, equal in every process,
    so that vectors stay comparable. It keeps distances up to a relative error of about 1/√(2 · width): 9 % at 64.

    Attributes:
        width: Length of a vector.
        bound: Largest absolute value of a number in a vector.

    Example:
        >>> TextVectors("hashing", width=64)(["You see a mug 1.", ""]).shape
        (2, 64)
    """

    def __init__(self, encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray], width: int | None = None):
        """Load the encoder.

        Args:
            encoder: See `encoders.cached.make_encoder`.
            width: Length of a vector; the encoder's own if absent.

        Raises:
            InvalidConfigError: If `width` is not between 1 and the encoder's own.
        """
        self.encoder = make_encoder(unshared(encoder))
        full = self.encoder.encode(["width"]).shape[1]
        width = None if width is None else whole_number("width", width, 1)
        if width is not None and width > full:
            raise InvalidConfigError(f"Expected `width` of 1 to {full}, the encoder's own, actual: {width}.")
        self.width = width or full
        self.bound = 1.0
        self._projection: np.ndarray | None = None
        if self.width < full:
            self.bound = math.sqrt(full / self.width)  # the bound for a unit vector, by Cauchy and Schwarz
            signs = np.random.default_rng(_PROJECTION_SEED).integers(0, 2, (full, self.width)) * 2 - 1
            self._projection = (signs / math.sqrt(self.width)).astype(np.float32)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Encode texts.

        Args:
            texts: `n` texts.

        Returns:
            float32 array of shape `(n, width)`; zero for blank texts.
        """
        vectors = self.encoder.encode(texts)
        if self._projection is not None:
            vectors = vectors @ self._projection
        return np.clip(vectors, -self.bound, self.bound)  # rounding may exceed the bounds of the space slightly


class EmbedText(ForwardsRewardSettings, gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Replaces a text observation by its vector, optionally followed by the vectors of texts in `info` (the task).

    The observation space becomes a `Box` of `(1 + len(info_keys)) · width` float32 numbers: the observation's vector,
    then one vector per key. Blank text becomes the zero vector. Actions, rewards and infos are unchanged.

    Put it outside the wrappers that read text (`WorldModelRewardWrapper`, `TextHistory`), and inside `Autoreset`.
    Wrappers with the same encoder name share one encoder and its cache in a process.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> env = EmbedText(ToyHouseEnv(), encoder="hashing", info_keys=["task"])
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, env.width
        ((2048,), 1024)
    """

    def __init__(
        self,
        env: gym.Env[str, Any],
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] = DEFAULT_ENCODER,
        info_keys: Sequence[str] = (),
        width: int | None = None,
    ):
        """Wrap an environment and load the encoder.

        Args:
            env: An environment whose observations are text.
            encoder: See `encoders.cached.make_encoder`.
            info_keys: Keys of texts in `info` whose vectors are appended, for example `["task"]`.
            width: Length of one text's vector; the encoder's own if absent, see `TextVectors`.

        Raises:
            InvalidConfigError: If observations are not text, `Autoreset` is below, or an argument is out of range.
            DependencyNotInstalled: If the encoder needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        require_text_env(env, "EmbedText", 1)
        if isinstance(info_keys, str):
            raise InvalidConfigError(f"Expected `info_keys` to be a list of names, actual: {info_keys!r}.")
        vectors = TextVectors(encoder, width)
        gym.utils.RecordConstructorArgs.__init__(self, **recorded(encoder=encoder, info_keys=info_keys, width=width))
        gym.Wrapper.__init__(self, env)

        self.info_keys = tuple(info_keys)
        self.width = vectors.width
        self._vectors = vectors
        shape = ((1 + len(self.info_keys)) * vectors.width,)
        self.observation_space = gym.spaces.Box(-vectors.bound, vectors.bound, shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._embed(observation, info), info

    def step(self, action: Any) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment.

        Raises:
            InvalidConfigError: If `info` has no text under a key.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._embed(observation, info), reward, terminated, truncated, info

    def _embed(self, observation: str, info: dict[str, Any]) -> np.ndarray:
        texts = [observation]
        for key in self.info_keys:
            text = info.get(key)
            if not isinstance(text, str):
                raise InvalidConfigError(
                    f"Expected text in info[{key!r}], actual: {text!r} among the keys {', '.join(info) or 'none'}. "
                    "Change `info_keys`."
                )
            texts.append(text)
        return self._vectors(texts).reshape(-1)
