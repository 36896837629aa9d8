"""One ALFWorld game as data, and the names of its entities in texts."""

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
"""The six task types, in alfworld's order (numbered from 1)."""

ROOMS = ("kitchen", "living_room", "bedroom", "bathroom")
"""The types of room, in the order of AI2-THOR's floor plan numbers."""


@dataclass(frozen=True)
class Goal:
    """The goal of a game.

    Attributes:
        task_type: One of `TASK_TYPES`.
        target: Type of the objects to fetch, such as ``Mug``.
        receptacle: Type of receptacle for the objects; empty if the task is to use a lamp.
        lamp: Type of lamp to use; empty if there is none.
    """

    task_type: str
    target: str
    receptacle: str = ""
    lamp: str = ""

    @property
    def count(self) -> int:
        """Number of objects to fetch."""
        return 2 if self.task_type == "pick_two_obj_and_place" else 1


@dataclass(frozen=True)
class Game:
    """One playable game.

    Attributes:
        name: Argument for `load` of the game's source; it starts with the split.
        task_type: One of `TASK_TYPES`.
        task: The goal sentence, such as ``put a clean mug in coffeemachine``.
        data: Data for the engine: ``pddl_domain``, ``grammar``, ``pddl_problem``.
        plan: Actions that win the game, if known.
        data_version: Release of the data and the grammar of the texts.
        path: File of the game, if any, for error messages.
        goal: The goal, in alfworld's types.
        floor_plan: Number of the room in AI2-THOR.
        difficulty: Number of receptacles that may hold an object of the target type at the start, if known.
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
    """Return the type of room of a floor plan: below 100 a kitchen, above 200 a living room, and so on."""
    return ROOMS[max(floor_plan // 100 - 1, 0)]


def entity_names(ids: Iterable[str]) -> dict[str, str]:
    """Name entities as alfworld does: by type, numbered downwards in the order of their ids.

    ``fridge_bar__plus_00_dot_10…`` becomes ``fridge 1``. The result is that of ``Demangler(shuffle=False)`` in
    ``alfworld.agents.utils.misc``, including the trailing space of an entity without a position (``agent1``).

    Args:
        ids: All ids of a game, in lower case.
    """
    names = {}
    numbers: Counter[str] = Counter()
    for entity in sorted(ids, reverse=True):
        if "_bar_" in entity:
            kind = _type_of(entity)
            numbers[kind] += 1
            names[entity] = f"{kind} {numbers[kind]}"
        else:
            names[entity] = f"{entity} "
    return names


def _type_of(entity: str) -> str:
    # sink|…|sinkbasin is a "sinkbasin", not a "sink"
    return entity.split("_bar_", 1)[0] + ("basin" if "basin" in entity else "")
