"""The operators of a game as fast-downward grounds them, and as the queries of `lifted` find them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rwml_gym.envs.alfworld.engine.engine import _texts
from rwml_gym.envs.alfworld.engine.grammar import without_goal
from rwml_gym.envs.alfworld.engine.lifted import LiftedGame
from rwml_gym.envs.alfworld.engine.queries import Node, index
from rwml_gym.envs.alfworld.engine.translation import translate

__all__ = ["grounded", "lifted", "lifted_game"]


def lifted_game(data: Mapping[str, Any]) -> LiftedGame:
    """The game as `lifted` reads it, without the way out to fast-downward."""
    shared, goal = without_goal(data["grammar"])
    return LiftedGame(data["pddl_domain"], data["pddl_problem"], _texts(shared), goal)


def grounded(data: Mapping[str, Any]) -> dict[str, Any]:
    """What fast-downward makes of a game, with names in place of numbers and in no order."""
    task = translate(data["pddl_domain"], data["pddl_problem"])
    ids = [entity for entity, _ in task["entities"]]
    atoms = [atom and (atom[0], *(ids[entity] for entity in atom[1:])) for atom in task["atoms"]]

    def literals(numbers: Iterable[int]) -> frozenset:
        return frozenset((atoms[number >> 1], bool(number & 1)) for number in numbers)

    columns = task["operators"]
    operators = zip(columns["action"], columns["arguments"], columns["needed"], columns["effects"], strict=True)
    return {
        "facts": {(predicate, *(ids[entity] for entity in row)) for predicate, *row in task["facts"]},
        "atoms": {atom for atom in atoms if atom},
        "initial": {atoms[variable] for variable in task["initial"]},
        "operators": {
            (action, tuple(ids[entity] for entity in arguments), literals(needed), literals(effects))
            for action, arguments, needed, effects in operators
        },
        "ways to the goal": {literals(body) for layer in task["axioms"] for body, _ in layer},
    }


def lifted(game: LiftedGame) -> dict[str, Any]:
    """The same from the queries: what may be done if nothing is ever made false."""
    rules, ids = game.rules, game.ids
    true = {predicate: set(rows) for predicate, rows in game.initial.items()}

    def answers(node: Node, rows: list, strictly: bool) -> Iterable[tuple[int, tuple[int, ...]]]:
        yield from ((number, row) for number in node.results for row in rows)
        for child in (*node.constant, *node.changing):
            predicate, positions = child.key
            if child.step.negated and (child.is_fluent or not strictly):
                found = rows
            elif child.is_fluent:
                found = child.advance(rows, index(true[predicate], positions))
            else:
                found = child.advance(rows, game.constant[child.key])
            if found:
                yield from answers(child, found, strictly)

    before = -1
    while before < (now := sum(map(len, true.values()))):
        before = now
        for number, row in list(answers(rules.tree, [game.row], False)):
            for effect in rules.actions[number].effects:
                if not effect.negated:
                    true[effect.predicate].add(effect.atom(row))
    atoms = {(predicate, *row) for predicate, rows in true.items() for row in rows}

    def named(literals: Iterable[tuple]) -> frozenset:
        return frozenset(((p, *(ids[e] for e in row)), negated) for p, row, negated in literals if (p, *row) in atoms)

    operators = set()
    for number, row in answers(rules.tree, [game.row], True):
        action, schema = rules.actions[number], rules.domain.schemas[number]
        needed = {
            (each.predicate, tuple(row[action.places[term]] for term in each.terms), each.negated)
            for each in schema.precondition.literals
            if each.predicate in rules.domain.fluents
        }
        effects = {(each.predicate, each.atom(row), each.negated) for each in action.effects} - needed
        if action.working([row]):
            arguments = tuple(ids[row[place]] for _, place in action.parameters)
            operators.add((action.name, arguments, named(needed), named(effects)))
    constant = {(predicate, *row) for predicate, rows in game.constant._facts.items() for row in rows}
    initial = {(predicate, *row) for predicate, rows in game.initial.items() for row in rows}
    return {
        "facts": {(predicate, *(ids[entity] for entity in row)) for predicate, *row in constant},
        "atoms": {(predicate, *(ids[entity] for entity in row)) for predicate, *row in atoms},
        "initial": {(predicate, *(ids[entity] for entity in row)) for predicate, *row in initial},
        "operators": operators,
        "ways to the goal": ways(game, true),
    }


def ways(game: LiftedGame, true: Mapping[str, set]) -> set[frozenset]:
    """What must hold for the goal, without what needs more than another way."""
    found = set()
    for goal in game.goal:
        rows = [goal.row]
        for node in goal.nodes:
            predicate, positions = node.key
            rows = node.advance(rows, index(true[predicate], positions) if node.is_fluent else game.constant[node.key])
        found |= {frozenset(facts(game, goal, row)) for row in rows}
    return {way for way in found if not any(other < way for other in found)}


def facts(game: LiftedGame, goal: Any, row: tuple[int, ...]) -> Iterable[tuple]:
    """The changing facts behind a row that meets a goal."""
    length = len(goal.row)
    for node in goal.nodes:
        predicate, positions = node.key
        known = dict(zip(positions, node.step.places, strict=True))
        arity = len(positions) + node.step.adds
        new = iter(range(length, length + node.step.adds))
        places = [known[position] if position in known else next(new) for position in range(arity)]
        length += node.step.adds
        if node.is_fluent:
            yield (predicate, *(game.ids[row[place]] for place in places)), node.step.negated
