"""What is read from the folder of a run: numbers by name, for the tables of the claims.

Names, behind the name of the stage:

- `MODEL.KIND` of `rwml`: mean held-out reward of a model (`base`, `warm_start`, `rwml`, `sft_same_time`,
  `most_frequent`, `nothing_changes`) on `all` rows, `lookup` (a lookup answers), `read` (must be read from the
  history), `unknowable`, and `new` (names something new); `MODEL.exact`: share of exact matches, which means the same
  whatever the reward is; `MODEL.commonest`: share of its most common prediction, 1 for a model that always says the
  same; `MODEL.updates`: updates of its training; `MODEL.text_loss`, `MODEL.kl` and `MODEL.weight_change`, see
  `learning.forgetting`.
- `MODEL.best` of `rwml`, for `rwml` and `sft_same_time`: the highest reward among the warm start, the evaluations in
  between (`stage.evaluate_every`) and the end. It is chosen on the held-out games that it is measured on, so it favours
  the model: SFT is given more here than one that stops without knowing them.
- `equal.kl` and `equal.text_loss` of `rwml` with `stage.evaluate_every`: what RWML has at the end minus what SFT for
  the same time had when it first reached RWML's reward, linear between evaluations; absent if it never did.
- `signal` and `signal_start` of `rwml` and `policy`: share of groups with a reward difference in all updates, and in
  the first two.
- `start`, `end` of `policy`: success on held-out games of all splits before and after; `area`: mean success over the
  evaluations; `start_invalid`, `end_invalid`: share of invalid actions; `episodes`: how many were evaluated at the end.
- `training_start`, `training_end` and `training_area` of `policy`: success of the episodes that it trained on, in the
  first two updates, the last two, and all; `gap_start` and `gap_end`: their mean gap reward.
- `MODEL` of `evaluate-world-model`: reward one step ahead.
- `success`, `steps`, `invalid` (share of actions), `tokens` (written in a step, imagination included) and `episodes`
  of `evaluate`; `imagined`, the share of the played actions whose outcome was imagined word by word.
- `loss_before`, `loss_after` of `sft` on states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rwml_gym.agents.reports.evaluate import Prediction, kinds_of_rows
from rwml_gym.agents.traces.folder import EPISODES, read_trace
from rwml_gym.agents.traces.scores import score
from rwml_gym.files import read_json

__all__ = ["metrics_of"]

_KINDS = {"a lookup answers": "lookup", "must be read": "read", "cannot be known": "unknowable"}
_TRAINED = ("rwml", "sft_same_time")
_EDGE = 2  # updates that count as the start, and as the end


def metrics_of(run: str, folder: Path) -> dict[str, float]:
    """Read the metrics of a run; of one that was stopped, what it has measured, which may be nothing.

    Args:
        run: What ran, see `claims.tables.Stage`.
        folder: Its folder.
    """
    readers = {"rwml": _rwml, "policy": _policy, "sft": _sft, "evaluate-world-model": _evaluated, "evaluate": _played}
    return readers[run](folder)


def _rwml(folder: Path) -> dict[str, float]:
    predictions = {
        path.stem: [Prediction(**row) for row in read_json(path)] for path in (folder / "evaluation").glob("*.json")
    }
    if "most_frequent" not in predictions:
        return {}
    kinds = {_KINDS[kind]: rows for kind, rows in kinds_of_rows(predictions["most_frequent"]).items()}
    found: dict[str, float] = {}
    for model, rows in sorted(predictions.items()):
        found[f"{model}.all"] = _mean(p.reward for p in rows)
        found[f"{model}.exact"] = _mean(float(p.exact) for p in rows)
        found[f"{model}.commonest"] = Counter(p.prediction.strip() for p in rows).most_common(1)[0][1] / len(rows)
        for kind, belongs in kinds.items():
            if any(belongs):
                found[f"{model}.{kind}"] = _mean(p.reward for p, wanted in zip(rows, belongs, strict=True) if wanted)
        if new := [p.reward for p in rows if not p.names_nothing_new]:
            found[f"{model}.new"] = _mean(new)
    for path in (folder / "forgetting").glob("*.json"):
        if path.stem != "probe":  # the texts
            found |= {f"{path.stem}.{measure}": value for measure, value in read_json(path).items()}
    # Without the evaluations in between, which are many.
    last = {name: value for name, value in found.items() if "_step_" not in name}
    for model in _TRAINED:
        if f"{model}.all" in found:
            last[f"{model}.best"] = max(found[f"{each}.all"] for each in _path(found, model))
    made = {path.stem: read_json(path) for path in (folder / "metrics").glob("*.json")}
    updates = {f"{model}.updates": float(len(steps)) for model, steps in made.items() if f"{model}.all" in found}
    return last | updates | _at_equal_reward(found) | _signal(made.get("rwml", []))


def _at_equal_reward(found: Mapping[str, float]) -> dict[str, float]:
    """Compare what RWML and SFT for the same time forgot when SFT first had RWML's final reward."""
    if not any(name.startswith("sft_same_time_step_") for name in found):
        return {}
    path = [model for model in _path(found, "sft_same_time") if f"{model}.kl" in found]
    goal = found["rwml.all"]
    measures = ("kl", "text_loss")
    if path and found[f"{path[0]}.all"] >= goal:  # from the start
        return {f"equal.{measure}": found[f"rwml.{measure}"] - found[f"{path[0]}.{measure}"] for measure in measures}
    for before, after in pairwise(path):
        low, high = found[f"{before}.all"], found[f"{after}.all"]
        if high >= goal:
            part = min(max((goal - low) / (high - low), 0.0), 1.0) if high > low else 0.0
            return {
                f"equal.{measure}": found[f"rwml.{measure}"]
                - (1 - part) * found[f"{before}.{measure}"]
                - part * found[f"{after}.{measure}"]
                for measure in measures
            }
    return {}


