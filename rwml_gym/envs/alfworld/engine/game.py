"""One ALFWorld game as data, and how its entities are named in text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["ROOMS", "TASK_TYPES", "Game", "Goal", "entity_names", "room_of"]

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six task types, in the order in which alfworld numbers them from 1."""

ROOMS = ("kitchen", "living_room", "bedroom", "bathroom")
"""The types of room, in the order in which AI2-THOR numbers their floor plans."""


@dataclass(frozen=True)
class Goal:
    """What a game asks for.

    Attributes:
        task_type: one of `TASK_TYPES`.
        target: the type of the objects to be fetched, such as ``Mug``.
        receptacle: the type of receptacle they have to end up in; empty where the task is to use a lamp.
        lamp: the type of lamp to be used; empty where there is none.
    """

    task_type: str
    target: str
    receptacle: str = ""
    lamp: str = ""

    @property
    def count(self) -> int:
        """How many objects have to be fetched."""
        return 2 if self.task_type == "pick_two_obj_and_place" else 1


@dataclass(frozen=True)
class Game:
    """One playable game.

    Attributes:
        name: what `load` of its source takes; starts with the split.
        task_type: one of `TASK_TYPES`.
        task: the goal sentence, such as ``put a clean mug in coffeemachine``.
        data: what the engine loads: ``pddl_domain``, ``grammar``, ``pddl_problem``.
        plan: actions that win it, where they are known.
        data_version: which release of the data, and which grammar, the text comes from.
        path: the file it was read from, if any; error messages name it.
        goal: what it asks for, in alfworld's types.
        floor_plan: the number of its room in AI2-THOR.
        difficulty: the number of receptacles one has to search, where it is known: those of the room in which an
            object of the goal's target type may be at the start.
    """

    name: str
    task_type: str
    task: str
    data: dict[str, Any]
    plan: tuple[str, ...] | None
    data_version: str
    path: str | None = None
    goal: Goal | None = None
    floor_plan: int | None = None
    difficulty: int | None = None


def room_of(floor_plan: int) -> str:
    """The type of room of a floor plan: those of kitchens are below 100, of living rooms above 200, and so on."""
    return ROOMS[max(floor_plan // 100 - 1, 0)]


def entity_names(ids: Iterable[str]) -> dict[str, str]:
    """Names entities as alfworld does: by type, numbered downwards in the order of their ids.

    ``fridge_bar__plus_00_dot_10…`` becomes ``fridge 1``. Same result as ``Demangler(shuffle=False)`` of
    ``alfworld.agents.utils.misc``, the trailing space of an entity without a position (``agent1``) included.

    Args:
        ids: all the ids of a game, in lower case.
    """
    ordered = sorted(ids)
    remaining = Counter(_type_of(entity) for entity in ordered if "_bar_" in entity)
    names = {}
    for entity in ordered:
        if "_bar_" not in entity:
            names[entity] = f"{entity} "
            continue
        kind = _type_of(entity)
        names[entity] = f"{kind} {remaining[kind]}"
        remaining[kind] -= 1
    return names


def _type_of(entity: str) -> str:
    # sink|…|sinkbasin is a "sinkbasin" and not a "sink"
    return entity.split("_bar_", 1)[0] + ("basin" if "basin" in entity else "")
