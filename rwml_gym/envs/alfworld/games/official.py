"""Official games as a source: the games in the folders of alfworld-download are listed, sampled and loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rwml_gym.checks import one_of
from rwml_gym.envs.alfworld.engine.game import ROOMS, TASK_TYPES, Game, Goal, room_of
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.arguments import GENERATED_SPLITS, GRAMMARS, OFFICIAL_SPLITS, choose
from rwml_gym.envs.alfworld.games.wording import wording_of
from rwml_gym.errors import GameNotFoundError, InvalidConfigError, InvalidGameError, UnsolvableGameError
from rwml_gym.files import read_regular
from rwml_gym.text import shown as shown_text

__all__ = ["GAME_FILE", "OfficialGames"]

GAME_FILE = "game.tw-pddl"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a file of unknown content may raise."""
MOST_NAMED = 5
"""Number of games that a warning names."""
RELEASES = {"5562459cb7c8": "json_2.1.1", "4f9d406fe880": "json_2.1.2"}
"""Releases of alfworld-download by a hash of the domain and the grammar of their games."""


class OfficialGames:
    """The games of the ALFRED rooms from ``alfworld-download``, one folder each.

    The constructor only lists paths. As in alfworld, movable-receptacle and slicing tasks are left out. Unsolvable
    games are never sampled, and `load` rejects them.

    Args:
        data: Folder with the split, or with a ``json_2.1.x`` folder that has it. By default the environment variable
            ``ALFWORLD_DATA``, or else ``~/.cache/alfworld``, the target of ``alfworld-download``.
        split: One of `OFFICIAL_SPLITS`, or of `GENERATED_SPLITS` for games from ``rwml-gym games export``.
        task_types: Some of `TASK_TYPES`; all by default.
        grammar: ``"installed"`` rewrites older files to the installed alfworld; ``"original"`` plays them unchanged;
            ``"mixed"`` does each with half of the games, see `wording.wording_of`.
        rooms: Some of `ROOMS`; all by default.
    """

    def __init__(
        self,
        data: str | Path | None = None,
        split: str = "valid_seen",
        task_types: Sequence[str] | None = None,
        grammar: str = "installed",
        rooms: Sequence[str] | None = None,
    ) -> None:
        one_of("grammar", grammar, GRAMMARS)
        self.task_types = choose("task_types", task_types, TASK_TYPES)
        self.rooms = choose("rooms", rooms, ROOMS)
        package.require_engine()
        self.split = split
        self.grammar = grammar
        self.folder = _find_split(data, split)
        self._files = dict(self._list())
        self._unsolvable: set[str] = set()
        if not self._files:
            raise GameNotFoundError(
                f"Expected a {GAME_FILE} of {', '.join(self.task_types)} in {', '.join(self.rooms)}, actual: none "
                f"under {self.folder}. Run `alfworld-download` again, request other `task_types` or `rooms`, or use "
                'split="generated", which needs no data.'
            )

    @property
    def names(self) -> Sequence[str]:
        """The listed games, sorted: ``<split>/<task folder>/<trial>``. A few may be bad, as files are not opened."""
        return list(self._files)

    def sample(self, rng: np.random.Generator) -> Game:
        """Sample a solvable game uniformly.

        Raises:
            InvalidGameError: If a sampled file is corrupt, or no game is solvable.
        """
        names = list(self._files)
        while len(self._unsolvable) < len(names):
            name = names[int(rng.integers(len(names)))]
            if name not in self._unsolvable:
                content = self._read(name)
                if content.get("solvable"):
                    return self._game(name, content)
                self._unsolvable.add(name)
        raise UnsolvableGameError(f"Expected a solvable game, actual: none in {self.folder}. Run `alfworld-download`.")

    def load(self, name: str) -> Game:
        """Load the game of a name (`GameSource.load`), unless its file is corrupt or it cannot be solved.

        Args:
            name: One of `names`, or the path of such a game's file or folder.
        """
        if not isinstance(name, str) or name not in self._files:
            name = self._name_of(name)
        content = self._read(name)
        if not content.get("solvable"):
            raise UnsolvableGameError(
                f"Expected a solvable game, actual: {self._files[name]}. Choose another of `names`."
            )
        return self._game(name, content)

    def _name_of(self, path: str) -> str:
        """Return the name of the game in a file or folder; relative paths start at the split or at its parents."""
        if isinstance(path, str) and "\0" not in path:
            wanted = path.removesuffix(GAME_FILE)
            folders = {os.path.realpath(file.parent): name for name, file in self._files.items()}
            for home in (self.folder, *self.folder.resolve().parents[:2]):
                if (place := os.path.realpath(home / wanted)) in folders:
                    return folders[place]
        raise GameNotFoundError(
            f"Expected one of the {len(self._files)} games under {self.folder} such as "
            f"{next(iter(self._files))!r}, actual: {path!r}. See `names` for all."
        )

    def _list(self) -> Iterator[tuple[str, Path]]:
        files = self.folder.glob(f"**/{GAME_FILE}")
        odd = []
        for name, file in sorted((f"{self.split}/{f.parent.relative_to(self.folder).as_posix()}", f) for f in files):
            if "movable" in name or "Sliced" in name:
                continue
            try:
                task_type, _, floor_plan = _read_folder(file)
            except InvalidGameError as error:
                odd.append(str(error))
                continue
            room = None if floor_plan is None else room_of(floor_plan)
            if task_type in self.task_types and (self.rooms == ROOMS or room in self.rooms):
                yield name, file
        if odd:
            shown = "\n".join(f"- {shown_text(reason, 400)}" for reason in odd[:MOST_NAMED])
            warnings.warn(f"Left out {len(odd)} games under {self.folder}:\n{shown}", stacklevel=2)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(read_regular(self._files[name]))
            texts = [content[key] for key in ("pddl_domain", "grammar", "pddl_problem")]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("not text")
            plan = content.get("walkthrough") or []
            if not (isinstance(plan, list) and all(isinstance(action, str) for action in plan)):
                raise TypeError("a walkthrough that is no list of actions")
        except UNREADABLE as error:
            raise _corrupt(self._files[name], f"{type(error).__name__}: {error}") from error
        return content

    def _game(self, name: str, content: dict[str, Any]) -> Game:
        file = self._files[name]
        goal = re.search(r'"rhs":\s*"Your task is to: ((?:[^"\\]|\\.)*?)\.?\s*"', content["grammar"])
        if goal is None:
            raise _corrupt(file, "no goal sentence in its grammar")
        try:
            task, release = json.loads(f'"{goal[1]}"'), _release(content, goal[1])
            task.encode()  # half a character would end in an error wherever the task is written
        except UNREADABLE as error:
            raise _corrupt(file, f"{type(error).__name__}: {error}") from error
        if wording_of(name, self.grammar) == "installed":
            content, rewritten = rewrite(content, goal[1])
            if rewritten:
                release += f", rewritten to alfworld {package.version()}"
        plan = content.get("walkthrough")
        task_type, wanted, floor_plan = _read_folder(file)
        return Game(
            name=name,
            task_type=task_type,
            task=task,
            data=content,
            plan=tuple(plan) if plan else None,
            data_version=release,
            path=str(file),
            goal=wanted,
            floor_plan=floor_plan,
        )


