"""The text environment: what training and evaluation ask of one, and what all of them share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded

from rwml_gym.checks import one_of, plain
from rwml_gym.errors import GameNotFoundError, InvalidConfigError, UnsolvableGameError, UnsupportedRenderModeError
from rwml_gym.spaces import UnicodeText
from rwml_gym.text import printable

__all__ = ["INFO_KEYS", "MAX_LISTED", "ORDERS", "GameSource", "TextEnv", "admissible_actions"]

Game = TypeVar("Game", covariant=True)

ORDERS = ("random", "each-once")
"""Which game follows which: drawn anew each time, or all of them once in random order, and then again."""

MAX_LISTED = 1_000_000
"""A split with more games than this has no end for whoever wants to play all of them."""

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
    "known_info": "what the simulated user knows about himself, in prompts of world models only",
    "expert_action": "the expert as an agent, and episodes to imitate",
}
"""The keys of `info` that training and evaluation read, and what each gives. None is required."""


def admissible_actions(info: Mapping[str, Any], key: str = "admissible_actions") -> tuple[str, ...]:
    """Return the admissible actions that an info lists; none if it lists none.

    Args:
        info: The info of a reset or step.
        key: Where they are.

    Raises:
        InvalidConfigError: If they are no list of texts.
    """
    listed = info.get(key)
    listed = listed.tolist() if isinstance(listed, np.ndarray) else () if listed is None else listed
    # A set has no order that a seed could choose from.
    fits = isinstance(listed, Sequence) and not isinstance(listed, str)
    if not fits or not all(isinstance(action, str) for action in listed):
        raise InvalidConfigError(f"Expected a list of texts in info[{key!r}], actual: {str(listed)[:200]!r}.")
    return tuple(listed)


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
    With `order="each-once"`, `reset` goes through all games in an order that follows from the seed, and then again.
    The reward is the task reward. `terminated` is success or the task's own end; the step budget belongs to the
    registered id. `info` has the same keys at `reset` and `step`. It follows from game and actions alone, and shows
    nothing of what is scored before the episode ends. `INFO_KEYS` says which keys training and evaluation read.

    Attributes:
        games: The games of the environment.
        render_mode: `"ansi"`, in which `render` returns the last action and what followed, or `None`.
    """

    _spec: EnvSpec | None = None
    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (as gymnasium.Env has it)

    def __init__(
        self,
        games: GameSource[Game],
        render_mode: str | None = None,
        order: str = "random",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Set the games and the text spaces.

        Args:
            games: The games of the environment.
            render_mode: `"ansi"` or `None`.
            order: One of `ORDERS`. Without a seed, `each-once` plays in the order of seed 0.
            share: With `each-once`, `(i, n)` plays only every n-th game of the order, from number i on. A vector
                environment gives each slot its share, so that all slots together play each game once. As slot i has
                seed + i, the order is that of the seed less i.

        Raises:
            InvalidConfigError: If an argument is not allowed, or `each-once` is asked of games without end.
            UnsupportedRenderModeError: If the render mode is unknown.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UnsupportedRenderModeError(f'Expected render_mode to be None or "ansi", actual: {render_mode!r}.')
        one_of("order", order, ORDERS)
        self.games = games
        self.order = order
        self.share = _checked_share(order, share, games)
        self._order_seed, self._passes = 0, 0
        self._left: list[int] = []  # numbers of the games still to play in this pass, the next one last
        self.render_mode = render_mode
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self._last_exchange = ""
        self._over, self._closed = True, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a game.

        Args:
            seed: Seed of the choice of this game and the next ones.
            options: `{"game": name}` to play the game of that name.

        Raises:
            InvalidConfigError: If there are other options.
            GameNotFoundError: If no game has this name.
        """
        if not isinstance(options, Mapping | None):
            raise InvalidConfigError(f'Expected options such as {{"game": name}}, actual: {options!r}.')
        options = dict(options or {})
        name = options.pop("game", None)
        if options:
            raise InvalidConfigError(f'Expected only "game" in options, actual: also {", ".join(map(repr, options))}.')
        if not isinstance(name, str | None):
            raise GameNotFoundError(f'Expected the name of one game in options["game"], actual: {name!r}.')
        super().reset(seed=seed)
        if seed is not None:
            self._order_seed, self._passes, self._left = abs(seed - self.share[0]), 0, []
        self._over = True  # a reset that fails leaves an environment that has to be reset
        observation, info = self._begin(self._next_game() if name is None else self.games.load(name))
        self._over = self._closed = False
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
            why = "the environment is closed" if self._closed else "no episode is running"
            raise ResetNeeded(f"Expected reset() before step(), actual: {why}. Call reset().")
        observation, reward, terminated, truncated, info = self._act(action)
        self._over = terminated or truncated
        self._last_exchange = f"> {action}\n{observation}"
        return observation, reward, terminated, truncated, info

    @property
    def spec(self) -> EnvSpec | None:
        """The registration and the arguments; as `EnvSpec.to_json` needs it, NumPy's numbers are plain ones."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            spec.kwargs = {name: plain(value) for name, value in spec.kwargs.items()}
        self._spec = spec

    def render(self) -> str | None:
        """Return the last action and the observation that followed, in mode `ansi`."""
        return printable(self._last_exchange) if self.render_mode == "ansi" else None

    def _next_game(self) -> Any:
        if self.order == "random":
            return self.games.sample(self.np_random)
        names = self.games.names
        first, step = self.share
        for _ in range(2 * len(names)):  # the rest of a pass, and a whole one
            if not self._left:
                rng = np.random.default_rng((self._order_seed, self._passes))
                self._left = rng.permutation(len(names))[first::step][::-1].tolist()
                self._passes += 1
            try:
                return self.games.load(names[self._left.pop()])
            except UnsolvableGameError:  # left out, as by `sample`; a corrupt file is an error of this reset alone
                continue
        raise UnsolvableGameError(f"Expected a game that can be solved, actual: none of {len(names)}.")

    def close(self) -> None:
        """End the episode; `reset` starts another one."""
        self._over = self._closed = True

    @abstractmethod
    def _begin(self, game: Any) -> tuple[str, dict[str, Any]]:
        """Start the game; return the first observation and its info."""

    @abstractmethod
    def _act(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take an action; return what `step` returns."""


def _checked_share(order: str, share: Any, games: GameSource[Any]) -> tuple[int, int]:
    match plain(share):
        case (int(first), int(step)) if 0 <= first < step:
            pass
        case _:
            raise InvalidConfigError(f"Expected share (i, n) with 0 <= i < n, actual: {share!r}.")
    if order == "random":
        if step > 1:
            raise InvalidConfigError(f'Expected share only with order="each-once", actual: {share!r}.')
        return first, step
    count = len(games.names)
    if not step <= count <= MAX_LISTED:
        raise InvalidConfigError(
            f'Expected {step} to {MAX_LISTED:,} games for order="each-once", actual: {count:,}. Choose another split, '
            'fewer slots, or order="random".'
        )
    return first, step
