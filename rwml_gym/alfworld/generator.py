"""Makes new ALFWorld games from the installed alfworld package alone: no download, no simulator.

A game is one of the real floor plans (which large receptacles stand where), objects of the types that occur in that
room placed where alfworld allows them, and a goal of one of the six task types. The goal never holds at the start, and
each game carries a plan that wins it; `verify` proves that by playing the plan in the engine.

What differs from official games: no floor lamps, no object lies outside of a receptacle, and placements are drawn from
one weight per receptacle type (`PLACEMENT_WEIGHTS`) rather than from recorded rooms. With the objects of 140 official
``valid_seen`` games placed anew, (object, receptacle) pairs are 0.19 away from the recorded ones in total variation;
those of ``valid_train`` are 0.14 away. The other tables were set by hand after looking at both of these splits.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache

from rwml_gym.alfworld import package
from rwml_gym.alfworld.game import TASK_TYPES, Game, entity_names
from rwml_gym.errors import InvalidGameError

__all__ = ["FLOOR_PLANS", "generate", "verify"]

VALID_UNSEEN_FLOOR_PLANS = frozenset({10, 219, 308, 424})
"""The rooms of the official ``valid_unseen`` split: generated games leave them unseen."""

FLOOR_PLANS = {
    room: tuple(number for number in numbers if number not in VALID_UNSEEN_FLOOR_PLANS)
    for room, numbers in {
        "Kitchen": range(1, 31),
        "LivingRoom": range(201, 231),
        "Bedroom": range(301, 331),
        "Bathroom": range(401, 431),
    }.items()
}
"""The floor plans generated games use, by type of room."""

OPENABLE = frozenset({"Fridge", "Cabinet", "Microwave", "Drawer", "Safe"})

PLACEMENT_WEIGHTS = {
    "ArmChair": 1.56,
    "BathtubBasin": 4.08,
    "Bed": 12.45,
    "Cabinet": 0.53,
    "Cart": 2.93,
    "CoffeeMachine": 4.47,
    "CoffeeTable": 3.79,
    "CounterTop": 3.0,
    "Desk": 4.09,
    "DiningTable": 5.36,
    "Drawer": 0.53,
    "Dresser": 4.46,
    "Fridge": 4.21,
    "GarbageCan": 1.13,
    "HandTowelHolder": 68.82,
    "Microwave": 1.51,
    "Ottoman": 2.47,
    "Safe": 2.35,
    "Shelf": 1.1,
    "SideTable": 2.0,
    "SinkBasin": 1.24,
    "Sofa": 4.52,
    "StoveBurner": 8.4,
    "TVStand": 3.18,
    "Toilet": 2.14,
    "ToiletPaperHanger": 1.16,
    "TowelHolder": 1.9,
}
"""How much a receptacle attracts objects: an object goes to a receptacle with a probability proportional to the weight
of its type, among the receptacles of the room that may hold it. Maximum likelihood on the placements of 200 official
games of ``train`` (``valid_train``); no game of an evaluation split was used."""

SMALLEST_WEIGHT = 0.1
"""For receptacles in which no recorded object lay."""

INSTANCE_WEIGHTS = {1: 41, 2: 33, 3: 26}
"""How often an object type that occurs in a room occurs once, twice, three times there."""

UNLISTED_APPLIANCES = {
    "StoveBurner": (4, 4),
    "CoffeeMachine": (1, 1),
    "Toaster": (1, 1),
    "GarbageCan": (1, 1),
    "ToiletPaperHanger": (1, 1),
    "TowelHolder": (1, 2),
    "HandTowelHolder": (1, 2),
    "Toilet": (1, 1),
    "LaundryHamper": (1, 1),
    "SinkBasin": (1, 1),
}
"""Fixed receptacles for which some floor plans give a type but no position: the fewest and the most of them."""

FIXTURES = {
    "HousePlant": ("CounterTop", "SideTable", "Shelf", "DiningTable", "Dresser"),
    "Television": ("TVStand", "Dresser", "Shelf"),
    "DeskLamp": ("Desk", "SideTable", "Shelf", "Dresser"),
}
"""Objects nobody can pick up, and the receptacles they stand on."""


@dataclass(frozen=True)
class Treatment:
    """What has to be done to the object of a task before it is put down."""

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
    """A floor plan with things in it: where each receptacle is, and in which receptacle each object."""

    receptacles: dict[str, str] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[str]:
        """The ids of all receptacles, or all objects, of a type."""
        return [entity for entity in (*self.receptacles, *self.objects) if kind_of(entity) == kind]

    def receptacle_kinds(self) -> list[str]:
        """The types of receptacle in the room, sorted."""
        return sorted({kind_of(receptacle) for receptacle in self.receptacles})

    def object_kinds(self) -> list[str]:
        """The types of object in the room, sorted."""
        return sorted({kind_of(thing) for thing in self.objects})

    def place(self, rng: random.Random, kind: str, avoid: str = "") -> bool:
        """Puts one more object of a type where it may be; says whether there was such a place outside of ``avoid``."""
        allowed = [r for r in self.receptacles if kind in placeable().get(kind_of(r), ()) and kind_of(r) != avoid]
        if not allowed:
            return False
        weights = [PLACEMENT_WEIGHTS.get(kind_of(receptacle), SMALLEST_WEIGHT) for receptacle in allowed]
        self.objects[f"{kind}|{_position(rng)}"] = rng.choices(allowed, weights)[0]
        return True


@dataclass(frozen=True)
class Goal:
    """What a game asks for: objects of one type, and a receptacle type (none where the task is to use a lamp)."""

    task_type: str
    target: str
    receptacle: str

    @property
    def count(self) -> int:
        """How many objects have to end up in the receptacle."""
        return 2 if self.task_type == "pick_two_obj_and_place" else 1

    @property
    def lamp(self) -> str:
        """The type of lamp to be used, if any."""
        return "" if self.receptacle else "DeskLamp"


def kind_of(entity: str) -> str:
    """The type of an entity: ``Mug|+01.00|…`` is a ``Mug``, ``Sink|…|SinkBasin`` a ``SinkBasin``."""
    parts = entity.split("|")
    return parts[-1] if entity.endswith("Basin") else parts[0]


@cache
def placeable() -> dict[str, frozenset[str]]:
    """Which object types may be in which receptacle types, slices and movable receptacles left out."""
    tables = package.constants()
    return {
        receptacle: frozenset(kind for kind in kinds if "Sliced" not in kind)
        for receptacle, kinds in tables.VAL_RECEPTACLE_OBJECTS.items()
        if receptacle not in tables.MOVABLE_RECEPTACLES_SET
    }


def generate(name: str, task_type: str) -> Game:
    """Makes the game of a name: the name is the seed, so that the same name is the same game in every process.

    Args:
        name: any string.
        task_type: one of `TASK_TYPES`.

    Returns:
        A game with a plan that wins it.
    """
    assert task_type in TASK_TYPES, task_type
    rng = random.Random(name)
    rooms = sorted(package.constants().GOALS_VALID[task_type])
    floor_plans = [number for room in rooms for number in FLOOR_PLANS[room]]
    while True:  # about one room in three does not fit the task
        room = furnish(rng, rng.choice(floor_plans))
        goal = choose_goal(rng, room, task_type)
        if goal is not None and make_unsolved(rng, room, goal):
            return _game(rng, name, room, goal)


def furnish(rng: random.Random, floor_plan: int) -> Room:
    """Sets up the receptacles of a floor plan and fills them with objects."""
    positions, types = package.floor_plan(floor_plan)
    room = Room()
    for receptacle, (x, z, rotation, horizon) in positions.items():
        if kind_of(receptacle) in placeable():
            room.receptacles[receptacle] = f"loc|{round(x * 4)}|{round(z * 4)}|{int(rotation) // 90}|{int(horizon)}"
    _add_unlisted_appliances(rng, room, types, listed={kind_of(receptacle) for receptacle in positions})
    for kind in sorted(types):
        if kind in FIXTURES:
            stands = [receptacle for receptacle in room.receptacles if kind_of(receptacle) in FIXTURES[kind]]
            if stands:
                room.objects[f"{kind}|{_position(rng)}"] = rng.choice(stands)
        elif kind in package.constants().NON_RECEPTACLES_SET:
            for _ in range(rng.choices(list(INSTANCE_WEIGHTS), list(INSTANCE_WEIGHTS.values()))[0]):
                room.place(rng, kind)
    return room


def _add_unlisted_appliances(rng: random.Random, room: Room, types: list[str], listed: Collection[str]) -> None:
    for kind, (fewest, most) in UNLISTED_APPLIANCES.items():
        if kind not in types or kind in listed:
            continue
        _, x, z, rotation, _ = rng.choice(sorted(room.receptacles.values())).split("|")
        for index in range(rng.randint(fewest, most)):
            prefix, suffix = ("Sink", "|SinkBasin") if kind == "SinkBasin" else (kind, "")
            # two burners share a place to stand, as in official games; horizon 60 keeps clear of the other receptacles
            location = f"loc|{x}|{int(z) + 1 + index // 2}|{rotation}|60"
            room.receptacles[f"{prefix}|{_position(rng)}{suffix}"] = location


def choose_goal(rng: random.Random, room: Room, task_type: str) -> Goal | None:
    """Draws a goal that alfworld allows and that the things in the room can meet; None if there is none."""
    targets = [kind for kind in room.object_kinds() if kind not in FIXTURES]
    if task_type == "look_at_obj_in_light":
        options = [(kind, "") for kind in targets] if room.of_kind("DeskLamp") else []
    else:
        options = [(kind, r) for kind in targets for r in room.receptacle_kinds() if kind in placeable()[r]]
    treatment = TREATMENTS.get(task_type)
    if treatment is not None:
        if not room.of_kind(treatment.tool):
            return None
        treatable = package.constants().VAL_ACTION_OBJECTS[treatment.applies_to]
        options = [(kind, r) for kind, r in options if kind in treatable and r != treatment.tool]
    return Goal(task_type, *rng.choice(options)) if options else None


def make_unsolved(rng: random.Random, room: Room, goal: Goal) -> bool:
    """Moves the targets out of the goal's receptacles and adds missing ones; says whether the goal can be met."""
    for thing in room.of_kind(goal.target):
        if kind_of(room.objects[thing]) == goal.receptacle:
            del room.objects[thing]
            room.place(rng, goal.target, avoid=goal.receptacle)
    while len(room.of_kind(goal.target)) < goal.count:
        if not room.place(rng, goal.target, avoid=goal.receptacle):
            return False
    return True


