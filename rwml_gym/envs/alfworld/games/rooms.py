"""Generated rooms: the receptacles of a real floor plan, and objects placed as in recorded games."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from itertools import accumulate

from rwml_gym.envs.alfworld.engine.game import ROOMS, Goal, room_of
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.tables import FLOOR, fitted, instances, kinds_of_place, place_weight, placeable

__all__ = [
    "FLOOR_PLANS",
    "OPENABLE",
    "TREATMENTS",
    "Room",
    "Treatment",
    "by_kind",
    "draw_place",
    "furnish",
    "hiding_places",
    "kind_of",
    "layout",
    "position",
]

VALID_UNSEEN_FLOOR_PLANS = frozenset({10, 219, 308, 424})
"""The rooms of the official ``valid_unseen`` split, which generated games do not use."""

FLOOR_PLANS = {
    room: tuple(number for number in range(first, first + 30) if number not in VALID_UNSEEN_FLOOR_PLANS)
    for room, first in zip(ROOMS, (1, 201, 301, 401), strict=True)
}
"""The floor plans of generated games, by type of room."""

OPENABLE = frozenset({"Fridge", "Cabinet", "Microwave", "Drawer", "Safe"})

FLOOR_LAMP_STANDS = frozenset({"ArmChair", "Sofa", "SideTable"})
"""Receptacles for a floor lamp in a task. Recorded lamps stand on the floor, where alfworld's domain does not allow
their use: both its action and its goal formula require the lamp in a receptacle."""


@dataclass(frozen=True)
class Treatment:
    """The treatment of a task's object before it is put down."""

    verb: str
    applies_to: str
    tool: str


