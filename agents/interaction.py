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

__all__ = ["Games", "choose_games", "prepare_games"]

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

    Generated games are held out by their seeds, which are disjoint; of an official split, some games are held out.

    Raises:
        InvalidConfigError: Unknown split, task type or grammar, or too few games.
        GameNotFoundError: No games where they were looked for.
    """
    collect = config.collect
    seed = seed_of(config.seed, "games")
    make = partial(
        gym.make,
        config.env_id,
        split=config.split,
        data=config.data,
        task_types=config.task_types,
        grammar=config.grammar,
        max_episode_steps=collect.max_steps,
        disable_env_checker=True,
    )
    with make() as env:
        if config.split == "generated":
            make_held_out = partial(make, split="generated_held_out")
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


def choose_games(env: gym.Env[str, str], count: int, seed: int) -> list[str]:
    """Names of `count` distinct games of an environment, in random order; unplayable ones are named and passed over.

    Raises:
        InvalidConfigError: There are not as many.
    """
    games = env.unwrapped.games  # type: ignore[attr-defined]
    available = len(games.names)
    chosen: list[str] = []
    # Positions, because there are billions of generated games; some spare ones, because files can be corrupt.
    for position in random.Random(seed).sample(range(available), min(available, 2 * count + 100)):
        name = games.names[position]
        try:
            games.load(name)
        except InvalidGameError as error:
            tqdm.write(f"Left out: {error}")
            continue
        chosen.append(name)
        if len(chosen) == count:
            return chosen
    raise InvalidConfigError(
        f"Expected {count} playable games, actual {len(chosen)}: ask for fewer with --collect.games and "
        "--collect.held-out-games, or allow more task types."
    )
