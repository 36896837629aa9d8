"""Credit assignment: a group of episodes becomes GRPO groups with advantages of episodes and of single turns.

An episode's advantage is its task reward relative to its group (GRPO, arXiv 2402.03300). A turn's advantage is the gap
reward of its own prediction relative to all turns of the group. No other turn shares it, because a prediction is scored
as soon as its turn is over. A token of the model gets the weighted sum of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import group_advantages
from rwml_gym.agents.learning.options import SequenceOf
from rwml_gym.agents.players.language_model import TurnRecord
from rwml_gym.agents.players.rollout import Episode

__all__ = ["episode_groups"]


def episode_groups(
    episodes: Sequence[Episode],
    sequence: SequenceOf = "episode",
    task_weight: float = 1.0,
    world_model_weight: float = 0.0,
    scale: bool = True,
) -> list[Group]:
    """Return the groups for an update from G episodes of one game, one per prompt; none if all advantages are 0.

    Args:
        episodes: The episodes; failed ones are ignored.
        sequence: `episode`: one sequence per episode, with the observations masked out, and several whenever a turn's
            prompt does not extend the previous one. `turn`: one sequence per turn, as with a history window.
        task_weight: Factor of the episode's advantage.
        world_model_weight: Factor of the turn's advantage.
        scale: Whether to divide by the standard deviation, see `group_advantages`.
    """
    episodes = [episode for episode in episodes if episode.error is None and episode.rewards]
    if len(episodes) < 2:
        return []
    rewards = np.array([[sum(episode.rewards) for episode in episodes]])
    tasks = task_weight * group_advantages(rewards, scale)[0]
    turns = [np.zeros(len(episode.rewards)) for episode in episodes]
    if world_model_weight and all(episode.gap_rewards for episode in episodes):
        gaps = np.concatenate([np.array(episode.gap_rewards) for episode in episodes])
        flat = world_model_weight * group_advantages(gaps[None], scale)[0]
        turns = np.split(flat, np.cumsum([len(episode.rewards) for episode in episodes])[:-1])
    if np.abs(tasks).max() < 1e-9 and max(np.abs(turn).max() for turn in turns) < 1e-9:
        return []
    by_prompt: dict[tuple[int, ...], list[_Row]] = {}
    for episode, task, turn in zip(episodes, tasks, turns, strict=True):
        for row in _rows(episode.written, (task + turn).tolist(), sequence):
            by_prompt.setdefault(tuple(row.prompt), []).append(row)
    return [_group(prompt, found) for prompt, found in by_prompt.items()]


class _Row:
    """A prompt and its continuation, in which the model's tokens and the environment's alternate."""

    def __init__(self, prompt: list[int]) -> None:
        self.prompt = prompt
        self.tokens: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.advantages: list[float] = []
        self.allowed: list[list[int] | None] = []

    def model(self, written: TurnRecord, advantage: float) -> None:
        completion = written.completion
        assert completion is not None
        count = len(completion.tokens)
        self.tokens += completion.tokens
        self.mask += [1] * count
        self.logprobs += completion.logprobs
        self.advantages += [advantage] * count
        self.allowed += [ids or None for ids in completion.allowed] if completion.allowed else [None] * count

    def world(self, tokens: Sequence[int]) -> None:
        count = len(tokens)
        self.tokens += tokens
        self.mask += [0] * count
        self.logprobs += [0.0] * count
        self.advantages += [0.0] * count
        self.allowed += [None] * count


def _rows(written: Sequence[TurnRecord], advantages: Sequence[float], sequence: SequenceOf) -> Iterator[_Row]:
    row: _Row | None = None
    for turn, advantage in zip(written, advantages, strict=True):
        if turn.completion is None or not turn.completion.tokens:  # an action that the model did not write
            continue
        before = [] if row is None else [*row.prompt, *row.tokens]
        goes_on = sequence == "episode" and row is not None and turn.prompt[: len(before)] == before
        if row is not None and goes_on:
            row.world(turn.prompt[len(before) :])
        else:
            if row is not None:
                yield row
            row = _Row(turn.prompt)
        row.model(turn, advantage)
    if row is not None:
        yield row


def _group(prompt: tuple[int, ...], rows: Sequence[_Row]) -> Group:
    return Group(
        prompt,
        [row.tokens for row in rows],
        [row.advantages for row in rows],
        [row.logprobs for row in rows],
        [row.mask for row in rows],
        [row.allowed for row in rows] if any(ids for row in rows for ids in row.allowed) else None,
    )
