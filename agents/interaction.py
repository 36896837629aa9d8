"""Interaction learning: which games are played, and which of them are held out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gymnasium as gym
from tqdm import tqdm

from rwml_gym.agents.config import RWMLConfig
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError, InvalidGameError

__all__ = ["Games", "choose_games", "held_out_tasks", "prepare_games"]

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


def prepare_games(config: RWMLConfig) -> Games:
    """Chooses the games of a run; nothing is played yet, bad input costs no time.

    Generated games are held out by their seeds, which are disjoint; of an official split of ALFWorld, some games are
    held out. τ²-bench's own splits are disjoint: to `train` belongs `test`; of another split, some tasks are held out.

    Raises:
        InvalidConfigError: Unknown split, domain, task type or grammar, or too few games.
        GameNotFoundError: No games where they were looked for.
        DependencyNotInstalled: The environment needs a library that is not installed.
    """
    collect = config.collect
    seed = seed_of(config.seed, "games")
    make, held_out_split = _tau2(config) if config.env == "tau2" else _alfworld(config)
    with make() as env:
        if held_out_split is not None:
            make_held_out = partial(make, split=held_out_split)
            train = choose_games(env, collect.games, seed)
            with make_held_out() as held_out_env:
                held_out = choose_games(held_out_env, collect.held_out_games, seed)
        else:
            make_held_out = make
            chosen = choose_games(env, collect.games + collect.held_out_games, seed)
            train, held_out = chosen[: collect.games], chosen[collect.games :]
    if set(train) & set(held_out):
        raise InvalidConfigError(f"Expected no game both in training and held out, actual {set(train) & set(held_out)}")
    return Games(make, [game for game in train for _ in range(collect.rollouts)], make_held_out, held_out)


def held_out_tasks(config: RWMLConfig) -> str:
    """The split of τ²-bench whose tasks a run holds out, all or some."""
    split = config.split or "train"
    return "test" if split == "train" else split


def _alfworld(config: RWMLConfig) -> tuple[partial[gym.Env[str, str]], str | None]:
    """How to make the environment, and the split of the held-out games if it is another one."""
    split = config.split or "generated"
    make = partial(
        gym.make,
        "rwml_gym/ALFWorld-v0",
        split=split,
        data=config.data,
        task_types=config.task_types,
        grammar=config.grammar,
        max_episode_steps=config.collect.max_steps,
        disable_env_checker=True,
    )
    return make, "generated_held_out" if split == "generated" else None


def _tau2(config: RWMLConfig) -> tuple[partial[gym.Env[str, str]], str | None]:
    split = config.split or "train"
    make = partial(
        gym.make,
        "rwml_gym/Tau2-v0",
        domain=config.domain,
        split=split,
        max_episode_steps=config.collect.max_steps,
        disable_env_checker=True,
    )
    other = held_out_tasks(config)
    return make, other if other != split else None


def choose_games(env: gym.Env[str, str], count: int, seed: int) -> list[str]:
    """Names of `count` distinct games of an environment, in random order; unplayable ones are named and passed over.

    Raises:
        InvalidConfigError: There are not as many.
    """
    games = env.unwrapped.games  # type: ignore[attr-defined]
    load = getattr(games, "load", None)  # ALFWorld's are files; tau2's tasks were read when they were listed
    available = len(games.names)
    chosen: list[str] = []
    # Positions, because there are billions of generated games; some spare ones, because files can be corrupt.
    for position in random.Random(seed).sample(range(available), min(available, 2 * count + 100)):
        name = games.names[position]
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
        f"Expected {count} playable games, actual {len(chosen)}: ask for fewer with --collect.games and "
        "--collect.held-out-games, or allow more (--split, --task-types)."
    )
