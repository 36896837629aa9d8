"""Transitions of text worlds: what was seen and done, what was done next, and what came of it.

The triplets ⟨s_≤t, a_t, s_{t+1}⟩ of RWML (arXiv 2602.05842). In memory they are plain dataclasses; on disk a Hugging
Face `datasets` folder (Arrow), which other tools can read.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from gymnasium.error import DependencyNotInstalled

from rwml_gym.errors import InvalidConfigError, RWMLGymError
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
]

EPISODE = "episode-"
"""Begins the game of a transition whose environment names no game: the episode is its own game."""


_FIRST_WORD = re.compile(r"(?P<word>\w[\w.-]*)")
_NAMED_CALL = re.compile(r"\{\s*\"name\"\s*:\s*\"(?P<word>\w[\w.-]*)\"")
# Columns that folders written before they existed do not have.
_LATER = frozenset({"role"})


class InvalidDatasetError(RWMLGymError, ValueError):
    """A folder holds no readable transitions."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An action and what the world answered; the first turn of an episode has the action `""`.

    Of a world that is not text, `WorldModelRewardWrapper` shows its predictor actions and observations as they are.
    """

    action: Any
    observation: Any


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of an episode.

    Attributes:
        history: The last turns before the action, oldest first, at least one; its last observation is the state the
            action was taken in.
        action: The action as the environment saw it (a prediction written into it is taken out).
        next_state: The realised observation.
        task: The instruction of the episode.
        env_id: Registered id of the environment, or its class name.
        game: Name of the game, or `episode-<number>` where the environment names none.
        episode: Number of the episode, unique within one recorder.
        step: Number of the action in its episode, from 0.
        won: Whether the *episode* was won; `None` if it was abandoned before its end, or its world does not say.
        invalid_action: Whether the world rejected the action.
        data_version: Version of the data the world was made from.
        role: Kind of message the next state is, such as `tool` or `user`; empty where the world does not say.
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

    @property
    def state(self) -> str:
        """The observation the action was taken in."""
        return self.history[-1].observation


def action_type(action: str) -> str:
    """The role of an action: its first word in lower case, `""` if it has none; of a call as JSON, its name.

    A word may hold `_`, `.` and `-`, so `get_order(id=3)` and `get_order {"id": 3}` are of type `get_order`.

    >>> action_type("go to fridge 1"), action_type("get_order(id=3)"), action_type("  ")
    ('go', 'get_order', '')
    >>> action_type('{"name": "get_order", "arguments": {"id": 3}}')
    'get_order'
    """
    match = _NAMED_CALL.search(action) or _FIRST_WORD.search(action)
    return match["word"].lower() if match else ""


def count_games(transitions: Iterable[Transition]) -> str:
    """How many games there are, in words: `40 games`, or `40 episodes` where the environment names no games."""
    games = {transition.game for transition in transitions}
    own = bool(games) and all(game.startswith(EPISODE) for game in games)
    return f"{len(games)} {'episode' if own else 'game'}{'' if len(games) == 1 else 's'}"


class TransitionDataset(Sequence[Transition]):
    """An immutable sequence of transitions.

    >>> turn = Turn("", "You are in a room.")
    >>> data = TransitionDataset([Transition((turn,), "look", "You are in a room.", game=g) for g in ("a", "b")])
    >>> train, held_out = data.split_by_game(0.5, seed=0)
    >>> len(train), len(held_out), set(train.games) & set(held_out.games)
    (1, 1, set())
    """

    def __init__(self, transitions: Iterable[Transition]):
        """Keep the transitions in their order.

        Args:
            transitions: The transitions.

        Raises:
            InvalidConfigError: If a transition has no history: without a state it says nothing.
        """
        self._transitions = tuple(transitions)
        for index, transition in enumerate(self._transitions):
            if not transition.history:
                raise InvalidConfigError(f"Expected at least one turn of history, actual: none in transition {index}.")

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
        """The same transitions with at most the last `history` turns each.

        Args:
            history: Length of the window, in turns.

        Returns:
            A new dataset.

        Raises:
            InvalidConfigError: If `history` is not positive, or more turns are asked for than were recorded.
        """
        if history < 1:
            raise InvalidConfigError(f"Expected a window of at least 1 turn, actual: {history}.")
        for transition in self:
            # Before action number t an episode has t + 1 turns.
            if len(transition.history) < min(history, transition.step + 1):
                raise InvalidConfigError(
                    f"Expected a window of at most {len(transition.history)} turns, which is what was recorded, "
                    f"actual: {history}. Record with `RecordTransitions(env, history={history})`."
                )
        return TransitionDataset(replace(transition, history=transition.history[-history:]) for transition in self)

    def split_by_game(self, held_out: float, seed: int = 0) -> tuple[TransitionDataset, TransitionDataset]:
        """Split by game, never by step: steps of one game share its rooms and contents.

        Args:
            held_out: Share of the games to hold out, in `(0, 1)`; at least one game lands on each side.
            seed: Chooses the games; the same games and seed give the same split, whatever their order.

        Returns:
            The rest and the held-out transitions, each in their original order.

        Raises:
            InvalidConfigError: If `held_out` is out of range or there are fewer than two games.
        """
        if not 0 < held_out < 1:
            raise InvalidConfigError(f"Expected `held_out` in (0, 1), actual: {held_out}.")
        games = sorted(self.games)
        if len(games) < 2:
            raise InvalidConfigError(f"Expected transitions of at least 2 games to split, actual: {len(games)}.")
        count = min(max(round(held_out * len(games)), 1), len(games) - 1)
        order = np.random.default_rng(seed).permutation(len(games))
        chosen = {games[index] for index in order[:count]}
        rest = TransitionDataset(transition for transition in self if transition.game not in chosen)
        held = TransitionDataset(transition for transition in self if transition.game in chosen)
        assert not set(rest.games) & set(held.games)
        return rest, held

    def save(self, path: str | Path) -> None:
        """Write to a folder that `datasets.load_from_disk` reads.

        Any Unicode text comes back as it was; lone surrogates, which are not text and Arrow cannot hold, become U+FFFD.
        The folder appears complete or not at all. An earlier dataset there is replaced, anything else is refused.

        Args:
            path: The folder.

        Raises:
            DependencyNotInstalled: If `datasets` is not installed.
            InvalidConfigError: If `path` exists and is not a saved dataset.
        """
        _require_datasets()
        from datasets import Dataset
        from datasets.utils import logging

        path = Path(path)
        if path.exists() and not _looks_saved(path):
            raise InvalidConfigError(f"Expected a new folder or an earlier dataset to replace, actual: {str(path)!r}.")
        columns: dict[str, list[Any]] = {field.name: [] for field in fields(Transition)}
        for transition in self:
            for name, value in asdict(transition).items():
                columns[name].append(_storable(value))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}-{uuid.uuid4().hex}"
        try:
            with without_progress_bars(logging):
                # An empty dataset would be written as no file, which cannot be loaded.
                Dataset.from_dict(columns, features=_features()).save_to_disk(
                    str(partial), num_shards=None if len(self) else 1
                )
            if path.exists():
                shutil.rmtree(path)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @classmethod
    def load(cls, path: str | Path) -> TransitionDataset:
        """Read what `save` wrote.

        Args:
            path: The folder.

        Returns:
            The transitions, in memory.

        Raises:
            DependencyNotInstalled: If `datasets` is not installed.
            InvalidDatasetError: If there is no dataset, or it is corrupt or of another role.
        """
        _require_datasets()
        from datasets import Dataset
        from datasets.utils import logging

        path = Path(path)
        if not _looks_saved(path):
            raise InvalidDatasetError(
                f"No transitions in {str(path)!r}: expected a folder written by `TransitionDataset.save`."
            )
        try:
            with without_progress_bars(logging):
                stored, features = Dataset.load_from_disk(str(path)), _features()
                for name in _LATER - set(stored.column_names):
                    del features[name]
                # Other tools may have written other integers or strings.
                rows = (stored if stored.features == features else stored.cast(features)).to_list()
        # Damage surfaces as errors of Arrow, json, the file system or datasets, depending on the byte.
        except Exception as error:
            raise InvalidDatasetError(
                f"Cannot read transitions from {str(path)!r} ({type(error).__name__}: {error}). "
                "The folder is damaged or holds something else: record and save again."
            ) from error
        return cls(
            Transition(
                **{**row, "history": tuple(Turn(turn["action"], turn["observation"]) for turn in row["history"])}
            )
            for row in rows
        )


def _require_datasets() -> None:
    if importlib.util.find_spec("datasets") is None:
        raise DependencyNotInstalled(
            'Saving and loading transitions needs datasets: run `pip install "rwml-gym[train]"`.'
        )


def _looks_saved(path: Path) -> bool:
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def _features() -> Any:
    # Written out, because an empty dataset or a column of nothing but None has no type to infer. Large strings: their
    # offsets do not overflow at 2 GB of text.
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