def _game(rng: random.Random, name: str, room: Room, goal: Goal) -> Game:
    library = package.goal_library()[goal.task_type]
    words = {"obj": goal.target.lower(), "recep": goal.receptacle.lower(), "toggle": goal.lamp.lower()}
    task = rng.choice(library["templates"]).format(**words)
    start = _free_location(rng, room)
    formula = library["pddl"].format(obj=goal.target, recep=goal.receptacle, toggle=goal.lamp).replace("#", "-")
    data = {
        "pddl_domain": package.domain(),
        "grammar": package.grammar().replace("UNKNOWN GOAL", task),
        "pddl_problem": _problem(room, start, formula),
        "solvable": True,
    }
    plan = tuple(_plan(room, goal))
    return Game(name, goal.task_type, task, data, plan, f"generated (alfworld {package.version()})")


def _free_location(rng: random.Random, room: Room) -> str:
    """Where the agent starts: somewhere in the room, at no receptacle."""
    while True:
        location = f"loc|{rng.randint(-15, 15)}|{rng.randint(-15, 15)}|{rng.randint(0, 3)}|30"
        if location not in room.receptacles.values():
            return location


def _position(rng: random.Random) -> str:
    return "|".join(f"{rng.uniform(-3.5, 3.5):+06.2f}" for _ in range(3))