def rewrite(content: dict[str, Any], goal: str) -> tuple[dict[str, Any], bool]:
    """Rewrite a game in the domain and the words of the installed alfworld; return it, and whether it changed.

    White space does not count. A changed game keeps its goal sentence and loses its walkthrough in the old words.
    """
    grammar = package.grammar().replace("UNKNOWN GOAL", goal)
    if content["pddl_domain"] == package.domain() and content["grammar"] == grammar:
        return content, False
    return {**content, "pddl_domain": package.domain(), "grammar": grammar, "walkthrough": None}, True


def _release(content: dict[str, Any], goal: str) -> str:
    """Name the release of a game by its domain and its words: several unpack into a folder named json_2.1.1."""
    text = " ".join(f"{content['pddl_domain']} {content['grammar'].replace(goal, 'UNKNOWN GOAL')}".split())
    signature = hashlib.sha256(text.encode()).hexdigest()[:12]
    return RELEASES.get(signature, f"unknown release ({signature})")


def _corrupt(file: Path, reason: str) -> InvalidGameError:
    return InvalidGameError(
        f"Expected a readable game in {file}, actual: {reason}. Run `alfworld-download --force` if it is official, or "
        "`rwml-gym games export --overwrite` if it was exported."
    )


def _read_folder(file: Path) -> tuple[str, Goal | None, int | None]:
    """Return the task type, the goal and the floor plan of a game file.

    They are in the name of its task folder, such as ``pick_and_place_simple-Mug-None-Shelf-3``, or else in the
    trajectory beside the file. Without either, they are unknown.
    """
    task_type, *rest = file.parent.parent.name.split("-")
    trajectory = file.with_name("traj_data.json")
    try:
        if task_type in TASK_TYPES and len(rest) == 4 and rest[3].isdecimal():
            target, _, place, floor_plan = rest
            return task_type, _goal(task_type, target, place), _floor_plan(int(floor_plan))
        if not trajectory.exists():
            return task_type if task_type in TASK_TYPES else "", None, None
        content = json.loads(read_regular(trajectory))
        task_type, wanted, floor_plan = content["task_type"], content["pddl_params"], content["scene"]["scene_num"]
        place = wanted["parent_target"] or wanted["toggle_target"]
        return str(task_type), _goal(task_type, wanted["object_target"], place), _floor_plan(int(floor_plan))
    except UNREADABLE as error:
        raise _corrupt(file.parent, f"{type(error).__name__}: {error}") from error


