"""Generated games as a source: the games are listed, sampled and loaded by names that define them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np

from rwml_gym.checks import one_of, plain
from rwml_gym.envs.alfworld.engine.game import ROOMS, TASK_TYPES, Game
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.arguments import GENERATED_SPLITS, GRAMMARS, choose
from rwml_gym.envs.alfworld.games.generator import generate, verify
from rwml_gym.envs.alfworld.games.goals import Range, difficulties, rooms_of
from rwml_gym.envs.alfworld.games.wording import in_original_words, wording_of
from rwml_gym.errors import GameNotFoundError, InvalidConfigError

__all__ = ["GeneratedGames"]

SEEDS = 2**31
NUMBER = "0|[1-9][0-9]{0,9}"


class GeneratedGames:
    """Games generated on the fly from their names.

    A name defines its game in every process: ``<split>/<task type>/<seed>``, or
    ``<split>/<task type>/<room>/<fewest>-<most>/<seed>`` if the source was restricted to rooms, to a difficulty, or to
    both. The whole name is the seed of the generator, so the two splits, and different restrictions, never share a
    game. A source loads every name of its split that meets its own restrictions; without restrictions, every name.

    The plan of every tested game wins (the slow tests play hundreds). With ``verify=True``, `load` plays each plan.

    Args:
        split: One of `GENERATED_SPLITS`.
        task_types: Some of `TASK_TYPES`; all that exist in the rooms by default.
        rooms: Some of `ROOMS`; all by default, as often as in official games.
        difficulty: Number of receptacles to search, or its range: those in the room in which an object of the target's
            type may be at the start. Any by default (1 to 45).
        grammar: One of `GRAMMARS`. A game's name does not say its grammar; ``"mixed"`` chooses by the name's hash.
        verify: Whether to check that each game is solvable by playing its plan.

    Raises:
        InvalidConfigError: If an argument is unknown, or there are no such games.

    Example:
        >>> games = GeneratedGames("generated_held_out", ["pick_two_obj_and_place"])
        >>> games.load(games.names[3]).name
        'generated_held_out/pick_two_obj_and_place/3'
        >>> GeneratedGames(rooms=["bathroom"], difficulty=(5, 10)).names[1]
        'generated/pick_clean_then_place_in_recep/bathroom/5-10/0'
    """

    def __init__(
        self,
        split: str = "generated",
        task_types: Sequence[str] | None = None,
        rooms: Sequence[str] | None = None,
        difficulty: int | Sequence[int] | None = None,
        grammar: str = "installed",
        *,
        verify: bool = False,
    ) -> None:
        one_of("split", split, GENERATED_SPLITS)
        one_of("grammar", grammar, GRAMMARS)
        self.split, self.grammar = split, grammar
        self.task_types = choose("task_types", task_types, TASK_TYPES)
        self.rooms = None if rooms is None else choose("rooms", rooms, ROOMS)
        self.difficulty = _check_difficulty(difficulty)
        self.verify = verify
        package.require_engine()
        if task_types is None:
            self.task_types = tuple(kind for kind in TASK_TYPES if self._rooms_of(kind)) or TASK_TYPES
        self._check_that_games_exist()

    @property
    def names(self) -> Sequence[str]:
        """All names, some billions, in the order of their seeds; task types and rooms alternate."""
        return GeneratedNames(self.split, {kind: self._requests(kind) for kind in self.task_types})

    def sample(self, rng: np.random.Generator) -> Game:
        """Generate the game of a seed drawn from ``rng``; task types are equally likely."""
        names = self.names
        return self.load(names[int(rng.integers(len(names)))])

    def load(self, name: str) -> Game:
        """Generate the game of a name (`GameSource.load`); with ``verify=True``, reject a plan that does not win."""
        wanted = _parse_name(name, self.split)
        if wanted is None or not self._includes(*wanted):
            raise GameNotFoundError(
                f"Expected a game name {self._pattern()} of split {self.split!r}, actual: {name!r}. Use a task type of "
                f"{', '.join(self.task_types)} and a seed in [0, {SEEDS})."
            )
        game = generate(name, *wanted)
        if wording_of(name, self.grammar) == "original":
            game = in_original_words(game)
        if self.verify:
            verify(game)
        return game

    def _rooms_of(self, task_type: str, difficulty: bool = True) -> list[str]:
        """Return the rooms with games of a task type, of the requested difficulty or of any."""
        wanted = self.difficulty if difficulty else None
        return [room for room in self.rooms or ROOMS if _exists(task_type, room, wanted)]

    def _requests(self, task_type: str) -> list[str]:
        """Return the middle parts of the names of a task type, one per requested room."""
        rooms = [""] if self.rooms is None else [f"/{room}" for room in self._rooms_of(task_type)]
        return [room + self._range("/") for room in rooms]

    def _range(self, separator: str = "") -> str:
        return "" if self.difficulty is None else f"{separator}{self.difficulty[0]}-{self.difficulty[1]}"

    def _check_that_games_exist(self) -> None:
        for task_type in self.task_types:
            rooms = self._rooms_of(task_type, difficulty=False)
            if not rooms:
                raise InvalidConfigError(
                    f"Expected a room of {', '.join(rooms_of(task_type))} for {task_type}, actual: "
                    f"rooms={list(self.rooms or ())}. Request one of these rooms, or leave the task type out."
                )
            if not self._rooms_of(task_type):
                known = frozenset[int]().union(*(difficulties(task_type, room) for room in rooms))
                raise InvalidConfigError(
                    f"Expected a difficulty of {min(known)} to {max(known)} for {task_type} in {', '.join(rooms)}, "
                    f"actual: {_in_words(self.difficulty)} to search."
                )
        for room in self.rooms or ():
            if not any(room in self._rooms_of(task_type) for task_type in self.task_types):
                raise InvalidConfigError(
                    f"Expected a game of {' or '.join(self.task_types)} in a {room}, actual: none"
                    f"{self._range(' with difficulty ')}. Request another task type, or leave the room out."
                )

    def _includes(self, task_type: str, room: str | None, difficulty: Range | None) -> bool:
        """Return whether a request is possible and at least as narrow as that of this source."""
        if task_type not in self.task_types or (self.rooms is not None and room not in self.rooms):
            return False
        if self.difficulty is not None:
            fewest, most = self.difficulty
            if difficulty is None or not fewest <= difficulty[0] <= difficulty[1] <= most:
                return False
        return any(_exists(task_type, where, difficulty) for where in ([room] if room else ROOMS))

    def _pattern(self) -> str:
        room = "" if self.rooms is None else "/<room>"
        return f"{self.split}/<task type>{room}{self._range('/')}/<seed>"


class GeneratedNames(Sequence[str]):
    """The computed names of a generated split; `requests` has the parts between task type and seed, by task type."""

    def __init__(self, split: str, requests: Mapping[str, Sequence[str]]) -> None:
        self.split = split
        self.requests = {task_type: list(middle) for task_type, middle in requests.items()}

    def __len__(self) -> int:
        return SEEDS * len(self.requests)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        seed, kind = divmod(range(len(self))[index], len(self.requests))
        task_type, middle = list(self.requests.items())[kind]
        return f"{self.split}/{task_type}{middle[seed % len(middle)]}/{seed}"

    def __contains__(self, name: object) -> bool:
        wanted = _parse_name(name, self.split)
        if wanted is None or wanted[0] not in self.requests:
            return False
        seed = int(str(name).rsplit("/", 1)[1])
        return name == self[seed * len(self.requests) + list(self.requests).index(wanted[0])]


def _in_words(difficulty: Range | None) -> str:
    fewest, most = difficulty or (1, 1)
    return f"{fewest} receptacles" if fewest == most else f"{fewest} to {most} receptacles"


def _exists(task_type: str, room: str, difficulty: Range | None) -> bool:
    """Return whether there are games of a task type in a type of room, within a range of difficulties."""
    if room not in rooms_of(task_type):
        return False
    return difficulty is None or any(difficulty[0] <= n <= difficulty[1] for n in difficulties(task_type, room))


def _parse_name(name: object, split: str) -> tuple[str, str | None, Range | None] | None:
    """Return the task type, room and difficulty in the name of a generated game; None if it is not such a name."""
    task_types, rooms = "|".join(TASK_TYPES), "|".join(ROOMS)
    pattern = rf"{split}/({task_types})(?:/({rooms}))?(?:/({NUMBER})-({NUMBER}))?/({NUMBER})"
    match = re.fullmatch(pattern, name, re.ASCII) if isinstance(name, str) else None
    if match is None or int(match[5]) >= SEEDS:
        return None
    return match[1], match[2], None if match[3] is None else (int(match[3]), int(match[4]))


def _check_difficulty(difficulty: int | Sequence[int] | None) -> Range | None:
    """Convert a difficulty to the fewest and the most receptacles to search."""
    difficulty = plain(difficulty)
    match (difficulty, difficulty) if type(difficulty) is int else difficulty:
        case None:
            return None
        case (int(fewest), int(most)) if 1 <= fewest <= most:
            return int(fewest), int(most)
    raise InvalidConfigError(
        "Expected difficulty to be a number of receptacles to search, at least 1, or the fewest and the most such as "
        f"(5, 15), actual: {difficulty!r}."
    )
