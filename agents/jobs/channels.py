"""What a policy update learns from episodes: task success, gap rewards and the world's answers, or placebos of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rwml_gym.agents.config.policy import PolicyConfig, PolicyStageConfig
from rwml_gym.agents.learning.credit import Answers, Credit, Delivery, credit_episodes
from rwml_gym.agents.learning.options import Placebo
from rwml_gym.agents.learning.placebo import placebo_answers, vocabulary
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import Episode
from rwml_gym.agents.seeding import seed_of
from rwml_gym.reward.distances import TOOL_ROLE
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.tags import split_prediction

__all__ = ["credit_of_games", "measures"]


def credit_of_games(
    episodes: Sequence[Episode],
    agent: LanguageModelAgent,
    config: PolicyConfig,
    number: int,
    sampling: int,
    roles: bool,
) -> list[Credit]:
    """Return the credit of each game's episodes, with placebos in the place of the world's answers if wanted.

    Args:
        episodes: Episodes of a sampling round, those of a game adjacent; a gap placebo replaces their `gap_rewards`.
        agent: The agent that played them.
        config: Its `stage`, `grpo` and `seed`.
        number: Number of the update, from which a placebo's draws follow.
        sampling: Number of the round in the update.
        roles: Whether the world's answers have message roles.
    """
    stage, tokenizer = config.stage, agent.sessions.tokenizer
    loss = stage.observation_loss
    kinds = [episode.task_type for episode in episodes for _ in episode.observations]
    truth = [answer for episode in episodes for answer in episode.observations]
    bounds = np.cumsum([len(episode.observations) for episode in episodes])[:-1]

    def answers(channel: str, placebo: Placebo) -> list[list[str]]:
        seed = seed_of(config.seed, channel, number, sampling)
        words = vocabulary(tokenizer) if placebo == "random" else []
        flat = placebo_answers(truth, kinds, placebo, seed, tokenizer, words)
        return [list(part) for part in np.split(np.array(flat, dtype=object), bounds)]

    if stage.gap_placebo != "none":
        _score_again(episodes, answers("gap placebo", stage.gap_placebo), _gap(stage, roles))
    taught = answers("observation placebo", loss.placebo) if loss.is_on else None
    delivery = Delivery(
        stage.task_weight,
        stage.world_model_weight,
        config.grpo.scale_rewards,
        stage.gap_delivery,
        stage.gap_tokens,
        stage.task_tokens,
        stage.gap_in_failed_groups,
    )
    return [
        credit_episodes(
            episodes[i : i + stage.group_size],
            agent.prompts,
            stage.sequence,
            delivery,
            None if taught is None else Answers(taught[i : i + stage.group_size], loss.turns, loss.by_failure),
        )
        for i in range(0, len(episodes), stage.group_size)
    ]


def _score_again(episodes: Sequence[Episode], answers: Sequence[Sequence[str]], gap: GapReward) -> None:
    """Replace the gap rewards of episodes by those against other answers than the world's; failed ones do not count."""
    scored = [(e, a) for e, a in zip(episodes, answers, strict=True) if e.error is None and e.gap_rewards and e.written]
    predictions = [split_prediction(turn.action)[1] for episode, _ in scored for turn in episode.written]
    roles = [role for episode, _ in scored for role in episode.roles]
    rewards = iter(gap(predictions, [text for _, texts in scored for text in texts], roles).rewards.tolist())
    for episode, texts in scored:
        episode.gap_rewards = [next(rewards) for _ in texts]


def measures(stage: PolicyStageConfig, roles: bool) -> dict[str, dict[str, Any]] | None:
    """Return the measures of message roles, for `GapReward` and the wrapper; `None` where there are no roles."""
    return {TOOL_ROLE: {"gap": "rouge", "threshold": stage.tool_threshold}} if roles else None


def _gap(stage: PolicyStageConfig, roles: bool) -> GapReward:
    """Return the reward that the wrapped environment gives."""
    return GapReward(stage.encoder, stage.threshold, measures=measures(stage, roles))
