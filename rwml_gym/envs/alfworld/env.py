"""ALFWorld household tasks as a Gymnasium environment: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rwml_gym.envs.alfworld.engine.engine import Engine, GameEngine, State
from rwml_gym.envs.alfworld.expert import Expert
from rwml_gym.envs.alfworld.games.sources import Game, make_games
from rwml_gym.envs.base import TextEnv
from rwml_gym.errors import InvalidConfigError, InvalidGameError

__all__ = ["ENGINES", "ALFWorldEnv"]

ENGINES = ("compiled", "textworld")
"""Ours, and stock textworld as the reference: the same text, hundreds of times slower."""


class ALFWorldEnv(TextEnv[Game]):
    """A room described in text, a household task, and commands such as ``take mug 1 from desk 1``.

    Observation: the engine's own words, unchanged; the first one ends with the task. Action: any string; one that is
    not admissible gets ``Nothing happens.`` and costs a step. Reward: 1 on the action that meets the goal, else 0.
    ``terminated``: the goal is met. The registered id truncates after 50 steps.

    ``info``, with the same keys at `reset` and `step`:

    * ``task``: the goal sentence; ``task_type``: one of the six.
    * ``admissible_actions``: every action the world would take now, sorted.
    * ``won``: whether the goal is met; ``invalid_action``: whether the last action was not admissible.
    * ``game``: the name to give to ``reset(options={"game": name})``; ``data_version``: where its text comes from.
    * ``expert_action``, with ``expert=True`` only: what the hand-coded expert would do now, whatever was done before:
      an admissible action, or the empty string once the game is won. It follows from the game and the actions alone.

    Environments share nothing that changes, so each may have a thread of its own (not with ``engine="textworld"``).

    Args:
        split: ``generated`` (needs no data), ``generated_held_out``, or an official one: ``train``, ``valid_seen``,
            ``valid_unseen``, ``valid_train``.
        task_types: some of the six task types; all of them by default.
        grammar: ``installed`` (``move X to Y``) or ``original``, the words an official file was published with.
        data: folder of official games; the environment variable ``ALFWORLD_DATA`` by default.
        engine: ``compiled``, or ``textworld``: stock's own engine, the same game letter for letter, hundreds of times
            slower. It evaluates Python that a game file may contain, so give it no file you do not trust.
        render_mode: ``ansi``: `render` returns the last action and what it led to.
        rooms: some of ``kitchen``, ``living_room``, ``bedroom``, ``bathroom``; all of them by default.
        difficulty: how many receptacles one has to search, a number or the fewest and the most such as ``(5, 15)``;
            for generated games, see `rwml_gym.envs.alfworld.GeneratedGames`.
        expert: whether to ask the expert (`rwml_gym.envs.alfworld.expert.Expert`) in every state.

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
        engine: str = "compiled",
        render_mode: str | None = None,
        rooms: Sequence[str] | None = None,
        difficulty: int | Sequence[int] | None = None,
        expert: bool = False,
    ) -> None:
        if engine not in ENGINES:
            raise InvalidConfigError(f"Unknown engine {engine!r}; expected one of {', '.join(ENGINES)}.")
        self.engine = engine
        super().__init__(make_games(split, task_types, grammar, data, rooms, difficulty), render_mode)
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
        """Gives back what the engine holds; `reset` starts anew."""
        if self._engine is not None:
            self._engine.close()
        self._engine = self._game = None
        self._over = True

    def _start(self, game: Game) -> State:
        self._engine = self._engine or _make_engine(self.engine)
        try:
            return self._engine.start(game.data)
        except InvalidGameError as error:
            raise InvalidGameError(f"{game.path or game.name}: {error}") from error
        except (Exception, SystemExit) as error:  # the PDDL translator raises SystemExit on a malformed problem
            raise InvalidGameError(
                f"The engine cannot play {game.path or game.name} ({type(error).__name__}: {error}); "
                "the file is corrupt: run `alfworld-download --force`, or choose another game."
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
        raise InvalidGameError(f"The goal of {game.name} is not known: make the environment without `expert=True`.")
    return Expert(game.goal, seed=game.name)


def _make_engine(name: str) -> GameEngine:
    if name == "compiled":
        return Engine()
    from rwml_gym.envs.alfworld.engine.stock import TextworldEngine  # takes half a second to import

    return TextworldEngine()
