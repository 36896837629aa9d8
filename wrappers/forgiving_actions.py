"""Actions in other words than the environment's, as language models write them, taken for what they plainly mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym

from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError
from rwml_gym.wrappers.checks import require_text_env, reward_names
from rwml_gym.wrappers.forwarding import ForwardsRewardSettings

__all__ = ["NOTHING_PLAYED", "ForgivingActions"]

NOTHING_PLAYED = {"forgiven": False, "played_action": ""}
"""What `info` says where no action was played."""

THOUGHT = re.compile(r"\s*(?:>\s*)?think\s*:", re.IGNORECASE)
_LABEL = re.compile(r"(?:^|\n)[^\S\n]*(?:>\s*)?action\s*:[^\S\n]*(?P<action>[^\n]*)", re.IGNORECASE)
_PUT = re.compile(r"put (?P<thing>.+?) (?:in/on|in|on|into|onto) (?P<place>.+)")
_MOVE = re.compile(r"move (?P<thing>.+?) to (?P<place>.+)")


class ForgivingActions(ForwardsRewardSettings, gym.Wrapper[str, str, str, str], gym.utils.RecordConstructorArgs):
    """Plays an inadmissible action as the one admissible action that it plainly means.

    It forgives capitals, spaces, `> `, `Action:`, quotation marks, a full stop, and the other ALFWorld grammar
    (`put X in/on Y` for `move X to Y`, and the reverse). An action that begins with `think:` is a thought, as in ReAct:
    it costs a step, changes nothing, and the answer is `OK.`. Everything else reaches the environment unchanged. If an
    action could mean two admissible ones, it means none.

    Scores with this wrapper are not scores without it: benchmarks are played without. `info` says what was done, with
    `forgiven`, whether the action was read differently, and `played_action`, what the environment got.

    Put it directly around the environment, inside `WorldModelRewardWrapper`, which removes predictions first.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> env = ForgivingActions(ToyHouseEnv())
        >>> _ = env.reset(options={"game": "house-0"})
        >>> observation, _, _, _, info = env.step("> Take Mug.")
        >>> observation, info["forgiven"], info["played_action"]
        ('You pick up the mug from the kitchen.', True, 'take mug')
        >>> env.step("think: the mug must go to the bedroom")[0]
        'OK.'
    """

    def __init__(self, env: gym.Env[str, str], key: str = "admissible_actions") -> None:
        """Wrap an environment.

        Args:
            env: A text environment whose `info` lists the admissible actions.
            key: Key of the list in `info`.

        Raises:
            InvalidConfigError: If observations are not text, or `Autoreset` or a reward wrapper is below.
        """
        require_text_env(env, "ForgivingActions", 1)
        if reward_names(env):
            raise InvalidConfigError(
                "Expected ForgivingActions inside the reward wrapper, which removes predictions from actions, actual: "
                "around it. Swap them."
            )
        gym.utils.RecordConstructorArgs.__init__(self, key=key)
        gym.Wrapper.__init__(self, env)
        self.key = key
        self._admissible: Sequence[str] = ()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Reset the environment.

        Raises:
            InvalidConfigError: If `info` has no admissible actions.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        if self.key not in info:
            raise InvalidConfigError(
                f"Expected admissible actions in info[{self.key!r}], actual: keys {', '.join(info) or 'none'}. "
                "Change `key`, or remove ForgivingActions."
            )
        self._list(info)
        return observation, {**info, **NOTHING_PLAYED}

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step with the action that is meant."""
        is_text = isinstance(action, str)
        played = self._meant(action) if is_text and action not in self._admissible else action
        observation, reward, terminated, truncated, info = self.env.step(played)
        self._list(info)
        thought = is_text and played == action and info.get("invalid_action") and THOUGHT.match(action)
        if thought:
            observation, info = "OK.", {**info, "invalid_action": False}
        forgiven = bool(thought) or played != action
        return observation, reward, terminated, truncated, {**info, "forgiven": forgiven, "played_action": played}

    def _list(self, info: dict[str, Any]) -> None:
        self._admissible = admissible_actions(info, self.key)

    def _meant(self, action: str) -> str:
        if THOUGHT.match(action):
            return action
        known: dict[str, set[str]] = {}
        for admissible in self._admissible:
            known.setdefault(_plain(admissible), set()).add(admissible)
        for reading in _readings(action):
            if (found := known.get(reading)) is not None:
                return next(iter(found)) if len(found) == 1 else action
        return action


def _readings(action: str) -> Iterator[str]:
    """Yield what an action may mean, in plain words."""
    labelled = _LABEL.findall(action)
    plain = _plain(labelled[-1] if labelled else action)
    yield plain
    if (put := _PUT.fullmatch(plain)) is not None:
        yield f"move {put['thing']} to {put['place']}"
        yield f"put {put['thing']} in/on {put['place']}"
    if (move := _MOVE.fullmatch(plain)) is not None:
        yield f"put {move['thing']} in/on {move['place']}"


def _plain(text: str) -> str:
    """Return a text in lower case, with single spaces, without `>`, quotation marks and full stops around it."""
    return " ".join(text.casefold().strip("> \t\n\r\"'`.\u2018\u2019\u201c\u201d").split())
