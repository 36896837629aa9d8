"""Tables for generated rooms and goals: fitted to recorded games, or given by alfworld.

``benchmarks/generator/fit_tables.py`` writes ``tables.json`` from the 200 official games of ``valid_train`` alone.
Every weight in it is that of a conditional logit: each option is chosen with a probability proportional to its weight
among the possible ones. An option that was never recorded has weight 1, the mode of the prior.
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
"""Stands for the type of receptacle of an object in no receptacle."""


@cache
def fitted() -> dict[str, Any]:
    """Return the fitted tables, by name."""
    file = resources.files("rwml_gym.envs.alfworld.games").joinpath("tables.json")
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def placeable() -> dict[str, frozenset[str]]:
    """Return alfworld's object types for each receptacle type, without slices and movable receptacles."""
    tables = package.constants()
    return {
        receptacle: frozenset(kind for kind in kinds if "Sliced" not in kind)
        for receptacle, kinds in tables.VAL_RECEPTACLE_OBJECTS.items()
        if receptacle not in tables.MOVABLE_RECEPTACLES_SET
    }


def kinds_of_place(kind: str, receptacle_kinds: Iterable[str], recorded: Collection[str]) -> list[str]:
    """Return the places of an object type at the start: receptacles that alfworld allows, recorded ones, and `FLOOR`.

    Args:
        kind: The object type.
        receptacle_kinds: Types of receptacle in the room.
        recorded: Types of place in which this object type was recorded.
    """
    return [r for r in receptacle_kinds if kind in placeable()[r] or r in recorded] + [FLOOR]


def place_weight(kind: str, place: str) -> float:
    """Return the weight of a type of place for an object type, relative to the other types of place in the room."""
    factor = fitted()["place_factors"].get(kind, {}).get(place, 1.0)
    return fitted()["place_weights"].get(place, 1.0) * factor


def goal_weight(task_type: str, target: str, receptacle: str) -> float:
    """Return the weight of a target and a receptacle (or lamp) for a task type, if the room has both."""
    wanted = fitted()["goals"][task_type]
    return wanted["target"].get(target, 1.0) * wanted["receptacle"].get(receptacle, 1.0)


@cache
def instances(room: str, kind: str) -> tuple[list[int], list[int]]:
    """Return the possible numbers of objects of a type in a room, and the number of recorded games for each.

    If no room of this type has a recorded object of the type, all rooms count; one that was never recorded occurs once.
    """
    recorded = fitted()["instances"]
    counts: dict[int, int] = {}
    for where in [room] if kind in recorded[room] else list(recorded):
        for count, games in recorded[where].get(kind, {}).items():
            counts[int(count)] = counts.get(int(count), 0) + games
    return (list(counts), list(counts.values())) if counts else ([1], [1])
