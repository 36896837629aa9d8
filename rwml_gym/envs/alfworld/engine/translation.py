"""Translation of a game's PDDL into plain data with fast-downward: its facts, its grounded operators, its goal.

fast-downward keeps its options in module globals, reads ``sys.argv`` when it is imported, and prints its progress. A
lock makes translation thread-safe, and the state of the process is restored.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from rwml_gym.errors import InvalidGameError

__all__ = ["translate"]

_lock = threading.Lock()


def translate(domain: str, problem: str) -> dict[str, Any]:
    """Translate a game in 0.05 to 0.4 seconds.

    Args:
        domain: The PDDL domain.
        problem: The PDDL problem.

    Returns:
        Only lists, strings and numbers. Entities are numbers, in the order of their ids. A *literal* is ``2 * v`` if
        variable ``v`` is true, and ``2 * v + 1`` if it is false.

        * ``entities``: ``[[id, type], …]``; ``types``: ``{type: [supertypes]}``.
        * ``parameters``: the parameters of each action, ``{action: [[name, type], …]}``.
        * ``facts``: ``[[predicate, entity, …], …]``, the initial facts of the problem.
        * ``atoms``: for each variable, ``[predicate, entity, …]``, or None if it stands for a part of the goal.
        * ``initial``: the variables that are true at the start.
        * ``operators``: as columns with one item per operator: ``action``, ``arguments`` (entities), ``needed``
          (literals) and ``effects`` (literals made true, in this order); and ``conditions``, for the operators that
          have some, ``{number: [[literal, …] for each effect]}``.
        * ``goal``: literals; ``axioms``: layers of ``[[literal, …], literal]``, for goals that are not a plain
          conjunction.

    Raises:
        InvalidGameError: If `rwml_gym.envs.alfworld.engine.engine.Engine` does not support the PDDL.
        Exception: Whatever fast-downward raises for malformed PDDL, including `SystemExit`.
    """
    with _lock, _quietly():
        task, sas = _run(domain, problem)
    entities = sorted((entity.name, entity.type_name) for entity in task.objects)
    number = {name: index for index, (name, _) in enumerate(entities)}
    layers = sas.variables.axiom_layers
    axioms: list[list[Any]] = [[] for _ in range(max(layers, default=-1) + 1)]
    for axiom in sas.axioms:
        axioms[layers[axiom.effect[0]]].append([_literals(axiom.condition), _literal(*axiom.effect)])
    return {
        "entities": [list(entity) for entity in entities],
        "types": {kind.name: list(kind.supertype_names) for kind in reversed(task.types)},
        "parameters": {
            action.name: [[parameter.name.strip("?"), parameter.type_name] for parameter in action.parameters]
            for action in task.actions
        },
        # numbers (distances, costs) are left out, because no text uses them
        "facts": [
            [atom.predicate, *(number[argument] for argument in atom.args)]
            for atom in task.init
            if hasattr(atom, "predicate") and atom.predicate != "="
        ],
        "atoms": [
            None if layer >= 0 else _atom(names, number)
            for names, layer in zip(sas.variables.value_names, layers, strict=True)
        ],
        "initial": [v for v, value in enumerate(sas.init.values) if value == 0],
        "operators": _operators(sas, number),
        "goal": _literals(sas.goal.pairs),
        "axioms": axioms,
    }


def _run(domain: str, problem: str) -> tuple[Any, Any]:
    """Do the same as `fast_downward.pddl2sas`, without writing its result as text."""
    argv, sys.argv = sys.argv, ["translate.py", "domain", "task"]
    try:
        from fast_downward.translate import normalize, options, translate
        from fast_downward.translate.pddl_parser import lisp_parser, parsing_functions
    finally:
        sys.argv = argv
    # textworld's options: keep every fact and operator, and make every variable a fact that is true or false
    options.filter_unimportant_vars = False
    options.filter_unreachable_facts = False
    options.use_partial_encoding = False
    options.skip_variable_reordering = True
    options.add_implied_preconditions = False
    options.invariant_generation_max_candidates = 0
    task = parsing_functions.parse_task(
        lisp_parser.parse_nested_list(domain.split("\n")), lisp_parser.parse_nested_list(problem.split("\n"))
    )
    normalize.normalize(task)
    return task, translate.pddl_to_sas(task)


def _operators(sas: Any, number: dict[str, int]) -> dict[str, Any]:
    derived = {v for v, layer in enumerate(sas.variables.axiom_layers) if layer >= 0}
    columns: dict[str, Any] = {"action": [], "arguments": [], "needed": [], "effects": [], "conditions": {}}
    for index, operator in enumerate(sas.operators):
        action, *arguments = operator.name[1:-1].split()
        needed = {*operator.prevail, *((v, value) for v, value, _, _ in operator.pre_post if value != -1)}
        conditions = [condition for *_, condition in operator.pre_post]
        if derived.intersection(v for v, _ in needed.union(*conditions)):
            raise InvalidGameError(
                f"Expected preconditions without derived predicates, actual: action {action} has one. "
                'Play this game with engine="textworld".'
            )
        columns["action"].append(action)
        columns["arguments"].append([number[argument] for argument in arguments])
        columns["needed"].append(_literals(sorted(needed)))
        columns["effects"].append([_literal(v, after) for v, _, after, _ in operator.pre_post])
        if any(conditions):
            columns["conditions"][str(index)] = [_literals(condition) for condition in conditions]
    return columns


def _atom(names: list[str], number: dict[str, int]) -> list[str | int]:
    match = re.fullmatch(r"Atom ([^( ]+)\((.*)\)", names[0])
    if match is None or len(names) != 2:
        raise InvalidGameError(
            f"Expected a variable of two values, an atom and its negation, actual: {names}. "
            'Play this game with engine="textworld".'
        )
    return [match[1], *(number[argument] for argument in match[2].split(", ") if argument)]


def _literal(variable: int, value: int) -> int:
    return 2 * variable + value


def _literals(pairs: Any) -> list[int]:
    return [_literal(variable, value) for variable, value in pairs]


class _Silence:
    """A standard output that discards the output of one thread and passes on that of the others."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stdout.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress fast-downward's output, and garbage collection: it makes a million objects that live to the end."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with contextlib.redirect_stdout(_Silence(sys.stdout)):
            yield
    finally:
        if collecting:
            gc.enable()
