"""The `rwml-gym` command before anything is imported: Ctrl-C in its first moments is no traceback.

It is beside the package, because importing any part of that imports Gymnasium and NumPy first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping


def main() -> int:
    """Import and run the command line; return its exit status, 130 after Ctrl-C."""
    wait_briefly(os.environ)
    try:
        from rwml_gym.agents.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("Interrupted. Nothing was begun.", file=sys.stderr)
        return 130


def wait_briefly(environ: MutableMapping[str, str]) -> None:
    """Let PyTorch's threads sleep soon when they wait for each other; OpenMP reads this when it is first loaded.

    By default a thread that has nothing to do waits actively for milliseconds. On a machine with other work it thereby
    takes the processor from the thread that it waits for, and a step takes many times as long
    (``benchmarks/shared_machine.py``). Settings of the user's own stay.

    Args:
        environ: The environment variables.
    """
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", "1000")


if __name__ == "__main__":
    sys.exit(main())
