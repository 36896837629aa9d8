"""GRPO side by side in one run on this machine: a world-model step, a rollout of episodes, and the parts of a step.

    python benchmarks/grpo_speed.py [--only step|rollout|parts] [--repeats 3] [--dtype float32]

SmolLM2-135M-Instruct, LoRA r = 16, the same prompts and lengths on both sides.

* step: 4 real prompts of about 250 tokens, 8 completions of 24 tokens each, their reward and the update (`dapo`, β = 0
  if not asked otherwise): ours beside TRL's `GRPOTrainer`, as it is by default (gradient checkpointing) and without
  checkpointing. Each side runs in a process of its own, whose peak memory is its `ru_maxrss`, libraries, model and
  encoder included. Every completion has its full length and every group is in the update, on both sides.
* rollout: 16 episodes of 30 turns, beside `model.generate` on the whole episode at each turn.
* parts: where the time of a policy step goes; on a GPU if there is one, in bfloat16 where it is fast.

The memory allocator's settings matter where page faults are dear: less time, more memory. All sides run with the same
ones, the environment's, or with `--allocator tuned` those of the Makefile.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

# This process starts others and imports nothing large: a process begins with the `ru_maxrss` of the one it came from.
SECTIONS = Path(__file__).parent / "grpo_sections"
TUNED = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
SIDES = {
    "ours": "ours",
    "trl": "TRL, its defaults",
    "trl-plain": "TRL, no checkpointing",
}
WIDTHS = [24, 11, 10, 12, 9, 9, 15, 11]


def run(section: str, *arguments: str, capture: bool = False) -> str:
    """Runs a section in a process of its own; what it printed, if that is wanted here."""
    command = [sys.executable, str(SECTIONS / f"{section}.py"), *arguments]
    done = subprocess.run(
        command,
        check=True,
        text=True,
        stdout=subprocess.PIPE if capture else None,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    return done.stdout or ""


def flags(options: argparse.Namespace, *names: str) -> list[str]:
    """Options as a section takes them."""
    return [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in names]


def step(options: argparse.Namespace) -> None:
    """The world-model step of every side, and how they compare."""
    results: dict[str, dict[str, Any]] = {}
    for side in options.sides:
        repeats = options.repeats if side == "ours" else options.slow_repeats
        common = flags(options, "prompts", "group", "tokens", "beta", "trl-rows", "micro-tokens")
        output = run(
            "step",
            f"--side={side}",
            f"--repeats={repeats}",
            f"--dtype={options.dtype or 'float32'}",
            *common,
            capture=True,
        )
        results[side] = json.loads(output.splitlines()[-1])
        if side == options.sides[0]:
            head(options, results[side])
        show(SIDES[side], results[side])
    if len({result["digest"] for result in results.values()}) > 1:
        raise SystemExit("The sides had different prompts")
    compare(results)


def head(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """What is measured, and the head of the table."""
    lengths, trl = ", ".join(map(str, result["prompts"])), importlib.metadata.version("trl")
    print(f"World-model step: {options.prompts} prompts of {lengths} tokens, {options.group} completions of each,")
    print(f"{options.tokens} tokens long; {result['where']}; β = {options.beta:g}")
    print(f"at a time: {options.micro_tokens} tokens of ours, {options.trl_rows} rows of TRL {trl}")
    print(f"allocator: {options.allocator}")
    print("seconds of the first step, and medians; memory in GB, libraries, model and encoder included")
    row("", "first", "median", "generation", "reward", "update", "before a step", "peak")


def row(*cells: str) -> None:
    """Prints one line of the table."""
    first, *rest = cells
    line = first.ljust(WIDTHS[0]) + "".join(c.rjust(w) for c, w in zip(rest, WIDTHS[1:], strict=True))
    print(line, flush=True)


def median(result: dict[str, Any], part: str = "all") -> float:
    """The median seconds of a part."""
    return statistics.median(step[part] for step in result["steps"])


def show(name: str, result: dict[str, Any]) -> None:
    """One side's line; what it has on a GPU, if there is one."""
    parts = [f"{median(result, part) / median(result):.0%}" for part in ("generation", "reward", "update")]
    memory = [f"{result[name] / 1e3:.2f}" for name in ("before", "peak")]
    row(name, f"{result['steps'][0]['all']:.2f}", f"{median(result):.2f}", *parts, *memory)
    if result["device_peak"] is not None:
        print(f"{'':<24}peak of the GPU's memory {result['device_peak'] / 1e3:.2f} GB")


def compare(results: dict[str, dict[str, Any]]) -> None:
    """How many times faster and smaller ours is, beside each other side."""
    for side, result in results.items():
        if side == "ours" or "ours" not in results:
            continue
        ours = results["ours"]
        first = result["steps"][0]["all"] / ours["steps"][0]["all"]
        grown = (ours["peak"] - ours["before"]) / (result["peak"] - result["before"])
        print(
            f"beside {SIDES[side]}: {median(result) / median(ours):.1f} times faster (first steps {first:.1f}), "
            f"{ours['peak'] / result['peak']:.2f} of its peak memory (a step adds {grown:.2f} of what it adds there)"
        )
    print("targets: at least 8 times faster, at most 0.5 of the peak memory")


def main() -> None:
    """Runs the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("step", "rollout", "parts"))
    parser.add_argument("--repeats", type=int, default=3, help="of our side")
    parser.add_argument("--slow-repeats", type=int, default=1, help="of the other side, which takes minutes each")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "auto"), help="float32 for step and rollout, auto for parts"
    )
    parser.add_argument("--allocator", choices=("system", "tuned"), default="system")
    group = parser.add_argument_group("step")
    group.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    group.add_argument("--prompts", type=int, default=4)
    group.add_argument("--group", type=int, default=8, help="completions of a prompt")
    group.add_argument("--tokens", type=int, default=24, help="tokens of a completion")
    group.add_argument("--beta", type=float, default=0.0, help="weight of the KL term, on both sides")
    group.add_argument("--trl-rows", type=int, default=8, help="TRL's per_device_train_batch_size")
    group.add_argument(
        "--micro-tokens", type=int, default=512, help="our GRPOConfig's; 512 is one group, as TRL's 8 rows are"
    )
    group = parser.add_argument_group("rollout")
    group.add_argument("--episodes", type=int, default=16)
    group.add_argument("--turns", type=int, default=30)
    group.add_argument("--slow-every", type=int, default=5, help="turns between those in which generate is measured")
    group = parser.add_argument_group("parts")
    group.add_argument("--policy-groups", type=int, default=2)
    group.add_argument("--policy-group", type=int, default=4, help="episodes of a game")
    group.add_argument("--policy-turns", type=int, default=8)
    options = parser.parse_args()
    if options.prompts * options.group % options.trl_rows:
        parser.error("--trl-rows has to divide prompts x group")
    if options.allocator == "tuned":
        os.environ.update(TUNED)
    if options.only in (None, "step"):
        step(options)
    if options.only in (None, "rollout"):
        print(flush=True)
        lengths = flags(options, "episodes", "turns", "repeats", "slow-repeats", "slow-every")
        run("rollout", f"--dtype={options.dtype or 'float32'}", *lengths)
    if options.only in (None, "parts"):
        print(flush=True)
        sizes = [f"--groups={options.policy_groups}", f"--group={options.policy_group}"]
        sizes += [f"--turns={options.policy_turns}", *flags(options, "repeats")]
        run("parts", f"--dtype={options.dtype or 'auto'}", *sizes)


if __name__ == "__main__":
    main()
