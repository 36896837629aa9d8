"""Reports of an audit: as text, as JSON and as a figure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rwml_gym.diagnostics.audit_baselines import BASELINES
from rwml_gym.diagnostics.audit_result import Audit, Row
from rwml_gym.diagnostics.audit_verdict import MIN_PREDICTABLE, MIN_SIGNAL
from rwml_gym.diagnostics.calibration import Calibration
from rwml_gym.figures import draw, save
from rwml_gym.text import column, for_plot, percent, shown

__all__ = ["audit_table", "plot_audit", "verdict", "write_audit"]

_WIDTH = 110
# More rows do not fit a screen or a figure; the JSON has all of them.
_MAX_ROWS = 14


def verdict(audit: Audit) -> str:
    """Return the verdict as text: the level, then each reason with its advice."""
    of = f"{audit.transitions} transitions of {audit.games} {audit.unit}"
    if not audit.findings:
        asked = (
            "" if audit.signal else " Use --model to measure whether your model finds it neither too hard nor too easy."
        )
        return _wrapped(f"Verdict: this reward {audit.level}. No reason against it was found in {of}.{asked}", "")
    lines = [f"Verdict: this reward {audit.level}, judged on {of}."]
    for finding in audit.findings:
        lines.append(_wrapped(f"{finding.level}: {finding.reason}", "  "))
        lines.append(_wrapped(f"-> {finding.advice}", "     "))
    return "\n".join(lines)


def audit_table(audit: Audit) -> str:
    """Return the audit as text, with the verdict last."""
    silent = f" {audit.silent} blank ones are left out." if audit.silent else ""
    lines = [f"{audit.transitions} transitions of {audit.games} {audit.unit}.{silent}", "", *_thresholds(audit)]
    lines += [
        "",
        f"Predictable at all: {audit.predictable:.0%} name nothing unseen (an optimistic bound: a guess may also name "
        "nothing new).",
    ]
    if audit.unseen:
        lines.append(f"Unseen elsewhere, for example: {', '.join(repr(shown(name)) for name in audit.unseen)}.")
    repeats = audit.repeats
    lines.append(
        f"Same window, action and task more than once: {repeats.transitions} transitions"
        + (f", {repeats.agreement:.0%} of their pairs have the same outcome." if repeats.transitions else ".")
    )
    lines.append(f"Repeated word for word in another game: {audit.repeated_elsewhere:.0%}.")
    lines += [
        "",
        f"Rewards of {audit.scored} held-out answers (the truth: 1.000) [95 % over {audit.unit}]:",
    ]
    for name, (mean, low, high) in audit.earned.items():
        lines.append(f"  {name:<20}{mean:.3f} [{low:.2f}, {high:.2f}]  {BASELINES[name]}")
    if audit.signal is not None:
        signal = audit.signal
        lines += ["", f"The model, {signal.samples} samples of each of {signal.prompts} transitions:"]
        measured = {"mean reward": signal.reward, f"groups of {signal.group_size} with signal": signal.share}
        for label, (mean, low, high) in measured.items():
            lines.append(f"  {label:<28}{mean:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"  {percent(signal.hopeless)} of the prompts never earned, {percent(signal.perfect)} always.")
    lines += ["", *_rows("type of action", audit.by_action, audit)]
    if len(audit.by_role) > 1:
        lines += ["", *_rows("message role", audit.by_role, audit)]
    return "\n".join([*lines, "", verdict(audit)])


def write_audit(folder: Path, audit: Audit) -> list[Path]:
    """Write `audit.txt`, `audit.json` and `audit.png` with matplotlib (`figures.draw`), and return their paths.

    Args:
        folder: Folder for the files; it is made if missing.
        audit: The audit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("audit.txt", "audit.json", "audit.png")]
    paths[0].write_text(audit_table(audit) + "\n", encoding="utf-8", errors="replace")
    paths[1].write_text(json.dumps(audit.to_json(), indent=2) + "\n", encoding="utf-8")
    plot_audit(paths[2], audit)
    return paths


