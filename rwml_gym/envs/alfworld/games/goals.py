"""The goals that a floor plan allows, their difficulties, and the choice of a goal for a game."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from functools import cache

from rwml_gym.envs.alfworld.engine.game import ROOMS, Goal
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.rooms import (
    FLOOR_PLANS,
    TREATMENTS,
    Layout,
    hiding_places,
    kind_of,
    lamp_stands,
    layout,
)
from rwml_gym.envs.alfworld.games.tables import fitted, goal_weight, placeable

__all__ = ["LAMPS", "Range", "allowed_goals", "choose", "difficulties", "options", "rooms_of"]

Range = tuple[int, int]
"""The fewest and the most receptacles to search."""

LAMPS = ("DeskLamp", "FloorLamp")

ROOM_NAMES = dict(zip(("Kitchen", "LivingRoom", "Bedroom", "Bathroom"), ROOMS, strict=True))
"""alfworld's names of the types of room, with ours."""


@cache
def rooms_of(task_type: str) -> tuple[str, ...]:
    """Return the types of room that have games of a task type."""
    named = {ROOM_NAMES[name] for name in package.constants().GOALS_VALID[task_type]}
    return tuple(room for room in ROOMS if room in named)


@cache
def options(task_type: str, floor_plan: int) -> dict[Goal, int]:
    """Return the goals of a task type that can be met on a floor plan, with the difficulty of each.

    The difficulty is the number of receptacles to search: those in which an object of the target's type may be at the
    start. Objects outside receptacles, and the place of the task's lamp, are not counted.
    """
    plan = layout(floor_plan)
    present = {kind_of(receptacle) for receptacle in plan.receptacles}
    lamps = [kind for kind in LAMPS if kind in plan.kinds and lamp_stands(plan, kind)]
    searched = {goal: _difficulty(plan, goal) for goal in allowed_goals(task_type, plan.kinds, present, lamps)}
    return {goal: difficulty for goal, difficulty in searched.items() if difficulty}


def allowed_goals(
    task_type: str, objects: Iterable[str], receptacles: Collection[str], lamps: Iterable[str]
) -> list[Goal]:
    """Return the goals of a task type that alfworld's tables allow in a room with such things.

    Args:
        task_type: One of `TASK_TYPES`.
        objects: Types of object; those that alfworld places nowhere are ignored.
        receptacles: Types of receptacle.
        lamps: Types of usable lamp.
    """
    targets = [kind for kind in objects if any(kind in kinds for kinds in placeable().values())]
    if task_type == "look_at_obj_in_light":
        return [Goal(task_type, target, lamp=lamp) for target in targets for lamp in lamps]
    tool = ""
    if task_type in TREATMENTS:
        treatment = TREATMENTS[task_type]
        tool = treatment.tool
        if tool not in receptacles:
            return []
        treatable = package.constants().VAL_ACTION_OBJECTS[treatment.applies_to]
        targets = [kind for kind in targets if kind in treatable]
    kinds = sorted(set(receptacles) - {tool})
    return [Goal(task_type, target, kind) for target in targets for kind in kinds if target in placeable()[kind]]


def _difficulty(plan: Layout, goal: Goal) -> int:
    hiding = hiding_places(plan, goal)
    return sum(kind_of(receptacle) in hiding for receptacle in plan.receptacles)


@cache
def difficulties(task_type: str, room: str) -> frozenset[int]:
    """Return the difficulties of games of a task type in a type of room."""
    plans = FLOOR_PLANS[room] if room in rooms_of(task_type) else ()
    return frozenset(difficulty for plan in plans for difficulty in options(task_type, plan).values())


def choose(rng: random.Random, task_type: str, room: str | None, wanted: Range | None) -> tuple[int, Goal]:
    """Draw the number of a floor plan and a goal for it, with the frequencies of recorded games.

    Args:
        rng: Random generator.
        task_type: One of `TASK_TYPES`.
        room: One of `ROOMS`; drawn if None.
        wanted: The fewest and the most receptacles to search. Some goal of the task type and room must be in the range.
    """
    rooms = rooms_of(task_type) if room is None else (room,)
    weights = [fitted()["rooms"][task_type][name] for name in rooms]
    while True:  # most floor plans have such goals; a narrow range of difficulties needs a few tries
        floor_plan = rng.choice(FLOOR_PLANS[rng.choices(rooms, weights)[0]])
        goals = options(task_type, floor_plan)
        fitting = [goal for goal, n in goals.items() if wanted is None or wanted[0] <= n <= wanted[1]]
        if fitting:
            chances = [goal_weight(task_type, goal.target, goal.receptacle or goal.lamp) for goal in fitting]
            return floor_plan, rng.choices(fitting, chances)[0]
