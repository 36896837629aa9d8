"""How far generated games are from recorded ones, in total variation.

    python benchmarks/generator/measure_games.py --data FOLDER

FOLDER holds the official splits `valid_seen` and `valid_train`. `fit_tables.py` fits the generator to `valid_train`;
`valid_seen` is only measured here. A row compares how often something occurs in the games of a split and in generated
ones:

* placed anew: everything that can be picked up in the recorded rooms of the split is placed anew;
* furnished anew: the floor plans and the goals of the split are kept, all objects are made anew;
* made anew: whole games of the generator's choice, as many of each task type as the split has.

Pairs are (object type, receptacle type) of things that can be picked up and are in a receptacle; an object that was
recorded in two receptacles counts in the first. Everything generated is made `--copies` times for each recorded game.

Columns:

* generated: the distance of the split from generated games;
* other split: its distance from the recorded games of the other split, for comparison;
* halves: the distance between two halves of the split, the mean over 50 ways to halve it;
* perfect: half of that, which is what sampling alone leaves between the split and a perfect generator. The difference
  of two samples of n/2 games has twice the standard deviation of the difference between n games and their exact
  distribution. This is too low for targets and goals: most of what could be asked for is never asked for in n games.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from fit_tables import Recorded, read_games

from rwml_gym.envs.alfworld.engine.game import room_of
from rwml_gym.envs.alfworld.games.goals import options
from rwml_gym.envs.alfworld.games.problem import read_room
from rwml_gym.envs.alfworld.games.rooms import Room, by_kind, draw_place, furnish, kind_of, position
from rwml_gym.envs.alfworld.games.sources import GeneratedGames
from rwml_gym.envs.alfworld.games.tables import FLOOR, fitted, kinds_of_place

HALVINGS = 50

Counts = Callable[[Recorded], Counter[Hashable]]
"""What a row counts in one game."""


def pairs(one: Recorded) -> Counter[Hashable]:
    """What lies where."""
    room = one.room
    return Counter((kind_of(thing), room.place_of(thing)) for thing in carried(room) if room.objects[thing])


def on_no_receptacle(one: Recorded) -> Counter[Hashable]:
    """Whether a thing that can be picked up is in a receptacle."""
    return Counter(one.room.place_of(thing) == FLOOR for thing in carried(one.room))


def objects(one: Recorded) -> Counter[Hashable]:
    """The types of object that are there at all."""
    return Counter(one.room.object_kinds())


def numbers(one: Recorded) -> Counter[Hashable]:
    """How many there are of each type of object."""
    return Counter(Counter(map(kind_of, one.room.objects)).items())


def receptacles(one: Recorded) -> Counter[Hashable]:
    """Receptacles by type."""
    return Counter(map(kind_of, one.room.receptacles))


def difficulties(one: Recorded) -> Counter[Hashable]:
    """How many receptacles one has to search, in steps of five."""
    return Counter([options(one.game.task_type, one.floor_plan).get(one.goal, 0) // 5])


def rooms(one: Recorded) -> Counter[Hashable]:
    """The type of room for the task type."""
    return Counter([(one.game.task_type, room_of(one.floor_plan))])


def targets(one: Recorded) -> Counter[Hashable]:
    """What is to be fetched."""
    return Counter([one.goal.target])


def destinations(one: Recorded) -> Counter[Hashable]:
    """Where it has to end up."""
    return Counter([one.goal.receptacle or one.goal.lamp])


def goals(one: Recorded) -> Counter[Hashable]:
    """What is asked for: task type, target, and receptacle or lamp."""
    return Counter([one.goal])


def carried(room: Room) -> Iterable[str]:
    """The objects that can be picked up."""
    return (thing for thing in room.objects if kind_of(thing) not in fitted()["fixed"])


def placed_anew(recorded: Recorded, rng: random.Random) -> Recorded:
    """The recorded room, with each of its objects drawn a new place."""
    factors = fitted()["place_factors"]
    anew = Room(recorded.room.receptacles)
    receptacles = by_kind(anew.receptacles)
    for thing in carried(recorded.room):
        kind = kind_of(thing)
        places = kinds_of_place(kind, sorted(receptacles), factors.get(kind, ()))
        place = draw_place(rng, kind, places, receptacles)
        anew.objects[f"{kind}|{position(rng)}"] = place
    return Recorded(recorded.game, anew)


def furnished_anew(recorded: Recorded, rng: random.Random) -> Recorded:
    """The floor plan and the goal, with other objects."""
    return Recorded(recorded.game, furnish(rng, recorded.floor_plan, recorded.goal))


def made_anew(recorded: Recorded, rng: random.Random) -> Recorded:
    """Another game of the same task type."""
    games = GeneratedGames(task_types=[recorded.game.task_type])
    game = games.load(games.names[rng.randrange(len(games.names))])
    return Recorded(game, read_room(game.data["pddl_problem"]))


TABLE: list[tuple[str, Callable[[Recorded, random.Random], Recorded], dict[str, Counts]]] = [
    ("objects placed anew", placed_anew, {"pairs": pairs, "on no receptacle": on_no_receptacle}),
    (
        "rooms furnished anew",
        furnished_anew,
        {
            "pairs": pairs,
            "on no receptacle": on_no_receptacle,
            "object types": objects,
            "objects of a type": numbers,
            "receptacle types": receptacles,
        },
    ),
    (
        "games made anew",
        made_anew,
        {
            "pairs": pairs,
            "object types": objects,
            "receptacle types": receptacles,
            "difficulty": difficulties,
            "rooms of tasks": rooms,
            "targets": targets,
            "goal receptacles": destinations,
            "goals": goals,
        },
    ),
]


def distance(one: Counter[Hashable], other: Counter[Hashable]) -> float:
    """Total variation between two distributions given as counts: 0 if they are the same, at most 1."""
    ones, others = one.total(), other.total()
    return sum(abs(one[key] / ones - other[key] / others) for key in one.keys() | other.keys()) / 2


def halves_distance(counts: Sequence[Counter[Hashable]]) -> float:
    """The mean distance between halves of recorded games."""
    rng = random.Random(0)
    total = 0.0
    for _ in range(HALVINGS):
        order = rng.sample(range(len(counts)), len(counts))
        first, second = (_sum(counts[index] for index in order[start::2]) for start in (0, 1))
        total += distance(first, second)
    return total / HALVINGS


def report(split: str, recorded: Sequence[Recorded], other: Sequence[Recorded], copies: int) -> None:
    """Prints the table of a split."""
    rng = random.Random(0)
    print(f"{split}: {len(recorded)} games, {copies} generated for each")
    print(f"{'':22}{'':20}{'generated':>11}{'other split':>13}{'halves':>8}{'perfect':>9}")
    for title, make, rows in TABLE:
        generated = [make(one, rng) for _ in range(copies) for one in recorded]
        for name, count in rows.items():
            real = [count(one) for one in recorded]
            apart = distance(_sum(real), _sum(count(one) for one in generated))
            others = distance(_sum(real), _sum(count(one) for one in other))
            halves = halves_distance(real)
            print(f"{title:22}{name:20}{apart:11.3f}{others:13.3f}{halves:8.3f}{halves / 2:9.3f}")
            title = ""
    print(f"{sum(map(_fitted_to, recorded))} of {len(recorded)} games are on floor plans the tables were fitted to.\n")


def _fitted_to(recorded: Recorded) -> bool:
    return str(recorded.floor_plan) in fitted()["unlisted_receptacles"]


def _sum(counts: Iterable[Counter[Hashable]]) -> Counter[Hashable]:
    total: Counter[Hashable] = Counter()
    for count in counts:
        total.update(count)
    return total


def main() -> None:
    """Measures both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of official games")
    parser.add_argument("--copies", type=int, default=20, help="generated games for each recorded one")
    arguments = parser.parse_args()
    seen, train = (read_games(arguments.data, split) for split in ("valid_seen", "valid_train"))
    report("valid_seen", seen, train, arguments.copies)
    report("valid_train", train, seen, arguments.copies)


if __name__ == "__main__":
    main()
