"""Does existing RL code learn ALFWorld, with and without the world-model reward? Several seeds, as a table.

    python benchmarks/sb3.py [--seeds 0 1 2] [--predictor retrieval] [--weight -0.01]
        [--rows without wrapper cost]

Each training is `examples/existing_rl_sb3.py` as it stands, `--world-model-weight 0` or the weight; and, beside them, a
constant step cost of that weight in the wrapper's place, which tells how much of the difference is the world model's.
All share one process and so the cache of encoded texts: the seconds of the first row hold most of the encoding, those
of the rows after it what a training costs beside. Success is of sampled actions over the same games, 95 % intervals by
Wilson.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from rwml_gym.statistics import wilson_interval

ROWS = ("without", "wrapper", "cost")
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "existing_rl_sb3.py"


def load_example() -> Any:
    """The example as a module: examples are scripts, not a package."""
    spec = importlib.util.spec_from_file_location("existing_rl_sb3", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


@contextmanager
def step_cost(example: Any, cost: float) -> Iterator[None]:
    """Adds a constant to every reward of the example's world."""
    plain = example.make_world
    if cost:
        example.make_world = lambda config: gym.wrappers.TransformReward(
            plain(config), lambda reward: float(reward) + cost
        )
    try:
        yield
    finally:
        example.make_world = plain


def share(counts: tuple[int, int]) -> str:
    """A share of episodes won, with its interval."""
    won, played = counts
    low, high = wilson_interval(won, played)
    return f"{won / played:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Trains and prints a row a training, as each is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--predictor", default="retrieval")
    parser.add_argument("--weight", type=float, default=-0.01)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--steps", type=int, help="of a training; the example's own if absent")
    options = parser.parse_args()
    torch.set_num_threads(1)
    example = load_example()
    config = example.Config(predictor=options.predictor)
    if options.steps is not None:
        config = replace(config, steps=options.steps)
    print(f"{config}\n")
    print(f"{'':<28} {'random agent':<21} {'trained':<21} {'seconds':>7}  above the random agent's interval")
    for seed in options.seeds:
        for row in options.rows:
            weight = options.weight if row == "wrapper" else 0.0
            with step_cost(example, options.weight if row == "cost" else 0.0):
                result = example.run(replace(config, seed=seed, world_model_weight=weight))
            what = {"without": "without", "wrapper": f"{options.predictor} x {weight:g}", "cost": "step cost"}[row]
            name = f"seed {seed}, {what}"
            above = result.after[0] / result.after[1] > wilson_interval(*result.random)[1]
            print(
                f"{name:<28} {share(result.random):<21} {share(result.after):<21} "
                f"{result.seconds:>7.0f}  {'yes' if above else 'no'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
