"""Episodes of games with one agent, and the scores of agents that serve nobody, which stand beside every result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.players.base import Agent, MakeEnv
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec, roll_out
from rwml_gym.agents.runs.worlds import GameName, Source, first_games

__all__ = ["play", "reference_scores", "success"]


def play(
    make_env: MakeEnv,
    agent: Agent,
    games: Sequence[GameName],
    slots: int = 1,
    ended: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Play one episode of each game.

    Args:
        make_env: Makes a text environment, with its step budget.
        agent: Who plays.
        games: Names of games, or seeds.
        slots: Episodes side by side; an agent that draws at random plays other episodes with another number of them.
        ended: Called with each episode that ends.

    Returns:
        The episodes, in the order of `games`.
    """
    tell = None if ended is None else lambda number, env, episode: ended(episode)
    return roll_out(make_env, agent, [EpisodeSpec(game) for game in games], slots, ended=tell)


def reference_scores(
    config: EnvConfig, split: str | None = None, max_steps: int | None = None
) -> dict[str, list[Episode]]:
    """Play the agents that serve nobody; every score of their environment should stand beside theirs.

    On τ²-bench `no-op` says goodbye at once, and `transfer` transfers to a human before it does; other environments
    have none.

    Args:
        config: Which environment.
        split: The split where the configuration has none.
        max_steps: Step budget of an episode; the registered one if absent.

    Example:
        >>> scores = reference_scores(EnvConfig("tau2", domain="mock"), "base")
        >>> success(scores["no-op"])
        '1/9 (11.1%)'
    """
    source = Source(config)
    make_env = source.make(max_steps, split)
    if not source.world.reference:
        return {}
    with make_env() as env:
        games = first_games(env, None)
    return {name: play(make_env, source.world.agents[name](0), games) for name in source.world.reference}


def success(episodes: Sequence[Episode]) -> str:
    """Say how many episodes were won, of how many, and their share."""
    won = sum(episode.won for episode in episodes)
    return f"{won}/{len(episodes)} ({won / len(episodes):.1%})"
