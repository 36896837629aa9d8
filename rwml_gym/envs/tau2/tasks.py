"""The tasks of a split, by name: ``<domain>/<split>/<number>``, with what is known to be wrong with them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from rwml_gym.checks import one_of
from rwml_gym.envs.tau2.domains import load_task, members, needs_judge, splits, task_ids
from rwml_gym.envs.tau2.package import data_version
from rwml_gym.errors import GameNotFoundError, InvalidConfigError

__all__ = ["KNOWN_PROBLEMS", "NamedTask", "Tasks", "known_problem"]

KNOWN_PROBLEMS = ("keep", "drop")
"""What may be done with tasks that have known problems."""


@dataclass(frozen=True)
class NamedTask:
    """One of tau2's tasks, its name here, ``<domain>/<split>/<number>``, and its `known_problem`."""

    name: str
    task: Any
    known_problem: str = ""

    @property
    def domain(self) -> str:
        """The domain of the task."""
        return self.name.partition("/")[0]

    @property
    def known_info(self) -> str:
        """What the simulated user knows about himself, without why he calls and what he is to do; may be empty."""
        instructions = self.task.user_scenario.instructions
        return "" if isinstance(instructions, str) else instructions.known_info or ""


def known_problem(domain: str, task_id: str, user: str = "scripted") -> str:
    """Return what is wrong with a task in the imported release, so that its score says little; empty if nothing is.

    The table is ``known_problems.json``, by `data_version`; other releases than those in it have no known problems. It
    is checked against the data by the tests. A reason tells nothing of what is scored.

    Args:
        domain: One of `rwml_gym.envs.tau2.domains.DOMAINS`.
        task_id: tau2's id of the task.
        user: Who the user is: some tasks only have a problem where there is none.
    """
    return " ".join(
        row["reason"]
        for row in _table()
        if row["domain"] == domain.removesuffix("-workflow")
        and user in row.get("users", [user])
        and (task_id in row.get("tasks", ()) or re.fullmatch(row.get("pattern", "(?!)"), task_id))
    )


@cache
def _table() -> list[dict[str, Any]]:
    text = resources.files(__package__).joinpath("known_problems.json").read_text(encoding="utf-8")
    return json.loads(text).get(data_version(), [])


class Tasks:
    """The tasks of a split, which can be listed and sampled.

    The number is tau2's own id if that is a number. telecom's ids describe what is broken, so its tasks, like those of
    mock, are numbered in the order of tau2's file.

    Args:
        domain: One of `rwml_gym.envs.tau2.domains.DOMAINS`, or `ALL` for the tasks of three.
        split: A split that all the domains have.
        user: Who the user is; with ``solo``, there are only tasks with a ticket.
        judged: Whether a judge can score what only a language model can score; otherwise such tasks are left out, with
            a warning that says how many.
        known_problems: ``keep`` or ``drop`` tasks with a `known_problem`.

    Attributes:
        unscorable: Number of tasks that are left out because nobody can score them.

    Raises:
        InvalidConfigError: If no task is left.
    """

    def __init__(
        self, domain: str, split: str, user: str = "scripted", judged: bool = False, known_problems: str = "keep"
    ) -> None:
        one_of("known_problems", known_problems, KNOWN_PROBLEMS)
        parts = members(domain)
        one_of(
            f"split of {domain}", split, [name for name in splits(parts[0]) if all(name in splits(p) for p in parts)]
        )
        self._user = user
        numbers = {part: _numbers(part) for part in parts}
        tasks = [(part, task) for part in parts for task in splits(part)[split]]
        scorable = [(part, task) for part, task in tasks if judged or not needs_judge(part, task)]
        self.unscorable = len(tasks) - len(scorable)
        if self.unscorable:
            warnings.warn(
                f"Expected tasks of {domain}/{split} that are scored without a language model, actual: "
                f"{self.unscorable} of {len(tasks)} need one and are left out. Give a `judge`.",
                stacklevel=3,
            )
        self._ids = {
            f"{part}/{split}/{numbers[part][task]}": task
            for part, task in scorable
            if (user != "solo" or load_task(part, task).ticket is not None)
            and (known_problems == "keep" or not known_problem(part, task, user))
        }
        if not self._ids:
            raise InvalidConfigError(
                f"Expected a task of {domain}/{split}, actual: none of {len(tasks)} is left, "
                f"{self.unscorable} of which need a `judge`. Give one, or choose another split."
            )

    @property
    def names(self) -> Sequence[str]:
        """All names, in tau2's order."""
        return list(self._ids)

    def sample(self, rng: np.random.Generator) -> NamedTask:
        """Draw a task; all are equally likely."""
        return self.load(self.names[int(rng.integers(len(self._ids)))])

    def load(self, name: str) -> NamedTask:
        """Load the task of a name (`GameSource.load`)."""
        task_id, domain = self.task_id(name), name.partition("/")[0]
        return NamedTask(name, load_task(domain, task_id), known_problem(domain, task_id, self._user))

    def task_id(self, name: str) -> str:
        """Return tau2's id of a task, or raise `GameNotFoundError` if no task has this name."""
        if name not in self._ids:
            raise GameNotFoundError(f"Expected a task like {next(iter(self._ids))!r}, actual: {name!r}. See `names`.")
        return self._ids[name]


def _numbers(domain: str) -> dict[str, str]:
    """Return the last part of each task's name, by tau2's id."""
    return {task: task if task.isdecimal() else str(number) for number, task in enumerate(task_ids(domain))}
