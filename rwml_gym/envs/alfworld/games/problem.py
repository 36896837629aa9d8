"""Rooms as PDDL problems: writing them for alfworld, and reading those of official games."""

from __future__ import annotations

import re
from functools import lru_cache

from rwml_gym.envs.alfworld.engine.game import Goal
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.rooms import OPENABLE, Room, kind_of
from rwml_gym.envs.alfworld.games.tables import fitted, placeable

__all__ = ["read_room", "symbol", "write_problem"]

ABILITIES = ("Cleanable", "Heatable", "Coolable", "Toggleable", "Sliceable")

_MANGLED = {"|": "_bar_", "+": "_plus_", "-": "_minus_", ".": "_dot_"}
_FACT = re.compile(r"\((inReceptacle|receptacleAtLocation|objectType)\s+(\S+)\s+([^\s()]+)\s*\)")


@lru_cache(maxsize=2**14)
def symbol(entity: str) -> str:
    """Return an id in PDDL's form, mangled as in official games."""
    for character, word in _MANGLED.items():
        entity = entity.replace(character, word)
    return entity


def write_problem(room: Room, start: str, goal: Goal) -> str:
    """Write the PDDL problem of a game: its entities, their places, the possible actions, and the goal.

    Args:
        room: The things at the start.
        start: Location of the agent at the start.
        goal: The goal.
    """
    receptacles, objects = room.receptacles, room.objects
    locations = {
        thing: _beside(thing) if receptacle is None else receptacles[receptacle]
        for thing, receptacle in objects.items()
    }
    everywhere = sorted({*receptacles.values(), *locations.values(), start})
    # the domain's actions name these types, even if the room has none
    object_types = sorted({*room.object_kinds(), "Knife", "ButterKnife"})
    receptacle_types = sorted({*room.receptacle_kinds(), "SinkBasin", "Microwave", "Fridge"})
    entities = ["agent1 - agent"]
    entities += [f"{symbol(thing)} - object" for thing in objects]
    entities += [f"{kind}Type - otype" for kind in object_types]
    entities += [f"{kind}Type - rtype" for kind in receptacle_types]
    entities += [f"{symbol(receptacle)} - receptacle" for receptacle in receptacles]
    entities += [f"{symbol(location)} - location" for location in everywhere]

    facts = [f"(atLocation agent1 {symbol(start)})"]
    for kind in room.receptacle_kinds():
        facts += [f"(canContain {kind}Type {o}Type)" for o in room.object_kinds() if o in placeable()[kind]]
    for receptacle, location in receptacles.items():
        facts += _receptacle_facts(receptacle, location)
    for thing, location in locations.items():
        facts.append(f"(objectAtLocation {symbol(thing)} {symbol(location)})")
        facts += _object_facts(thing, objects[thing], goal)
    head = ["(define (problem generated)", "(:domain alfred)"]
    return "\n".join([*head, "(:objects", *entities, ")", "(:init", *facts, ")", _goal_formula(goal)])


def read_room(problem: str) -> Room:
    """Read the things in the room of a game at its start.

    If an object is in two receptacles (a mug in a coffee machine on a counter top), the first one is used.

    Args:
        problem: PDDL problem of an official or a generated game.
    """
    room = Room()
    inside: dict[str, str] = {}
    for predicate, entity, value in _FACT.findall(problem.split("(:goal")[0]):
        if predicate == "receptacleAtLocation":
            room.receptacles[_entity(entity)] = _entity(value)
        elif predicate == "objectType":
            room.objects[_entity(entity)] = None
        else:
            inside.setdefault(_entity(entity), _entity(value))
    room.objects |= inside
    return room


def _receptacle_facts(receptacle: str, location: str) -> list[str]:
    name = symbol(receptacle)
    facts = [f"(receptacleType {name} {kind_of(receptacle)}Type)", f"(receptacleAtLocation {name} {symbol(location)})"]
    if kind_of(receptacle) in OPENABLE:
        facts.append(f"(openable {name})")
    return facts


def _object_facts(thing: str, receptacle: str | None, goal: Goal) -> list[str]:
    tables = package.constants()
    name, kind = symbol(thing), kind_of(thing)
    facts = [f"(objectType {name} {kind}Type)"]
    if receptacle is not None:
        facts.append(f"(inReceptacle {name} {symbol(receptacle)})")
    if kind not in fitted()["fixed"]:
        facts.append(f"(pickupable {name})")
    if kind in tables.MOVABLE_RECEPTACLES_SET:
        facts.append(f"(isReceptacleObject {name})")
    able = [ability for ability in ABILITIES if kind in tables.VAL_ACTION_OBJECTS[ability]]
    facts += [f"({ability.lower()} {name})" for ability in able]
    # as in official games, only the target is cold among the things in a fridge
    if kind == goal.target and receptacle is not None and kind_of(receptacle) == "Fridge" and "Coolable" in able:
        facts.append(f"(isCool {name})")
    return facts


def _goal_formula(goal: Goal) -> str:
    formula = package.goal_library()[goal.task_type]["pddl"]
    return formula.format(obj=goal.target, recep=goal.receptacle, toggle=goal.lamp).replace("#", "-")


def _beside(thing: str) -> str:
    """Return the place of an object in no receptacle: a location of its own, below its place in space."""
    x, _, z = (round(float(value) * 4) for value in thing.split("|")[1:4])
    return f"loc|{x}|{z}|0|60"


def _entity(name: str) -> str:
    for character, word in _MANGLED.items():
        name = name.replace(word, character)
    return name
