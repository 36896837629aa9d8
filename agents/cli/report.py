"""The command `rwml-gym report`: one HTML page of evaluations and trainings."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rwml_gym.agents.reports.page.document import write_page
from rwml_gym.terminal import say

__all__ = ["report"]


@dataclass(frozen=True)
class Report:
    """Writes one HTML page of evaluations and trainings: results, curves, gaps, and every episode, step by step."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN…")] = ()
    """Folders (--run-dir) of `rwml-gym evaluate` and `rwml-gym train`."""
    out: Annotated[Path, tyro.conf.arg(metavar="PAGE.html")] = Path("report.html")
    """The page; one that is there is replaced."""
    fatal: bool = True
    """Play failed episodes of ALFWorld again to find their first fatal steps, about a second for each."""


def report(words: list[str]) -> None:
    """Run `rwml-gym report` with the words after it."""
    command = tyro.cli(Report, args=words, prog="rwml-gym report")
    notes = write_page(command.runs, command.out, command.fatal, lambda line: say(line, sys.stderr))
    for note in notes:
        say(note, sys.stderr)
    say(f"{command.out} ({command.out.stat().st_size / 1e6:.1f} MB)")
