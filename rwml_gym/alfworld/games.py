"""Where ALFWorld games come from, official files or the generator; a source lists, draws and loads them by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, overload

import numpy as np

from rwml_gym.alfworld import package
from rwml_gym.alfworld.game import TASK_TYPES, Game
from rwml_gym.alfworld.generator import generate, verify
from rwml_gym.errors import GameNotFoundError, InvalidConfigError, InvalidGameError

__all__ = [
    "GENERATED_SPLITS",
    "GRAMMARS",
    "OFFICIAL_SPLITS",
    "TASK_TYPES",
    "Game",
    "GameSource",
    "GeneratedGames",
    "OfficialGames",
    "make_games",
]

OFFICIAL_SPLITS = ("train", "valid_seen", "valid_unseen", "valid_train")
"""Folders of official games; ``valid_train`` is a part of ``train``."""

GENERATED_SPLITS = ("generated", "generated_held_out")
"""Games made on the fly, for training and for evaluation. No game of one is a game of the other."""

GRAMMARS = ("installed", "original")
"""Official games in the words of the installed alfworld (``move X to Y``), or as the file has them."""

GAME_FILE = "game.tw-pddl"
SEEDS = 2**31


class GameSource(Protocol):
    """What the environment asks of a source of games."""

    @property
    def names(self) -> Sequence[str]:
        """The names of all its games, always in the same order."""
        ...

    def sample(self, rng: np.random.Generator) -> Game:
        """Draws a game."""
        ...

    def load(self, name: str) -> Game:
        """Loads the game of a name."""
        ...


def make_games(
    split: str, task_types: Sequence[str] | None = None, grammar: str = "installed", data: str | Path | None = None
) -> GameSource:
    """Makes the source of a split, official or generated.

    Args:
        split: one of `OFFICIAL_SPLITS` or `GENERATED_SPLITS`.
        task_types: some of `TASK_TYPES`; all of them by default.
        grammar: one of `GRAMMARS`; generated games are always in the installed grammar.
        data: folder of official games; see `OfficialGames`.
    """
    _check("grammar", grammar, GRAMMARS)
    if split not in GENERATED_SPLITS:
        return OfficialGames(data, split, task_types, grammar)
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
    return GeneratedGames(split, task_types)


class GeneratedGames:
    """Games made on the fly from their names: ``<split>/<task type>/<seed>``.

    A name is all it takes to make its game again, in any process. The generator is seeded with the whole name, so the
    two splits, and different task types, never share a game. Their plans win in every case that was tried (the slow
    tests play hundreds); ``verify=True`` plays the plan of each game at load, for about half a second each.

    Args:
        split: one of `GENERATED_SPLITS`.
        task_types: some of `TASK_TYPES`; all of them by default.
        verify: whether to prove each game solvable by playing its plan before it is handed out.

    Example:
        >>> games = GeneratedGames("generated_held_out", ["pick_two_obj_and_place"])
        >>> games.load(games.names[3]).name
        'generated_held_out/pick_two_obj_and_place/3'
    """

    def __init__(
        self, split: str = "generated", task_types: Sequence[str] | None = None, *, verify: bool = False
    ) -> None:
        _check("split", split, GENERATED_SPLITS)
        self.split = split
        self.task_types = _check_task_types(task_types)
        self.verify = verify
        package.require_engine()

    @property
    def names(self) -> Sequence[str]:
        """All the names, some billions, in the order of their seeds; task types take turns, so a slice has each."""
        return GeneratedNames(self.split, self.task_types)

    def sample(self, rng: np.random.Generator) -> Game:
        """Makes the game of a seed drawn from ``rng``; task types are equally likely."""
        names = self.names
        return self.load(names[int(rng.integers(len(names)))])

    def load(self, name: str) -> Game:
        """Makes the game of a name.

        Raises:
            GameNotFoundError: the name is none of this source.
            InvalidGameError: with ``verify=True``, the plan of the game does not win.
        """
        if name not in self.names:
            raise GameNotFoundError(
                f"No game {name!r} in split {self.split!r}; expected {self.split}/<task type>/<seed> with a task type "
                f"of {', '.join(self.task_types)} and a seed in [0, {SEEDS})."
            )
        game = generate(name, task_type=name.split("/")[1])
        if self.verify:
            verify(game)
        return game


class GeneratedNames(Sequence[str]):
    """The names of a generated split, computed rather than stored."""

    def __init__(self, split: str, task_types: tuple[str, ...]) -> None:
        self.split = split
        self.task_types = task_types

    def __len__(self) -> int:
        return SEEDS * len(self.task_types)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        seed, kind = divmod(range(len(self))[index], len(self.task_types))
        return f"{self.split}/{self.task_types[kind]}/{seed}"

    def __contains__(self, name: object) -> bool:
        match = re.fullmatch(r"(\w+)/(\w+)/(0|[1-9][0-9]*)", name, re.ASCII) if isinstance(name, str) else None
        if match is None:
            return False
        return match[1] == self.split and match[2] in self.task_types and int(match[3]) < SEEDS


class OfficialGames:
    """The games of the ALFRED rooms that ``alfworld-download`` fetches, one folder each.

    Only paths are listed at construction. As in alfworld, movable-receptacle and slicing tasks are left out, and
    unsolvable games are never drawn; `load` refuses them.

    Args:
        data: folder that holds the split, or a ``json_2.1.x`` folder that holds it; by default the environment
            variable ``ALFWORLD_DATA``, or else ``~/.cache/alfworld``, where ``alfworld-download`` puts them.
        split: one of `OFFICIAL_SPLITS`.
        task_types: some of `TASK_TYPES`; all of them by default.
        grammar: ``"installed"`` rewrites older files to the domain and words of the installed alfworld and keeps their
            goal sentence; ``"original"`` plays the file as it is.
    """

    def __init__(
        self,
        data: str | Path | None = None,
        split: str = "valid_seen",
        task_types: Sequence[str] | None = None,
        grammar: str = "installed",
    ) -> None:
        _check("grammar", grammar, GRAMMARS)
        self.task_types = _check_task_types(task_types)
        package.require_engine()
        self.split = split
        self.grammar = grammar
        self.folder = _find_split(data, split)
        self._files = dict(self._list())
        self._unsolvable: set[str] = set()
        if not self._files:
            raise GameNotFoundError(
                f"No {GAME_FILE} of {', '.join(self.task_types)} under {self.folder}; run `alfworld-download` again, "
                'ask for other `task_types`, or use split="generated", which needs no data.'
            )

    @property
    def names(self) -> Sequence[str]:
        """The listed games, sorted: ``<split>/<task folder>/<trial>``. Files are not opened, so a few may be bad."""
        return list(self._files)

    def sample(self, rng: np.random.Generator) -> Game:
        """Draws a solvable game; all of them are equally likely.

        Raises:
            InvalidGameError: a drawn file is corrupt, or no game is solvable.
        """
        names = list(self._files)
        while len(self._unsolvable) < len(names):
            name = names[int(rng.integers(len(names)))]
            if name not in self._unsolvable:
                content = self._read(name)
                if content.get("solvable"):
                    return self._game(name, content)
                self._unsolvable.add(name)
        raise InvalidGameError(f"No game under {self.folder} is marked as solvable; run `alfworld-download` again.")

    def load(self, name: str) -> Game:
        """Loads the game of a name.

        Raises:
            GameNotFoundError: the name is none of this source.
            InvalidGameError: the file is corrupt, or its game cannot be solved.
        """
        if name not in self._files:
            raise GameNotFoundError(
                f"No game {name!r} under {self.folder}; expected one of {len(self._files)} names such as "
                f"{next(iter(self._files))!r}. `names` lists them."
            )
        content = self._read(name)
        if not content.get("solvable"):
            raise InvalidGameError(f"{self._files[name]} is not marked as solvable; choose another of `names`.")
        return self._game(name, content)

    def _list(self) -> Iterator[tuple[str, Path]]:
        files = self.folder.glob(f"**/{GAME_FILE}")
        for name, file in sorted((f"{self.split}/{f.parent.relative_to(self.folder).as_posix()}", f) for f in files):
            if "movable" not in name and "Sliced" not in name and _task_type(file) in self.task_types:
                yield name, file

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._files[name].read_text(encoding="utf-8"))
            texts = [content[key] for key in ("pddl_domain", "grammar", "pddl_problem")]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("not text")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _corrupt(self._files[name], f"{type(error).__name__}: {error}") from error
        return cast("dict[str, Any]", content)

    def _game(self, name: str, content: dict[str, Any]) -> Game:
        file = self._files[name]
        # Both releases unpack into a folder named json_2.1.1; only their commands tell them apart.
        release = "json_2.1.2" if "move {o} to {r}" in content["grammar"] else "json_2.1.1"
        goal = re.search(r'"rhs":\s*"Your task is to: ((?:[^"\\]|\\.)*?)\.?\s*"', content["grammar"])
        if goal is None:
            raise _corrupt(file, "no goal sentence in its grammar")
        if self.grammar == "installed":
            content, rewritten = rewrite(content, goal[1])
            if rewritten:
                release += f", rewritten to alfworld {package.version()}"
        plan = content.get("walkthrough")
        return Game(
            name=name,
            task_type=_task_type(file),
            task=json.loads(f'"{goal[1]}"'),
            data=content,
            plan=tuple(plan) if plan else None,
            data_version=release,
            path=str(file),
        )


def rewrite(content: dict[str, Any], goal: str) -> tuple[dict[str, Any], bool]:
    """Puts a game into the domain and the words of the installed alfworld, with its own goal sentence.

    Returns:
        The content, and whether anything but white space had to change. What changes also loses its walkthrough, which
        is in the old words.
    """
    grammar = package.grammar().replace("UNKNOWN GOAL", goal)
    if content["pddl_domain"] == package.domain() and content["grammar"] == grammar:
        return content, False
    return {**content, "pddl_domain": package.domain(), "grammar": grammar, "walkthrough": None}, True


def _corrupt(file: Path, reason: str) -> InvalidGameError:
    return InvalidGameError(f"{file} is not a readable ALFWorld game ({reason}); run `alfworld-download --force`.")


def _task_type(file: Path) -> str:
    """The task type of a game file: its task folder starts with it, else the trajectory beside it says it."""
    kind = file.parent.parent.name.split("-")[0]
    if kind in TASK_TYPES:
        return kind
    trajectory = file.with_name("traj_data.json")
    if not trajectory.exists():
        return ""
    try:
        return str(json.loads(trajectory.read_text(encoding="utf-8"))["task_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(trajectory, f"{type(error).__name__}: {error}") from error


def _find_split(data: str | Path | None, split: str) -> Path:
    """The folder of a split, in ``data`` itself or in the newest ``json_*`` folder inside it."""
    root = Path(data or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld").expanduser()
    homes = [root, *sorted(root.glob("json_*"), reverse=True)]
    for home in homes:
        if split in OFFICIAL_SPLITS and (home / split).is_dir():
            return home / split
    present = sorted({folder.name for home in homes if home.is_dir() for folder in home.iterdir() if folder.is_dir()})
    found = f"found there: {', '.join(present) or 'nothing'}"
    if split not in OFFICIAL_SPLITS:
        known = ", ".join((*OFFICIAL_SPLITS, *GENERATED_SPLITS))
        raise InvalidConfigError(f"Unknown split {split!r}; expected one of {known}. Data folder {root}, {found}.")
    raise GameNotFoundError(
        f"No games of split {split!r} under {root} ({found}). Run `alfworld-download`, set the environment variable "
        'ALFWORLD_DATA or the argument `data=` to the folder that holds them, or use split="generated", '
        "which needs no data."
    )


def _check(argument: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidConfigError(f"Unknown {argument} {value!r}; expected one of {', '.join(known)}.")


def _check_task_types(task_types: Sequence[str] | None) -> tuple[str, ...]:
    """The chosen task types, in alfworld's order whatever the order they were given in."""
    if task_types is None:
        return TASK_TYPES
    if isinstance(task_types, str):
        raise InvalidConfigError(
            f"Expected a list of task types, actual value: {task_types!r}; write [{task_types!r}]."
        )
    chosen = tuple(task_types)
    for kind in chosen:
        _check("task type", kind, TASK_TYPES)
    if not chosen:
        raise InvalidConfigError(f"`task_types` is empty; name some of {', '.join(TASK_TYPES)}, or leave it out.")
    return tuple(kind for kind in TASK_TYPES if kind in chosen)
