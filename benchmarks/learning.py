"""Does a policy learn? Success over GRPO updates on 12 generated pick-and-place games, several seeds, as a picture.

    python benchmarks/learning.py [--seeds 0 1 2] [--run-dir runs/learning] [--picture docs/learning.png]

Each seed is `rwml-gym train policy --preset demo --seed N`: games, imitation start, sampling, all of it. Finished runs
in the folder are taken as they are; interrupted ones go on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rwml_gym.agents.config.policy import policy_preset
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.reports.policy import plot_policy_curves
from rwml_gym.files import read_json


def main() -> None:
    """Runs what is missing, prints the first and the last success of each seed, and draws them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run-dir", type=Path, default=Path("runs/learning"))
    parser.add_argument("--picture", type=Path, default=Path("docs/learning.png"))
    options = parser.parse_args()
    runs, lines = {}, []
    for seed in options.seeds:
        folder = options.run_dir / f"seed-{seed}"
        evaluations = run_policy(replace(policy_preset("demo"), seed=seed), folder)
        rows = read_json(folder / "metrics" / "policy.json")
        runs[f"seed {seed}"] = (rows, evaluations)
        first, last = evaluations[0], evaluations[-1]
        low, high = first.interval
        outside = last.won / last.played > high
        lines.append(
            f"seed {seed}: {first.won / first.played:.3f} [{low:.3f}, {high:.3f}] after imitation, "
            f"{last.won / last.played:.3f} [{last.interval[0]:.3f}, {last.interval[1]:.3f}] after {last.step} updates "
            f"({'outside' if outside else 'inside'} the start's interval), "
            f"{first.invalid:.0%} -> {last.invalid:.0%} invalid, {sum(row['seconds'] for row in rows) / 60:.0f} minutes"
        )
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    plot_policy_curves(options.picture, runs)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
