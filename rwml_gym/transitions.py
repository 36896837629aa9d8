"""Transitions of text environments: a history, the action taken after it, and the next state.

They are the triplets ⟨s_≤t, a_t, s_{t+1}⟩ of RWML (arXiv 2602.05842): plain dataclasses in memory, and on disk a
Hugging Face `datasets` folder (Arrow), which other tools can read.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from rwml_gym.checks import real_number, require, whole_number
from rwml_gym.errors import InvalidConfigError, RWMLGymError, StorageError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import HASHES, damage, is_sealed, seal
from rwml_gym.hub import without_progress_bars
from rwml_gym.text import replace_surrogates

__all__ = [
    "EPISODE",
    "InvalidDatasetError",
    "Transition",
    "TransitionDataset",
    "Turn",
    "action_type",
    "count_games",
    "unit_of",
]

EPISODE = "episode-"
"""Begins the game of a transition whose environment names no game: the episode is its own game."""

_FIRST_WORD = re.compile(r"(?P<word>\w[\w.-]*)")
_NAMED_CALL = re.compile(r"\{\s*\"name\"\s*:\s*\"(?P<word>\w[\w.-]*)\"")
# Columns that older folders lack.
_LATER = frozenset({"role", "known_info"})
# Version of the columns. A reader ignores columns it does not know, so only a changed meaning raises it.
_VERSION = 1
_FORMAT = "format.json"
_WRITTEN = frozenset({"state.json", "dataset_info.json", _FORMAT, HASHES})


class InvalidDatasetError(RWMLGymError, ValueError):
    """A folder has no readable transitions."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An action and the observation that followed; the first turn of an episode has the action `""`.

    In an environment that is not text, `WorldModelRewardWrapper` passes actions and observations on unchanged.
    """

    action: Any
    observation: Any


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of an episode.

    Attributes:
        history: The last turns before the action, oldest first, at least one; the last observation is the state.
        action: The action as the environment saw it, without the prediction.
        next_state: The realised observation.
        task: The instruction of the episode.
        env_id: Registered id of the environment, or its class name.
        game: Name of the game, or `episode-<number>` where the environment names none.
        episode: Number of the episode, unique within one recorder.
        step: Number of the action in its episode, from 0.
        won: Whether the *episode* was won; `None` if it was abandoned, or the environment does not report it.
        invalid_action: Whether the environment rejected the action.
        data_version: Version of the data the game was made from.
        role: Role of the message that is the next state, such as `tool` or `user`; empty if unknown.
        known_info: What the simulated user knows about himself, for a world model only; empty if unknown.
    """

    history: tuple[Turn, ...]
    action: str
    next_state: str
    task: str = ""
    env_id: str = ""
    game: str = ""
    episode: int = 0
    step: int = 0
    won: bool | None = None
    invalid_action: bool = False
    data_version: str = ""
    role: str = ""
    known_info: str = ""

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Transition:
        """Make a transition from what `dataclasses.asdict` returned for one, such as a row of a file.

        Further columns are left out, and fields that are missing get their default.
        """
        known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        return cls(**{**known, "history": tuple(Turn(turn["action"], turn["observation"]) for turn in row["history"])})

    @property
    def state(self) -> str:
        """The observation the action was taken in."""
        return self.history[-1].observation


def action_type(action: str) -> str:
    """Return the type of an action: the first word in lower case, `""` if none; for a JSON call, its name.

    A word may hold `_`, `.` and `-`, so `get_order(id=3)` and `get_order {"id": 3}` have the type `get_order`.

    >>> action_type("go to fridge 1"), action_type("get_order(id=3)"), action_type("  ")
    ('go', 'get_order', '')
    >>> action_type('{"name": "get_order", "arguments": {"id": 3}}')
    'get_order'
    """
    match = _NAMED_CALL.search(action) or _FIRST_WORD.search(action)
    return match["word"].lower() if match else ""


def count_games(played: Iterable[Any]) -> str:
    """Count the games of transitions or predictions in words: `40 games`, or `40 episodes` if games have no names."""
    games = {each.game for each in played}
    return f"{len(games)} {unit_of(games) if len(games) != 1 else unit_of(games)[:-1]}"


def unit_of(games: Collection[str]) -> str:
    """Return what intervals resample: `games`, or `episodes` if the environment names no games."""
    return "episodes" if games and all(game.startswith(EPISODE) for game in games) else "games"


