"""The `rwml-gym` command before anything is imported: Ctrl-C in its first moments is no traceback.

It is beside the package, because importing any part of that imports Gymnasium and NumPy first.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Import and run the command line; return its exit status, 130 after Ctrl-C."""
    try:
        from rwml_gym.agents.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("Interrupted. Nothing was begun.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
