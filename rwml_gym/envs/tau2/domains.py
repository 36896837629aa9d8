"""The domains of τ²-bench: their tasks and fresh tau2 environments; what can be shared is loaded once."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol

from rwml_gym.checks import one_of
from rwml_gym.envs.tau2.calculator import calculate
from rwml_gym.envs.tau2.database import share
from rwml_gym.envs.tau2.package import load
from rwml_gym.envs.tau2.tools import ToolSpec, specs_of
from rwml_gym.errors import GameNotFoundError, InvalidConfigError

__all__ = [
    "ALL",
    "DOMAINS",
    "SOLO_DOMAINS",
    "Domain",
    "load_domain",
    "load_task",
    "members",
    "needs_judge",
    "splits",
    "task_ids",
]

DOMAINS = ("airline", "retail", "telecom", "telecom-workflow", "mock")
ALL = "all"
"""The benchmark's three domains in one environment: airline, retail and telecom."""
_BENCHMARK = ("airline", "retail", "telecom")
SOLO_DOMAINS = ("telecom", "telecom-workflow", "mock")
"""Domains with tasks that are a ticket, which the agent handles without a user."""


class MakeWorld(Protocol):
    """Makes a tau2 environment in its initial state."""

    def __call__(self, purpose: str = "play") -> Any:
        """Make a fresh tau2 `Environment`; the ids that it generates depend on the purpose."""


@dataclass(frozen=True, eq=False)
class Domain:
    """A domain in one mode, with or without a user.

    Attributes:
        name: One of `DOMAINS`.
        solo: Whether the agent also has the user's tools, and there is no user.
        policy: The policy that the agent must follow.
        tools: The agent's tools, by name.
        user_tools: The user's tools, by name; empty if there are none, or in solo mode.
        database: The initial database, which nobody changes.
        make: Makes tau2 environments, which are isolated from each other.
    """

    name: str
    solo: bool
    policy: str
    tools: Mapping[str, ToolSpec]
    user_tools: Mapping[str, ToolSpec]
    database: Any
    make: MakeWorld

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the name alone: a domain is the same everywhere."""
        return load_domain, (self.name, self.solo)

    @property
    def supports_solo(self) -> bool:
        """Whether the domain has a solo mode."""
        return self.name in SOLO_DOMAINS


def members(domain: str) -> tuple[str, ...]:
    """Return the domains that a name stands for: several for `ALL`, else the one of that name."""
    one_of("domain", domain, (*DOMAINS, ALL))
    return _BENCHMARK if domain == ALL else (domain,)


@cache
def load_domain(name: str, solo: bool = False) -> Domain:
    """Load a domain; the first call takes up to a second to read its database.

    Args:
        name: One of `DOMAINS`.
        solo: Whether the agent plays without a user.

    Raises:
        InvalidConfigError: If the domain is unknown, or has no solo mode.
    """
    one_of("domain", name, DOMAINS)
    if solo and name not in SOLO_DOMAINS:
        raise InvalidConfigError(
            f'Expected a domain of {", ".join(SOLO_DOMAINS)} with user="solo", actual: {name!r}. Change either.'
        )
    module = _module(name)
    arguments = {"policy_type": "workflow"} if name == "telecom-workflow" else {}
    first = module.get_environment(solo_mode=solo, **arguments)
    tools = specs_of(first.tools)
    user_tools = {} if first.user_tools is None else specs_of(first.user_tools)
    return Domain(
        name=name,
        solo=solo,
        policy=first.policy,
        tools={**tools, **user_tools} if solo else tools,
        user_tools={} if solo else user_tools,
        database=first.tools.db,
        make=_maker(first, functools.partial(_database, name, solo)),
    )


@cache
def splits(name: str) -> Mapping[str, tuple[str, ...]]:
    """Return the task ids of each split of a domain, in tau2's order."""
    one_of("domain", name, DOMAINS)
    return MappingProxyType({split: tuple(ids) for split, ids in _module(name).get_tasks_split().items()})


def task_ids(name: str) -> tuple[str, ...]:
    """Return the ids of all tasks of a domain, in the order of tau2's file."""
    one_of("domain", name, DOMAINS)
    return tuple(_raw_tasks(_base(name)))


