"""How large the page of a report is, and how long a browser takes for its first view, a scroll and a filter.

    python benchmarks/page.py [--episodes 500] [--steps 30] [--repeats 5]

Needs Debian's packages chromium and chromium-driver. The trace is made up; its texts are as long as those of ALFWorld,
and each step has a prompt of 40 lines. Times are those on the clock, medians with the least and the most.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rwml_gym.agents.reports.page.document import write_page

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' browser is not installed
from tests.helpers.chromium import choose, chromium, opened
from tests.helpers.traces import make_trace

SCROLL = """const box = document.getElementById('episodes'); box.scrollTop = arguments[0]; const done = arguments[1];
requestAnimationFrame(() => requestAnimationFrame(() => done()));"""


def measure(browser: Any, page: Path) -> tuple[float, float, float]:
    """Return the milliseconds of the first view, of a scroll by two screens, and of a filter with a new order."""
    opened(browser, page)
    first = float(browser.execute_script("return document.documentElement.dataset.ready"))
    began = perf_counter()
    for place in range(20):
        browser.execute_async_script(SCROLL, place * 1400)
    scrolled = (perf_counter() - began) / 20
    began = perf_counter()
    choose(browser, "Outcome", "won")
    choose(browser, "Order", "gap")
    return first, 1000 * scrolled, 1000 * (perf_counter() - began) / 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_trace(folder / "run", games=options.episodes, steps=options.steps, prompt_lines=40)
        began = perf_counter()
        write_page([run], folder / "page.html")
        written = perf_counter() - began
        with chromium(folder / "profile") as browser:
            rows = [measure(browser, folder / "page.html") for _ in range(options.repeats)]
        size = (folder / "page.html").stat().st_size / 1e6
        print(f"{options.episodes} episodes of {options.steps} steps: {size:.1f} MB, written in {written:.1f} s")
    for label, values in zip(("first view", "a scroll", "a filter"), zip(*rows, strict=True), strict=True):
        print(f"  {label:<11}{median(values):7.0f} ms  ({min(values):.0f} to {max(values):.0f})")


if __name__ == "__main__":
    main()
