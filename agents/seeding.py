"""Seeds for every purpose of a run, derived from its one seed: nothing to save, nothing shared by accident."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["in_epochs", "seed_of"]


def seed_of(*parts: int | str) -> int:
    """A seed for one purpose.

    Args:
        *parts: The run's seed, then names or numbers that say what it is for (a stage, a step).

    Returns:
        A number below 2**63, the same on every machine.
    """
    entropy = [p if isinstance(p, int) else int.from_bytes(p.encode(), "little") for p in parts]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def in_epochs(count: int, positions: Sequence[int], seed: int) -> list[int]:
    """What lies at these positions of an endless row of shuffled epochs of 0 … count - 1."""
    result = []
    for position in positions:
        epoch, offset = divmod(position, count)
        result.append(int(np.random.default_rng(seed_of(seed, epoch)).permutation(count)[offset]))
    return result