def load_task(name: str, task_id: str) -> Any:
    """Load a task of a domain, a tau2 `Task`, or raise `GameNotFoundError`; do not change the task."""
    tasks = _raw_tasks(_base(name))
    if task_id not in tasks:
        raise GameNotFoundError(f"Expected a task of {name!r} such as {next(iter(tasks))!r}, actual: {task_id!r}.")
    return _task(_base(name), task_id)


def needs_judge(name: str, task_id: str) -> bool:
    """Return whether only a language model can score a task."""
    raw = _raw_tasks(_base(name))[task_id]
    # most tasks have no such assertion at all, and reading thousands takes a second
    return b'"NL_ASSERTION"' in raw and "NL_ASSERTION" in json.loads(raw)["evaluation_criteria"]["reward_basis"]


@cache
def _task(name: str, task_id: str) -> Any:
    return load("data_model.tasks").Task.model_validate_json(_raw_tasks(name)[task_id])


@cache
def _raw_tasks(name: str) -> dict[str, bytes]:
    """Return every task as JSON: telecom's 2,285 take 14 MB in this form and several times as much once parsed."""
    path = getattr(load(f"domains.{name}.utils"), f"{name.upper()}_TASK_SET_PATH")
    tasks = json.loads(path.read_text(encoding="utf-8"))
    return {task["id"]: json.dumps(task, separators=(",", ":")).encode() for task in tasks}


def _database(name: str, solo: bool) -> Any:
    return load_domain(name, solo).database


def _maker(first: Any, source: Callable[[], Any]) -> MakeWorld:
    """Return a function that makes environments like the first one, which is never played itself."""
    kind: Any = type(first)
    toolkit: Any = type(first.tools)
    tools = _mended(toolkit)
    shared = {"domain_name": first.domain_name, "policy": first.policy}

    def make_shared(purpose: str = "play") -> Any:
        world = kind(**shared, tools=tools(share(source)))
        world.set_solo_mode(first.solo_mode)
        return world

    if first.user_tools is None:
        return make_shared
    # telecom's databases are lists, and small: unpickling these bytes copies them in a tenth of a millisecond
    user_tools = type(first.user_tools)
    # also copy class attributes, such as the default VPN, because a broken one would affect all later environments
    defaults = {name: value for name, value in vars(user_tools).items() if hasattr(value, "model_dump")}
    parts = pickle.dumps((first.tools.db, first.user_tools.db, defaults), protocol=pickle.HIGHEST_PROTOCOL)

    def make_copy(purpose: str = "play") -> Any:
        database, user_database, own = pickle.loads(parts)
        world = kind(**shared, tools=tools(database), user_tools=user_tools(user_database))
        vars(world.user_tools).update(own)
        world.tools.purpose = purpose
        world.set_solo_mode(first.solo_mode)
        return world

    return make_copy


def _unpickled(kind: Any) -> Any:
    mended = _mended(kind)
    return mended.__new__(mended)


@cache
def _mended(kind: Any) -> Any:
    """Return a tau2 toolkit with two tools replaced: one can hang, and one is not deterministic."""
    # a class that is made here has no name by which pickle could find it
    methods: dict[str, Any] = {"__reduce__": lambda self: (_unpickled, (kind,), vars(self))}
    if hasattr(kind, "calculate"):

        @functools.wraps(kind.calculate)  # keeps it a tool with the same schema
        def bounded(self: Any, expression: str) -> str:
            return calculate(expression)

        methods["calculate"] = bounded
    if hasattr(kind, "_apply_one_time_charge"):

        @functools.wraps(kind._apply_one_time_charge)
        def charge(self: Any, customer_id: str, amount: float, description: str) -> Any:
            known = {bill.bill_id for bill in self.db.bills}
            result = kind._apply_one_time_charge(self, customer_id, amount, description)
            for bill in self.db.bills:
                if bill.bill_id not in known:  # tau2's random id would make all databases with a bill differ
                    text = f"{self.purpose} {customer_id} {len(known)}"
                    new, customer = f"B{hashlib.sha256(text.encode()).hexdigest()[:8]}", bill.customer_id
                    owner = self.get_customer_by_id(customer)
                    owner.bill_ids[owner.bill_ids.index(bill.bill_id)] = new
                    bill.bill_id = new
            return result

        methods["_apply_one_time_charge"] = charge
    return type(kind)(kind.__name__, (kind,), methods)


def _base(name: str) -> str:
    """Return the domain that has the tasks and tools of a domain."""
    return name.removesuffix("-workflow")


def _module(name: str) -> Any:
    return load(f"domains.{_base(name)}.environment")
