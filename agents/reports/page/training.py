"""What a page shows of a training: its facts, results with intervals, learning curves, and gaps of predictions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rwml_gym.agents.reports.page.evaluation import facts_of
from rwml_gym.agents.reports.page.histogram import histogram
from rwml_gym.agents.reports.page.runs import TrainingFolder, read_file, read_metrics, read_optional
from rwml_gym.errors import StorageError
from rwml_gym.statistics import wilson_interval, won_games_interval

__all__ = ["describe_training"]

# Metric of an update: its title and unit; these are drawn, in this order, and the others are left out.
_CURVES = {
    "reward": "Mean reward of the samples",
    "success": "Success of the episodes trained on",
    "gap_reward": "Gap reward of the predictions",
    "distance": "Mean gap of the samples",
    "signal": "Share of groups with signal",
    "lost": "Share of groups without a won episode",
    "kl": "KL to the reference, nats per token",
    "loss": "Loss, nats per token",
    "steps": "Actions in an episode",
    "invalid": "Share of invalid actions",
    "tokens": "Tokens written in a turn",
    "clip_fraction": "Share of clipped tokens",
    "sampling_mismatch": "|log p| sampling against training, nats per token",
    "gap_share": "Gap reward's share of the squared advantages",
    "observation_loss": "Observation loss, nats per token",
    "grad_norm": "Norm of the gradient",
}
_ALWAYS = ("reward", "success", "distance", "signal", "loss")  # others are left out where they are 0 throughout
_FACTS = ("command", "model", "adapter", "env", "split", "domain", "seed", "encoder", "lora_rank", "dtype", "placebo")
_VERSIONS = ("rwml-gym", "python", "torch", "transformers", "device")
_REPORT_CHARACTERS = 40_000


def describe_training(label: str, run: TrainingFolder) -> dict[str, Any]:
    """Return what the page shows of a training.

    Args:
        label: Its name on the page.
        run: Its folder.

    Raises:
        StorageError: If a file of it cannot be read.
    """
    folder = run.folder
    try:
        results = read_optional(folder / "results.json")
        tables = [*_world_model(results), *_policy(read_optional(folder / "report.json")), *_losses(folder)]
        curves = {name: _curves(rows) for name, rows in read_metrics(folder).items()}
        gaps = _gaps(folder, results or {}, read_optional(folder / "calibration.json") or {})
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise StorageError(
            f"Expected the files of a training in {str(folder)!r}, actual: others ({type(error).__name__}: {error}). "
            "Leave this RUN out, or repeat it with this version."
        ) from error
    versions = read_optional(folder / "versions.json") or {}
    made = {name: versions[name] for name in _VERSIONS if versions.get(name)}
    report = folder / "report.txt"
    return {
        "label": label,
        "facts": facts_of({**run.config, "made_with": made}, _FACTS),
        "finished": bool(tables),
        "tables": tables,
        "curves": {name: found for name, found in curves.items() if found},
        "gaps": gaps,
        "report": report.read_text("utf-8", "replace")[:_REPORT_CHARACTERS] if report.is_file() else "",
    }


def _world_model(results: Any) -> list[dict[str, Any]]:
    """Return the held-out results of stage 1, from `results.json`."""
    if not isinstance(results, dict) or "models" not in results:
        return []
    metrics = dict.fromkeys(metric for found in results["models"].values() for metric in found)
    tables = [
        {
            "title": f"Held-out {metric}, {results.get('transitions', '?')} transitions",
            "interval": "bootstrap over games",
            "rows": [{"name": name, "value": found[metric]} for name, found in results["models"].items()],
            "unit": metric != "mean gap",
        }
        for metric in metrics
    ]
    if results.get("differences"):
        rows = [{"name": name, "value": value} for name, value in results["differences"].items()]
        title = "Paired differences of the reward on the same transitions"
        tables.append({"title": title, "interval": "bootstrap over games", "rows": rows, "unit": False, "signed": True})
    return tables


def _policy(evaluations: Any) -> list[dict[str, Any]]:
    """Return success before, during and after policy training, from `report.json`."""
    tables = []
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for found in evaluations or []:
        by_name[f"{found['name']} {found.get('unit', 'games')}"].append(found)
    for name, rows in by_name.items():
        if not all(row.get("judged", True) for row in rows):
            continue
        lines = [
            {
                "name": f"after {row['step']} updates",
                "step": row["step"],
                "value": (row["won"] / row["played"], *_interval(row)),
                "note": f"{row['won']} of {row['played']}, {row['steps']:.1f} steps, {row['invalid']:.0%} invalid",
            }
            for row in rows
        ]
        over = "over games" if any(row.get("by_game") for row in rows) else "Wilson"
        tables.append({"title": f"Success on {name}", "interval": over, "rows": lines, "unit": True})
    return tables


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the interval of a success rate over games, or over episodes in runs that did not count games."""
    if row.get("by_game"):
        return won_games_interval(*zip(*row["by_game"], strict=True))
    return wilson_interval(row["won"], row["played"])


def _losses(folder: Path) -> list[dict[str, Any]]:
    """Return the held-out loss before and after fine-tuning on next states, which has no interval."""
    losses = read_optional(folder / "result.json")
    if not isinstance(losses, dict) or "loss_after" not in losses:
        return []
    rows = [
        {"name": name.removeprefix("loss_"), "value": (losses[name], None, None)}
        for name in ("loss_before", "loss_after")
    ]
    return [{"title": "Held-out loss, nats per token", "interval": "none", "rows": rows, "unit": False}]


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [_with_shares(row) for row in rows]
    found = []
    for key, title in _CURVES.items():
        points = [(row.get("step", place), row[key]) for place, row in enumerate(rows, 1) if _is_number(row.get(key))]
        if points and (key in _ALWAYS or any(value for _, value in points)):
            found.append({"key": key, "title": title, "x": [x for x, _ in points], "y": [y for _, y in points]})
    return found


def _with_shares(row: Mapping[str, Any]) -> dict[str, Any]:
    """Add the share of groups that had a reward difference, and of those without a won episode."""
    added = dict(row)
    if groups := row.get("groups"):
        added["signal"] = row.get("signal_groups", 0) / groups
        if "failed_groups" in row:
            added["lost"] = row["failed_groups"] / groups
    return added


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _gaps(folder: Path, results: Mapping[str, Any], calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the gaps of the held-out predictions of each model, by message role where there are several.

    The thresholds are those of the results, or of the calibration while there are none.
    """
    measures = {**calibration, **(results.get("measures") or {})}
    found = []
    for path in sorted((folder / "evaluation").glob("*.json")):
        if path.name == "hashes.json":
            continue
        predictions = read_file(path)
        for role in sorted({p.get("role", "") for p in predictions}):
            own = [p for p in predictions if p.get("role", "") == role]
            threshold = measures.get(role, {}).get("threshold", results.get("threshold"))
            if gaps := histogram([p["distance"] for p in own], [p["game"] for p in own], threshold):
                name = path.stem.replace("_", " ") + (f", {role}" if role else "")
                found.append({"name": name, "gaps": gaps})
    return found
