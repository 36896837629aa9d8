"""Layout of a translated game for play: it is computed once and kept on disk, so that engines load it fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

from rwml_gym.envs.alfworld.engine.game import entity_names

__all__ = ["lay_out"]

Flat = list[list[int]]


def lay_out(game: Mapping[str, Any]) -> dict[str, Any]:
    """Sort operators by their needs, and flatten lists of lists.

    Args:
        game: The data from `rwml_gym.envs.alfworld.engine.translation.translate`.

    Returns:
        Only lists, strings and numbers. *Flat* lists of lists are ``[numbers, ends]``; list ``i`` is
        ``numbers[ends[i] : ends[i + 1]]``.

        * ``ids``: the sorted entities, which are numbers everywhere else; ``names``: their names in texts.
        * ``facts``: ``{predicate: rows of entities}`` at the start; ``signatures``: ``{predicate: lists of types}``;
          ``types``, ``parameters``: as translated.
        * ``predicates``: an empty one, then those that actions change; ``atom_predicates``: the number of each
          variable's predicate; ``atom_rows``: flat, its entities; ``true``: the variables true at the start.
        * ``actions``: names; ``operator_actions``: the number of each operator's action; ``arguments``, ``effects``:
          flat; ``conditions``: as translated.
        * ``alone``: ``{literal: operators that need only this literal}``, with -1 for operators without needs;
          ``needed_by``: flat, by literal, the operators that need it and others; ``missing``: the number of needed
          literals that are false at the start, for these operators; ``applicable``: those with none missing.
        * ``goal``, ``axioms``: as translated; ``goal_variables``: the variables in them.
    """
    atoms, operators = game["atoms"], game["operators"]
    true = set(game["initial"])
    types = [kind for _, kind in game["entities"]]
    ids = [entity for entity, _ in game["entities"]]
    said = {ids[entity] for _, *row in game["facts"] for entity in row}
    names = entity_names(said)

    facts: dict[str, set[tuple[int, ...]]] = {}
    signatures: dict[str, set[tuple[str, ...]]] = {}
    for predicate, *row in chain(game["facts"], filter(None, atoms)):
        signatures.setdefault(predicate, set()).add(tuple(types[entity] for entity in row))
    for predicate, *row in chain(game["facts"], (atoms[v] for v in game["initial"] if atoms[v])):
        facts.setdefault(predicate, set()).add(tuple(row))

    predicates = ["", *sorted({atom[0] for atom in atoms if atom})]
    predicate_numbers = {predicate: number for number, predicate in enumerate(predicates)}
    actions = sorted(set(operators["action"]))
    action_numbers = {action: number for number, action in enumerate(actions)}
    mentioned = chain(game["goal"], *(body for layer in game["axioms"] for body, _ in layer))
    return {
        "ids": ids,
        "names": [names.get(entity, entity) for entity in ids],
        "facts": {predicate: sorted(rows) for predicate, rows in facts.items()},
        "signatures": {predicate: sorted(found) for predicate, found in signatures.items()},
        "types": game["types"],
        "parameters": game["parameters"],
        "predicates": predicates,
        "atom_predicates": [predicate_numbers[atom[0]] if atom else 0 for atom in atoms],
        "atom_rows": _flat(atom[1:] if atom else () for atom in atoms),
        "true": game["initial"],
        "actions": actions,
        "operator_actions": [action_numbers[action] for action in operators["action"]],
        "arguments": _flat(operators["arguments"]),
        "effects": _flat(operators["effects"]),
        "conditions": operators["conditions"],
        **_needs(operators["needed"], true, len(atoms)),
        "goal": game["goal"],
        "axioms": game["axioms"],
        "goal_variables": sorted({literal >> 1 for literal in mentioned}),
    }


def _needs(needed: Sequence[Sequence[int]], true: set[int], variables: int) -> dict[str, Any]:
    alone: dict[int, list[int]] = {}
    needed_by: list[list[int]] = [[] for _ in range(2 * variables)]
    missing = [0] * len(needed)
    applicable = []
    for operator, literals in enumerate(needed):
        if len(literals) < 2:
            alone.setdefault(literals[0] if literals else -1, []).append(operator)
            continue
        for literal in literals:
            needed_by[literal].append(operator)
        missing[operator] = sum((literal >> 1 in true) == bool(literal & 1) for literal in literals)
        if not missing[operator]:
            applicable.append(operator)
    return {"alone": alone, "needed_by": _flat(needed_by), "missing": missing, "applicable": applicable}


def _flat(lists: Iterable[Iterable[int]]) -> Flat:
    rows = [list(numbers) for numbers in lists]
    return [list(chain.from_iterable(rows)), [0, *accumulate(len(row) for row in rows)]]
