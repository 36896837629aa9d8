"""Tables of the claims as Markdown, from the records, and a page that holds them between words written by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rwml_gym.agents.claims.records import Record, measured, read_records
from rwml_gym.agents.claims.tables import Column, Table, load_table
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import write_text
from rwml_gym.statistics import student_interval

__all__ = ["page_text", "table_text", "write_page"]

_SEEDS = re.compile(r" --seeds?( \d+)+")
_BLOCK = re.compile(r"(<!-- table ([\w-]+) ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table_text(table: Table, records: Sequence[Record]) -> str:
    """Return a table as Markdown: what was expected, then each arm that has results.

    A number is the mean over seeds; behind a difference is its 95 % interval of Student's t over the seeds, which play
    games of their own: it contains how far seeds and games vary.

    Args:
        table: The table.
        records: Its records at one size, see `measured`.
    """
    by_arm = {arm.name: [record for record in records if record.arm == arm.name] for arm in table.arms}
    labels = ["arm", "seeds", *(column.label for column in table.columns)]
    lines = [
        f"*Question*: {table.question}",
        "",
        f"*Expected beforehand*: {table.expected}",
        "",
        f"*Would count as a failure*: {table.failure}",
        "",
        f"| {' | '.join(labels)} |",
        f"|{' --- |' * len(labels)}",
    ]
    for arm in table.arms:
        mine = sorted(by_arm[arm.name], key=lambda record: record.seed)
        placebo = f" (placebo of {arm.placebo_of})" if arm.placebo_of else ""
        if not mine:
            lines.append(f"| {arm.name}{placebo} | not run |{' |' * len(table.columns)}")
            continue
        cells = [_cell(column, mine, by_arm) for column in table.columns]
        seeds = ", ".join(str(record.seed) for record in mine)
        lines.append(f"| {arm.name}{placebo} | {seeds} | {' | '.join(cells)} |")
    if records:
        lines += ["", *_notes(table, records, by_arm)]
    return "\n".join(lines)


def _cell(column: Column, mine: Sequence[Record], by_arm: dict[str, list[Record]]) -> str:
    values = list(_values(column, mine, by_arm).values())
    if not values:
        return "-"
    mean, low, high = student_interval(values)
    if not column.is_difference:
        return f"{mean:.3f}"
    if len(values) == 1:
        return f"{mean:+.3f} (1 seed)"
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _values(column: Column, mine: Sequence[Record], by_arm: dict[str, list[Record]]) -> dict[int, float]:
    """Return the column's value by seed, of each seed that has it."""
    found = {}
    for record in mine:
        other: float | None = 0.0
        if column.minus is not None:
            other = record.metrics.get(column.minus)
        elif column.against is not None:
            same_seed = [each for each in by_arm[column.against] if each.seed == record.seed]
            other = same_seed[0].metrics.get(column.metric) if same_seed and record.arm != column.against else None
        value = record.metrics.get(column.metric)
        if value is not None and other is not None:
            found[record.seed] = value - other
    return found


def _notes(table: Table, records: Sequence[Record], by_arm: dict[str, list[Record]]) -> list[str]:
    """Say which seed gave what, which differences are too small to be seen, the time and the commands."""
    lines = []
    for column in table.columns:
        for arm, mine in by_arm.items() if column.is_difference else ():
            values = _values(column, sorted(mine, key=lambda record: record.seed), by_arm)
            if len(values) > 1:
                mean, low, _ = student_interval(list(values.values()))
                each = ", ".join(f"{value:+.3f} ({seed})" for seed, value in values.items())
                lines.append(f"- {arm}, {column.label}: {each}; a mean beyond ±{mean - low:.3f} would exclude 0.")
    for arm, mine in by_arm.items():
        if stopped := sorted(record.seed for record in mine if record.status == "stopped"):
            seeds = ", ".join(map(str, stopped))
            lines.append(f"- {arm}, stopped early: seeds {seeds}. They count in the columns that they had measured.")
    if table.episodes:
        played = {record.arm: 0.0 for record in records}
        for record in records:
            played[record.arm] += sum(v for name, v in record.metrics.items() if name.endswith(".episodes"))
        lines.append(f"- Episodes an arm: {min(played.values()):.0f} to {max(played.values()):.0f}.")
    hours = sum(record.seconds for record in records) / 3600
    commits = ", ".join(sorted({record.commit for record in records} - {""})) or "unknown"
    lines.append(f"- {hours:.1f} hours on {_machines(records)}; commit {commits}.")
    # The seeds stand in the table.
    commands = dict.fromkeys(_SEEDS.sub("", each.command) for each in sorted(records, key=lambda each: each.seed))
    lines.append(f"- Run by {', '.join(f'`{command}`' for command in commands)}.")
    return ["\n".join(lines)]


def _machines(records: Sequence[Record]) -> str:
    found = {(record.versions["device"], record.versions["threads"]) for record in records}
    return ", ".join(f"{device} with {threads} thread{'s' * (threads > 1)}" for device, threads in sorted(found))


def page_text(text: str, results: Path) -> str:
    """Return a page with its tables made anew.

    Args:
        text: The page. A table stands between `<!-- table NAME SIZE -->` and `<!-- end -->`.
        results: Folder of the results.
    """

    def block(found: re.Match[str]) -> str:
        begin, name, size, end = found.groups()
        table = load_table(name)
        return f"{begin}\n{table_text(table, measured(read_records(results, name), size))}\n\n{end}"

    return _BLOCK.sub(block, text)


def write_page(path: Path, results: Path) -> None:
    """Make the tables of a page anew, from the results."""
    if not path.is_file():
        raise InvalidConfigError(f"Expected a page with tables in {str(path)!r}, actual: no such file.")
    write_text(path, page_text(path.read_text(encoding="utf-8"), results))
