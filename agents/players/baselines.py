"""Agents without a model: baselines for trained agents, and an expert to learn from."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rwml_gym.agents.players.base import Agent
from rwml_gym.agents.seeding import seed_of
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError

__all__ = [
    *("EpisodeAgent", "ExpertAgent", "NoOpAgent", "RandomAgent", "TaskWordsAgent", "TransferAgent"),
    "choose_by_words",
]

_EXPLORING = {"go": 0.5, "open": 0.5}
_WORD = re.compile(r"[a-z]+")


class _WithoutMemory:
    """An agent that has nothing to forget when an episode starts."""

    def reset(self, mask: Sequence[bool]) -> None:
        """Do nothing."""


class RandomAgent(_WithoutMemory):
    """Plays a random admissible action, or `look` if the environment lists none.

    Args:
        seed: The choices depend on the seed and the order of the calls.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Return one admissible action per slot."""
        return [self._rng.choice(admissible_actions(info) or ("look",)) for info in infos]


class TaskWordsAgent:
    """Prefers new actions that share words with the task.

    Among the admissible actions played least in the episode, it plays one that contains the most words of the task. If
    none contains any, it explores (`go`, `open`) and does not touch objects that the task does not name.

    Args:
        seed: Seed of the choice among equally good actions.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._played: list[Counter[str]] = []

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Return one admissible action per slot."""
        self._played += [Counter() for _ in range(len(infos) - len(self._played))]
        actions = []
        for played, info in zip(self._played, infos, strict=False):
            admissible = admissible_actions(info) or ("look",)
            action = choose_by_words(str(info.get("task") or ""), admissible, played, self._rng)
            played[action] += 1
            actions.append(action)
        return actions

    def reset(self, mask: Sequence[bool]) -> None:
        """Forget the actions played in the slots that start again."""
        for played, start in zip(self._played, mask, strict=False):
            if start:
                played.clear()


def choose_by_words(task: str, actions: Sequence[str], played: Counter[str], rng: random.Random) -> str:
    """Choose as `TaskWordsAgent` does: of the actions played least, one with the most words of the task.

    Args:
        task: The task.
        actions: At least one action.
        played: How often each action was played.
        rng: Draws among equally good actions.
    """
    wanted = set(_WORD.findall(task.lower()))
    fewest = min(played[a] for a in actions)
    new = [a for a in actions if played[a] == fewest]
    scores = [len(wanted & set(_WORD.findall(a.lower()))) or _EXPLORING.get(a.partition(" ")[0], 0) for a in new]
    return rng.choice([a for a, score in zip(new, scores, strict=True) if score == max(scores)])


class NoOpAgent(_WithoutMemory):
    """Says goodbye to the customer of τ²-bench at once: the reward without any work."""

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Say goodbye in each slot."""
        return ["Goodbye"] * len(infos)


class TransferAgent:
    """Transfers the customer of τ²-bench to a human at once, then says goodbye."""

    def __init__(self) -> None:
        self._transferred: list[bool] = []

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Transfer the customer in each slot, or say goodbye after the transfer."""
        self._transferred += [False] * (len(infos) - len(self._transferred))
        actions = [
            "Goodbye" if done else "transfer_to_human_agents(summary='x')" for done in self._transferred[: len(infos)]
        ]
        self._transferred[: len(infos)] = [True] * len(infos)
        return actions

    def reset(self, mask: Sequence[bool]) -> None:
        """Forget the transfers of the slots that start again."""
        for slot, start in enumerate(mask[: len(self._transferred)]):
            if start:
                self._transferred[slot] = False


class ExpertAgent(_WithoutMemory):
    """Plays the advice of the environment's expert, `info["expert_action"]`.

    Example:
        >>> import gymnasium, rwml_gym
        >>> env = gymnasium.make("rwml_gym/ALFWorld-v0", expert=True)
        >>> agent, (observation, info) = ExpertAgent(), env.reset(seed=0)
        >>> while not info["won"]:
        ...     observation, *_, info = env.step(*agent.act([observation], [info]))
    """

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Return the advised action of each slot, which every info must contain; it is empty where the game is won."""
        for slot, info in enumerate(infos):
            if info.get("expert_action") is None:
                raise InvalidConfigError(
                    f'Expected info["expert_action"] in slot {slot}, actual: keys {", ".join(info) or "none"}. Make '
                    'the environment with gymnasium.make("rwml_gym/ALFWorld-v0", expert=True).'
                )
        return [info["expert_action"] for info in infos]


class EpisodeAgent:
    """Plays each episode with an agent made anew from its number, so that it does not depend on the earlier ones.

    It plays one slot. A recording that is interrupted and continued is then the same as one that is not.

    Args:
        make: Makes the agent from a seed.
        seed: Seed of all episodes.
        first: Number of the first episode.
    """

    def __init__(self, make: Callable[[int], Agent], seed: int, first: int = 0) -> None:
        self._make, self._seed, self._next = make, seed, first
        self._agent = make(seed)

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Act as the agent of this episode (`Agent.act`)."""
        return self._agent.act(observations, infos)

    def reset(self, mask: Sequence[bool]) -> None:
        """Make the agent of the next episode."""
        self._agent = self._make(seed_of(self._seed, "episode", self._next))
        self._agent.reset(mask)
        self._next += 1