def plot_audit(path: Path, audit: Audit) -> None:
    """Draw predictability and baseline rewards per type of action; with a model also its mean rewards."""
    rows = audit.by_action[:_MAX_ROWS]
    panels = 2 if audit.signal is None else 3
    figure, axes = draw(panels, height=1.8 + 0.36 * max(len(rows), len(BASELINES)))
    places = np.arange(len(rows))
    axes[0].barh(places - 0.2, [row.predictable for row in rows], 0.38, color="C0", label="predictable")
    frequent = [row.earned.get("most frequent", 0.0) for row in rows]
    axes[0].barh(places + 0.2, frequent, 0.38, color="0.7", label="reward of the most frequent outcome")
    for place, row in enumerate(rows):
        if not row.earned:
            axes[0].text(0.01, place + 0.2, "too few to score", va="center", fontsize=7, color="0.45")
    axes[0].axvline(MIN_PREDICTABLE, color="C3", lw=0.8, ls="--", label="target")
    labels = [f"{for_plot(row.name or '(none)')}  ({percent(row.share)})" for row in rows]
    axes[0].set_yticks(places, labels)
    axes[0].invert_yaxis()
    axes[0].set(title=f"By type of action (its share); all: {audit.predictable:.0%} predictable", xlim=(0, 1))
    axes[0].legend(frameon=False, loc="upper left", bbox_to_anchor=(-0.25, -0.08), ncols=3, fontsize=8)
    names = list(audit.earned)
    means = np.array([audit.earned[name][0] for name in names])
    errors = np.array([[m - low, high - m] for m, low, high in audit.earned.values()]).T.clip(0)
    colours = ["C1" if name == "shuffled truth" else "0.7" for name in names]
    axes[1].barh(range(len(names)), means, xerr=errors, capsize=3, color=colours)
    axes[1].axvline(1, color="C2", lw=1.5)
    axes[1].text(0.99, -0.55, "the truth", ha="right", va="center", color="C2", fontsize=8)
    axes[1].set_yticks(range(len(names)), names)
    axes[1].invert_yaxis()
    axes[1].set(
        title="Rewards without a model, 95 % intervals", xlim=(0, 1.03), xlabel=f"mean reward on held-out {audit.unit}"
    )
    if audit.signal is not None:
        signal = audit.signal
        edges = np.linspace(0, 1, min(signal.samples, 10) + 2)
        axes[2].hist(np.clip(signal.rates, 0, 1), bins=list(edges), color="C0", edgecolor="white")
        share = f"{signal.share[0]:.0%} [{signal.share[1]:.0%}, {signal.share[2]:.0%}]"
        axes[2].set(
            title=f"Groups of {signal.group_size} with signal: {share}\n(target: at least {MIN_SIGNAL:.0%})",
            xlabel=f"mean reward of {signal.samples} samples",
            ylabel="prompts",
            xlim=(0, 1),
        )
    figure.suptitle(f"This reward {audit.level}", fontweight="bold")
    save(figure, path)


def _thresholds(audit: Audit) -> list[str]:
    lines = []
    for role, result in audit.calibrations.items():
        measure = audit.measures[role]
        measured = measure.described(shown(audit.encoder, 60))
        name = f"Messages of role {shown(role)!r}: " if role else ""
        if not isinstance(result, Calibration):
            apart = f"it separates the few states with a precision of {audit.quality[role][0]:.2f}"
            lines.append(f"{name}{measured}, not calibrated ({apart}): {shown(result, 160)}")
            continue
        precision, recall = audit.quality[role]
        how = "calibrated" if audit.chosen_threshold is None else f"given; the calibrated one is {result.threshold:.4g}"
        given = "reached" if precision >= result.target_precision else "NOT reached"
        reached = result.target if audit.chosen_threshold is None else f"{result.target_precision:.2f} {given}"
        lines.append(
            f"{name}{measured} ({how}): precision {precision:.2f}, recall {recall:.2f} on held-out {audit.unit}; "
            f"target {reached}."
        )
    return [_wrapped(line, "") for line in lines]


def _rows(title: str, rows: Sequence[Row], audit: Audit) -> list[str]:
    with_model = audit.signal is not None
    columns = ("best constant", "words of the state", "most frequent", "shuffled truth")
    heads = ("constant", "bag of state", "frequent", "shuffled")
    head = f"{title:<26}{'n':>6}{'share':>7}{'predictable':>13}" + "".join(f"{name:>14}" for name in heads)
    lines = [head + (f"{'model':>8}{'signal':>8}" if with_model else "")]
    for row in rows[:_MAX_ROWS]:
        cells = "".join(f"{f'{row.earned[c]:.2f}' if row.earned else '-':>14}" for c in columns)
        line = f"{column(row.name or '(none)', 26)}{row.transitions:>6}{row.share:>7.0%}{row.predictable:>13.0%}{cells}"
        if with_model:
            line += f"{'-' if row.reward is None else f'{row.reward:.2f}':>8}{percent(row.signal):>8}"
        lines.append(line)
    if len(rows) > _MAX_ROWS:
        lines.append(f"and {len(rows) - _MAX_ROWS} rarer rows")
    return lines


def _wrapped(text: str, indent: str) -> str:
    # Recorded names are data, including their blanks and hyphens: do not break lines at hyphens.
    rest = f"{indent}  " if indent else ""
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=rest, break_on_hyphens=False)