class TransitionDataset(Sequence[Transition]):
    """An immutable sequence of transitions.

    Args:
        transitions: The transitions; `InvalidConfigError` is raised for one without a history, and so without a state.

    >>> turn = Turn("", "You are in a room.")
    >>> data = TransitionDataset([Transition((turn,), "look", "You are in a room.", game=g) for g in ("a", "b")])
    >>> train, held_out = data.split_by_game(0.5, seed=0)
    >>> len(train), len(held_out), set(train.games) & set(held_out.games)
    (1, 1, set())
    """

    def __init__(self, transitions: Iterable[Transition]):
        self._transitions = tuple(transitions)
        for index, transition in enumerate(self._transitions):
            if not transition.history:
                raise InvalidConfigError(f"Expected at least one turn of history, actual: 0 in transition {index}.")

    @classmethod
    def join(cls, parts: Iterable[Iterable[Transition]]) -> TransitionDataset:
        """Put transitions of several recorders together, such as those of the slots of a vector environment.

        Recorders number their episodes from 0. Here each episode gets a number of its own, and so does its game if the
        environment names none.

        Args:
            parts: The transitions of each recorder, or data set.

        >>> turn = Turn("", "You are in a room.")
        >>> one = [Transition((turn,), "look", "You are in a room.", game="episode-0")]
        >>> TransitionDataset.join([one, one]).games
        ('episode-0', 'episode-1')
        """
        joined: list[Transition] = []
        numbers: dict[tuple[int, int, str], int] = {}
        for place, part in enumerate(parts):
            for transition in part:
                number = numbers.setdefault((place, transition.episode, transition.game), len(numbers))
                game = f"{EPISODE}{number}" if transition.game.startswith(EPISODE) else transition.game
                joined.append(replace(transition, episode=number, game=game))
        return cls(joined)

    def __len__(self) -> int:
        return len(self._transitions)

    def __iter__(self) -> Iterator[Transition]:
        return iter(self._transitions)

    @overload
    def __getitem__(self, index: int) -> Transition: ...
    @overload
    def __getitem__(self, index: slice) -> TransitionDataset: ...
    def __getitem__(self, index: int | slice) -> Transition | TransitionDataset:
        if isinstance(index, slice):
            return TransitionDataset(self._transitions[index])
        return self._transitions[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TransitionDataset) and self._transitions == other._transitions

    def __hash__(self) -> int:
        return hash(self._transitions)

    def __repr__(self) -> str:
        return f"TransitionDataset({len(self)} transitions of {count_games(self)})"

    @property
    def games(self) -> tuple[str, ...]:
        """The distinct games, in the order of their first transition."""
        return tuple(dict.fromkeys(transition.game for transition in self))

    def with_window(self, history: int) -> TransitionDataset:
        """Return the same transitions with at most the last `history` turns each.

        Args:
            history: Length of the window, in turns; 0 for all turns of the episode.

        Raises:
            InvalidConfigError: If `history` is negative, or larger than what was recorded.
        """
        history = whole_number("history", history, 0, "turns (0 for all)")
        for transition in self:
            # Before action number t an episode has t + 1 turns.
            if len(transition.history) < min(history or transition.step + 1, transition.step + 1):
                recorded, wanted = len(transition.history), history or "all of the episode (0)"
                raise InvalidConfigError(
                    f"Expected a window (history) of at most {recorded} turns, as many as were recorded, actual: "
                    f"{wanted}. Use {recorded}, or record with more: `RecordTransitions(env, history=…)`, or `rwml-gym "
                    "record --history …`."
                )
        return TransitionDataset(replace(transition, history=transition.history[-history:]) for transition in self)

    def split_by_game(self, held_out: float, seed: int = 0) -> tuple[TransitionDataset, TransitionDataset]:
        """Split by game, never by step, because the steps of one game share its rooms and contents.

        Args:
            held_out: Share of the games to hold out, in `(0, 1)`; at least one game lands on each side.
            seed: Chooses the games. The same games and seed give the same split, in any order of the games.

        Returns:
            The rest and the held-out transitions, each in their original order.

        Raises:
            InvalidConfigError: If `held_out` is out of range or there are fewer than two games.
        """
        if not 0 < real_number(held_out) < 1:
            raise InvalidConfigError(f"Expected `held_out` in (0, 1), actual: {held_out!r}.")
        games = sorted(self.games)
        if len(games) < 2:
            raise InvalidConfigError(f"Expected transitions of at least 2 games, actual: {len(games)}. Record more.")
        count = min(max(round(held_out * len(games)), 1), len(games) - 1)
        order = np.random.default_rng(seed).permutation(len(games))
        chosen = {games[index] for index in order[:count]}
        rest = TransitionDataset(transition for transition in self if transition.game not in chosen)
        held = TransitionDataset(transition for transition in self if transition.game in chosen)
        assert not set(rest.games) & set(held.games)
        return rest, held

    def save(self, path: str | Path) -> None:
        """Write to a folder that `datasets.load_from_disk` reads.

        Every Unicode text is restored unchanged, except for lone surrogates, which Arrow cannot store: they become
        U+FFFD. The folder is written atomically. It may replace an earlier dataset, but nothing else.

        Args:
            path: The folder, or a link to it.

        Raises:
            DependencyNotInstalled: If `datasets` is not installed.
            InvalidConfigError: If `path` exists and is not a saved dataset, or has other files, too.
            StorageError: If it cannot be written, such as on a full disk; an earlier dataset is then kept.
        """
        require("datasets", "datasets to save or load transitions", "train")
        from datasets.utils import logging

        path = Path(os.path.realpath(path))  # a link stays, and what it points to is replaced
        check_replaceable(path)
        stored = self._stored()
        partial = path.parent / f".{path.name}-{uuid.uuid4().hex}"
        earlier = partial.with_name(f"{partial.name}-earlier")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with without_progress_bars(logging):
                # By default an empty dataset has no file and cannot be loaded.
                stored.save_to_disk(str(partial), num_shards=None if len(self) else 1)
            write_json(partial / _FORMAT, {"version": _VERSION})
            seal(partial, *(file.name for file in partial.iterdir()))
            if path.exists():
                path.rename(earlier)
            partial.rename(path)
        except OSError as error:
            raise StorageError(
                f"Expected to write {len(self)} transitions to {str(path)!r}, actual: {error.strerror or error}. Make "
                "room, or choose another folder."
            ) from error
        finally:
            if earlier.exists() and not path.exists():
                earlier.rename(path)
            for left in (partial, earlier):
                shutil.rmtree(left, ignore_errors=True)

    def export(self, folder: str | Path) -> None:
        """Write `data/train.parquet` into a folder, which `datasets.load_dataset` and most other tools read.

        Args:
            folder: The folder, such as one to upload to a hub; its other files stay.

        Raises:
            DependencyNotInstalled: If `datasets` is not installed.
            StorageError: If the file cannot be written.
        """
        require("datasets", "datasets to save or load transitions", "train")
        from datasets.utils import logging

        file = Path(folder) / "data" / "train.parquet"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with without_progress_bars(logging):
                self._stored().to_parquet(str(file))
        except OSError as error:
            raise StorageError(
                f"Expected to write {len(self)} transitions to {str(file)!r}, actual: {error.strerror or error}. Make "
                "room, or choose another folder."
            ) from error

    def _stored(self) -> Any:
        from datasets import Dataset

        columns: dict[str, list[Any]] = {field.name: [] for field in fields(Transition)}
        for transition in self:
            for name, value in asdict(transition).items():
                columns[name].append(_storable(value))
        return Dataset.from_dict(columns, features=_features())

    @classmethod
    def from_hub(cls, repo_id: str, revision: str | None = None, split: str = "train") -> TransitionDataset:
        """Read transitions that `rwml-gym record --push-to-hub` shared, or a folder of `export`.

        Args:
            repo_id: `OWNER/NAME` of a data set on the hub, or a folder.
            revision: Commit, tag or branch; name a commit to read the same data later.
            split: Split of the data set.

        Raises:
            DependencyNotInstalled: If `datasets` is not installed.
            InvalidDatasetError: If it cannot be read, or has other columns.
        """
        require("datasets", "datasets to save or load transitions", "train")
        from datasets import load_dataset
        from datasets.utils import logging

        try:
            with without_progress_bars(logging):
                # Parquet alone: other formats that `datasets` reads may be pickled.
                files = {split: f"data/{split}*.parquet"}
                stored = load_dataset(repo_id, split=split, revision=revision, data_files=files)
        except Exception as error:  # from the hub, the file system, Arrow or datasets
            raise InvalidDatasetError(
                f"Expected a data set of transitions {repo_id!r}, actual: {type(error).__name__}: {error}. Check the "
                "name OWNER/NAME, the network, and for a private one the token (`hf auth login`)."
            ) from error
        return cls._from_stored(lambda: stored, repo_id)

    @classmethod
    def load(cls, path: str | Path) -> TransitionDataset:
        """Read what `save` wrote into memory.

        The folder's seal is checked first, so that damaged data is an error and never other data. A folder from another
        tool has no seal. Further columns are left out.

        Args:
            path: The folder.

        Raises:
            DependencyNotInstalled: If `datasets` is not installed.
            InvalidDatasetError: If there is no dataset, or it is damaged or of another kind.
        """
        require("datasets", "datasets to save or load transitions", "train")
        from datasets import Dataset

        path = Path(path)
        if not _looks_saved(path):
            raise InvalidDatasetError(
                f"Expected a folder written by `TransitionDataset.save`, actual: {str(path)!r}. Check the path."
            )
        sealed = is_sealed(path)
        if sealed and (problem := damage(path)):
            raise InvalidDatasetError(
                f"Expected transitions as they were saved in {str(path)!r}, actual: {problem}. Record them again, or "
                "restore the folder from a copy."
            )
        version = _version(path) if sealed else _VERSION
        if version > _VERSION:
            raise InvalidDatasetError(
                f"Expected transitions of version {_VERSION} or earlier in {str(path)!r}, actual: version {version}. "
                "Load them with the newer rwml-gym that wrote them."
            )
        return cls._from_stored(lambda: Dataset.load_from_disk(str(path)), str(path))

    @classmethod
    def _from_stored(cls, read: Callable[[], Any], where: str) -> TransitionDataset:
        from datasets.utils import logging

        try:
            with without_progress_bars(logging):
                stored, features = read(), _features()
                stored.data.table.validate(full=True)  # or a damaged offset would end the interpreter
                for name in _LATER - set(stored.column_names):
                    del features[name]
                stored = stored.select_columns(list(features))
                # Other tools may use other integer or string types.
                rows = (stored if stored.features == features else stored.cast(features)).to_list()
        # Depending on the damage, the error comes from Arrow, json, the file system or datasets.
        except Exception as error:
            raise InvalidDatasetError(
                f"Expected readable transitions in {where!r}, actual: {type(error).__name__}: {error}. "
                "Record and save them again."
            ) from error
        if nulls := sorted({name for row in rows for name in _nulls(row)}):
            raise InvalidDatasetError(
                f"Expected a value in every row of {where!r}, actual: null in {', '.join(nulls)}. Fill them, with "
                "an empty text where there is none; only `won` may be null."
            )
        return cls(map(Transition.from_dict, rows))


