"""Recording of the transitions of a text environment."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, SupportsFloat

import gymnasium as gym

from rwml_gym.errors import InvalidObservationError
from rwml_gym.transitions import EPISODE, Transition, TransitionDataset, Turn
from rwml_gym.wrappers.arguments import recorded
from rwml_gym.wrappers.checks import require_text_env, reward_names, text_action
from rwml_gym.wrappers.forwarding import ForwardsRewardSettings

__all__ = ["RecordTransitions"]


class RecordTransitions(ForwardsRewardSettings, gym.Wrapper[str, Any, str, Any], gym.utils.RecordConstructorArgs):
    """Keeps every step of a text environment as a `Transition`, for every agent and every end of an episode.

    It does not change the environment. It may be inside or outside other wrappers; outside one that removes predictions
    from the actions (`WorldModelRewardWrapper`), it records the action without the prediction. Put `Autoreset` outside.

    `won` describes the whole episode and is filled in at its end, from `info["won"]`; a truncated episode is not won
    unless the environment says so. It is `None` while an episode runs, after a reset abandons it, or without `won`.
    `task`, `game`, `data_version`, `invalid_action`, `known_info` and the message role (`message_role`) also come from
    `info`.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> env = RecordTransitions(ToyHouseEnv(), history=2)
        >>> _ = env.reset(seed=0)
        >>> _ = env.step("look")
        >>> env.transitions[0].action
        'look'
    """

    def __init__(self, env: gym.Env[str, Any], history: int = 4):
        """Wrap an environment.

        Args:
            env: An environment whose observations are text.
            history: Number of turns in a transition's history.

        Raises:
            InvalidConfigError: If `history` is not positive, observations are not text, or `Autoreset` is below.
        """
        history = require_text_env(env, "RecordTransitions", history)
        gym.utils.RecordConstructorArgs.__init__(self, **recorded(history=history))
        gym.Wrapper.__init__(self, env)

        self.history = history
        self._reward_names = reward_names(env)
        # Not `self.spec`, which copies the arguments of all wrappers, possibly including a model.
        spec = env.unwrapped.spec
        self._env_id = spec.id if spec is not None else type(env.unwrapped).__name__
        self._turns: deque[Turn] = deque(maxlen=history)
        self._info: dict[str, Any] = {}
        self._finished: list[Transition] = []
        self._running: list[Transition] = []
        self._episode = -1
        self._over = True

    @property
    def transitions(self) -> list[Transition]:
        """All transitions so far, as a new list; those of the running episode come last."""
        return [*self._finished, *self._running]

    def dataset(self) -> TransitionDataset:
        """Return all transitions so far, as a dataset."""
        return TransitionDataset(self.transitions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Reset the environment; an unfinished episode is kept with `won=None`.

        Raises:
            InvalidObservationError: If the observation is no text.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._end_episode(won=None)
        self._episode += 1
        self._over = False
        self._turns.clear()
        self._turns.append(Turn("", _text(observation)))
        self._info = info
        return observation, info

    def step(self, action: Any) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and record the transition; steps after the end of an episode are not recorded.

        Raises:
            InvalidObservationError: If the observation is no text.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        if not self._over:
            self._record(text_action(action, info, self._reward_names), observation, info)
            if terminated or truncated:
                won = info.get("won")
                self._end_episode(None if won is None else bool(won))
        return observation, reward, terminated, truncated, info

    def _record(self, action: str, observation: str, info: dict[str, Any]) -> None:
        known = {**self._info, **info}
        self._running.append(
            Transition(
                history=tuple(self._turns),
                action=action,
                next_state=_text(observation),
                task=str(known.get("task") or ""),
                env_id=self._env_id,
                game=str(known.get("game") or f"{EPISODE}{self._episode}"),
                episode=self._episode,
                step=len(self._running),
                invalid_action=bool(info.get("invalid_action", False)),
                data_version=str(known.get("data_version") or ""),
                role=str(info.get("message_role") or ""),
                known_info=str(known.get("known_info") or ""),
            )
        )
        self._turns.append(Turn(action, observation))

    def _end_episode(self, won: bool | None) -> None:
        self._finished += [replace(transition, won=won) for transition in self._running]
        self._running = []
        self._over = True


def _text(observation: Any) -> str:
    """Return an observation that is text; nothing else can be saved and read again."""
    if not isinstance(observation, str):
        raise InvalidObservationError(
            f"Expected observations that are text, actual: {str(observation)[:200]} ({type(observation).__name__}). "
            "Return text from the environment's reset and step."
        )
    return observation
