"""Tables of the claims as Markdown, from the records, and a page that holds them and their figures between words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rwml_gym.agents.claims.figure import draw_figure, figure_rows
from rwml_gym.agents.claims.records import COMMITTED, Record, measured, read_records
from rwml_gym.agents.claims.tables import Column, Table, load_table
from rwml_gym.agents.claims.values import column_values, records_by_arm, withdrawn_from
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import write_text
from rwml_gym.statistics import student_interval

__all__ = ["figure_path", "page_text", "shown_tables", "table_text", "write_page"]

_WIDEST = 8  # quantities that a page has room for side by side
_SEEDS_OPTION = re.compile(r" --seeds?( \d+)+")
_BLOCK = re.compile(r"(<!-- table ([\w-]+) ([\w-]+) -->)\n.*?(<!-- end -->)", re.DOTALL)


def table_text(table: Table, records: Sequence[Record]) -> str:
    """Return a table as Markdown: what was expected, the numbers of each arm that has results, and the seeds.

    A number is the mean over seeds; behind a difference is its 95 % interval of Student's t over the seeds, which play
    games of their own: it contains how far seeds and games vary. The longer side of the table goes down the page, as do
    quantities that it has no room for side by side.

    Args:
        table: The table.
        records: Its records at one size, see `measured`.
    """
    return "\n\n".join(
        [_beforehand(table), *_numbers(table, records), *_seeds(table, records), *_notes(table, records)]
    )


def _beforehand(table: Table) -> str:
    return (
        f"*Question*: {table.question}\n\n*Expected beforehand*: {table.expected}\n\n"
        f"*Would count as a failure*: {table.failure}"
    )


def _numbers(table: Table, records: Sequence[Record]) -> list[str]:
    by_arm = records_by_arm(table, records)
    ran = [arm for arm in table.arms if by_arm[arm.name]]
    rows = [["arm", "seeds", *(column.label for column in table.columns)]]
    for arm in ran:
        mine = by_arm[arm.name]
        name = f"{arm.name} (placebo of {arm.placebo_of})" if arm.placebo_of else arm.name
        seeds = ", ".join(str(record.seed) for record in mine)
        rows.append([name, seeds, *(_cell(column, mine, by_arm) for column in table.columns)])
    if len(table.columns) > min(len(table.arms), _WIDEST):
        rows = [list(row) for row in zip(*rows, strict=True)]
    shown = ["\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))] if ran else []
    missing = [arm.name for arm in table.arms if arm not in ran]
    return [*shown, *([f"Not run: {'; '.join(missing)}."] if missing else [])]


def _cell(column: Column, mine: Sequence[Record], by_arm: dict[str, list[Record]]) -> str:
    values = list(column_values(column, mine, by_arm).values())
    if not values:
        return "-"
    mean, low, high = student_interval(values)
    if not column.is_difference:
        return f"{mean:.3f}"
    if len(values) == 1:
        return f"{mean:+.3f} (1 seed)"
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _seeds(table: Table, records: Sequence[Record]) -> list[str]:
    """Say which seed gave what, and which differences are too small to be seen."""
    by_arm = records_by_arm(table, records)
    lines = []
    for column in table.columns:
        for arm, mine in by_arm.items() if column.is_difference else ():
            values = column_values(column, mine, by_arm)
            if len(values) > 1:
                mean, low, _ = student_interval(list(values.values()))
                each = ", ".join(f"{value:+.3f} ({seed})" for seed, value in values.items())
                lines.append(f"- {arm}, {column.label}: {each}; a mean beyond ±{mean - low:.3f} would exclude 0.")
    return ["\n".join(lines)] if lines else []


def _notes(table: Table, records: Sequence[Record]) -> list[str]:
    """Say which runs were stopped, the time and the commands."""
    if not records:
        return []
    lines = []
    for arm, mine in records_by_arm(table, records).items():
        if stopped := [record.seed for record in mine if record.status == "stopped"]:
            seeds = ", ".join(map(str, stopped))
            lines.append(f"- {arm}, stopped early: seeds {seeds}. They count where they had measured something.")
        gone = dict.fromkeys(each.reason for record in mine for each in withdrawn_from(table, record))
        lines += [f"- {arm}, numbers that were withdrawn: {reason}" for reason in gone]
    if table.episodes:
        played = {record.arm: 0.0 for record in records}
        for record in records:
            played[record.arm] += sum(v for name, v in record.metrics.items() if name.endswith(".episodes"))
        lines.append(f"- Episodes an arm: {min(played.values()):.0f} to {max(played.values()):.0f}.")
    hours = sum(record.seconds for record in records) / 3600
    commits = ", ".join(sorted({record.commit for record in records} - {""})) or "unknown"
    lines.append(f"- {hours:.1f} hours on {_machines(records)}; commit {commits}.")
    # The seeds stand in the table.
    commands = dict.fromkeys(_SEEDS_OPTION.sub("", r.command) for r in sorted(records, key=lambda each: each.seed))
    lines.append(f"- Run by {', '.join(f'`{command}`' for command in commands)}.")
    return ["\n".join(lines)]


def _machines(records: Sequence[Record]) -> str:
    found = {(record.versions["device"], record.versions["threads"]) for record in records}
    return ", ".join(f"{device} with {threads} thread{'s' * (threads > 1)}" for device, threads in sorted(found))


def page_text(text: str, results: Path) -> str:
    """Return a page with its tables made anew.

    Args:
        text: The page. A table stands between `<!-- table NAME SIZE -->` and `<!-- end -->`. What was expected stands
            where its name is first.
        results: Folder of the results; a table that has none there is made from the committed ones.
    """
    seen: set[str] = set()

    def block(found: re.Match[str]) -> str:
        begin, name, size, end = found.groups()
        table, records = load_table(name), _shown(results, name, size)
        picture = _picture(table, records, name, size)
        parts = [*([] if name in seen else [_beforehand(table)]), *picture, *_numbers(table, records)]
        seen.add(name)
        if seeds := _seeds(table, records):
            parts.append(f'<details markdown="1">\n<summary>Each seed</summary>\n\n{seeds[0]}\n\n</details>')
        return "\n\n".join([begin, *parts, *_notes(table, records), end])

    return _BLOCK.sub(block, text)


def _picture(table: Table, records: Sequence[Record], name: str, size: str) -> list[str]:
    """Return the line of the table's figure, if it has one."""
    rows = figure_rows(table, records)
    means = "; ".join(f"{row.arm}, {row.label}: {row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in rows)
    return [f"![{means}]({figure_path(name, size)})"] if rows else []


def figure_path(name: str, size: str) -> str:
    """Return where the figure of a table lies, from the page."""
    return f"images/claims-{name}-{size}.svg"


def write_page(path: Path, results: Path) -> None:
    """Make the tables of a page anew, and the figures beside it, from the results."""
    if not path.is_file():
        raise InvalidConfigError(f"Expected a page with tables in {str(path)!r}, actual: no such file.")
    text = path.read_text(encoding="utf-8")
    write_text(path, page_text(text, results))
    for name, size in shown_tables(text):
        table = load_table(name)
        if rows := figure_rows(table, _shown(results, name, size)):
            measure = "success" if table.episodes else "the held-out reward"
            draw_figure(rows, path.parent / figure_path(name, size), measure)


def _shown(results: Path, name: str, size: str) -> list[Record]:
    """Return the records that a page shows: those of the folder, or where it has none, the committed ones."""
    return measured(read_records(results, name), size) or measured(read_records(COMMITTED, name), size)


def shown_tables(text: str) -> list[tuple[str, str]]:
    """Return name and size of each table of a page."""
    return [(found[2], found[3]) for found in _BLOCK.finditer(text)]