def _floor_plan(number: int) -> int:
    if not 0 < number < 100 * (len(ROOMS) + 1):
        raise ValueError(f"floor plan {number}, where AI2-THOR has 1 to 430")
    return number


def _goal(task_type: str, target: str, place: str) -> Goal:
    if not (isinstance(target, str) and isinstance(place, str)):
        raise TypeError(f"a goal of {target!r} and {place!r}, which are no types of object")
    if task_type == "look_at_obj_in_light":
        return Goal(task_type, target, lamp=place)
    return Goal(task_type, target, place)


def _find_split(data: str | Path | None, split: str) -> Path:
    """Return the folder of a split, in ``data`` itself or in the newest ``json_*`` folder inside it."""
    if not isinstance(data, str | Path | None):
        raise InvalidConfigError(f"Expected `data` as the path of a folder, actual: {data!r}.")
    root = Path(os.path.expanduser(data or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld"))
    homes = [root, *sorted(root.glob("json_*"), reverse=True)]
    for home in homes:
        if split in (*OFFICIAL_SPLITS, *GENERATED_SPLITS) and (home / split).is_dir():
            return home / split
    present = sorted({folder.name for home in homes if home.is_dir() for folder in home.iterdir() if folder.is_dir()})
    found = f"folders there: {', '.join(present) or 'none'}"
    if split not in (*OFFICIAL_SPLITS, *GENERATED_SPLITS):
        known = ", ".join((*OFFICIAL_SPLITS, *GENERATED_SPLITS))
        raise InvalidConfigError(f"Expected split to be one of {known}, actual: {split!r}. Data in {root}, {found}.")
    if split in GENERATED_SPLITS:
        raise GameNotFoundError(
            f"Expected exported games of split {split!r}, actual: none under {root} ({found}). Remove `data` to "
            f"generate games, choose an official split ({', '.join(OFFICIAL_SPLITS)}), or export games there "
            "(rwml-gym games export)."
        )
    raise GameNotFoundError(
        f"Expected games of split {split!r}, actual: none under {root} ({found}). Run `alfworld-download`, set the "
        "environment variable ALFWORLD_DATA or the argument `data=` to the folder that has them, or use "
        'split="generated", which needs no data.'
    )
