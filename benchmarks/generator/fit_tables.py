"""Fits the tables of the game generator to recorded games, of `valid_train` alone.

    python benchmarks/generator/fit_tables.py --data FOLDER [--out FILE] [--cross-validate]

FOLDER holds the official split `valid_train` (200 games), as `alfworld-download` leaves it. The tables go to
`rwml_gym/envs/alfworld/games/tables.json`. All weights are those of conditional logits: the chance of an option is its
weight's share of all weights of the options there are. With the prior of strength S, the number of games or objects a
weight already stands for, the best weight w solves `observed - expected = S (w - 1)`; without data it is near 1.
`--cross-validate` prints how well such weights, fitted on four fifths of the games, foretell the rest, for several S.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwml_gym.envs.alfworld.engine.game import TASK_TYPES, Game, Goal, room_of
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.goals import LAMPS, allowed_goals, rooms_of
from rwml_gym.envs.alfworld.games.problem import read_room
from rwml_gym.envs.alfworld.games.rooms import Room, kind_of
from rwml_gym.envs.alfworld.games.sources import OfficialGames
from rwml_gym.envs.alfworld.games.tables import kinds_of_place, placeable

TABLES = Path(__file__).resolve().parents[2] / "rwml_gym" / "envs" / "alfworld" / "games" / "tables.json"
ABOUT = "Fitted to the official ALFWorld games of valid_train by benchmarks/generator/fit_tables.py; not for editing."
PRIOR = 1.0
"""The best of four in cross-validation."""
ROUNDS = 40

Choice = tuple[str, ...]
"""What one option is made of; its weight is the product of the weights of these."""


@dataclass
class Recorded:
    """A recorded game and the room it starts in."""

    game: Game
    room: Room

    @property
    def floor_plan(self) -> int:
        """The number of its floor plan, known for every official game."""
        assert self.game.floor_plan is not None
        return self.game.floor_plan

    @property
    def goal(self) -> Goal:
        """What it asks for, known for every official game."""
        assert self.game.goal is not None
        return self.game.goal


def read_games(data: Path, split: str) -> list[Recorded]:
    """All games of a split with their rooms."""
    source = OfficialGames(data, split)
    games = [source.load(name) for name in source.names]
    return [Recorded(game, read_room(game.data["pddl_problem"])) for game in games]


def fit_weights(
    choices: Iterable[tuple[Choice, Sequence[Choice]]], fixed: dict[str, float], prior: float
) -> dict[str, float]:
    """Fits the weights of a conditional logit.

    Args:
        choices: each choice that was made, and the options there were.
        fixed: weights that are known already.
        prior: its strength.

    Returns:
        The weight of everything an option is made of that is not among ``fixed``.
    """
    observed: Counter[str] = Counter()
    situations: Counter[tuple[Choice, ...]] = Counter()
    for chosen, options in choices:
        observed.update(part for part in chosen if part not in fixed)
        situations[tuple(options)] += 1
    parts = {part for options in situations for option in options for part in option if part not in fixed}
    weights = dict.fromkeys(sorted(parts), 1.0)
    for _ in range(ROUNDS):
        known = fixed | weights
        expected: defaultdict[str, float] = defaultdict(float)
        for options, times in situations.items():
            scores = [math.prod(known[part] for part in option) for option in options]
            for option, score in zip(options, scores, strict=True):
                for part in option:
                    expected[part] += times * score / sum(scores)
        for part, weight in weights.items():  # the power keeps weights that share an option from overshooting
            weights[part] = weight * ((observed[part] + prior) / (expected[part] + prior * weight)) ** 0.7
    return weights


def recorded_places(games: Sequence[Recorded]) -> dict[str, Counter[str]]:
    """How often each object type lay in each type of place."""
    places: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for recorded in games:
        for thing in recorded.room.objects:
            places[kind_of(thing)][recorded.room.place_of(thing)] += 1
    return dict(places)


def placements(games: Sequence[Recorded], seen: dict[str, Counter[str]]) -> list[tuple[str, str, list[str]]]:
    """For each object: its type, the type of place it lay in, and the types of place it could have lain in."""
    rows = []
    for recorded in games:
        kinds = recorded.room.receptacle_kinds()
        for thing in recorded.room.objects:
            kind, place = kind_of(thing), recorded.room.place_of(thing)
            rows.append((kind, place, kinds_of_place(kind, kinds, seen.get(kind, ()))))
    return rows


def fit_places(games: Sequence[Recorded], prior: float = PRIOR) -> dict[str, Any]:
    """The weight of each type of place, and then the factor of each object type in it."""
    seen = recorded_places(games)
    rows = placements(games, seen)
    base = fit_weights([((place,), [(p,) for p in options]) for _, place, options in rows], {}, prior)
    pairs = [((place, f"{kind} {place}"), [(p, f"{kind} {p}") for p in options]) for kind, place, options in rows]
    factors: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for pair, factor in fit_weights(pairs, base, prior).items():
        kind, place = pair.split()
        factors[kind][place] = round(factor, 3)
    return {"place_weights": {place: round(w, 3) for place, w in base.items()}, "place_factors": dict(factors)}


def fit_goals(games: Sequence[Recorded]) -> dict[str, Any]:
    """What games of each task type ask for, and in which rooms."""
    goals: dict[str, Any] = {}
    rooms: dict[str, Any] = {}
    for task_type in TASK_TYPES:
        choices = []
        counts = dict.fromkeys(rooms_of(task_type), 1)  # one more than recorded, as for the weights
        for recorded in games:
            goal = recorded.goal
            if goal.task_type != task_type:
                continue
            objects, receptacles = recorded.room.object_kinds(), recorded.room.receptacle_kinds()
            lamps = [lamp for lamp in LAMPS if recorded.room.within_reach(lamp)]
            allowed = allowed_goals(task_type, objects, receptacles, lamps)
            parts = {g: (f"target {g.target}", f"receptacle {g.receptacle or g.lamp}") for g in allowed}
            choices.append((parts[goal], list(parts.values())))
            counts[room_of(recorded.floor_plan)] += 1
        goals[task_type] = {"target": {}, "receptacle": {}}
        for part, weight in fit_weights(choices, {}, PRIOR).items():
            role, kind = part.split()
            goals[task_type][role][kind] = round(weight, 3)
        rooms[task_type] = counts
    return {"rooms": rooms, "goals": goals}


def count_receptacles(games: Sequence[Recorded]) -> dict[str, Any]:
    """The receptacles that the files of floor plans leave out: the recorded ones, and the usual number of each type."""
    missing: dict[int, dict[str, int]] = {}
    numbers: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for recorded in games:
        if recorded.floor_plan in missing:  # a floor plan has the same receptacles in every game
            continue
        positions, types = package.floor_plan(recorded.floor_plan)
        listed = Counter(kind_of(receptacle) for receptacle in positions)
        there = Counter(kind_of(receptacle) for receptacle in recorded.room.receptacles)
        missing[recorded.floor_plan] = {kind: n - listed[kind] for kind, n in sorted(there.items()) if n > listed[kind]}
        for kind in types:
            if kind in placeable() and not listed[kind]:
                numbers[kind][there[kind]] += 1
    return {
        "unlisted_receptacles": {str(plan): missing[plan] for plan in sorted(missing)},
        "usual_receptacles": {kind: counts.most_common(1)[0][0] for kind, counts in sorted(numbers.items())},
    }


def count_objects(games: Sequence[Recorded]) -> dict[str, Any]:
    """How many objects of each type there are by type of room, and which types nobody can pick up."""
    instances: defaultdict[str, defaultdict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    carried: Counter[str] = Counter()
    for recorded in games:
        for kind, number in Counter(map(kind_of, recorded.room.objects)).items():
            instances[room_of(recorded.floor_plan)][kind][number] += 1
        problem = recorded.game.data["pddl_problem"]
        carried.update(kind for kind in recorded.room.object_kinds() if f"(pickupable {kind}_bar_" in problem)
    everything = {kind for kinds in instances.values() for kind in kinds}
    return {
        "fixed": sorted(everything - set(carried)),
        "instances": {
            room: {kind: dict(sorted(numbers.items())) for kind, numbers in sorted(kinds.items())}
            for room, kinds in sorted(instances.items())
        },
    }


def cross_validate(games: Sequence[Recorded], folds: int = 5) -> None:
    """Prints the mean log-likelihood of the places of objects in games that were not fitted."""
    print("prior   log-likelihood of an object's place")
    for prior in (0.5, 1.0, 2.0, 4.0):
        total = number = 0.0
        for fold in range(folds):
            rest = [game for index, game in enumerate(games) if index % folds != fold]
            tables = fit_places(rest, prior)
            weights, factors = tables["place_weights"], tables["place_factors"]
            for kind, place, options in placements(games[fold::folds], recorded_places(games)):
                scores = {p: weights.get(p, 1.0) * factors.get(kind, {}).get(p, 1.0) for p in options}
                total += math.log(scores[place] / sum(scores.values()))
                number += 1
        print(f"{prior:5}   {total / number:.4f}")


def main() -> None:
    """Fits and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of official games, with valid_train")
    parser.add_argument("--out", type=Path, default=TABLES, help="where the tables go; into the package by default")
    parser.add_argument("--cross-validate", action="store_true", help="compare priors instead of writing the tables")
    arguments = parser.parse_args()
    games = read_games(arguments.data, "valid_train")
    if arguments.cross_validate:
        cross_validate(games)
        return
    tables = {
        "about": ABOUT,
        "games": len(games),
        "prior": PRIOR,
        **fit_goals(games),
        **count_objects(games),
        **fit_places(games),
        **count_receptacles(games),
    }
    arguments.out.write_text(_readable(tables), encoding="utf-8")
    print(f"{arguments.out.name}: fitted to {len(games)} games of valid_train")


def _readable(tables: dict[str, Any]) -> str:
    """JSON with one line for each innermost table."""

    def text(value: Any, indent: str) -> str:
        if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
            return json.dumps(value)
        lines = [f"{indent}  {json.dumps(str(key))}: {text(inner, indent + '  ')}" for key, inner in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"

    return text(tables, "") + "\n"


if __name__ == "__main__":
    main()
