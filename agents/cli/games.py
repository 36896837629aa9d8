"""The `rwml-gym games` commands: which games there are, and games as folders for alfworld."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rwml_gym.envs.alfworld.games.arguments import GENERATED_SPLITS
from rwml_gym.envs.alfworld.games.export import export_games
from rwml_gym.envs.alfworld.games.sources import make_games
from rwml_gym.envs.base import GameSource
from rwml_gym.errors import InvalidConfigError
from rwml_gym.terminal import say

__all__ = ["export", "list_names"]

DEFAULT_NUMBER = 100
"""Number of generated games where none is given."""


@dataclass(frozen=True)
class Selection:
    """Which games."""

    split: str = "generated"
    """generated, generated_held_out, or an official one: train, valid_seen, valid_unseen, valid_train."""
    number: int | None = None
    """How many; by default 100 generated ones, or all official ones."""
    first: int = 0
    """How many to leave out before; the names of a split always come in the same order."""
    task_types: tuple[str, ...] | None = None
    """Some of the six task types; all of them by default."""
    rooms: tuple[str, ...] | None = None
    """Some of kitchen, living_room, bedroom, bathroom; all of them by default."""
    difficulty: tuple[int, ...] | None = None
    """How many receptacles one has to search: a number, or the fewest and the most (generated games only)."""
    grammar: str = "installed"
    """installed, or original: the words an official file was published with."""
    data: Path | None = None
    """Folder of official games; the environment variable ALFWORLD_DATA by default."""

    def names(self) -> tuple[GameSource, list[str]]:
        """Return the source and the chosen names."""
        number = self.number
        if number is None and self.split in GENERATED_SPLITS:
            number = DEFAULT_NUMBER
        if self.first < 0 or (number is not None and number < 1):
            raise InvalidConfigError(
                f"Expected --first of at least 0 and --number of at least 1, actual: {self.first} and {number}."
            )
        difficulty = self.difficulty[0] if self.difficulty and len(self.difficulty) == 1 else self.difficulty
        source = make_games(self.split, self.task_types, self.grammar, self.data, self.rooms, difficulty)
        chosen = list(source.names[self.first : None if number is None else self.first + number])
        if not chosen:
            raise InvalidConfigError(
                f"Expected --first below {len(source.names)}, the number of games, actual: {self.first}. Lower it."
            )
        return source, chosen


@dataclass(frozen=True)
class Export(Selection):
    """Writes games as folders that alfworld finds and plays: OUT/SPLIT/TASK/TRIAL."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = tyro.MISSING
    """Where to."""
    overwrite: bool = False
    """Add to a split that is there already, and replace the same games in it."""


@dataclass(frozen=True)
class List(Selection):
    """Prints the names of games, one a line; `env.reset(options={"game": NAME})` plays one."""


def export(words: list[str]) -> None:
    """Run `rwml-gym games export` with the words after it."""
    command = tyro.cli(Export, args=words, prog="rwml-gym games export")
    source, names = command.names()
    export_games(map(source.load, names), command.out, command.overwrite)
    say(f"{len(names)} games in {command.out / command.split}")


def list_names(words: list[str]) -> None:
    """Run `rwml-gym games list` with the words after it."""
    _, names = tyro.cli(List, args=words, prog="rwml-gym games list").names()
    say("\n".join(names))
