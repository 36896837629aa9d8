"""Agents that need no model: what any learnt agent has to beat."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

__all__ = ["FirstActionAgent", "RandomAgent"]


class RandomAgent:
    """Plays a random admissible action; `look` where the environment lists none.

    Args:
        seed: Its choices follow from the seed and the order of the calls.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)

    def act(self, observations: Sequence[str], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Chooses one admissible action a slot."""
        return [self._rng.choice(info.get("admissible_actions") or ["look"]) for info in infos]

    def reset(self, mask: Sequence[bool]) -> None:
        """Nothing to forget."""


class FirstActionAgent:
    """Plays the first admissible action it has not played in this episode: systematic, without chance or expert."""

    def __init__(self) -> None:
        self._played: list[set[str]] = []

    def act(self, observations: Sequence[str], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Chooses the first new admissible action of each slot; the first one again when all were played."""
        self._played += [set() for _ in range(len(infos) - len(self._played))]
        actions = []
        for played, info in zip(self._played, infos, strict=False):
            admissible = info.get("admissible_actions") or ["look"]
            action = next((a for a in admissible if a not in played), admissible[0])
            played.add(action)
            actions.append(action)
        return actions

    def reset(self, mask: Sequence[bool]) -> None:
        """Forgets what was played in the slots that start again."""
        self._played = [set() if start else played for played, start in zip(self._played, mask, strict=False)]
