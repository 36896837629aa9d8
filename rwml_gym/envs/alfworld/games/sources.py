"""Where ALFWorld games come from, official files or the generator; a source lists, draws and loads them by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rwml_gym.envs.alfworld.engine.game import ROOMS, TASK_TYPES, Game
from rwml_gym.envs.alfworld.games.arguments import GENERATED_SPLITS, GRAMMARS, OFFICIAL_SPLITS, check
from rwml_gym.envs.alfworld.games.generated import GeneratedGames
from rwml_gym.envs.alfworld.games.official import OfficialGames
from rwml_gym.envs.base import GameSource
from rwml_gym.errors import InvalidConfigError

__all__ = [
    "GENERATED_SPLITS",
    "GRAMMARS",
    "OFFICIAL_SPLITS",
    "ROOMS",
    "TASK_TYPES",
    "Game",
    "GeneratedGames",
    "OfficialGames",
    "make_games",
]


def make_games(
    split: str,
    task_types: Sequence[str] | None = None,
    grammar: str = "installed",
    data: str | Path | None = None,
    rooms: Sequence[str] | None = None,
    difficulty: int | Sequence[int] | None = None,
) -> GameSource[Game]:
    """Makes the source of a split, official or generated.

    Args:
        split: one of `OFFICIAL_SPLITS` or `GENERATED_SPLITS`.
        task_types: some of `TASK_TYPES`; all of them by default.
        grammar: one of `GRAMMARS`; generated games are always in the installed grammar.
        data: folder of official games; see `OfficialGames`.
        rooms: some of `ROOMS`; all of them by default.
        difficulty: how many receptacles one has to search; see `GeneratedGames`.
    """
    check("grammar", grammar, GRAMMARS)
    if split not in GENERATED_SPLITS:
        if difficulty is not None:
            raise InvalidConfigError(
                f"Only generated games come with a difficulty to choose, actual difficulty: {difficulty!r} for split "
                f"{split!r}; leave `difficulty` out, or choose a split of {', '.join(GENERATED_SPLITS)}."
            )
        return OfficialGames(data, split, task_types, grammar, rooms)
    if grammar != "installed":
        raise InvalidConfigError(
            f"Split {split!r} exists only in the installed grammar, actual grammar: {grammar!r}; "
            'leave `grammar` out, or choose an official split to play with grammar="original".'
        )
    if data is not None:
        raise InvalidConfigError(
            f"Split {split!r} reads no data, actual data: {os.fspath(data)!r}; leave `data` out, "
            f"or choose an official split ({', '.join(OFFICIAL_SPLITS)})."
        )
    return GeneratedGames(split, task_types, rooms, difficulty)
