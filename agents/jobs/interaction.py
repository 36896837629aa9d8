"""Interaction learning: which games are played, and which of them are held out."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError, InvalidGameError

__all__ = ["Games", "MakeEnv", "choose_games", "held_out_tasks", "make_world", "prepare_games"]

MakeEnv = Callable[[], gym.Env[str, str]]


@dataclass(frozen=True)
class Games:
    """What is played to train on and what to evaluate on; no game is in both.

    Attributes:
        make_env: Makes the environment of the training games.
        train: Their names, each as often as it is played.
        make_held_out_env: Makes the environment of the held-out games.
        held_out: Their names.
    """

    make_env: MakeEnv
    train: list[str]
    make_held_out_env: MakeEnv
    held_out: list[str]


def prepare_games(config: JobConfig, games: int, held_out_games: int, max_steps: int, rollouts: int = 1) -> Games:
    """Chooses the games of a run; nothing is played yet, bad input costs no time.

    Generated games are held out by their seeds, which are disjoint; of an official split of ALFWorld, some games are
    held out. τ²-bench's own splits are disjoint: to `train` belongs `test`; of another split, some tasks are held out.

    Args:
        config: Which world, and the run's seed.
        games: Training games; 0 for all that are not held out, of a split that is not generated.
        held_out_games: Games that are held out.
        max_steps: Step budget of an episode.
        rollouts: How often each training game is listed.

    Raises:
        InvalidConfigError: Unknown split, domain, task type or grammar, or too few games.
        GameNotFoundError: No games where they were looked for.
        DependencyNotInstalled: The environment needs a library that is not installed.
    """
    seed = seed_of(config.seed, "games")
    make, held_out_split = make_world(config, max_steps)
    with make() as env:
        if held_out_split is not None:
            make_held_out = partial(make, split=held_out_split)
            train = choose_games(env, games or _all(env, config), seed)
            with make_held_out() as held_out_env:
                held_out = choose_games(held_out_env, held_out_games, seed)
        else:
            make_held_out = make
            games = games or _all(env, config) - held_out_games
            chosen = choose_games(env, games + held_out_games, seed)
            train, held_out = chosen[:games], chosen[games:]
    if set(train) & set(held_out):
        raise InvalidConfigError(f"Expected no game both in training and held out, actual {set(train) & set(held_out)}")
    return Games(make, [game for game in train for _ in range(rollouts)], make_held_out, held_out)


def _all(env: gym.Env[str, str], config: JobConfig) -> int:
    if config.env == "alfworld" and config.split in (None, "generated", "generated_held_out"):
        raise InvalidConfigError("Generated games have no end: expected a number of training games, actual 0.")
    return len(env.unwrapped.games.names)  # type: ignore[attr-defined]


def held_out_tasks(config: JobConfig) -> str:
    """The split of τ²-bench whose tasks a run holds out, all or some."""
    split = config.split or "train"
    return "test" if split == "train" else split


def make_world(config: JobConfig, max_steps: int) -> tuple[partial[gym.Env[str, str]], str | None]:
    """How to make the environment, and the split of the held-out games if it is another one."""
    common: dict[str, Any] = {"max_episode_steps": max_steps, "disable_env_checker": True}
    if config.env == "tau2":
        split, other = config.split or "train", held_out_tasks(config)
        make = partial(gym.make, "rwml_gym/Tau2-v0", domain=config.domain, split=split, **common)
        return make, other if other != split else None
    split = config.split or "generated"
    generated = {"rooms": config.rooms, "difficulty": config.difficulty}
    make = partial(
        gym.make,
        "rwml_gym/ALFWorld-v0",
        split=split,
        data=config.data,
        task_types=config.task_types,
        grammar=config.grammar,
        **{name: value for name, value in generated.items() if value is not None},
        **common,
    )
    return make, "generated_held_out" if split == "generated" else None


def choose_games(env: gym.Env[str, str], count: int, seed: int, exclude: Collection[str] = ()) -> list[str]:
    """Names of `count` distinct games of an environment, in random order; unplayable ones are named and passed over.

    Args:
        env: The environment.
        count: How many.
        seed: Of the choice.
        exclude: Games that are not chosen.

    Raises:
        InvalidConfigError: There are not as many.
    """
    if not count:
        return []
    games = env.unwrapped.games  # type: ignore[attr-defined]
    load = getattr(games, "load", None)  # ALFWorld's are files; tau2's tasks were read when they were listed
    available = len(games.names)
    chosen: list[str] = []
    # Positions, because there are billions of generated games; some spare ones, because files can be corrupt.
    for position in random.Random(seed).sample(range(available), min(available, 2 * count + len(exclude) + 100)):
        name = games.names[position]
        if name in exclude:
            continue
        if load is not None:
            try:
                load(name)
            except InvalidGameError as error:
                tqdm.write(f"Left out: {error}")
                continue
        chosen.append(name)
        if len(chosen) == count:
            return chosen
    raise InvalidConfigError(
        f"Expected {count} playable games, actual {len(chosen)}: ask for fewer, to train on or held out "
        "(--collect.games, --stage.games, --evaluation.games), or allow more (--split, --task-types)."
    )
