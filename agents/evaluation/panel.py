"""The panel of an evaluation: which games, in which order, how often, with a hash that stands beside every score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym

from rwml_gym.agents.runs.worlds import GameName, first_games, games_of
from rwml_gym.agents.seeding import seed_of
from rwml_gym.agents.traces.worlds import world_arguments
from rwml_gym.envs.base import MAX_LISTED, GameSource
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from rwml_gym.files import read_regular

__all__ = ["Panel", "Place", "choose", "read_games"]


@dataclass(frozen=True)
class Place:
    """One episode of a panel.

    Attributes:
        episode: Its number, from 0.
        game: Name of its game, or the seed of one without a name.
        trial: Which time the game is played, from 0.
        seed: Seed of the agent.
    """

    episode: int
    game: GameName
    trial: int
    seed: int


@dataclass(frozen=True)
class Panel:
    """Games and how often each is played: all of them once, then all of them again.

    Attributes:
        env: Name of the environment.
        games: The games in their order.
        trials: How often each is played.
        seed: The evaluation's seed; that of an episode follows from it, the game and the trial.
        arguments: Arguments of the environment. With others, a seed is another game.
    """

    env: str
    games: tuple[GameName, ...]
    trials: int = 1
    seed: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits; two panels with the same hash play the same games in the same order."""
        named = all(isinstance(game, str) for game in self.games)
        arguments = {} if named else world_arguments(self.arguments, named)
        content = json.dumps(
            [self.env, self.games, *([arguments] if arguments else [])], ensure_ascii=False, sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def places(self) -> list[Place]:
        """Return the episodes in their order."""
        return [
            Place(trial * len(self.games) + i, game, trial, seed_of(self.seed, "trial", trial, str(game)))
            for trial in range(self.trials)
            for i, game in enumerate(self.games)
        ]


def choose(env: gym.Env[str, str], count: int | None) -> tuple[GameName, ...]:
    """Choose the games of a panel.

    Lists of games are often sorted by task type, so the first ones are no fair part of them. A part is therefore taken
    in the order of the hashes of the names; a smaller part is the beginning of a larger one.

    Args:
        env: The environment.
        count: Number of games; `None` for all, in the order of the list, or 100 of games without end.
    """
    source = games_of(env)
    if source is None or count is None or not count < len(source.names) <= MAX_LISTED:
        return tuple(first_games(env, count))
    return tuple(sorted(source.names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])


def read_games(env: gym.Env[str, str], path: str | Path) -> tuple[GameName, ...]:
    """Read the games of a panel from a file, such as the `panel.json` of an evaluation.

    Args:
        env: The environment.
        path: The file.

    Raises:
        InvalidConfigError: If it holds no list of distinct games, names, or seeds where games have no names; or the
            environment does not have one of them.
    """
    try:
        games = json.loads(read_regular(Path(path)))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidConfigError(f"Expected a JSON file with a list of games, actual: {path} ({reason}).") from error
    what, kind = ("seeds", int) if games_of(env) is None else ("names", str)
    fit = isinstance(games, list) and bool(games) and all(isinstance(game, kind) for game in games)
    if not fit or len(set(games)) < len(games):
        raise InvalidConfigError(
            f"Expected a list of distinct games in {path}, {what} in this environment, actual: {str(games)[:200]}. "
            "Give the panel.json of an evaluation on it."
        )
    if (source := games_of(env)) is not None:
        _check_known(source, games, path)
    return tuple(games)


def _check_known(source: GameSource[Any], games: Sequence[str], path: str | Path) -> None:
    """Check that the environment has all games: it would fail in each of the others, which would count as lost."""
    listed = frozenset(source.names) if len(source.names) <= MAX_LISTED else frozenset()
    for game in games:
        if game in listed:
            continue
        try:
            source.load(game)
        except GameNotFoundError as error:
            raise InvalidConfigError(
                f"Expected games of this environment in {path}, actual: {game!r}. {error} Give the --env, --split and "
                "--task-types of the evaluation that the panel is from."
            ) from error
