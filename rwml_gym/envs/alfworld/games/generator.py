"""Generator of new ALFWorld games from the installed alfworld package alone: no download, no simulator.

A game is one of the real floor plans, filled with objects as in recorded games, with a goal of one of the six task
types. The goal never holds at the start, and each game has a plan that wins it; `verify` plays the plan in the engine.

Distance to official games, in total variation of (object, receptacle) pairs: ``valid_seen``, which was not used for
fitting, is 0.12 away from itself with its recorded objects placed anew, 0.13 with its rooms furnished anew, and 0.13
with whole games generated anew. Its halves are 0.23 apart, and sampling alone would leave a perfect generator about
0.11 away. ``python benchmarks/generator/measure_games.py --data FOLDER`` prints these numbers and more;
``fit_tables.py`` beside it fits the tables to ``valid_train``.

Differences to official games:

* A floor lamp in a task stands at a seat or a side table. Recorded ones stand on the floor, where alfworld's domain
  does not allow their use, and no recorded task needs one.
* No object is in two receptacles at once (1.6 % of the recorded ones) or inside another object (0.6 %).
* On floor plans that ``valid_train`` lacks, receptacles that alfworld's layout files omit are a guess.
* Places to stand are those of the layout files; official ones differ from game to game, which no text shows.
"""

from __future__ import annotations

import random

from rwml_gym.envs.alfworld.engine.game import TASK_TYPES, Game, Goal, entity_names
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.goals import Range, choose, options
from rwml_gym.envs.alfworld.games.problem import symbol, write_problem
from rwml_gym.envs.alfworld.games.rooms import OPENABLE, TREATMENTS, Room, furnish, kind_of
from rwml_gym.errors import InvalidGameError

__all__ = ["generate", "verify"]


def generate(name: str, task_type: str, room: str | None = None, difficulty: Range | None = None) -> Game:
    """Generate the game of a name: the name is the seed, so every process makes the same game; its plan wins it.

    Args:
        name: Any string.
        task_type: One of `TASK_TYPES`.
        room: One of the `rooms_of` the task type; by default drawn, as often as in official games.
        difficulty: The fewest and the most receptacles to search, some of `difficulties` between them; any by default.
    """
    assert task_type in TASK_TYPES, task_type
    rng = random.Random(name)
    floor_plan, goal = choose(rng, task_type, room, difficulty)
    furnished = furnish(rng, floor_plan, goal)
    words = {"obj": goal.target.lower(), "recep": goal.receptacle.lower(), "toggle": goal.lamp.lower()}
    task = rng.choice(package.goal_library()[task_type]["templates"]).format(**words)
    plan = _plan(furnished, goal)
    data = {
        "pddl_domain": package.domain(),
        "grammar": package.grammar().replace("UNKNOWN GOAL", task),
        "pddl_problem": write_problem(furnished, _free_location(rng, furnished), goal),
        "solvable": True,
        "walkthrough": plan,
    }
    return Game(
        name=name,
        task_type=task_type,
        task=task,
        data=data,
        plan=tuple(plan),
        data_version=f"generated (alfworld {package.version()})",
        goal=goal,
        floor_plan=floor_plan,
        difficulty=options(task_type, floor_plan)[goal],
    )


def _free_location(rng: random.Random, room: Room) -> str:
    """Draw the agent's start: a location in the room that is not at a receptacle."""
    while True:
        location = f"loc|{rng.randint(-15, 15)}|{rng.randint(-15, 15)}|{rng.randint(0, 3)}|30"
        if location not in room.receptacles.values():
            return location


def _plan(room: Room, goal: Goal) -> list[str]:
    """Write actions that win: fetch each target, treat it if necessary, and put it down (or use the lamp)."""
    ids = {entity: symbol(entity).lower() for entity in (*room.receptacles, *room.objects)}
    names = entity_names(ids.values())
    say = {entity: names[symbol] for entity, symbol in ids.items()}
    actions: list[str] = []
    opened: set[str] = set()
    here = ""

    def visit(receptacle: str, look_inside: bool = True) -> None:
        nonlocal here
        if room.receptacles[receptacle] != here:  # receptacles may share a location; the agent cannot go to where it is
            actions.append(f"go to {say[receptacle]}")
            here = room.receptacles[receptacle]
        if look_inside and kind_of(receptacle) in OPENABLE and receptacle not in opened:
            actions.append(f"open {say[receptacle]}")
            opened.add(receptacle)

    for thing, place in list(room.within_reach(goal.target).items())[: goal.count]:
        visit(place)
        actions.append(f"take {say[thing]} from {say[place]}")
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
        lamp, place = next(iter(room.within_reach(goal.lamp).items()))
        visit(place)
        actions.append(f"use {say[lamp]}")
    return actions


def verify(game: Game) -> int:
    """Play a game's own plan in the engine; return the number of actions after which it was won.

    Raises:
        InvalidGameError: If the goal holds at the start, or there is no plan whose admissible actions win.
    """
    from rwml_gym.envs.alfworld.engine.engine import Engine

    if game.plan is None:
        raise InvalidGameError(f"Expected a plan to verify, actual: none in {game.name}. Verify generated games only.")
    engine = Engine()
    state = engine.start(game.data)
    if state.won:
        raise InvalidGameError(f"Expected a game that is not won at the start, actual: {game.name} is won.")
    for count, action in enumerate(game.plan, start=1):
        if action not in state.admissible:
            raise InvalidGameError(f"Expected admissible actions in {game.name}'s plan, actual: {action!r} at {count}.")
        state = engine.step(action)
        if state.won:
            return count
    raise InvalidGameError(f"Expected a plan that wins {game.name}, actual: {game.plan} does not.")
