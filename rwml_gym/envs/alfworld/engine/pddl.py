"""Reading of PDDL for `grounding`: domains in a normal form, and problems as facts and a goal.

Only what ALFWorld's domains and goals use is read: types, conjunctions, disjunctions, existential quantifiers, negated
atoms, and effects under conditions. Everything else is `UnsupportedPDDL`, also text that is no PDDL; `translation`
then translates the game with fast-downward, or says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count, product
from typing import Any, NamedTuple

__all__ = [
    "Condition",
    "Domain",
    "Effect",
    "Literal",
    "Problem",
    "Schema",
    "UnsupportedPDDL",
    "read_domain",
    "read_problem",
]

Expression = Any  # a name, or a list of expressions


class UnsupportedPDDL(Exception):  # noqa: N818  (it is no error: fast-downward takes over)
    """A text that this module does not read."""


class Literal(NamedTuple):
    """An atom or its negation; a term is a variable, which starts with ``?``, or the name of an entity."""

    predicate: str
    terms: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Condition:
    """A conjunction of literals, with the type of each variable."""

    variables: Mapping[str, str]
    literals: tuple[Literal, ...]


@dataclass(frozen=True)
class Effect:
    """A literal that an action makes true, if all literals of its `condition` hold."""

    literal: Literal
    condition: tuple[Literal, ...] = ()


@dataclass(frozen=True)
class Schema:
    """An action with a conjunction as precondition; an action with a disjunction has several schemas.

    Attributes:
        name: Name of the action.
        parameters: Its parameters and their types, in order.
        precondition: What it needs; its variables include the parameters.
        effects: First what it makes true, then what it makes false.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    precondition: Condition
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class Domain:
    """A PDDL domain.

    Attributes:
        types: The supertypes of each type.
        kinds: The types of each predicate's entities; ``object`` where actions do not keep to what is declared.
        schemas: The actions.
        fluents: The predicates that actions change.
    """

    types: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, tuple[str, ...]]
    schemas: tuple[Schema, ...]
    fluents: frozenset[str]


@dataclass(frozen=True)
class Problem:
    """A PDDL problem.

    Attributes:
        entities: The type of each entity.
        facts: The names in each initial fact, by predicate.
        goal: Alternatives, one of which must hold.
    """

    entities: Mapping[str, str]
    facts: Mapping[str, Sequence[Sequence[str]]]
    goal: tuple[Condition, ...]


@lru_cache(maxsize=8)
def read_domain(text: str) -> Domain:
    """Read a PDDL domain.

    Raises:
        UnsupportedPDDL: If it uses more than this module reads.
    """
    match _expression(text):
        case ["define", ["domain", str()], *sections]:
            pass
        case _:
            raise UnsupportedPDDL("no domain")
    types: dict[str, tuple[str, ...]] = {"object": ()}
    kinds: dict[str, tuple[str, ...]] = {"=": ("object", "object")}
    actions: list[list[Expression]] = []
    for section in sections:
        match section:
            case [":requirements", *_] | [":functions", *_]:
                pass
            case [":types", *names]:
                types |= _types(names)
            case [":predicates", *predicates] if all(isinstance(each, list) and each for each in predicates):
                kinds |= {str(name): tuple(kind for _, kind in _typed(typed)) for name, *typed in predicates}
            case [":action", *parts]:
                actions.append(parts)
            case _:
                raise UnsupportedPDDL(f"section {section}")
    if types.keys() & kinds.keys():
        raise UnsupportedPDDL("a type named as a predicate")
    schemas = tuple(schema for action in actions for schema in _schemas(action, kinds))
    fluents = frozenset(effect.literal.predicate for schema in schemas for effect in schema.effects)
    if "=" in fluents:
        raise UnsupportedPDDL("an effect on =")
    for schema in schemas:
        needed = {literal.predicate for literal in schema.precondition.literals}
        for effect in schema.effects:
            asked = {literal.predicate for literal in effect.condition}
            if not asked <= fluents or asked & needed:
                raise UnsupportedPDDL("an effect under a condition that is constant or needed anyway")
            declared = kinds[effect.literal.predicate]
            own = (schema.precondition.variables.get(term, "") for term in effect.literal.terms)
            if any(wanted not in (kind, *types.get(kind, ())) for kind, wanted in zip(own, declared, strict=True)):
                kinds[effect.literal.predicate] = ("object",) * len(declared)
    return Domain(types, kinds, schemas, fluents)


