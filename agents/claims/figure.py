"""The figure of a table: differences chosen for it, every seed a dot, with the mean and its interval over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rwml_gym.agents.claims.records import Record
from rwml_gym.agents.claims.tables import Table
from rwml_gym.agents.claims.values import column_values, records_by_arm
from rwml_gym.statistics import student_interval

__all__ = ["FigureRow", "draw_figure", "figure_rows"]

_ROW, _MARGIN, _WIDTH = 0.42, 1.1, 9.0  # inches


@dataclass(frozen=True)
class FigureRow:
    """A difference of an arm.

    Attributes:
        arm: Name of the arm.
        label: Heading of the column.
        by_seed: The difference with each seed.
        mean: Mean over the seeds.
        low: Lower end of the 95 % interval of Student's t; the mean with one seed.
        high: Upper end.
    """

    arm: str
    label: str
    by_seed: dict[str, float]
    mean: float
    low: float
    high: float


def figure_rows(table: Table, records: Sequence[Record]) -> list[FigureRow]:
    """Return what the figure of a table shows: the columns with `figure`, of each arm that has results.

    Args:
        table: The table.
        records: Its records at one size, see `measured`.
    """
    by_arm = records_by_arm(table, records)
    rows = []
    for column in (column for column in table.columns if column.figure):
        for arm, mine in by_arm.items():
            if values := column_values(column, mine, by_arm):
                mean, low, high = student_interval(list(values.values()))
                by_seed = {str(seed): value for seed, value in values.items()}
                rows.append(FigureRow(arm, column.label, by_seed, mean, low, high))
    return rows


def draw_figure(rows: Sequence[FigureRow], path: Path, measure: str = "the held-out reward") -> None:
    """Draw rows as SVG; the file's description holds their numbers as JSON.

    Args:
        rows: At least one row, the first on top.
        path: The file, which is replaced.
        measure: What the differences are of.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _MARGIN + _ROW * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot([row.low, row.high], [place, place], color="#1a4f8b", linewidth=6, alpha=0.3, solid_capstyle="butt")
        axes.plot(list(row.by_seed.values()), [place] * len(row.by_seed), "o", color="#1a4f8b", markersize=5, alpha=0.8)
        axes.plot([row.mean], [place], "|", color="black", markersize=18, markeredgewidth=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row.label}\n{row.arm}, {_seeds(row)}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"difference of {measure}: seeds, their mean, its 95 % interval")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same numbers give the same file: no date, and no random names in it.
    with rc_context({"svg.hashsalt": "rwml-gym", "svg.fonttype": "none"}):
        text = json.dumps([asdict(row) for row in rows])
        figure.savefig(path, format="svg", metadata={"Date": None, "Description": text})


def _seeds(row: FigureRow) -> str:
    return "1 seed" if len(row.by_seed) == 1 else f"{len(row.by_seed)} seeds"