TREATMENTS = {
    "pick_clean_then_place_in_recep": Treatment("clean", "Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": Treatment("heat", "Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": Treatment("cool", "Coolable", "Fridge"),
}


@dataclass
class Room:
    """A room with things in it.

    Attributes:
        receptacles: The place to stand for each receptacle, by its id.
        objects: The receptacle of each object, by the object's id; None for no receptacle.
    """

    receptacles: dict[str, str] = field(default_factory=dict)
    objects: dict[str, str | None] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[str]:
        """Return the ids of all receptacles, or all objects, of a type."""
        return [entity for entity in (*self.receptacles, *self.objects) if kind_of(entity) == kind]

    def within_reach(self, kind: str) -> dict[str, str]:
        """Return the receptacle of each object of a type; objects in no receptacle, which are useless, are omitted."""
        return {thing: place for thing, place in self.objects.items() if place and kind_of(thing) == kind}

    def place_of(self, thing: str) -> str:
        """Return the type of receptacle an object is in, or `FLOOR`."""
        receptacle = self.objects[thing]
        return FLOOR if receptacle is None else kind_of(receptacle)

    def receptacle_kinds(self) -> list[str]:
        """Return the types of receptacle in the room, sorted."""
        return sorted({kind_of(receptacle) for receptacle in self.receptacles})

    def object_kinds(self) -> list[str]:
        """Return the types of object in the room, sorted."""
        return sorted({kind_of(thing) for thing in self.objects})


@dataclass(frozen=True)
class Layout:
    """The constant part of a floor plan: the place of each receptacle, and the types of object."""

    receptacles: dict[str, str]
    kinds: tuple[str, ...]

    @cached_property
    def by_kind(self) -> dict[str, list[str]]:
        """The receptacles of each type."""
        return by_kind(self.receptacles)

    def places(self, kind: str) -> tuple[str, ...]:
        """Return the possible places of an object type: types of receptacle, and `FLOOR`."""
        if kind not in self._places:
            recorded = fitted()["place_factors"].get(kind, ())
            self._places[kind] = tuple(kinds_of_place(kind, sorted(self.by_kind), recorded))
        return self._places[kind]

    @cached_property
    def _places(self) -> dict[str, tuple[str, ...]]:
        return {}


@lru_cache(maxsize=2**14)
def kind_of(entity: str) -> str:
    """Return the type of an entity: ``Mug|+01.00|…`` is a ``Mug``, ``Sink|…|SinkBasin`` a ``SinkBasin``."""
    parts = entity.split("|")
    return parts[-1] if entity.endswith("Basin") else parts[0]


def by_kind(receptacles: Iterable[str]) -> dict[str, list[str]]:
    """Group receptacles by their type."""
    found: dict[str, list[str]] = {}
    for receptacle in receptacles:
        found.setdefault(kind_of(receptacle), []).append(receptacle)
    return found


def draw_place(
    rng: random.Random, kind: str, places: Sequence[str], receptacles: Mapping[str, Sequence[str]]
) -> str | None:
    """Draw a place for an object of a type.

    Args:
        rng: Random generator.
        kind: The object type.
        places: Types of place.
        receptacles: Those in the room, by type.

    Returns:
        A receptacle of one of the types; None for `FLOOR`.
    """
    choices, chances = _chances(kind, tuple(places))
    place = rng.choices(choices, cum_weights=chances)[0]
    return None if place == FLOOR else rng.choice(receptacles[place])


@cache
def _chances(kind: str, places: tuple[str, ...]) -> tuple[tuple[str, ...], list[float]]:
    """Return types of place for an object type, and their cumulative weights."""
    return places, list(accumulate(place_weight(kind, place) for place in places))


def position(rng: random.Random) -> str:
    """Draw a place in space, in the form of the end of an id."""
    return "|".join(f"{rng.uniform(-3.5, 3.5):+06.2f}" for _ in range(3))


@cache
def layout(floor_plan: int) -> Layout:
    """Return the layout of a floor plan.

    alfworld's files omit some receptacles. Their number was recorded for most floor plans; for the others it is the
    most common number among floor plans that omit the same type.
    """
    positions, types = package.floor_plan(floor_plan)
    receptacles = {}
    for receptacle, (x, z, rotation, horizon) in positions.items():
        if kind_of(receptacle) in placeable():
            receptacles[receptacle] = f"loc|{round(x * 4)}|{round(z * 4)}|{int(rotation) // 90}|{int(horizon)}"
    missing = fitted()["unlisted_receptacles"].get(str(floor_plan))
    if missing is None:
        unlisted = set(types) - {kind_of(receptacle) for receptacle in positions}
        missing = {kind: count for kind, count in fitted()["usual_receptacles"].items() if kind in unlisted}
    rng = random.Random(f"floor plan {floor_plan}")
    stands = sorted(receptacles.values())
    for kind, count in missing.items():
        _, east, north, turn, _ = rng.choice(stands).split("|")
        prefix, suffix = ("Sink", "|SinkBasin") if kind == "SinkBasin" else (kind, "")
        for index in range(count):
            # as in official games, two burners share a place; horizon 60 keeps it apart from other receptacles
            location = f"loc|{east}|{int(north) + 1 + index // 2}|{turn}|60"
            receptacles[f"{prefix}|{position(rng)}{suffix}"] = location
    return Layout(receptacles, tuple(sorted(set(types) & package.constants().NON_RECEPTACLES_SET)))


def hiding_places(plan: Layout, goal: Goal) -> list[str]:
    """Return the types of receptacle in which the target of a goal may be at the start.

    As in official games, the target is never in its tool, or, without a treatment, in one of the goal's receptacles.
    """
    treatment = TREATMENTS.get(goal.task_type)
    avoided = goal.receptacle if treatment is None else treatment.tool
    return [place for place in plan.places(goal.target) if place not in (FLOOR, avoided)]


def furnish(rng: random.Random, floor_plan: int, goal: Goal | None = None) -> Room:
    """Fill a floor plan with objects so that a goal can be met and is not met yet.

    Args:
        rng: Draws the numbers of objects and their places.
        floor_plan: Number of the floor plan.
        goal: Goal for the room, if any.
    """
    plan = layout(floor_plan)
    room = Room(dict(plan.receptacles))
    for kind in plan.kinds:
        count = rng.choices(*instances(room_of(floor_plan), kind))[0]
        places: Sequence[str] = plan.places(kind)
        needed = 0
        reachable: Sequence[str] = []
        if goal is not None and kind == goal.target:
            needed, reachable = goal.count, hiding_places(plan, goal)
            places = [*reachable, FLOOR]
        elif goal is not None and kind == goal.lamp:
            needed, reachable = 1, lamp_stands(plan, kind)
        for index in range(max(count, needed)):
            receptacle = draw_place(rng, kind, reachable if index < needed else places, plan.by_kind)
            room.objects[f"{kind}|{position(rng)}"] = receptacle
    return room


def lamp_stands(plan: Layout, lamp: str) -> list[str]:
    """Return the types of receptacle for a lamp in a task."""
    if lamp == "FloorLamp":
        return sorted({kind_of(receptacle) for receptacle in plan.receptacles} & FLOOR_LAMP_STANDS)
    return [place for place in plan.places(lamp) if place != FLOOR]
