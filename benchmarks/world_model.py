"""What GRPO on the gap reward adds to a world model: `rwml-gym train rwml` with several seeds, as one table.

    python benchmarks/world_model.py [--preset demo] [--seeds 0 1 2] [--run-dir runs/world-model] [--set KEY=VALUE …]

Each seed plays games of its own, trains and predicts its own held-out games. Finished runs in the folder are taken as
they are; interrupted ones go on. `--set` changes values of the preset, such as `--set grpo.learning-rate=5e-5`.

For each model and each kind of row: the mean over seeds of the held-out reward, and every seed's. For each difference:
the mean over seeds, every seed's, and the 95 % interval of Student's t over seeds, which contains how far they vary.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Quantiles 0.975 of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
MODELS = ("most_frequent", "base", "warm_start", "rwml", "sft_same_time")
DIFFERENCES = (
    ("rwml", "warm_start"),
    ("sft_same_time", "warm_start"),
    ("rwml", "sft_same_time"),
    ("rwml", "most_frequent"),
)
Predictions = list[dict[str, Any]]


def kinds(runs: dict[str, Predictions]) -> dict[str, list[bool]]:
    """Return which predictions belong to which kind of row, as the report of a run tells them apart."""
    known = [row["names_nothing_new"] for row in runs["base"]]
    answered = [row["reward"] > 0.5 for row in runs["most_frequent"]]
    return {
        "all": [True] * len(known),
        "a lookup answers": answered,
        "must be read": [k and not a for k, a in zip(known, answered, strict=True)],
        "cannot be known": [not k and not a for k, a in zip(known, answered, strict=True)],
        "names nothing new": known,
    }


def mean(predictions: Predictions, belongs: Sequence[bool]) -> float:
    """Return the mean reward of the predictions of a kind."""
    found = [row["reward"] for row, wanted in zip(predictions, belongs, strict=True) if wanted]
    return sum(found) / len(found) if found else math.nan


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over seeds (Student's t)."""
    count, middle = len(values), sum(values) / len(values)
    if count < 2:
        return -math.inf, math.inf
    deviation = math.sqrt(sum((value - middle) ** 2 for value in values) / (count - 1))
    half = STUDENT.get(count - 1, 1.96) * deviation / math.sqrt(count)
    return middle - half, middle + half


def show(label: str, values: Sequence[float], sign: str = "") -> None:
    """Print the mean over seeds and each seed's value."""
    each = " ".join(f"{value:{sign}.3f}" for value in values)
    low, high = interval(values)
    print(f"  {label:<28}{sum(values) / len(values):{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]  seeds: {each}")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/world-model"))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="changes")
    options = parser.parse_args()
    changes = [
        word for change in options.changes for word in (f"--{change.partition('=')[0]}", change.partition("=")[2])
    ]
    found, forgot = [], []
    for seed in options.seeds:
        folder = options.run_dir / f"seed-{seed}"
        program = str(Path(sys.executable).with_name("rwml-gym"))
        command = [program, "train", "rwml", "--preset", options.preset, "--seed", str(seed), *changes]
        subprocess.run([*command, "--run-dir", str(folder)], check=True)
        read = lambda path: json.loads(path.read_text(encoding="utf-8"))  # noqa: E731
        found.append({name: read(folder / "evaluation" / f"{name}.json") for name in MODELS})
        forgot.append(read(folder / "results.json")["forgetting"])
    print(f"\nHeld-out reward, {options.preset}, {len(found)} seeds; mean [95 % interval over seeds]")
    rows = [kinds(runs) for runs in found]
    for kind in rows[0]:
        print(f"{kind} ({sum(sum(row[kind]) for row in rows)} transitions)")
        for name in MODELS:
            show(name.replace("_", " "), [mean(runs[name], row[kind]) for runs, row in zip(found, rows, strict=True)])
        for a, b in DIFFERENCES:
            values = [mean(r[a], row[kind]) - mean(r[b], row[kind]) for r, row in zip(found, rows, strict=True)]
            show(f"{a} - {b}".replace("_", " "), values, "+")
    for measure, title in (("text_loss", "loss on general text"), ("kl", "KL from the base model")):
        print(f"{title}, nats a token")
        for name in forgot[0]:
            show(name, [each[name][measure] for each in forgot])


if __name__ == "__main__":
    main()
