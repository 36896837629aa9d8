"""Seeds for every purpose of a run, derived from the run's one seed, so that no random state has to be saved."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

__all__ = ["in_balanced_epochs", "in_epochs", "seed_of"]


def seed_of(*parts: SupportsIndex | str) -> int:
    """Return the seed for one purpose: a number below 2**63 that is the same on every machine.

    Args:
        *parts: The run's seed, then names or numbers of the purpose (a stage, a step). NumPy's numbers are numbers.
    """
    entropy = [int.from_bytes(p.encode(), "little") if isinstance(p, str) else operator.index(p) for p in parts]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def in_epochs(count: int, positions: Sequence[int], seed: int) -> list[int]:
    """Return the items at these positions of an endless sequence of epochs, each a shuffle of 0 … count - 1."""
    result = []
    for position in positions:
        epoch, offset = divmod(position, count)
        result.append(int(np.random.default_rng(seed_of(seed, epoch)).permutation(count)[offset]))
    return result


def in_balanced_epochs(kinds: Sequence[str], positions: Sequence[int], seed: int) -> list[int]:
    """Return the items at these positions of an endless sequence in which all kinds are equally frequent.

    It consists of rounds, each with one item of every kind in random order. The items of a kind come in epochs of their
    own, so those of a rare kind return sooner.

    Args:
        kinds: The kind of each item.
        positions: Positions from 0.
        seed: Seed of the order.
    """
    members: dict[str, list[int]] = {}
    for item, kind in enumerate(kinds):
        members.setdefault(kind, []).append(item)
    names = sorted(members)
    result = []
    for position, place in zip(positions, in_epochs(len(names), positions, seed), strict=True):
        items = members[names[place]]
        (chosen,) = in_epochs(len(items), [position // len(names)], seed_of(seed, names[place]))
        result.append(items[chosen])
    return result
