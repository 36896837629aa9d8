"""`rwml-gym envs`: which environments there are, their splits and games, and what is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import tyro

from rwml_gym.envs.base import GameSource
from rwml_gym.errors import DependencyNotInstalled, GameNotFoundError
from rwml_gym.installed import install_command
from rwml_gym.terminal import say

__all__ = ["envs"]

_TOO_MANY = 1_000_000


@dataclass(frozen=True)
class Envs:
    """List the environments with their splits, the number of games of each, and what is not installed."""


@dataclass(frozen=True)
class Split:
    """A line of the list.

    Attributes:
        options: How to choose the split on the command line.
        games: Number of its games; `None` if its library or data are missing.
        missing: What is missing and how to get it; empty if nothing is.
    """

    options: str
    games: int | None
    missing: str = ""


def envs(words: list[str]) -> None:
    """Run `rwml-gym envs` with the words after it."""
    tyro.cli(Envs, args=words, prog="rwml-gym envs")
    from rwml_gym.agents.cli.main import EXTRAS
    from rwml_gym.agents.runs.worlds import WORLDS

    for name, world in WORLDS.items():
        say(f"{name:<10} {world.title} ({world.env_id})")
        for split in _SPLITS[name]():
            say(f"  {split.options:<44} {_count(split)}")
        say()
    say("Any registered Gymnasium id of a text environment is played as well: --env module:Id-v0.")
    found = {library: importlib.util.find_spec(library) is not None for library in EXTRAS}
    absent: dict[str, list[str]] = {}
    for library, extra in EXTRAS.items():
        if not found[library]:
            absent.setdefault(extra, []).append(library)
    say("\nNot installed:" if absent else "\nAll extras are installed.")
    for extra, libraries in absent.items():
        say(f"  {install_command(extra)}  ({', '.join(libraries)})")


def _count(split: Split) -> str:
    if split.games is None:
        return split.missing
    made = ", generated" if split.games > _TOO_MANY else ""
    return f"{split.games:>14,} games{made}"


def _alfworld() -> Iterator[Split]:
    from rwml_gym.envs.alfworld.games.arguments import GENERATED_SPLITS, OFFICIAL_SPLITS
    from rwml_gym.envs.alfworld.games.sources import make_games

    for name in (*GENERATED_SPLITS, *OFFICIAL_SPLITS):
        yield _split(f"--split {name}", partial(make_games, name))


def _tau2() -> Iterator[Split]:
    from rwml_gym.envs.tau2.domains import DOMAINS
    from rwml_gym.envs.tau2.package import require, split_sizes

    try:
        require()
    except DependencyNotInstalled as error:
        yield Split("--domain NAME --split NAME", None, str(error))
        return
    for domain in DOMAINS:
        try:
            sizes = split_sizes(domain)
        except GameNotFoundError as error:
            yield Split(f"--domain {domain}", None, str(error))
        else:
            yield from (Split(f"--domain {domain} --split {name}", count) for name, count in sizes.items())


def _toy() -> Iterator[Split]:
    from rwml_gym.envs.toy import ToyHouseEnv

    for name in ("train", "held_out"):
        yield Split(f"--split {name}", len(ToyHouseEnv(name).games.names))


def _split(options: str, make_games: Callable[[], GameSource[Any]]) -> Split:
    try:
        return Split(options, len(make_games().names))
    except GameNotFoundError:
        return Split(options, None, "no data here: run `alfworld-download`, or set ALFWORLD_DATA to its folder")
    except DependencyNotInstalled as error:  # names the command that helps
        return Split(options, None, str(error))


_SPLITS: dict[str, Callable[[], Iterator[Split]]] = {"alfworld": _alfworld, "tau2": _tau2, "toy": _toy}
"""How to count the games of each of `WORLDS`."""
