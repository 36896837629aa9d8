"""How much slower a training step gets beside another busy process, for several settings of OpenMP and the allocator.

    python benchmarks/shared_machine.py [--steps 5] [--settings allocator "spin 1,000"]

Each setting is a process of its own. They make fine-tuning steps and sample in turn, alone and beside a load that this
script starts: one process that computes on one core. Prints medians, the slowdown beside the load, and how long a step
takes alone as a multiple of the first setting's.
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
from typing import Any

SECTION = Path(__file__).parent / "grpo_sections" / "one_step.py"
ALLOCATOR = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
SETTINGS: dict[str, dict[str, str]] = {
    "no settings": {},
    "allocator": ALLOCATOR,
    "spin 1,000": {**ALLOCATOR, "GOMP_SPINCOUNT": "1000"},  # as make and the rwml-gym command set it
    "spin 10,000": {**ALLOCATOR, "GOMP_SPINCOUNT": "10000"},
    "spin 100,000": {**ALLOCATOR, "GOMP_SPINCOUNT": "100000"},
    "passive": {**ALLOCATOR, "OMP_WAIT_POLICY": "passive"},
    "one thread": {**ALLOCATOR, "OMP_NUM_THREADS": "1"},
}
KNOWN = frozenset(name for settings in SETTINGS.values() for name in settings)
WORK = ("update", "sample")


def ask(process: subprocess.Popen[str], what: str) -> float:
    """Lets the child make one step; returns its seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(what, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def start(settings: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a process with settings, and none of OpenMP and the allocator besides."""
    clean = {key: value for key, value in os.environ.items() if key not in KNOWN}
    process = subprocess.Popen(
        [sys.executable, str(SECTION)],
        env={**clean, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    for what in WORK:  # the first ones warm up
        ask(process, what)
    return process


def measure(names: list[str], steps: int) -> dict[tuple[str, str, bool], list[float]]:
    """Returns the seconds of each step, by setting, kind of work, and whether beside a load; all in turn."""
    times: dict[tuple[str, str, bool], list[float]] = {}
    load: subprocess.Popen[Any] = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    load.send_signal(signal.SIGSTOP)
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in names:
            processes[name] = start(SETTINGS[name])
        for _ in range(steps):
            for loaded in (False, True):
                load.send_signal(signal.SIGCONT if loaded else signal.SIGSTOP)
                time.sleep(0.2)
                for what in WORK:
                    for name in names:
                        times.setdefault((name, what, loaded), []).append(ask(processes[name], what))
    finally:
        for process in [load, *processes.values()]:
            process.kill()
    return times


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="steps of each kind, alone and beside the load")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options = parser.parse_args()
    times = measure(options.settings, options.steps)
    print(f"{'':<20}{'':<10}{'alone':>9}{'beside a load':>15}{'slower':>9}{'alone, beside ' + options.settings[0]:>28}")
    for name in options.settings:
        for what in WORK:
            alone, beside, first = (
                times[name, what, False],
                times[name, what, True],
                times[options.settings[0], what, False],
            )
            slower = statistics.median(b / a for a, b in zip(alone, beside, strict=True))
            quiet = statistics.median(a / b for a, b in zip(alone, first, strict=True))
            print(
                f"{name:<20}{what:<10}{statistics.median(alone):>7.2f} s{statistics.median(beside):>13.2f} s"
                f"{slower:>7.2f} x{quiet:>26.2f} x"
            )


if __name__ == "__main__":
    main()
