"""The last turns of an episode as one text, for agents without a memory."""

from __future__ import annotations

from collections import deque
from typing import Any, SupportsFloat

import gymnasium as gym

from rwml_gym.checks import whole_number
from rwml_gym.spaces import UnicodeText
from rwml_gym.wrappers.arguments import recorded
from rwml_gym.wrappers.checks import require_text_env, reward_names, text_action
from rwml_gym.wrappers.forwarding import ForwardsRewardSettings

__all__ = ["TextHistory"]


class TextHistory(ForwardsRewardSettings, gym.Wrapper[str, Any, str, Any], gym.utils.RecordConstructorArgs):
    """Replaces a text observation by the last turns of the episode: the actions and the observations after them.

    A turn is `> action`, a new line and the observation; the turn of the reset has no action. Turns are joined by new
    lines, the oldest first, optionally below the task::

        Task: Put the mug into the bedroom.
        You are in the kitchen. Here, you see a mug, an apple, a book, a soap, and a key.
        > take mug
        You pick up the mug from the kitchen.

    One turn (`history=1`) is the current observation below the action that led to it. Nearly all long texts are
    different, and an encoder must compute each new one. With `EmbedText`, it is faster to use one turn here and
    `gymnasium.wrappers.FrameStackObservation(env, 4, padding_type="zero")` outside both, which keeps four.

    A text longer than `max_length` loses its oldest turns, then the task, then the current turn's action, but never the
    current observation. An encoder reads a limited number of tokens from the beginning (256 for all-MiniLM-L6-v2): with
    `newest_first`, it cuts off the oldest turns.

    The observation space becomes `UnicodeText`; actions, rewards and infos are unchanged. Put it inside `Autoreset` and
    outside `WorldModelRewardWrapper` and `RecordTransitions`, which compare and record single observations.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> env = TextHistory(ToyHouseEnv(), history=2)
        >>> _ = env.reset(seed=0, options={"game": "house-0"})
        >>> print(env.step("take mug")[0])
        You are in the kitchen. Here, you see a mug, an apple, a book, a soap, and a key.
        > take mug
        You pick up the mug from the kitchen.
    """

    def __init__(
        self,
        env: gym.Env[str, Any],
        history: int = 4,
        task: bool = False,
        newest_first: bool = False,
        max_length: int = 65_536,
    ):
        """Wrap an environment.

        Args:
            env: An environment whose observations are text.
            history: Number of turns to show, including the current one.
            task: Whether to show `info["task"]`, if there is one, above the turns.
            newest_first: Whether the current turn comes first, below the task.
            max_length: Maximal number of characters of the text; the environment's own limit if that is larger.

        Raises:
            InvalidConfigError: If `history` or `max_length` is not positive, observations are not text, or `Autoreset`
                is below.
        """
        history = require_text_env(env, "TextHistory", history)
        max_length = whole_number("max_length", max_length, 1, "character")
        gym.utils.RecordConstructorArgs.__init__(
            self, **recorded(history=history, task=task, newest_first=newest_first, max_length=max_length)
        )
        gym.Wrapper.__init__(self, env)

        assert isinstance(env.observation_space, gym.spaces.Text)
        self.observation_space = UnicodeText(max(max_length, env.observation_space.max_length))
        self.max_length = self.observation_space.max_length
        self.history = history
        self._reward_names = reward_names(env)
        self.show_task = task
        self.newest_first = newest_first
        # Pairs of an action (`None` for the reset) and the observation after it.
        self._turns: deque[tuple[str | None, str]] = deque(maxlen=history)
        self._task = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Reset the environment and clear the history."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._turns.clear()
        self._turns.append((None, observation))
        self._task = str(info.get("task") or "")
        return self._text(), info

    def step(self, action: Any) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment; the history keeps the action without the prediction."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._turns.append((text_action(action, info, self._reward_names), observation))
        return self._text(), reward, terminated, truncated, info

    def _text(self) -> str:
        current = _written(*self._turns[-1])
        header = f"Task: {self._task}\n" if self.show_task and self._task else ""
        if len(header) + len(current) > self.max_length:
            header = ""
        if len(current) > self.max_length:
            current = self._turns[-1][1]
        shown = [current]
        room = self.max_length - len(header) - len(current)
        for turn in list(self._turns)[-2::-1]:
            text = _written(*turn)
            room -= len(text) + 1
            if room < 0:
                break
            shown.append(text)
        return header + "\n".join(shown if self.newest_first else reversed(shown))


def _written(action: str | None, observation: str) -> str:
    return observation if action is None else f"> {action}\n{observation}"
