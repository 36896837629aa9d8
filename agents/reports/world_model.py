"""Report of world-model training: the results as a table, as JSON and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rwml_gym.agents.reports.evaluate import Prediction, kinds_of_rows, paired_difference
from rwml_gym.agents.reports.seeds import over_seeds
from rwml_gym.figures import draw, save
from rwml_gym.files import read_json, write_json
from rwml_gym.reward.distances import LARGEST_GAP
from rwml_gym.reward.gap import GapReward, Measure
from rwml_gym.statistics import share_interval
from rwml_gym.transitions import count_games, unit_of

if TYPE_CHECKING:  # the first imports torch, which a table does not need
    from rwml_gym.agents.config.world_model import RWMLConfig
    from rwml_gym.agents.learning.forgetting import Forgetting

__all__ = ["Context", "results_table", "write_report"]

# What is measured, and the largest value there can be.
_METRICS: tuple[tuple[str, Callable[[Prediction], float], float], ...] = (
    ("reward at τ_d", lambda p: p.reward, 1.0),
    ("mean gap", lambda p: p.distance, LARGEST_GAP),
    ("exact match", lambda p: float(p.exact), 1.0),
)
# An action type with fewer held-out transitions gets no row, because its interval would be too wide.
_MIN_ROW = 8


@dataclass(frozen=True)
class Context:
    """The text around the numbers of a table.

    Attributes:
        data_version: Release of the data of the held-out games.
        fits: Share of the held-out states that are no longer than a prediction can be, by message role; empty if it was
            not counted.
        max_new_tokens: Token limit of a prediction.
        scores: Task success of each player as text; empty if it is not informative.
        forgetting: How far each model has moved from the base model; empty if it was not measured.
    """

    data_version: str
    fits: Mapping[str, float]
    max_new_tokens: int
    scores: str = ""
    forgetting: Mapping[str, Forgetting] = field(default_factory=dict)


def write_report(
    folder: Path, config: RWMLConfig, results: Mapping[str, Sequence[Prediction]], gap: GapReward, context: Context
) -> str:
    """Write `report.txt`, `results.json` and `curves.png`; return the table and the paths of curves and adapter.

    Args:
        folder: The run's folder.
        config: The run's configuration.
        results: Held-out predictions by model.
        gap: The reward.
        context: The text around the numbers.
    """
    table = "\n".join([results_table(results, gap, context), *over_seeds(config)])
    (folder / "report.txt").write_text(table + "\n", encoding="utf-8")
    write_json(
        folder / "results.json",
        {
            "threshold": gap.threshold,
            "measures": {role: asdict(measure) for role, measure in gap.measures.items()},
            "data_version": context.data_version,
            "fits": dict(context.fits),
            "forgetting": {name: asdict(found) for name, found in context.forgetting.items()},
            "transitions": len(next(iter(results.values()))),
            "models": {
                name: {label: _interval(rows, value, most) for label, value, most in _METRICS}
                for name, rows in results.items()
            },
            "differences": {f"{a} - {b}": paired_difference(results[a], results[b]) for a, b in _pairs(results)},
        },
    )
    plot_curves(folder, results)
    adapter = folder / "adapters" / "rwml"
    return f"\n{table}\n\nCurves: {folder / 'curves.png'}\nAdapter (PEFT, for {config.model}): {adapter}"


def results_table(results: Mapping[str, Sequence[Prediction]], gap: GapReward, context: Context) -> str:
    """Return reward, gap and exact match by model, message role and action type, with 95 % intervals over games.

    With a "most frequent" model, rows tell apart what such a lookup answers, see `kinds_of_rows`.
    """
    first = next(iter(results.values()))
    width = 20
    lines = [
        f"Held-out: {len(first)} transitions of {count_games(first)}, greedy predictions, τ_d = {gap.threshold:.4g}. "
        f"[95 % interval, bootstrap over {unit_of({p.game for p in first})}]",
        f"Data: {context.data_version}",
        *(_described(role, measure, gap.encoder.name) for role, measure in gap.measures.items()),
        *_fitting(context),
        *context.scores.splitlines(),
    ]
    for label, value, most in _METRICS:
        lines += ["", f"{label:<22}{'n':>5}  " + "".join(f"{name:<{width}}" for name in results)]
        for row, belongs in _rows(results):
            count = sum(belongs)
            cells = []
            for predictions in results.values():
                chosen = [p for p, wanted in zip(predictions, belongs, strict=True) if wanted]
                mean, low, high = _interval(chosen, value, most)
                cells.append(f"{f'{mean:.3f} [{low:.2f}, {high:.2f}]':<{width}}")
            lines.append(f"  {_short(row):<20}{count:>5}  " + "".join(cells))
    if pairs := _pairs(results):
        lines += [
            "",
            "Paired differences of the reward on the same transitions (over games, not over seeds of training):",
        ]
    for a, b in pairs:
        mean, low, high = paired_difference(results[a], results[b])
        verdict = "excludes 0" if low > 0 or high < 0 else "includes 0"
        lines.append(f"  {f'{a} - {b}':<28} {mean:+.3f} [{low:+.3f}, {high:+.3f}]  {verdict}")
    if context.forgetting:
        lines += [
            "",
            "Forgetting: loss on general text and KL from the base model on task prompts, in nats a token; share of "
            "the adapted weights that changed",
        ]
        for name, found in context.forgetting.items():
            lines.append(f"  {name:<24}{found.text_loss:>8.3f}{found.kl:>8.3f}{found.weight_change:>8.1%}")
    return "\n".join(line.rstrip() for line in lines)


def _interval(
    rows: Sequence[Prediction], value: Callable[[Prediction], float], most: float
) -> tuple[float, float, float]:
    return share_interval([value(p) for p in rows], [p.game for p in rows], most)


def _rows(results: Mapping[str, Sequence[Prediction]]) -> list[tuple[str, list[bool]]]:
    """Return the rows of a table, each with which predictions belong to it."""
    predictions = next(iter(results.values()))
    types = [name for name, count in Counter(p.action_type for p in predictions).most_common() if count >= _MIN_ROW]
    rows = [("all", [True] * len(predictions))]
    if lookup := results.get("most frequent"):
        rows += kinds_of_rows(lookup).items()
    rows += [
        ("names nothing new", [p.names_nothing_new for p in predictions]),
        ("names something new", [not p.names_nothing_new for p in predictions]),
    ]
    rows += [(f"role {name}", [p.role == name for p in predictions]) for name in sorted({p.role for p in predictions})]
    rows += [(name, [p.action_type == name for p in predictions]) for name in types]
    rows.append(("other actions", [p.action_type not in types for p in predictions]))
    return [(name, belongs) for name, belongs in rows if any(belongs) and name != "role "]


def _fitting(context: Context) -> list[str]:
    """Say how many states fit into a prediction; nothing if that was not counted."""
    shares = [f"{share:.0%}{f' of {role!r}' if role else ''}" for role, share in context.fits.items()]
    fitting = f"States that fit into a prediction: {', '.join(shares)} ({context.max_new_tokens} tokens)"
    return [fitting] if shares else []


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"


def _described(role: str, measure: Measure, encoder: str) -> str:
    return f"Messages of role {role!r}: {measure.described(encoder)}"


def _pairs(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    wanted = [
        ("warm start", "base"),
        ("RWML", "base"),
        ("RWML", "warm start"),
        ("SFT same time", "warm start"),
        ("RWML", "SFT same time"),
        ("RWML", "most frequent"),
        ("adapter", "base"),
        ("adapter", "most frequent"),
        ("retrieval", "most frequent"),
    ]
    return [(a, b) for a, b in wanted if a in results and b in results]


def plot_curves(folder: Path, results: Mapping[str, Sequence[Prediction]]) -> None:
    """Draw the learning curves and the held-out reward of the models as `curves.png` with matplotlib."""
    metrics = {path.stem: read_json(path) for path in sorted((folder / "metrics").glob("*.json"))}
    figure, axes = draw(6, height=3.75, width=4.3, rows=2)
    grpo = metrics.get("rwml", [])
    panels = (
        (axes[1], "reward", "GRPO: mean reward of the samples", "reward at τ_d"),
        (axes[2], "signal_share", "GRPO: groups with reward difference", "share"),
        (axes[3], "distance", "GRPO: mean gap of the samples", "d"),
        (axes[4], "kl", "GRPO: KL to the reference", "nats per token"),
    )
    for name, rows in metrics.items():
        if name != "rwml" and rows:
            axes[0].plot([r["step"] for r in rows], [r["loss"] for r in rows], label=name.replace("_", " "), lw=1.2)
    axes[0].set(title="Next-state SFT", xlabel="step", ylabel="loss per token (nats)")
    if axes[0].lines:
        axes[0].legend(frameon=False)
    for axis, key, title, label in panels:
        values = [row[key] for row in grpo]
        axis.plot(range(1, len(values) + 1), values, color="0.75", lw=1, label="step")
        if len(values) >= 5:
            smooth = np.convolve(values, np.ones(5) / 5, mode="valid")
            axis.plot(range(3, len(values) - 1), smooth, color="C0", lw=2, label="mean of 5")
            axis.legend(frameon=False)
        axis.set(title=title, xlabel="step", ylabel=label)
    names = list(results)
    bars = [share_interval([p.reward for p in rows], [p.game for p in rows]) for rows in results.values()]
    means = [b[0] for b in bars]
    errors = [[m - low for m, low, _ in bars], [high - m for m, _, high in bars]]
    axes[5].bar(range(len(names)), means, yerr=errors, capsize=3, color=["C0" if n == "RWML" else "0.7" for n in names])
    axes[5].set_xticks(range(len(names)), names, rotation=25, ha="right")
    axes[5].set(title="Held-out reward at τ_d (95 % interval)", ylim=(0, 1))
    save(figure, folder / "curves.png")
