"""ALFWorld household tasks as a Gymnasium environment: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rwml_gym.checks import one_of
from rwml_gym.envs.alfworld.engine.engine import Engine, GameEngine, State
from rwml_gym.envs.alfworld.expert import Expert
from rwml_gym.envs.alfworld.games.sources import Game, make_games
from rwml_gym.envs.base import TextEnv
from rwml_gym.errors import InvalidGameError

__all__ = ["ENGINES", "ALFWorldEnv"]

ENGINES = ("native", "textworld")
"""Our engine, and stock textworld as the reference: the same texts, hundreds of times slower."""


class ALFWorldEnv(TextEnv[Game]):
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
        grammar: ``installed`` (``move X to Y``); ``original``, the words of the published games (``put X in/on Y``); or
            ``mixed``, each for half of the games, by the hash of a game's name.
        data: Folder of official games, the environment variable ``ALFWORLD_DATA`` by default; or of generated games
            that ``rwml-gym games export`` wrote.
        engine: ``native``, or ``textworld``: the stock engine, with exactly the same texts, hundreds of times slower.
            It evaluates Python in a game file, so use it only with files that you trust.
        render_mode: With ``ansi``, `render` returns the last action and the observation after it.
        rooms: Some of ``kitchen``, ``living_room``, ``bedroom``, ``bathroom``; all by default.
        difficulty: Number of receptacles to search, or a range such as ``(5, 15)``; only for `GeneratedGames`.
        expert: Whether to call the expert (`rwml_gym.envs.alfworld.expert.Expert`) in every state.
        order: ``random``, or ``each-once`` to play every game of an official split; see `TextEnv`.
        share: The share of a slot with ``each-once``; `gymnasium.make_vec` sets it.

    Example:
        >>> import gymnasium, rwml_gym
        >>> env = gymnasium.make("rwml_gym/ALFWorld-v0", task_types=["pick_heat_then_place_in_recep"])
        >>> observation, info = env.reset(seed=0)
        >>> "Your task is to: " + info["task"] in observation
        True
        >>> observation, reward, terminated, truncated, info = env.step(info["admissible_actions"][0])
        >>> env.close()
    """

    def __init__(
        self,
        split: str = "generated",
        task_types: Sequence[str] | None = None,
        grammar: str = "installed",
        data: str | Path | None = None,
        engine: str = "native",
        render_mode: str | None = None,
        rooms: Sequence[str] | None = None,
        difficulty: int | Sequence[int] | None = None,
        expert: bool = False,
        order: str = "random",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        one_of("engine", engine, ENGINES)
        self.engine = engine
        super().__init__(make_games(split, task_types, grammar, data, rooms, difficulty), render_mode, order, share)
        self._engine: GameEngine | None = None
        self._game: Game | None = None
        self.expert = expert
        self._expert: Expert | None = None
        self._state = State("", [], False)

    def _begin(self, game: Game) -> tuple[str, dict[str, Any]]:
        self._game = None  # until the engine has started it
        self._state = self._start(game)
        self._game = game
        self._expert = _make_expert(game) if self.expert else None
        return self._state.text, self._info(invalid_action=False)

    def _act(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        assert self._engine is not None
        invalid = action.strip() not in self._state.admissible
        self._state = state = self._engine.step(action)
        return state.text, float(state.won), state.won, False, self._info(invalid)

    def close(self) -> None:
        """Release the engine's resources; `reset` makes a new engine."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._game = None
        super().close()

    def _start(self, game: Game) -> State:
        self._engine = self._engine or _make_engine(self.engine)
        try:
            return self._engine.start(game.data)
        except InvalidGameError as error:
            raise InvalidGameError(f"{game.path or game.name}: {error}") from error
        except (Exception, SystemExit) as error:  # the PDDL translator raises SystemExit on a malformed problem
            raise InvalidGameError(
                f"Expected a playable game in {game.path or game.name}, actual: {type(error).__name__}: {error}. "
                "Replace the corrupt file (`alfworld-download --force` for an official game, `rwml-gym games export "
                "--overwrite` for an exported one), or choose another game."
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
    if name == "native":
        return Engine()
    from rwml_gym.envs.alfworld.engine.stock import TextworldEngine  # takes half a second to import

    return TextworldEngine()
