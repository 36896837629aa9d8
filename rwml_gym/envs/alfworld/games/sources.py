"""Sources of ALFWorld games, official files or the generator; a source lists, samples and loads games by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rwml_gym.checks import one_of
from rwml_gym.envs.alfworld.engine.game import ROOMS, TASK_TYPES, Game
from rwml_gym.envs.alfworld.games.arguments import GENERATED_SPLITS, GRAMMARS, OFFICIAL_SPLITS
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
    """Make the source of a split, official or generated.

    Args:
        split: One of `OFFICIAL_SPLITS` or `GENERATED_SPLITS`.
        task_types: Some of `TASK_TYPES`; all by default.
        grammar: One of `GRAMMARS`.
        data: Folder of official games, or of generated ones that were exported; see `OfficialGames`.
        rooms: Some of `ROOMS`; all by default.
        difficulty: Number of receptacles to search; see `GeneratedGames`.
    """
    one_of("grammar", grammar, GRAMMARS)
    if split not in GENERATED_SPLITS or data is not None:
        if difficulty is not None:
            raise InvalidConfigError(
                f"Expected no `difficulty` for games from files, actual: {difficulty!r}. "
                f"Remove `difficulty`, or choose a split of {', '.join(GENERATED_SPLITS)} without `data`."
            )
        return OfficialGames(data, split, task_types, grammar, rooms)
    return GeneratedGames(split, task_types, rooms, difficulty, grammar)
