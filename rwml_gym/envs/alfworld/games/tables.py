"""What was fitted to recorded games, and what alfworld allows: the numbers behind generated rooms and goals.

``benchmarks/generator/fit_tables.py`` writes ``tables.json`` from the 200 official games of ``valid_train`` alone.
Every weight in it is that of a conditional logit: among the things one can choose from, each is chosen with a
probability proportional to its weight. What was never recorded has weight 1, the mode of the prior.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import cache
from importlib import resources
from typing import Any

from rwml_gym.envs.alfworld.games import package

__all__ = ["FLOOR", "fitted", "goal_weight", "instances", "kinds_of_place", "place_weight", "placeable"]

FLOOR = "Floor"
"""Stands for a type of receptacle where an object is on none."""


@cache
def fitted() -> dict[str, Any]:
    """The fitted tables, by name."""
    tables: dict[str, Any] = json.loads(
        resources.files("rwml_gym.envs.alfworld.games").joinpath("tables.json").read_text(encoding="utf-8")
    )
    return tables


@cache
def placeable() -> dict[str, frozenset[str]]:
    """Which object types alfworld allows in which receptacle types, slices and movable receptacles left out."""
    tables = package.constants()
    return {
        receptacle: frozenset(kind for kind in kinds if "Sliced" not in kind)
        for receptacle, kinds in tables.VAL_RECEPTACLE_OBJECTS.items()
        if receptacle not in tables.MOVABLE_RECEPTACLES_SET
    }


def kinds_of_place(kind: str, receptacle_kinds: Iterable[str], recorded: Collection[str]) -> list[str]:
    """Where an object type may be at the start: in a receptacle that alfworld allows or that it was recorded in.

    Args:
        kind: the object type.
        receptacle_kinds: the types of receptacle in the room.
        recorded: the types of place in which this object type was recorded.

    Returns:
        Types of receptacle, and `FLOOR`.
    """
    return [r for r in receptacle_kinds if kind in placeable()[r] or r in recorded] + [FLOOR]


def place_weight(kind: str, place: str) -> float:
    """How much a type of place attracts an object type, next to the other types of place in the room."""
    base: float = fitted()["place_weights"].get(place, 1.0)
    factor: float = fitted()["place_factors"].get(kind, {}).get(place, 1.0)
    return base * factor


def goal_weight(task_type: str, target: str, receptacle: str) -> float:
    """How often games of a task type ask for a target and a receptacle (or lamp), where the room has both."""
    wanted = fitted()["goals"][task_type]
    weight: float = wanted["target"].get(target, 1.0) * wanted["receptacle"].get(receptacle, 1.0)
    return weight


@cache
def instances(room: str, kind: str) -> tuple[list[int], list[int]]:
    """How many objects of a type such a room has, and in how many recorded games it has as many.

    Where no room of the type was recorded with one, those of all rooms count; an object type never recorded occurs
    once.
    """
    recorded = fitted()["instances"]
    counts: dict[int, int] = {}
    for where in [room] if kind in recorded[room] else list(recorded):
        for count, games in recorded[where].get(kind, {}).items():
            counts[int(count)] = counts.get(int(count), 0) + games
    return (list(counts), list(counts.values())) if counts else ([1], [1])
