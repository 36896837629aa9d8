"""How much slower a training step gets beside another busy process, for several settings of OpenMP and the allocator.

    python benchmarks/shared_machine.py [--steps 6] [--settings make as-it-is]

Each setting is a process of its own. It makes fine-tuning and sampling steps one at a time, in turn alone and beside a
load that this script starts: one process that computes on one core. Prints medians, and the slowdown step by step.
The model is SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

SECTION = Path(__file__).parent / "grpo_sections" / "one_step.py"
ALLOCATOR = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
SETTINGS: dict[str, dict[str, str]] = {
    "no settings": {},
    "make": ALLOCATOR,
    "make, passive": {**ALLOCATOR, "OMP_WAIT_POLICY": "passive"},
    "make, spin 1,000": {**ALLOCATOR, "GOMP_SPINCOUNT": "1000"},
    "make, spin 10,000": {**ALLOCATOR, "GOMP_SPINCOUNT": "10000"},
    "make, spin 100,000": {**ALLOCATOR, "GOMP_SPINCOUNT": "100000"},
    "make, one thread": {**ALLOCATOR, "OMP_NUM_THREADS": "1"},
}


def ask(process: subprocess.Popen[str], what: str) -> float:
    """Lets the child make one step; returns its seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(what, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def measure(name: str, settings: dict[str, str], steps: int) -> None:
    """Prints one line of the table."""
    clean = {key: value for key, value in os.environ.items() if key not in SETTINGS["make, passive"] | ALLOCATOR}
    process = subprocess.Popen(
        [sys.executable, str(SECTION)],
        env={**clean, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        load.send_signal(signal.SIGSTOP)
        assert process.stdout is not None
        process.stdout.readline()
        for what in ("update", "sample"):
            ask(process, what), ask(process, what)  # the first ones warm up
        times: dict[tuple[str, bool], list[float]] = {}
        for _ in range(steps):
            for what in ("update", "sample"):
                for loaded in (False, True):
                    load.send_signal(signal.SIGCONT if loaded else signal.SIGSTOP)
                    time.sleep(0.2)
                    times.setdefault((what, loaded), []).append(ask(process, what))
    finally:
        load.kill()
        process.kill()
    line = f"{name:<20}"
    for what in ("update", "sample"):
        alone, beside = times[what, False], times[what, True]
        slower = [b / a for a, b in zip(alone, beside, strict=True)]
        line += (
            f"{statistics.median(alone):>10.2f} s{statistics.median(beside):>9.2f} s"
            f"{statistics.median(slower):>7.2f} x (at most {max(slower):.1f})"
        )
    print(line, flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="steps of each kind, alone and beside the load")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options = parser.parse_args()
    print(f"{'':<20}{'update alone, beside a load, slower':>44}{'sampling alone, beside a load, slower':>44}")
    for name in options.settings:
        measure(name, SETTINGS[name], options.steps)


if __name__ == "__main__":
    main()
