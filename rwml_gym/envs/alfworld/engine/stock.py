"""Stock textworld's engine with our interface, ``engine="textworld"``: the reference, hundreds of times slower."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import fast_downward
import textworld
from textworld.envs.pddl import PddlEnv

from rwml_gym.envs.alfworld.engine.game import entity_names
from rwml_gym.envs.alfworld.engine.state import State

__all__ = ["TextworldEngine"]

_libraries: list[Any] = []
"""Planner libraries that are free at the moment. Each is a private copy of about 35 MB on an unlinked file that can
never be unloaded (closing it crashes the process at exit), so engines reuse them."""


class TextworldEngine:
    """textworld's unchanged `PddlEnv`, with alfworld's names for entities.

    It evaluates Python expressions in a game's text grammar, so do not play files that you do not trust. It is not
    thread-safe, even if only another thread translates a game.
    """

    def __init__(self) -> None:
        infos = textworld.EnvInfos(feedback=True, won=True, admissible_commands=True)
        env: Any = PddlEnv.__new__(PddlEnv)
        textworld.Environment.__init__(env, infos)  # PddlEnv's own constructor would load another library
        env.downward_lib = _libraries.pop() if _libraries else fast_downward.load_lib()
        self._env = env
        self._hand_on_library = weakref.finalize(self, _libraries.append, env.downward_lib)
        self._hand_on_library.atexit = False
        self._played: tuple[Mapping[str, Any], list[str]] | None = None

    def __getstate__(self) -> Any:
        """Return the game and the commands, which a copy plays again: the planner's own state cannot be read."""
        return self._env is not None, self._played

    def __setstate__(self, state: Any) -> None:
        self.__init__()  # type: ignore[misc]
        is_open, played = state
        if played is not None:
            game, commands = played
            self.start(game)
            for command in commands:
                self.step(command)
        if not is_open:
            self.close()

    def start(self, game: Mapping[str, Any]) -> State:
        """Start a game (`GameEngine.start`), in about a second."""
        env = self._open_env()
        with _process_kept():
            env.load(game)
            names = entity_names(env._entity_infos)
            for entity, info in env._entity_infos.items():
                info.name = names[entity]
            self._played = (game, [])
            return _state(env.reset())

    def step(self, command: str) -> State:
        """Send a command to the game."""
        state, _, _ = self._open_env().step(command)
        assert self._played is not None
        self._played[1].append(command)
        return _state(state)

    def close(self) -> None:
        """Release the planner library; the engine cannot be used afterwards."""
        self._hand_on_library()
        # now another engine may use the library, so this one must not reach it
        self._env = None
        self._played = None

    def _open_env(self) -> Any:
        if self._env is None:
            raise RuntimeError("Expected an open engine, actual: closed. Make another one.")
        return self._env


def _state(state: Any) -> State:
    return State(state["feedback"], state["admissible_commands"], bool(state["won"]))


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Restore ``sys.argv``, and the standard output, which a failing `fast_downward.pddl2sas` does not restore."""
    argv, stdout = sys.argv, sys.stdout
    try:
        yield
    finally:
        sys.argv, sys.stdout = argv, stdout