def _symbol(entity: str) -> str:
    """An id as PDDL takes it, mangled as in official games."""
    return entity.replace("|", "_bar_").replace("+", "_plus_").replace("-", "_minus_").replace(".", "_dot_")


def _problem(room: Room, start: str, goal: str) -> str:
    """Writes the PDDL problem: what there is, where it is, what can be done with it, what is wanted."""
    tables = package.constants()
    receptacles, objects = room.receptacles, room.objects
    receptacle_kinds, object_kinds = room.receptacle_kinds(), room.object_kinds()
    at = {entity: _symbol(entity) for entity in (*receptacles, *objects, *receptacles.values(), start)}

    facts = [f"(atLocation agent1 {at[start]})"]
    facts += [f"(canContain {r}Type {o}Type)" for r in receptacle_kinds for o in object_kinds if o in placeable()[r]]
    for receptacle, location in receptacles.items():
        facts.append(f"(receptacleType {at[receptacle]} {kind_of(receptacle)}Type)")
        facts.append(f"(receptacleAtLocation {at[receptacle]} {at[location]})")
        if kind_of(receptacle) in OPENABLE:
            facts.append(f"(openable {at[receptacle]})")
    for thing, receptacle in objects.items():
        kind = kind_of(thing)
        facts.append(f"(objectType {at[thing]} {kind}Type)")
        facts.append(f"(inReceptacle {at[thing]} {at[receptacle]})")
        facts.append(f"(objectAtLocation {at[thing]} {at[receptacles[receptacle]]})")
        if kind not in FIXTURES:
            facts.append(f"(pickupable {at[thing]})")
        if kind in tables.MOVABLE_RECEPTACLES_SET:
            facts.append(f"(isReceptacleObject {at[thing]})")
        for ability in ("Cleanable", "Heatable", "Coolable", "Toggleable", "Sliceable"):
            if kind in tables.VAL_ACTION_OBJECTS[ability]:
                facts.append(f"({ability.lower()} {at[thing]})")

    # the domain's actions name these types, whether or not the room has one
    object_types = sorted({*object_kinds, "Knife", "ButterKnife"})
    receptacle_types = sorted({*receptacle_kinds, "SinkBasin", "Microwave", "Fridge"})
    entities = ["agent1 - agent"]
    entities += [f"{at[thing]} - object" for thing in objects]
    entities += [f"{kind}Type - otype" for kind in object_types]
    entities += [f"{kind}Type - rtype" for kind in receptacle_types]
    entities += [f"{at[receptacle]} - receptacle" for receptacle in receptacles]
    entities += [f"{at[location]} - location" for location in sorted({*receptacles.values(), start})]
    head = ["(define (problem generated)", "(:domain alfred)"]
    return "\n".join([*head, "(:objects", *entities, ")", "(:init", *facts, ")", goal])


