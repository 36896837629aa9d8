"""The text environment: what training and evaluation ask of one, and what all of them share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from rwml_gym.errors import InvalidConfigError, UnsupportedRenderModeError
from rwml_gym.spaces import UnicodeText

__all__ = ["INFO_KEYS", "GameSource", "TextEnv"]

Game = TypeVar("Game", covariant=True)

INFO_KEYS: dict[str, str] = {
    "task": "the instruction, which prompts show to the model",
    "admissible_actions": "random play, constrained decoding and `AdmissibleActions`",
    "won": "success rates, and which episodes are imitated",
    "invalid_action": "the share of invalid actions, and a row of its own in reports",
    "game": "holding out games, replaying them by name, intervals over them; without it an episode is its own game",
    "data_version": "the version of the data beside every score",
    "task_type": "a row for each task type in tables of success",
    "message_role": "a distance and a threshold for each message role, such as ROUGE for results of tools",
    "tools": "the tools in the prompt, and a random player that calls them",
    "policy": "the policy in the prompt, with `show_policy`",
    "expert_action": "the expert as an agent, and episodes to imitate",
}
"""The keys of `info` that training and evaluation read, and what each gives. None is required."""


class GameSource(Protocol[Game]):
    """The games of an environment, by name."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all games, always in the same order; may be lazy, because there can be billions."""
        ...

    def sample(self, rng: np.random.Generator) -> Game:
        """Draw a game."""
        ...

    def load(self, name: str) -> Game:
        """Load the game of a name.

        Raises:
            GameNotFoundError: If no game has this name.
            InvalidGameError: If the game cannot be played.
        """
        ...


class TextEnv(gymnasium.Env[str, str], Generic[Game]):
    """An environment whose observations and actions are text, and whose episodes are games with names.

    A subclass gives its games to `__init__` and implements `_begin` and `_act`; `envs.toy.ToyHouseEnv` is the template.
    `reset(seed=…)` draws a game with `self.np_random`, and `reset(options={"game": name})` plays the game of that name.
    The reward is the task reward. `terminated` is success or the task's own end; the step budget belongs to the
    registered id. `info` has the same keys at `reset` and `step`. It follows from game and actions alone, and shows
    nothing of what is scored before the episode ends. `INFO_KEYS` says which keys training and evaluation read.

    Attributes:
        games: The games of the environment.
        render_mode: `"ansi"`, in which `render` returns the last action and what followed, or `None`.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (as gymnasium.Env has it)

    def __init__(self, games: GameSource[Game], render_mode: str | None = None) -> None:
        """Set the games and the text spaces.

        Args:
            games: The games of the environment.
            render_mode: `"ansi"` or `None`.

        Raises:
            UnsupportedRenderModeError: If the render mode is unknown.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UnsupportedRenderModeError(f'Expected render_mode to be None or "ansi", actual: {render_mode!r}.')
        self.games = games
        self.render_mode = render_mode
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self._last_exchange = ""
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a game.

        Args:
            seed: Seed of the choice of this game and the next ones.
            options: `{"game": name}` to play the game of that name.

        Raises:
            InvalidConfigError: If there are other options.
            GameNotFoundError: If no game has this name.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        name = options.pop("game", None)
        if options:
            raise InvalidConfigError(f'Expected only "game" in options, actual: also {", ".join(map(repr, options))}.')
        self._over = True  # a reset that fails leaves an environment that has to be reset
        observation, info = self._begin(self.games.sample(self.np_random) if name is None else self.games.load(name))
        self._over = False
        self._last_exchange = observation
        return observation, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take an action.

        Args:
            action: Any string. One that the environment does not know is answered, costs a step and changes nothing.

        Raises:
            TypeError: If the action is no string.
            ResetNeeded: If there was no reset, or the episode is over.
        """
        if not isinstance(action, str):
            raise TypeError(f"Expected a string as action, actual: {action!r} ({type(action).__name__}).")
        if self._over:
            raise ResetNeeded("Expected reset() before step(), actual: no episode is running. Call reset().")
        observation, reward, terminated, truncated, info = self._act(action)
        self._over = terminated or truncated
        self._last_exchange = f"> {action}\n{observation}"
        return observation, reward, terminated, truncated, info

    def render(self) -> str | None:
        """Return the last action and the observation that followed, in mode `ansi`."""
        return self._last_exchange if self.render_mode == "ansi" else None

    @abstractmethod
    def _begin(self, game: Any) -> tuple[str, dict[str, Any]]:
        """Start the game; return the first observation and its info."""

    @abstractmethod
    def _act(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take an action; return what `step` returns."""
