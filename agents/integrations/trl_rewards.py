"""Reward functions for TRL's `GRPOTrainer`: they can be pickled, and each has a name of its own in TRL's logs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward, Measure

__all__ = ["PredictionReward", "prediction_reward", "task_reward", "world_model_reward"]

Message = dict[str, Any]


class PredictionReward:
    """The gap reward of completions of `prediction_dataset`, for `reward_funcs`.

    Completions are texts, or lists of messages if the prompts are: the last message of the assistant is read.

    Args:
        gap: The reward.
        prompts: Prompts of the dataset, which read the predictions.
        name: The reward's name in TRL's logs. TRL logs rewards of one name as one, so the default tells the settings.
    """

    def __init__(self, gap: GapReward, prompts: Prompts, name: str | None = None) -> None:
        self.gap, self.prompts = gap, prompts
        self.__name__ = _name(gap) if name is None else name

    def __call__(
        self,
        completions: Sequence[str | Sequence[Message]],
        next_state: Sequence[str] | None = None,
        role: Sequence[str] | None = None,
        **_: Any,
    ) -> list[float]:
        """Return the rewards of a batch; `next_state` and `role` are columns of the training data.

        Raises:
            InvalidConfigError: If a column is missing, or a completion is neither text nor a list of messages.
        """
        states = _column("next_state", next_state, "`prediction_dataset`")
        if role is None and self.gap.measures:
            _column("role", role, "`prediction_dataset`, because message roles have their own measures")
        predictions = [self.prompts.read_prediction(_text(completion)) for completion in completions]
        roles = None if role is None else [name or "" for name in role]
        return self.gap(predictions, list(states), roles).rewards.tolist()


def prediction_reward(gap: GapReward, prompts: Prompts, name: str | None = None) -> PredictionReward:
    """Return a function for `reward_funcs` that computes the gap reward of completions of `prediction_dataset`.

    Without vLLM, TRL samples to the end of the sequence, and text after the prediction is ignored. So set
    `max_completion_length` only a little above the length of a prediction. With vLLM, stop after the prediction:
    `generation_kwargs={"stop": [s for s in prompts.prediction_stop if isinstance(s, str)]}`. In a chat that is none, as
    the model's end token follows the prediction.

    Args:
        gap: The reward.
        prompts: Prompts of the dataset, which read the predictions.
        name: The reward's name in TRL's logs, see `PredictionReward`.
    """
    return PredictionReward(gap, prompts, name)


def task_reward(
    episode_reward: Sequence[float] | None = None, episode_failed: Sequence[bool] | None = None, **_: Any
) -> list[float | None]:
    """Return the environment's reward of each episode, `None` for failed ones, which TRL then leaves out."""
    rewards = _column("episode_reward", episode_reward, "`EnvironmentRollout`")
    failures = _column("episode_failed", episode_failed, "`EnvironmentRollout`")
    return [None if failed else reward for reward, failed in zip(rewards, failures, strict=True)]


def world_model_reward(
    episode_world_model: Sequence[float | None] | None = None,
    episode_failed: Sequence[bool] | None = None,
    **_: Any,
) -> list[float | None]:
    """Return each episode's mean reward of `WorldModelRewardWrapper`, which is required; `None` for failed ones."""
    found = _column("episode_world_model", episode_world_model, "`EnvironmentRollout`")
    failures = _column("episode_failed", episode_failed, "`EnvironmentRollout`")
    rewards = [None if failed else reward for reward, failed in zip(found, failures, strict=True)]
    if all(reward is None for reward in rewards):
        raise InvalidConfigError(
            'Expected info["world_model"] from the environment, actual: none. Wrap it in make_env: '
            'WorldModelRewardWrapper(env, mode="report").'
        )
    return rewards


def _column(name: str, values: Sequence[Any] | None, source: str) -> Sequence[Any]:
    if values is None:
        raise InvalidConfigError(
            f"Expected the column {name!r} for this reward, actual: none. Take data and episodes from {source}."
        )
    return values


def _text(completion: str | Sequence[Message]) -> str:
    """Return what the model wrote: the text, or the content of the assistant's last message."""
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, list | tuple) or not all(isinstance(message, dict) for message in completion):
        raise InvalidConfigError(f"Expected completions as texts or lists of messages, actual: {completion!r}.")
    written = [message.get("content") for message in completion if message.get("role") == "assistant"]
    content = (written[-1] if written else None) or ""  # a call of a tool has no content
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content if part.get("type", "text") == "text")


def _name(gap: GapReward) -> str:
    parts = ["gap_reward", getattr(gap.encoder, "name", "").rstrip("/").rpartition("/")[2], *_settings(gap.measure())]
    for role, measure in sorted(gap.measures.items()):
        parts += [role, *_settings(measure)]
    return re.sub(r"[^\w.-]+", "-", "_".join(part for part in parts if part))


def _settings(measure: Measure) -> list[str]:
    return [measure.gap, *([] if measure.view == "raw" else [measure.view]), measure.shape, f"{measure.threshold:g}"]
