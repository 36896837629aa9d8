"""The tasks of a split, by name: ``<domain>/<split>/<number>``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwml_gym.checks import one_of
from rwml_gym.envs.tau2.domains import load_task, splits, task_ids
from rwml_gym.errors import GameNotFoundError

__all__ = ["NamedTask", "Tasks"]


@dataclass(frozen=True)
class NamedTask:
    """One of tau2's tasks and its name here, ``<domain>/<split>/<number>``."""

    name: str
    task: Any


class Tasks:
    """The tasks of a split, which can be listed and sampled.

    The number is tau2's own id if that is a number. telecom's ids describe what is broken, so its tasks, like those of
    mock, are numbered in the order of tau2's file.

    Args:
        domain: One of `rwml_gym.envs.tau2.domains.DOMAINS`.
        split: One of the domain's splits.
        solo: Whether to keep only tasks with a ticket.
    """

    def __init__(self, domain: str, split: str, solo: bool = False) -> None:
        known = splits(domain)
        one_of(f"split of {domain}", split, known)
        numbers = {task: task if task.isdecimal() else str(number) for number, task in enumerate(task_ids(domain))}
        self._domain = domain
        self._ids = {
            f"{domain}/{split}/{numbers[task]}": task
            for task in known[split]
            if not solo or load_task(domain, task).ticket is not None
        }

    @property
    def names(self) -> Sequence[str]:
        """All names, in tau2's order."""
        return list(self._ids)

    def sample(self, rng: np.random.Generator) -> NamedTask:
        """Draw a task; all are equally likely."""
        return self.load(self.names[int(rng.integers(len(self._ids)))])

    def load(self, name: str) -> NamedTask:
        """Load the task of a name (`GameSource.load`)."""
        return NamedTask(name, load_task(self._domain, self.task_id(name)))

    def task_id(self, name: str) -> str:
        """Return tau2's id of a task, or raise `GameNotFoundError` if no task has this name."""
        if name not in self._ids:
            raise GameNotFoundError(f"Expected a task like {next(iter(self._ids))!r}, actual: {name!r}. See `names`.")
        return self._ids[name]
