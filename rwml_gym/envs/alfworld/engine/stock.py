"""Stock textworld's engine behind our interface: the reference, hundreds of times slower, ``engine="textworld"``."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import fast_downward
import textworld
from textworld.envs.pddl import PddlEnv

from rwml_gym.envs.alfworld.engine.engine import State
from rwml_gym.envs.alfworld.engine.game import entity_names

__all__ = ["TextworldEngine"]

_libraries: list[Any] = []
"""Planner libraries nobody uses at the moment. Each is a private copy of about 35 MB on an unlinked file that can never
be given back (closing it crashes the process at exit), so engines hand theirs on."""


class TextworldEngine:
    """textworld's `PddlEnv`, untouched, with alfworld's names for things.

    It evaluates Python expressions that a game's text grammar contains: play no files you do not trust. It cannot be
    used from several threads, nor while another thread translates a game.
    """

    def __init__(self) -> None:
        infos = textworld.EnvInfos(feedback=True, won=True, admissible_commands=True)
        env: Any = PddlEnv.__new__(PddlEnv)
        textworld.Environment.__init__(env, infos)  # PddlEnv's own would load one more library
        env.downward_lib = _libraries.pop() if _libraries else fast_downward.load_lib()
        self._env = env
        self._hand_on_library = weakref.finalize(self, _libraries.append, env.downward_lib)
        self._hand_on_library.atexit = False

    def start(self, game: Mapping[str, Any]) -> State:
        """Starts a game from its beginning; about a second.

        Args:
            game: what is in a ``game.tw-pddl``.
        """
        env = self._open_env()
        with _process_kept():
            env.load(game)
            names = entity_names(env._entity_infos)
            for entity, info in env._entity_infos.items():
                info.name = names[entity]
            return _state(env.reset())

    def step(self, command: str) -> State:
        """Says a command to the world."""
        state, _, _ = self._open_env().step(command)
        return _state(state)

    def close(self) -> None:
        """Hands the planner library on; the engine cannot be used afterwards."""
        self._hand_on_library()
        # by now the library may be another engine's: nothing here may reach it any more
        self._env = None

    def _open_env(self) -> Any:
        if self._env is None:
            raise RuntimeError("This engine is closed; make another one.")
        return self._env


def _state(state: Any) -> State:
    return State(state["feedback"], state["admissible_commands"], bool(state["won"]))


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Puts back what `fast_downward.pddl2sas` replaces for good when it fails, and ``sys.argv`` always."""
    argv, stdout = sys.argv, sys.stdout
    try:
        yield
    finally:
        sys.argv, sys.stdout = argv, stdout
