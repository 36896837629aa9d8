"""Admissible text actions as discrete numbers, so that agents without a language model can choose one."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, SupportsFloat, get_args

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from rwml_gym.checks import whole_number
from rwml_gym.encoders.cached import DEFAULT_ENCODER, Encoder
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError
from rwml_gym.wrappers.arguments import recorded
from rwml_gym.wrappers.checks import require_no_autoreset, reward_names
from rwml_gym.wrappers.embed_text import TextVectors
from rwml_gym.wrappers.forgiving_actions import NOTHING_PLAYED
from rwml_gym.wrappers.forwarding import ForwardsRewardSettings

__all__ = ["DEFAULT_MAX_ACTIONS", "AdmissibleActions", "Masked"]

Masked = Literal["raise", "nothing-happens"]
"""What a masked number does."""

# The longest lists seen were 79 (3,000 generated ALFWorld games, 30 random steps each) and 71 (200 official ones).
DEFAULT_MAX_ACTIONS = 96


class AdmissibleActions(ForwardsRewardSettings, gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Turns the text actions in `info` into `Discrete` numbers, with their vectors and a mask.

    Number `i` plays `info["admissible_actions"][i]` of the last reset or step. The meaning of a number changes from
    step to step, so the observation becomes a `Dict` of

    - `observation`: the environment's observation (a vector over `EmbedText`, otherwise the text itself),
    - `actions`: float32 `(max_actions, width)`, the vectors of the listed actions, then zeros,
    - `action_mask`: int8 `(max_actions,)`, 1 for a number that may be chosen.

    The mask is also in `info["action_mask"]`, as in Gymnasium's own environments
    (`env.action_space.sample(info["action_mask"])`), and `action_masks()`, which sb3-contrib's `MaskablePPO` calls. It
    is all zeros only if an episode has ended and no action is listed. `actions` holds the texts.

    Agents that do not know masks, such as Stable-Baselines3's `PPO`, need `masked="nothing-happens"`: a masked number
    leaves the environment as it is, with reward 0, the same observation and `info["invalid_action"]`. It counts
    towards the step budget of the registered id, so that an episode ends.

    A rollout buffer of `steps` takes `steps · max_actions · width · 4` bytes: 302 MB for 2,048 steps at the defaults
    and a `width` of 384, or 50 MB with `width=64`.

    Make it the outermost wrapper except for `Autoreset`, as in
    `AdmissibleActions(EmbedText(TextHistory(WorldModelRewardWrapper(env, predictor=…))))`.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> env = AdmissibleActions(ToyHouseEnv(), encoder="hashing", max_actions=12)
        >>> observation, info = env.reset(options={"game": "house-0"})
        >>> env.actions[3], observation["action_mask"].tolist()
        ('take mug', [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
        >>> env.step(3)[0]["observation"]
        'You pick up the mug from the kitchen.'
    """

    def __init__(
        self,
        env: gym.Env[Any, str],
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] = DEFAULT_ENCODER,
        max_actions: int = DEFAULT_MAX_ACTIONS,
        key: str = "admissible_actions",
        width: int | None = None,
        masked: Masked = "raise",
    ):
        """Wrap an environment and load the encoder.

        Args:
            env: An environment with text actions whose `info` lists the admissible ones.
            encoder: Encoder of the actions, see `encoders.cached.make_encoder`.
            max_actions: Maximal number of actions in a list.
            key: Key of the list in `info`.
            width: Length of an action's vector; the encoder's own if absent, see `TextVectors`.
            masked: What a masked number does: `"raise"` an error, or `"nothing-happens"`.

        Raises:
            InvalidConfigError: If actions are not text, `Autoreset` is below, or an argument is out of range.
            DependencyNotInstalled: If the encoder needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        max_actions = whole_number("max_actions", max_actions, 1)
        if masked not in get_args(Masked):
            raise InvalidConfigError(f"Expected `masked` to be one of {get_args(Masked)}, actual: {masked!r}.")
        _require_text_actions(env)
        vectors = TextVectors(encoder, width)
        gym.utils.RecordConstructorArgs.__init__(
            self, **recorded(encoder=encoder, max_actions=max_actions, key=key, width=width, masked=masked)
        )
        gym.Wrapper.__init__(self, env)

        self.max_actions = max_actions
        self.key = key
        self.masked = masked
        self.width = vectors.width
        self.actions: tuple[str, ...] = ()
        self._ended: bool | None = None  # before the first reset
        self._steps = 0
        self._budget = None if env.spec is None else env.spec.max_episode_steps
        self._last: tuple[Any, np.ndarray, dict[str, Any]] = None, np.zeros(0), {}
        self._vectors = vectors
        self._reward_names = reward_names(env)
        self._mask = np.zeros(max_actions, dtype=np.int8)
        self.action_space = gym.spaces.Discrete(max_actions)
        self.observation_space = gym.spaces.Dict(
            {
                "observation": env.observation_space,
                "actions": gym.spaces.Box(-vectors.bound, vectors.bound, (max_actions, vectors.width), np.float32),
                "action_mask": gym.spaces.MultiBinary(max_actions),
            }
        )

    def action_masks(self) -> np.ndarray:
        """Return which numbers may be chosen now, as bool array of shape `(max_actions,)`."""
        return self._mask.astype(bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reset the environment.

        Raises:
            InvalidConfigError: If `info` lists no action, or too many actions.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._steps = 0
        return self._choose_from(observation, info, ended=False)

    def step(self, action: Any) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        """Play the action with this number.

        Raises:
            ResetNeeded: Before the first reset, or if the episode has ended and no action is listed.
            InvalidConfigError: If the number is masked and `masked` is `"raise"`, or it is no number of the action
                space, or `info` lists too many actions, or none before the end.
        """
        if self._ended is None:
            raise ResetNeeded("Expected reset() before the first step(), actual: none. Call reset().")
        try:
            number = operator.index(action)
        except TypeError:
            raise InvalidConfigError(f"Expected the number of an action, actual: {action!r}.") from None
        if self.masked == "nothing-happens" and len(self.actions) <= number < self.max_actions:
            return self._nothing_happens()
        if not 0 <= number < len(self.actions):
            raise InvalidConfigError(
                f"Expected the number of one of {len(self.actions)} admissible actions, actual: {number}. Choose one "
                'with mask 1: `env.action_space.sample(info["action_mask"])`.'
            )
        observation, reward, terminated, truncated, info = self.env.step(self.actions[number])
        truncated = self._counted() or truncated
        observation, info = self._choose_from(observation, info, ended=terminated or truncated)
        return observation, reward, terminated, truncated, info

    def _nothing_happens(self) -> tuple[dict[str, Any], SupportsFloat, bool, bool, dict[str, Any]]:
        if self._ended:
            raise ResetNeeded("Expected reset() after the end of an episode, actual: step(). Call reset().")
        self._ended = truncated = self._counted()
        observation, vectors, info = self._last
        # Nothing was predicted or played.
        info = {key: NOTHING_PLAYED.get(key, value) for key, value in info.items() if key not in self._reward_names}
        choices = {"observation": copy.copy(observation), "actions": vectors.copy(), "action_mask": self._mask.copy()}
        return choices, 0.0, False, truncated, {**info, "action_mask": self._mask.copy(), "invalid_action": True}

    def _counted(self) -> bool:
        """Count a step, and return whether it was the last; the environment's own limit does not see all of them."""
        self._steps += 1
        return self.masked == "nothing-happens" and self._budget is not None and self._steps >= self._budget

    def _choose_from(
        self, observation: Any, info: dict[str, Any], ended: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.key not in info:
            raise InvalidConfigError(
                f"Expected admissible actions in info[{self.key!r}], actual: keys {', '.join(info) or 'none'}. "
                "Change `key`, or add a wrapper below that lists them."
            )
        actions = admissible_actions(info, self.key)
        if len(actions) > self.max_actions:
            raise InvalidConfigError(
                f"Expected at most {self.max_actions} admissible actions, actual: {len(actions)}. "
                f"Use `max_actions={len(actions)}` or more."
            )
        if not actions and not ended:
            raise InvalidConfigError(
                f"Expected at least one admissible action while the episode runs, actual: 0 in info[{self.key!r}]. "
                "End the episode in the environment if no action is possible."
            )
        self.actions = actions
        self._mask = np.zeros(self.max_actions, dtype=np.int8)
        self._mask[: len(actions)] = 1
        vectors = np.zeros((self.max_actions, self.width), dtype=np.float32)
        if actions:
            vectors[: len(actions)] = self._vectors(actions)
        choices = {"observation": observation, "actions": vectors, "action_mask": self._mask.copy()}
        self._ended = ended
        self._last = copy.copy(observation), vectors.copy(), info
        return choices, {**info, "action_mask": self._mask.copy()}


def _require_text_actions(env: gym.Env[Any, Any]) -> None:
    if not isinstance(env.action_space, gym.spaces.Text):
        raise InvalidConfigError(
            f"Expected an environment with text actions for AdmissibleActions, actual: {env.action_space}. "
            "Remove AdmissibleActions: agents already choose numbers there."
        )
    require_no_autoreset(env, "AdmissibleActions")