def _nulls(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the fields of a row, and of its turns, that have no value."""
    yield from (name for name, value in row.items() if value is None and name != "won")
    yield from (f"history.{name}" for turn in row["history"] or () for name, value in turn.items() if value is None)


def _version(path: Path) -> int:
    """Return the version of the format of saved transitions."""
    try:
        return whole_number("version", read_json(path / _FORMAT)["version"], 0)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDatasetError(
            f"Expected the version of the transitions in {str(path / _FORMAT)!r}, actual: {error}. Record them again, "
            "or restore the folder from a copy."
        ) from error


def check_replaceable(path: Path) -> None:
    """Check that `TransitionDataset.save` may write to a folder: it is new, or holds a dataset and nothing else.

    Raises:
        InvalidConfigError: It does not.
    """
    if path.exists() and not _looks_saved(path):
        raise InvalidConfigError(f"Expected a new folder or a saved dataset, actual: {str(path)!r}. Rename it.")
    if foreign := [file.name for file in path.glob("*") if not _is_ours(file)]:
        raise InvalidConfigError(
            f"Expected nothing but a saved dataset in {str(path)!r}, which is replaced, actual: also "
            f"{', '.join(sorted(foreign))}. Move them, or choose another folder."
        )


def _looks_saved(path: Path) -> bool:
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def _is_ours(file: Path) -> bool:
    """Return whether a file in a saved dataset is one that `save` or `datasets` writes."""
    return file.is_file() and (file.suffix == ".arrow" or file.name in _WRITTEN)


def _features() -> Any:
    # Explicit types, because none can be inferred from an empty dataset or a column of None. Large strings, because
    # the offsets of ordinary ones overflow at 2 GB of text.
    from datasets import Features, List, Value

    text = Value("large_string")
    types = {"str": text, "int": Value("int64"), "bool": Value("bool"), "bool | None": Value("bool")}
    history = List({"action": text, "observation": text})
    return Features({f.name: history if f.name == "history" else types[str(f.type)] for f in fields(Transition)})


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, tuple):
        return [{name: _storable(text) for name, text in turn.items()} for turn in value]
    return value
