"""Playing episodes side by side and keeping what happened: interaction learning, step 1 of RWML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import gymnasium as gym

from rwml_gym.agents.base import Agent
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Transition, TransitionDataset
from rwml_gym.wrappers import RecordTransitions

__all__ = ["collect"]


def collect(
    make_env: Callable[[], gym.Env[str, str]],
    agent: Agent,
    games: Sequence[str | int],
    history: int = 4,
    slots: int = 16,
    progress: Callable[[int], None] | None = None,
) -> TransitionDataset:
    """Plays one episode a game and records it.

    Args:
        make_env: Makes a text environment, with its step budget.
        agent: Who plays, for all slots at once. Slots keep their places; what it does in one that ended is ignored.
        games: Names of games, played through `options={"game": name}`, or seeds for `reset(seed=…)`.
        history: Window H of the transitions.
        slots: Episodes side by side.
        progress: Called with the number of episodes done since the last call.

    Returns:
        The transitions, game by game in the order of `games`; episodes are numbered in that order.

    Raises:
        InvalidConfigError: No games.
    """
    if not games:
        raise InvalidConfigError("Expected at least one game to play, actual none")
    transitions: list[Transition] = []
    for start in range(0, len(games), slots):
        wave = games[start : start + slots]
        envs = [RecordTransitions(make_env(), history) for _ in wave]
        try:
            _play(envs, agent, wave)
            for offset, env in enumerate(envs):
                transitions += [replace(t, episode=start + offset) for t in env.transitions]
        finally:
            for env in envs:
                env.close()
        if progress is not None:
            progress(len(wave))
    return TransitionDataset(transitions)


def _play(envs: Sequence[RecordTransitions], agent: Agent, games: Sequence[str | int]) -> None:
    started = [
        env.reset(options={"game": game}) if isinstance(game, str) else env.reset(seed=int(game))
        for env, game in zip(envs, games, strict=True)
    ]
    running = list(range(len(envs)))
    observations = [observation for observation, _ in started]
    infos = [info for _, info in started]
    agent.reset([True] * len(envs))
    while running:
        actions = agent.act(observations, infos)
        for slot in list(running):
            observations[slot], _, terminated, truncated, infos[slot] = envs[slot].step(actions[slot])
            if terminated or truncated:
                running.remove(slot)
