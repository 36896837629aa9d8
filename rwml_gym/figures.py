"""Figures of panels in one style, and how to save them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from rwml_gym.checks import require

__all__ = ["draw", "save"]


def draw(panels: int, height: float = 4.2, width: float = 5.4, rows: int = 1) -> tuple[Any, list[Any]]:
    """Make a figure of panels in one style.

    Args:
        panels: Number of panels; a multiple of `rows`.
        height: Height of a row, in inches.
        width: Width of a panel, in inches.
        rows: Rows of panels.

    Returns:
        The figure and its panels, row by row.

    Raises:
        DependencyNotInstalled: matplotlib is missing.
    """
    require("matplotlib", "matplotlib for plots", "report")
    from matplotlib.figure import Figure

    columns = panels // rows
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG; characters missing from the font become boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path, dpi=110)