def read_problem(text: str, domain: Domain) -> Problem:
    """Read a PDDL problem of a domain.

    Raises:
        UnsupportedPDDL: If it uses more than this module reads, or names what the domain has not.
    """
    text = _plain(text)
    head, _, body = text.partition("(:objects")
    listed, _, rest = body.partition("(:init")
    facts, goal, end = rest.partition("(:goal")
    if not goal or not re.fullmatch(r"\s*\(define\s+\(problem\s+[^\s()]+\s*\)\s*\(:domain\s+[^\s()]+\s*\)\s*", head):
        raise UnsupportedPDDL("no problem")
    return Problem(_entities(listed, domain), _facts(facts, domain), _goal(goal + end, domain))


def _entities(text: str, domain: Domain) -> dict[str, str]:
    names = text.rstrip()
    if not names.endswith(")") or "(" in names or ")" in names[:-1]:
        raise UnsupportedPDDL("objects that are no list")
    words = names[:-1].split()
    if words[1::3] == ["-"] * (len(words) // 3) and len(words) % 3 == 0:
        typed = list(zip(words[::3], words[2::3], strict=True))  # as all problems of ALFWorld are, and far faster
    else:
        typed = _typed(words)
    entities = dict(typed)
    if len(entities) != len(typed) or not domain.types.keys() >= set(entities.values()):
        raise UnsupportedPDDL("an object listed twice, or of an unknown type")
    return entities


def _facts(text: str, domain: Domain) -> dict[str, list[list[str]]]:
    if "=" in text:  # numbers (distances, costs): no text uses them
        text = re.sub(r"\(\s*=\s*\([^()]*\)\s*[0-9.]+\s*\)", "", text)
    facts: dict[str, list[list[str]]] = {}
    rest = []
    for predicate, row, other in re.findall(r"\(\s*([^\s()]+)([^()]*)\)|(\S)", text):
        if other:
            rest.append(other)
        else:
            facts.setdefault(predicate, []).append(row.split())
    if rest != [")"] or text.rstrip()[-1] != ")":
        raise UnsupportedPDDL("initial facts that are no list of atoms")
    for predicate, rows in facts.items():
        if (
            predicate == "="
            or predicate not in domain.kinds
            or set(map(len, rows)) != {len(domain.kinds.get(predicate, ()))}
        ):
            raise UnsupportedPDDL(f"facts of {predicate}")
    return facts


def _goal(text: str, domain: Domain) -> tuple[Condition, ...]:
    match _expression("(" + text):
        case [[":goal", goal]] | [[":goal", goal], [":metric", *_]]:
            return tuple(_Reader(domain.kinds).alternatives(goal, {}))
    raise UnsupportedPDDL("no goal")


# Conditions and effects


def _schemas(action: list[Expression], kinds: Mapping[str, Sequence[str]]) -> Iterator[Schema]:
    match action:
        case [str(name), ":parameters", list(typed), ":precondition", list(needs), ":effect", list(changes)]:
            pass
        case _:
            raise UnsupportedPDDL(f"action {action}")
    parameters = tuple(_typed(typed))
    scope = {variable: variable for variable, _ in parameters}
    if len(scope) != len(parameters) or any(not variable.startswith("?") for variable in scope):
        raise UnsupportedPDDL(f"parameters of {name}")
    reader = _Reader(kinds)
    effects = tuple(sorted(reader.effects(changes, scope), key=lambda effect: effect.literal.negated))
    for condition in reader.alternatives(needs, scope):
        yield Schema(
            name, parameters, Condition({**dict(parameters), **condition.variables}, condition.literals), effects
        )


class _Reader:
    """Reads conditions and effects; a *scope* has the names that the variables of quantifiers got, which are all new.

    Args:
        kinds: The types of each predicate's entities.
    """

    def __init__(self, kinds: Mapping[str, Sequence[str]]) -> None:
        self._kinds = kinds
        self._quantified = count()

    def alternatives(self, expression: Expression, scope: Mapping[str, str], negated: bool = False) -> list[Condition]:
        """Return the disjunctive normal form; its variables are those of quantifiers."""
        match expression:
            case []:
                return [Condition({}, ())]
            case ["not", inner]:
                return self.alternatives(inner, scope, not negated)
            case ["exists", list(typed), inner] if not negated:
                new = {variable: f"{variable}@{next(self._quantified)}" for variable, _ in _typed(typed)}
                types = {new[variable]: kind for variable, kind in _typed(typed)}
                found = self.alternatives(inner, {**scope, **new})
                return [Condition({**types, **each.variables}, each.literals) for each in found]
            case ["and" | "or" as word, *parts]:
                each_part = [self.alternatives(part, scope, negated) for part in parts]
                if (word == "or") != negated:
                    return [alternative for found in each_part for alternative in found]
                return [_together(chosen) for chosen in product(*each_part)]
        return [Condition({}, (self._literal(expression, scope, negated),))]

    def effects(self, expression: Expression, scope: Mapping[str, str]) -> Iterator[Effect]:
        """Yield the effects in their order."""
        match expression:
            case ["and", *parts]:
                for part in parts:
                    yield from self.effects(part, scope)
            case ["increase", *_]:
                pass
            case ["when", condition, inner]:
                needed = self.alternatives(condition, scope)
                if len(needed) != 1 or needed[0].variables:
                    raise UnsupportedPDDL("an effect under a condition that is no conjunction")
                for effect in self.effects(inner, scope):
                    if effect.condition:
                        raise UnsupportedPDDL("a condition in a condition")
                    yield Effect(effect.literal, needed[0].literals)
            case ["not", inner]:
                yield Effect(self._literal(inner, scope, negated=True))
            case _:
                yield Effect(self._literal(expression, scope))

    def _literal(self, expression: Expression, scope: Mapping[str, str], negated: bool = False) -> Literal:
        match expression:
            case [str(predicate), *terms] if (
                predicate in self._kinds
                and len(self._kinds[predicate]) == len(terms)
                and all(isinstance(term, str) and (term in scope or not term.startswith("?")) for term in terms)
            ):
                return Literal(predicate, tuple(scope.get(term, term) for term in terms), negated)
        raise UnsupportedPDDL(f"condition {expression}")


def _together(parts: Sequence[Condition]) -> Condition:
    variables = {name: kind for part in parts for name, kind in part.variables.items()}
    return Condition(variables, tuple(dict.fromkeys(chain.from_iterable(part.literals for part in parts))))


# Texts


def _plain(text: str) -> str:
    """Return the text in lower case and without comments."""
    if not text.isascii():
        raise UnsupportedPDDL("characters outside ASCII")
    return (re.sub(";[^\n]*", "", text) if ";" in text else text).lower()


def _expression(text: str) -> Expression:
    """Read nested lists."""
    top: list[Expression] = []
    open_lists = [top]
    for token in re.findall(r"[()]|\?*[^\s()?]+", _plain(text)):
        if token == "(":
            inner: list[Expression] = []
            open_lists[-1].append(inner)
            open_lists.append(inner)
        elif token == ")":
            open_lists.pop()
            if not open_lists:
                raise UnsupportedPDDL("a closing parenthesis too many")
        else:
            open_lists[-1].append(token)
    if len(open_lists) != 1 or len(top) != 1:
        raise UnsupportedPDDL("parentheses that do not match")
    return top[0]


def _typed(names: Sequence[Expression]) -> list[tuple[str, str]]:
    """Read a typed list: in ``a b - kind``, both names have the type ``kind``."""
    typed: list[tuple[str, str]] = []
    pending: list[str] = []
    expected_type = False
    for name in names:
        if not isinstance(name, str):
            raise UnsupportedPDDL(f"typed list {names}")
        if expected_type:
            typed += [(each, name) for each in pending]
            pending, expected_type = [], False
        elif name == "-":
            expected_type = True
        else:
            pending.append(name)
    if expected_type:
        raise UnsupportedPDDL("a type that is missing")
    return typed + [(each, "object") for each in pending]


def _types(names: Sequence[Expression]) -> dict[str, tuple[str, ...]]:
    parents = {name: parent for name, parent in _typed(names) if name != "object"}
    types: dict[str, tuple[str, ...]] = {"object": ()}
    for name in parents:
        above: list[str] = []
        parent: str | None = parents[name]
        while parent is not None and parent not in above:
            above.append(parent)
            parent = parents.get(parent)
        types[name] = tuple(above)
    return types