def _path(found: Mapping[str, float], model: str) -> list[str]:
    """Return the evaluations of a training in their order: what it began with, in between, and its end."""
    begin, end = f"{model}_step_", ".all"
    steps = sorted(int(n[len(begin) : -len(end)]) for n in found if n.startswith(begin) and n.endswith(end))
    models = ["warm_start", *(f"{begin}{step}" for step in steps), model]
    return [each for each in models if f"{each}{end}" in found]


def _policy(folder: Path) -> dict[str, float]:
    if not (folder / "report.json").is_file():
        return {}
    evaluations = [row for row in read_json(folder / "report.json") if row["name"] != "training"]
    updates = read_json(folder / "metrics" / "policy.json")
    found = _signal(updates) | _training(updates)
    if not evaluations:
        return found
    # Of several splits, all episodes of a step count alike.
    steps: dict[int, list[dict[str, Any]]] = {}
    for row in evaluations:
        steps.setdefault(row["step"], []).append(row)
    shares = [sum(row["won"] for row in rows) / sum(row["played"] for row in rows) for rows in steps.values()]
    first, last = steps[min(steps)], steps[max(steps)]
    return {
        "start": shares[0],
        "end": shares[-1],
        "area": _mean(shares),
        "start_invalid": _invalid(first),
        "end_invalid": _invalid(last),
        "episodes": float(sum(row["played"] for row in last)),
        **found,
    }


def _training(updates: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return success and gap reward of the episodes that were trained on."""
    if not updates:
        return {}
    first, last = updates[:_EDGE], updates[-_EDGE:]
    return {
        "training_start": _mean(row["success"] for row in first),
        "training_end": _mean(row["success"] for row in last),
        "training_area": _mean(row["success"] for row in updates),
        "gap_start": _mean(row["gap_reward"] for row in first),
        "gap_end": _mean(row["gap_reward"] for row in last),
    }


def _invalid(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of invalid actions in evaluations of one step."""
    actions = [row["steps"] * row["played"] for row in rows]
    return sum(row["invalid"] * count for row, count in zip(rows, actions, strict=True)) / max(sum(actions), 1)


def _sft(folder: Path) -> dict[str, float]:
    path = folder / "result.json"
    return dict(read_json(path)) if path.is_file() else _policy(folder)


def _evaluated(folder: Path) -> dict[str, float]:
    if not (folder / "results.json").is_file():
        return {}
    one_step = read_json(folder / "results.json")["one_step"]
    return {name.replace(" ", "_"): interval[0] for name, interval in one_step.items()}


def _played(folder: Path) -> dict[str, float]:
    if not (folder / EPISODES).is_file():
        return {}
    trace = read_trace(folder)
    if not trace.episodes:
        return {}
    found = score(trace.episodes)
    steps = sum(episode.steps for episode in trace.episodes)
    right = [step.prediction.strip() == step.next_observation.strip() for step in trace.steps() if step.prediction]
    return {
        "success": found.success[0],
        "steps": found.steps,
        "invalid": found.invalid,
        "tokens": sum(episode.completion_tokens for episode in trace.episodes) / max(steps, 1),
        "episodes": float(found.episodes),
        **({"imagined": _mean(map(float, right))} if right else {}),
    }


def _signal(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    def share(some: Sequence[dict[str, Any]]) -> float:
        return sum(row["signal_groups"] for row in some) / sum(row["groups"] for row in some)

    return {"signal": share(rows), "signal_start": share(rows[:_EDGE])} if rows else {}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
