"""`rwml-gym reproduce`: run a table of the claims, and show it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from rwml_gym.agents.config.base import nearest
from rwml_gym.agents.ranges import used_only_with
from rwml_gym.errors import InvalidConfigError
from rwml_gym.terminal import say

__all__ = ["reproduce"]

_CHOICES = ("arms", "seeds", "set")


@dataclass(frozen=True)
class Options:
    """Run a table of the claims: what is missing of it, or only the plan, then show it.

    Started again with the same options, a table goes on where it was interrupted.

    Attributes:
        table: Name of the table; without it, the tables are listed.
        size: `smoke`, to see that it runs; `tiny`, two cores; `gpu-small`, one GPU; `paper`, to be planned only.
        arms: Arms to run, or to show beside those that they are compared with; all if absent.
        seeds: Seeds to run or to show; those of the size if absent. 0, 1, 2 … are for tables, 100 and up to choose
            settings on.
        set: Changes of every stage that has the key, such as `--set dtype=bfloat16 collect.games=32`.
        run_dir: Folder of the runs.
        results: Folder of the results; `results` in the folder of the runs if absent.
        stopped: Record runs in the folder of runs that were killed on a machine that is gone, with what they had
            measured; run nothing.
        dry_run: Show the plan: how many runs are missing and how long they took before, data, updates and memory of the
            first arm, and what the others do otherwise.
        show: Show the table as it is; run nothing.
        page: A Markdown page whose tables are made anew afterwards, such as docs/claims-tables.md.
    """

    table: Annotated[str, tyro.conf.Positional] = ""
    size: str = "tiny"
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    set: tuple[str, ...] = field(default=())
    run_dir: Path = Path("runs/claims")
    results: Path | None = None
    stopped: bool = False
    dry_run: bool = False
    show: bool = False
    page: Path | None = None


def reproduce(words: list[str]) -> int:
    """Run `rwml-gym reproduce` with the words after it; return 1 if a run of the table failed."""
    options = tyro.cli(Options, args=words, prog="rwml-gym reproduce")
    from rwml_gym.agents.claims.page import table_text, write_page
    from rwml_gym.agents.claims.records import COMMITTED, measured, read_records
    from rwml_gym.agents.claims.tables import SIZES, load_sizes, load_table, table_names
    from rwml_gym.agents.jobs.claims.configs import plan_runs

    results = options.results or options.run_dir / "results"
    if options.size not in SIZES:
        raise InvalidConfigError(
            f"Expected a size among {list(SIZES)}, actual: {options.size!r}.{nearest(options.size, SIZES)}"
        )
    _check_together(options)
    if not options.table:
        if options.page is None:
            for name in table_names():
                records = read_records(COMMITTED, name)
                count = sum(len(measured(records, size)) for size in SIZES)
                say(f"{name:<16} {load_table(name).title} ({count} committed runs)")
        else:
            write_page(options.page, options.results or COMMITTED)
        return 0
    table, size = load_table(options.table), load_sizes()[options.size]
    runs = plan_runs(table, size, options.run_dir, options.arms, options.seeds, _changes(options.set))
    failed = 0
    if options.dry_run:
        from rwml_gym.agents.jobs.claims.plan import plan_table

        where = results if options.results or read_records(results, options.table) else COMMITTED
        found = [record for record in read_records(where, options.table) if record.size == options.size]
        say(plan_table(table, size, runs, found, where))
        return 0
    if options.show:
        found = measured(read_records(results, options.table), options.size)
        arms = {*options.arms, *(column.against for column in table.columns)} if options.arms else None
        wanted = [
            record
            for record in found
            if (arms is None or record.arm in arms) and (not options.seeds or record.seed in options.seeds)
        ]
        say(table_text(table, wanted))
        if options.page is not None:
            write_page(options.page, results)
        return 0
    if not size.runs:
        raise InvalidConfigError(
            f"Expected --dry-run with the size {options.size!r}, which was written down to be planned. Add --dry-run, "
            "or choose another --size."
        )
    from rwml_gym.agents.jobs.claims.run import record_stopped
    from rwml_gym.agents.jobs.claims.run import reproduce as run_table

    # Without folders, which are this machine's.
    chosen = [f"--{name} {shlex.join(map(str, value))}" for name in _CHOICES if (value := getattr(options, name))]
    command = " ".join(["rwml-gym reproduce", options.table, "--size", options.size, *chosen])
    if options.stopped:
        count = record_stopped(options.table, options.size, runs, results, command)
        say(f"{count} stopped runs are recorded in {results / options.table}.json.")
        return 0
    text, failed = run_table(options.table, table, options.size, runs, results, command)
    say(f"\n{table.title}\n\n{text}")
    if options.page is not None:
        write_page(options.page, results)
    if failed:
        say(f"{failed} runs failed. Their errors are in {results / options.table}.json.", sys.stderr)
    return 1 if failed else 0


def _check_together(options: Options) -> None:
    """Refuse options that exclude each other, or that nothing would use."""
    what = [f"--{name.replace('_', '-')}" for name in ("dry_run", "show", "stopped") if getattr(options, name)]
    if len(what) > 1:
        raise InvalidConfigError(f"Expected one of --dry-run, --show and --stopped, actual: {' and '.join(what)}.")
    if options.page is not None and what in (["--dry-run"], ["--stopped"]):
        raise InvalidConfigError(
            f"Expected no --page with {what[0]}, which changes no table, actual: both. Leave it out."
        )
    if not options.table:
        used_only_with("the name of a table", options, ["arms", "seeds", "set", "dry_run", "show", "stopped"])


def _changes(words: tuple[str, ...]) -> dict[str, bool | int | float | str | list[str] | list[int] | None]:
    from rwml_gym.agents.config.files import read_yaml

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidConfigError(f"Expected --set KEY=VALUE, actual: {word!r}.")
        try:
            found[key] = read_yaml(value)
        except ValueError:
            found[key] = value
    return found
