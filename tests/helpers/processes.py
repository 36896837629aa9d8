"""Programs that tests start and whose own output they read."""

from __future__ import annotations

import os


def unmeasured() -> dict[str, str]:
    """The environment without the measuring of coverage, which writes to what a program prints."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
