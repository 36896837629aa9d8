"""Calibrations of several gaps side by side: as a table, as JSON and as a figure."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rwml_gym.diagnostics.calibration import (
    Calibration,
    NoPairsError,
    calibrate,
    calibrate_by_action,
    calibrate_by_role,
)
from rwml_gym.diagnostics.predictability import type_of
from rwml_gym.diagnostics.tool_perturbations import perturbations_for
from rwml_gym.encoders.cached import EncoderLike, make_encoder
from rwml_gym.figures import draw, save
from rwml_gym.reward.distances import DISTANCES, GapName
from rwml_gym.text import column, for_plot, shown, without_nan
from rwml_gym.transitions import Transition

__all__ = ["By", "Calibrations", "calibrate_each", "calibrations_table", "plot_calibrations", "write_calibrations"]

By = tuple[str, ...]
"""How to group the calibrations: by message `role`, by type of `action`, both or neither."""


@dataclass(frozen=True)
class Calibrations:
    """The calibrations of one gap.

    Attributes:
        name: Name of the encoder, or the gap's label.
        gap: The gap.
        overall: The calibration of all transitions.
        apart: For `role` and `action`, each name with its number of transitions and its calibration or error.
    """

    name: str
    gap: GapName
    overall: Calibration
    apart: Mapping[str, Mapping[str, tuple[int, Calibration | NoPairsError]]]


def calibrate_each(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    gap: GapName,
    by: By = ("role", "action"),
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 50,
) -> Calibrations:
    """Calibrate a gap on all transitions, and in groups if requested; errors are those of `calibrate`.

    Args:
        transitions: Recorded transitions.
        encoder: See `encoders.cached.make_encoder`, also for its errors; used by the cosine only.
        gap: The gap.
        by: How to group the transitions.
        precision: See `calibrate`.
        seed: See `calibrate`.
        pairs_per_perturbation: See `calibrate`.
    """
    encoder = make_encoder(encoder)
    settings = (precision, seed, pairs_per_perturbation)
    with warnings.catch_warnings():
        # The table shows a missed target precision; an encoder's warnings are still shown.
        warnings.filterwarnings("ignore", "Expected a threshold with a precision", UserWarning)
        overall = calibrate(transitions, encoder, *settings, gap, perturbations_for(transitions))
        groups: dict[str, Mapping[str, Calibration | NoPairsError]] = {}
        if "role" in by and len({t.role for t in transitions}) > 1:
            groups["role"] = calibrate_by_role(transitions, encoder, {t.role: gap for t in transitions}, *settings)
        if "action" in by:
            groups["action"] = calibrate_by_action(transitions, encoder, gap, *settings)

    def count(how: str, name: str) -> int:
        return sum((t.role if how == "role" else type_of(t)) == name for t in transitions)

    apart = {how: {name: (count(how, name), r) for name, r in found.items()} for how, found in groups.items()}
    name = encoder.name if DISTANCES[gap].between is None else DISTANCES[gap].label
    return Calibrations(name, gap, overall, apart)


def calibrations_table(found: Sequence[Calibrations]) -> str:
    """Return one row for all transitions, each message role and each type of action, then the advice."""
    lines = ["Precision and recall on the held-out half, for balanced pairs of same and different states."]
    for each in found:
        lines += [
            "",
            shown(each.name, 100),
            f"{'':<28}{'n':>7}{'threshold':>11}{'precision':>11}{'recall':>8}  target precision",
        ]
        lines.append(_row("all", each.overall.transitions, each.overall))
        for how, rows in each.apart.items():
            lines += [_row(f"{how} {name or '(none)'}", count, result) for name, (count, result) in rows.items()]
        if each.overall.advice:
            lines.append(each.overall.advice)
    return "\n".join(lines)


def write_calibrations(folder: Path, found: Sequence[Calibrations]) -> list[Path]:
    """Write `calibrations.txt`, `.json` and `.png` with matplotlib (`figures.draw`), and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"calibrations.{ending}" for ending in ("txt", "json", "png")]
    paths[0].write_text(calibrations_table(found) + "\n", encoding="utf-8", errors="replace")
    data = [
        {
            "name": each.name,
            "gap": each.gap,
            "all": _jsonable(each.overall),
            **{how: {n: {"n": c, **_jsonable(r)} for n, (c, r) in rows.items()} for how, rows in each.apart.items()},
        }
        for each in found
    ]
    paths[1].write_text(json.dumps(without_nan(data), indent=2) + "\n", encoding="utf-8")
    plot_calibrations(paths[2], found)
    return paths


def plot_calibrations(path: Path, found: Sequence[Calibrations]) -> None:
    """Draw precision and recall over the threshold, one panel per gap, with the chosen threshold."""
    figure, axes = draw(len(found))
    for axis, each in zip(axes, found, strict=True):
        result = each.overall
        axis.set(title=for_plot(each.name, 48), xlabel="threshold τ_d", ylim=(0, 1.03))
        thresholds = [max(point[0], 1e-6) for point in result.curve]  # distances have six decimals
        axis.step(thresholds, [point[1] for point in result.curve], where="post", color="C0", label="precision")
        axis.step(thresholds, [point[2] for point in result.curve], where="post", color="C1", label="recall")
        axis.axhline(result.target_precision, color="C0", lw=0.8, ls=":", label="target precision")
        axis.axvline(result.threshold, color="0.3", lw=1, ls="--", label=f"chosen: {result.threshold:.4g}")
        axis.plot([result.threshold] * 2, [result.precision, result.recall], "o", color="0.3", ms=4)
        axis.set_xscale("log")
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=4)
    figure.suptitle("Separation of same and different states by distance (held-out half)")
    save(figure, path)


def _row(name: str, count: int, result: Calibration | NoPairsError) -> str:
    start = f"{column(name, 28)}{count:>7}"
    if not isinstance(result, Calibration):
        return f"{start}  too little data: {shown(str(result).partition('. ')[0], 90)}."
    reached = "reached" if result.reached else f"NOT reached, about {result.fit_precision:.2f} at best"
    precision = f"{result.precision:.3f}" if result.precision else "-"  # zero if no pair was rewarded
    return (
        f"{start}{result.threshold:>11.4g}{precision:>11}{result.recall:>8.3f}  {result.target_precision:.2f} {reached}"
    )


def _jsonable(result: Calibration | NoPairsError) -> dict[str, object]:
    return asdict(result) if isinstance(result, Calibration) else {"missing": str(result)}
