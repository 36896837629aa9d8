"""Merging the infos of many environments into one, as Gymnasium's vector environments do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Info", "vectorize_infos"]

Info = dict[str, Any]


def vectorize_infos(infos: Sequence[Info | None]) -> Info:
    """Merge the infos of all slots, as `gymnasium.vector.VectorEnv` does, but key by key and not slot by slot.

    Args:
        infos: One info per slot, ``None`` for a slot without one.

    Returns:
        For each key an array with one element per slot. If the first value is a number, a bool or an array, the array
        has its type and is zero for slots without the key; otherwise it has objects, and None for those slots.
        Dictionaries are merged recursively. ``_key`` is the mask of the slots that have the key.
    """
    columns: dict[str, tuple[list[int], list[Any]]] = {}
    for slot, info in enumerate(infos):
        if info is None:
            continue
        for key, value in info.items():
            column = columns.get(key)
            if column is None:
                columns[key] = ([slot], [value])
            else:
                column[0].append(slot)
                column[1].append(value)
    vectorized: Info = {}
    for key, (slots, values) in columns.items():
        vectorized[key] = _array(key, slots, values, len(infos))
        mask = np.zeros(len(infos), dtype=np.bool_)
        mask[slots] = True
        vectorized[f"_{key}"] = mask
    return vectorized


def _array(key: str, slots: list[int], values: list[Any], n: int) -> Any:
    first = values[0]
    array: np.ndarray
    if key == "final_obs":
        array = np.full(n, None, dtype=object)
    elif isinstance(first, dict) and all(isinstance(value, dict) for value in values):
        infos: list[Info | None] = [None] * n
        for slot, value in zip(slots, values, strict=True):
            infos[slot] = value
        return vectorize_infos(infos)
    elif type(first) in (bool, int, float) or isinstance(first, np.number):
        array = np.zeros(n, dtype=type(first))
    elif isinstance(first, np.ndarray):
        array = np.zeros((n, *first.shape), dtype=first.dtype)
    else:
        array = np.full(n, None, dtype=object)
    for slot, value in zip(slots, values, strict=True):
        array[slot] = value
    return array
