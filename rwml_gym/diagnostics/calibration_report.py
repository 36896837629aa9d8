"""Calibrations of several gaps side by side: as a table, as JSON and as a figure."""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rwml_gym.diagnostics.calibration import (
    Calibration,
    NoPairsError,
    calibrate,
    calibrate_by_action,
    calibrate_by_role,
    ranking_line,
)
from rwml_gym.diagnostics.calibration_pairs import measures_for, pair_distances
from rwml_gym.diagnostics.predictability import type_of
from rwml_gym.diagnostics.thresholds import (
    Choice,
    attempts_by_retrieval,
    carried_threshold,
    paper_thresholds,
    share_easy,
    too_lax,
)
from rwml_gym.encoders.cached import EncoderLike, make_encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.figures import draw, save
from rwml_gym.reward.distances import DISTANCES, GapName
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.views import ViewName, in_view
from rwml_gym.text import column, finite, for_plot, shown
from rwml_gym.transitions import Transition

__all__ = ["By", "Calibrations", "calibrate_each", "calibrations_table", "plot_calibrations", "write_calibrations"]

By = tuple[str, ...]
"""How to group the calibrations: by message `role`, by type of `action`, both or neither."""

_WIDTH = 120


@dataclass(frozen=True)
class Calibrations:
    """The calibrations of one gap with one way to choose the threshold.

    Attributes:
        name: Name of the gap, with its encoder and its view.
        gap: The gap.
        overall: The calibration of all transitions.
        apart: For `role` and `action`, each name with its number of transitions and its calibration or error.
        chosen: How the threshold was chosen, in words.
    """

    name: str
    gap: GapName
    overall: Calibration
    apart: Mapping[str, Mapping[str, tuple[int, Calibration | NoPairsError]]]
    chosen: str = ""


def calibrate_each(
    transitions: Sequence[Transition],
    encoder: EncoderLike,
    gap: GapName,
    by: By = ("role", "action"),
    precision: float = 0.9,
    seed: int = 0,
    pairs_per_perturbation: int = 50,
    *,
    view: ViewName = "raw",
    choose: Choice = "precision",
    threshold: float | None = None,
    source: EncoderLike | None = None,
    easy_rate: float = 0.9,
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
        view: See `calibrate`.
        choose: How the threshold is chosen, see `thresholds`. One chosen by `paper` or `quantile` is that of all
            groups; attempts are `thresholds.attempts_by_retrieval`.
        threshold: With `quantile`, τ_d of the encoder `source`; otherwise a threshold to measure, in place of choosing.
        source: With `quantile`, the encoder that the threshold belongs to.
        easy_rate: With `paper`, the pass rate from which a triplet is easy.
    """
    encoder = make_encoder(encoder)
    chosen = ""
    if choose == "quantile":
        if threshold is None or source is None:
            raise InvalidConfigError(
                "Expected a threshold and the encoder it belongs to for the choice 'quantile', actual: "
                f"{threshold} and {source!r}. Give both."
            )
        settings: dict[str, Any] = {"gap": gap, "view": view, "seed": seed, "pairs": pairs_per_perturbation}
        given, source = threshold, make_encoder(source)
        distances = [pair_distances(transitions, which, **settings) for which in (source, encoder)]
        threshold = carried_threshold(given, *distances)
        chosen = f"quantile: as many pairs are below as below {given:.4g} with {source.name}"
    elif choose == "paper" and threshold is None and not DISTANCES[gap].fixed:
        viewed = in_view(transitions, view)
        score = GapReward(encoder, measures=measures_for(viewed, gap, view))
        distances_tried = attempts_by_retrieval(viewed, score, seed=seed)
        filtering, threshold = (
            min(each, DISTANCES[gap].maximum) for each in paper_thresholds(distances_tried, easy_rate)
        )
        easy = share_easy(distances_tried, filtering, easy_rate)
        chosen = (
            f"paper: {easy:.0%} of the triplets are easy for retrieval at {filtering:.4g}, the filter's "
            f"threshold; for training 0.15 more, rounded to 0.2{too_lax(threshold)}"
        )
    options: dict[str, Any] = {"view": view, "threshold": threshold, "chosen_by": choose if chosen else "given"}
    numbers = (precision, seed, pairs_per_perturbation)
    with warnings.catch_warnings():
        # The table shows a missed target precision; an encoder's warnings are still shown.
        warnings.filterwarnings("ignore", "Expected a threshold with a precision", UserWarning)
        overall = calibrate(transitions, encoder, *numbers, gap, **options)
        groups: dict[str, Mapping[str, Calibration | NoPairsError]] = {}
        if "role" in by and len({t.role for t in transitions}) > 1:
            gaps = {t.role: gap for t in transitions}
            groups["role"] = calibrate_by_role(transitions, encoder, gaps, *numbers, **options)
        if "action" in by:
            groups["action"] = calibrate_by_action(transitions, encoder, gap, *numbers, **options)

    def count(how: str, name: str) -> int:
        return sum((t.role if how == "role" else type_of(t)) == name for t in transitions)

    apart = {how: {name: (count(how, name), r) for name, r in found.items()} for how, found in groups.items()}
    return Calibrations(overall.name, gap, overall, apart, chosen)


def calibrations_table(found: Sequence[Calibrations]) -> str:
    """Return one row for all transitions, each message role and each type of action, then what all of it lets pass."""
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
        lines += [line for text in _lets_pass(each) for line in textwrap.wrap(text, _WIDTH, subsequent_indent="  ")]
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
    paths[1].write_text(json.dumps(finite(data), indent=2) + "\n", encoding="utf-8")
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
    title = ("Separation of same and different states", "by distance (held-out half)")
    figure.suptitle(("\n" if len(found) == 1 else " ").join(title))
    save(figure, path)


def _lets_pass(each: Calibrations) -> list[str]:
    """Say how the threshold was chosen, what it rewards of each kind of pairs, and what is ranked the wrong way."""
    made, stepped = [m for m in each.overall.perturbations if m.pairs], each.gap == "rouge"

    def shares(same: bool) -> str:
        return ", ".join(f"{m.name} {m.share_below:.0%}" for m in made if m.same == same)

    def means(same: bool) -> str:
        return ", ".join(f"{m.name} {m.stepped:.2f}" for m in made if m.same == same)

    return [
        *([f"Chosen by {each.chosen}."] if each.chosen else []),
        f"Rewards of the same: {shares(True)}.",
        f"Lets pass of other things: {shares(False)}.",
        *([f"Reward in steps of 0.2, of the same: {means(True)}; of other things: {means(False)}."] if stepped else []),
        *(ranking_line(ranking)[:1].upper() + ranking_line(ranking)[1:] + "." for ranking in each.overall.rankings),
        *([each.overall.advice] if each.overall.advice else []),
    ]


def _row(name: str, count: int, result: Calibration | NoPairsError) -> str:
    start = f"{column(name, 28)}{count:>7}"
    if not isinstance(result, Calibration):
        return f"{start}  too little data: {shown(str(result).partition('. ')[0], 90)}."
    precision = f"{result.precision:.3f}" if result.precision else "-"  # zero if no pair was rewarded
    return f"{start}{result.threshold:>11.4g}{precision:>11}{result.recall:>8.3f}  {result.target}"


def _jsonable(result: Calibration | NoPairsError) -> dict[str, object]:
    return asdict(result) if isinstance(result, Calibration) else {"missing": str(result)}
