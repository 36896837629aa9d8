"""ALFWorld household tasks as a Gymnasium environment: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded

from rwml_gym.envs.alfworld.engine.engine import Engine, GameEngine, State
from rwml_gym.envs.alfworld.expert import Expert
from rwml_gym.envs.alfworld.games.sources import Game, make_games
from rwml_gym.errors import InvalidConfigError, InvalidGameError
from rwml_gym.spaces import UnicodeText

__all__ = ["ENGINES", "ALFWorldEnv"]

ENGINES = ("compiled", "textworld")
"""Our engine, and stock textworld as the reference: the same texts, hundreds of times slower."""


class ALFWorldEnv(gymnasium.Env[str, str]):
    """A room described in text, a household task, and commands such as ``take mug 1 from desk 1``.

    Observation: the unchanged text of the engine; the first one ends with the task. Action: any string; an inadmissible
    one gets ``Nothing happens.`` and costs a step. Reward: 1 for the action that meets the goal, otherwise 0.
    ``terminated``: the goal is met. The registered id truncates after 50 steps.

    ``info``, with the same keys at `reset` and `step`:

    * ``task``: the goal sentence; ``task_type``: one of the six.
    * ``admissible_actions``: all admissible actions, sorted.
    * ``won``: whether the goal is met; ``invalid_action``: whether the last action was inadmissible.
    * ``game``: the name for ``reset(options={"game": name})``; ``data_version``: the source of its texts.
    * ``expert_action``, only with ``expert=True``: the action of the hand-coded expert in this state, whatever was done
      before. It is admissible, or the empty string once the game is won. It depends on the game and the actions alone.

    Environments share no mutable state, so each may run in its own thread (except with ``engine="textworld"``).

    Args:
        split: ``generated`` (needs no data), ``generated_held_out``, or an official one: ``train``, ``valid_seen``,
            ``valid_unseen``, ``valid_train``.
        task_types: Some of the six task types; all by default.
        grammar: ``installed`` (``move X to Y``) or ``original``, the published words of an official file.
        data: Folder of official games; the environment variable ``ALFWORLD_DATA`` by default.
        engine: ``compiled``, or ``textworld``: the stock engine, with exactly the same texts, hundreds of times slower.
            It evaluates Python in a game file, so use it only with files that you trust.
        render_mode: With ``ansi``, `render` returns the last action and the observation after it.
        rooms: Some of ``kitchen``, ``living_room``, ``bedroom``, ``bathroom``; all by default.
        difficulty: Number of receptacles to search, or a range such as ``(5, 15)``; only for generated games, see
            `rwml_gym.envs.alfworld.GeneratedGames`.
        expert: Whether to call the expert (`rwml_gym.envs.alfworld.expert.Expert`) in every state.

    Example:
        >>> import gymnasium, rwml_gym
        >>> env = gymnasium.make("rwml_gym/ALFWorld-v0", task_types=["pick_heat_then_place_in_recep"])
        >>> observation, info = env.reset(seed=0)
        >>> "Your task is to: " + info["task"] in observation
        True
        >>> observation, reward, terminated, truncated, info = env.step(info["admissible_actions"][0])
        >>> env.close()
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (as in gymnasium.Env)

    def __init__(
        self,
        split: str = "generated",
        task_types: Sequence[str] | None = None,
        grammar: str = "installed",
        data: str | Path | None = None,
        engine: str = "compiled",
        render_mode: str | None = None,
        rooms: Sequence[str] | None = None,
        difficulty: int | Sequence[int] | None = None,
        expert: bool = False,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InvalidConfigError(f'Expected render_mode to be None or "ansi", actual: {render_mode!r}.')
        if engine not in ENGINES:
            raise InvalidConfigError(f"Expected engine to be one of {', '.join(ENGINES)}, actual: {engine!r}.")
        self.engine = engine
        self.games = make_games(split, task_types, grammar, data, rooms, difficulty)
        self.render_mode = render_mode
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self._engine: GameEngine | None = None
        self._game: Game | None = None
        self.expert = expert
        self._expert: Expert | None = None
        self._state = State("", [], False)
        self._last_exchange = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a game: a named one, or one drawn with ``self.np_random``.

        Args:
            seed: Seed for drawing this game and the following ones.
            options: ``{"game": name}`` to play that game.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        name = options.pop("game", None)
        if options:
            raise InvalidConfigError(f'Expected only "game" in options, actual: also {", ".join(map(repr, options))}.')
        self._game = None  # after a failed reset, the environment must be reset again
        game = self.games.sample(self.np_random) if name is None else self.games.load(name)
        self._state = self._start(game)
        self._game = game
        self._expert = _make_expert(game) if self.expert else None
        self._last_exchange = self._state.text
        return self._state.text, self._info(invalid_action=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Send a command to the game.

        Args:
            action: Any string; surrounding spaces are ignored.
        """
        if not isinstance(action, str):
            raise TypeError(f"Expected a string as action, actual: {action!r} ({type(action).__name__}).")
        if self._game is None or self._engine is None:
            raise ResetNeeded("Expected reset() before step(), actual: no game is running. Call reset().")
        if self._state.won:
            raise ResetNeeded("Expected a running game, actual: the game is won. Call reset() before the next step().")
        invalid = action.strip() not in self._state.admissible
        self._state = state = self._engine.step(action)
        self._last_exchange = f"> {action}\n{state.text}"
        return state.text, float(state.won), state.won, False, self._info(invalid)

    def render(self) -> str | None:
        """Return the last action and the observation after it, in mode ``ansi``."""
        return self._last_exchange if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Release the engine's resources; `reset` makes a new engine."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None
        self._game = None

    def _start(self, game: Game) -> State:
        self._engine = self._engine or _make_engine(self.engine)
        try:
            return self._engine.start(game.data)
        except InvalidGameError as error:
            raise InvalidGameError(f"{game.path or game.name}: {error}") from error
        except (Exception, SystemExit) as error:  # the PDDL translator raises SystemExit on a malformed problem
            raise InvalidGameError(
                f"Expected a playable game in {game.path or game.name}, actual: {type(error).__name__}: {error}. "
                "Replace the corrupt file with `alfworld-download --force`, or choose another game."
            ) from error

    def _info(self, invalid_action: bool) -> dict[str, Any]:
        assert self._game is not None
        info = {
            "task": self._game.task,
            "admissible_actions": list(self._state.admissible),
            "won": self._state.won,
            "invalid_action": invalid_action,
            "game": self._game.name,
            "task_type": self._game.task_type,
            "data_version": self._game.data_version,
        }
        if self._expert is not None:
            state = self._state
            info["expert_action"] = "" if state.won else self._expert.act(state.text, state.admissible)
        return info


def _make_expert(game: Game) -> Expert:
    if game.goal is None:
        raise InvalidGameError(f"Expected a known goal for the expert, actual: none in {game.name}. Use expert=False.")
    return Expert(game.goal, seed=game.name)


def _make_engine(name: str) -> GameEngine:
    if name == "compiled":
        return Engine()
    from rwml_gym.envs.alfworld.engine.stock import TextworldEngine  # takes half a second to import

    return TextworldEngine()
