"""Forked processes: torch and the encoders work in a child although the parent has used them.

Threads do not survive a fork. A child that waits for the threads of its parent waits for ever: for torch's, when the
parent has computed something, or for a lock that another thread held. `gymnasium.vector.AsyncVectorEnv` forks by
default.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

__all__ = ["in_children"]


def in_children(prepare: Callable[[], None]) -> None:
    """Call a function in every process that is forked from this one, before anything else there."""
    if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
        os.register_at_fork(after_in_child=prepare)


def _without_torch_threads() -> None:
    """Let torch compute on the child's only thread, as torch's own `DataLoader` does in its workers."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


in_children(_without_torch_threads)