def _plan(room: Room, goal: Goal) -> list[str]:
    """Writes actions that win: fetch each target, treat it if the task says so, put it down (or use the lamp)."""
    ids = {entity: _symbol(entity).lower() for entity in (*room.receptacles, *room.objects)}
    names = entity_names(ids.values())
    say = {entity: names[symbol] for entity, symbol in ids.items()}
    actions: list[str] = []
    opened: set[str] = set()
    here = ""

    def visit(receptacle: str, look_inside: bool = True) -> None:
        nonlocal here
        if room.receptacles[receptacle] != here:  # some receptacles share a location; one cannot go where one is
            actions.append(f"go to {say[receptacle]}")
            here = room.receptacles[receptacle]
        if look_inside and kind_of(receptacle) in OPENABLE and receptacle not in opened:
            actions.append(f"open {say[receptacle]}")
            opened.add(receptacle)

    for thing in room.of_kind(goal.target)[: goal.count]:
        visit(room.objects[thing])
        actions.append(f"take {say[thing]} from {say[room.objects[thing]]}")
        treatment = TREATMENTS.get(goal.task_type)
        if treatment is not None:
            tool = room.of_kind(treatment.tool)[0]
            visit(tool, look_inside=False)
            actions.append(f"{treatment.verb} {say[thing]} with {say[tool]}")
        if goal.receptacle:
            destination = room.of_kind(goal.receptacle)[0]
            visit(destination)
            actions.append(f"move {say[thing]} to {say[destination]}")
    if goal.lamp:
        lamp = room.of_kind(goal.lamp)[0]
        visit(room.objects[lamp])
        actions.append(f"use {say[lamp]}")
    return actions


def verify(game: Game) -> int:
    """Plays a game's own plan in the engine.

    Returns:
        The number of actions after which it was won.

    Raises:
        InvalidGameError: there is no plan, the goal holds at the start, an action of the plan is not admissible, or
            the plan does not win.
    """
    from rwml_gym.alfworld.engine import Engine

    if game.plan is None:
        raise InvalidGameError(f"Game {game.name} has no plan to verify; only generated games bring one.")
    engine = Engine()
    state = engine.start(game.data)
    if state.won:
        raise InvalidGameError(f"Game {game.name} is won before the first action.")
    for count, action in enumerate(game.plan, start=1):
        if action not in state.admissible:
            raise InvalidGameError(f"Game {game.name}: action {count} of its plan, {action!r}, is not admissible.")
        state = engine.step(action)
        if state.won:
            return count
    raise InvalidGameError(f"Game {game.name} is not won by its own plan {game.plan}.")
