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
    grow_in_place(os.environ)
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


def grow_in_place(environ: MutableMapping[str, str]) -> None:
    """Let PyTorch's memory on a GPU grow in place; it reads this when it is first used.

    By default, keys and values that grow from turn to turn leave each smaller size behind them as a hole. On an H200 a
    policy with 96 episodes took 11 GB with this setting and 17 to 25 GB without. Settings of the user's own stay.

    Args:
        environ: The environment variables.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(environ) and sys.platform == "linux":
        environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"


if __name__ == "__main__":
    sys.exit(main())
