"""Rewards an agent for predicting what the world will say next: the RWML reward for any text environment."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, SupportsFloat, get_args

import gymnasium as gym
import numpy as np

from rwml_gym.embedding import DEFAULT_ENCODER, Encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.gap import DEFAULT_THRESHOLD, GapReward, RewardKind
from rwml_gym.predictions import CLOSE_TAG, OPEN_TAG, check_tags, split_prediction
from rwml_gym.transitions import Turn
from rwml_gym.world_models import WorldModel, make_world_model
from rwml_gym.wrappers.checks import require_text_env

__all__ = ["RewardMode", "WorldModelRewardWrapper"]

RewardMode = Literal["add", "replace", "report"]


class WorldModelRewardWrapper(gym.Wrapper[str, Any, str, str], gym.utils.RecordConstructorArgs):
    """Scores a prediction of the next observation against the realised one and makes a reward of it.

    The agent writes its prediction into the action text between two tags, or steps with
    `{"action": …, "prediction": …}`; the environment sees the action alone (`predictions.split_prediction` says how odd
    texts are read). Where the agent makes none, a `predictor` may; without one nothing is earned.

    The reward of a step is, by `mode`,

    - `"add"`: task reward + weight x gap reward,
    - `"replace"`: weight x gap reward,
    - `"report"`: task reward.

    `info["world_model"]` of a step holds all that was computed:

    - `action`: what the environment saw; `prediction`: what was scored, `""` if nothing;
    - `source`: who predicted, `"action"`, `"predictor"` or `"none"`;
    - `distance` in `[0, 2]` and `reward` (the gap reward, before the weight), see `gap.GapReward`;
    - `gap`, `threshold` and `kind`: how it was measured, which may depend on the kind of message the world answered
      with (`info["message_kind"]`, `measures`);
    - `task_reward`, `weight`, `mode`, `encoder`.

    The info of a reset has no `"world_model"`: nothing was predicted. The spaces stay those of the environment; what
    the agent adds to an action need not lie in `action_space`. Put `Autoreset` outside.

    Arguments that are names are recorded in `spec`, so `gymnasium.make(env.spec)` makes the same environment. Wrappers
    with the same encoder name share one encoder and its cache in a process.

    Example:
        >>> from tests.toy_env import ToyHouse
        >>> env = WorldModelRewardWrapper(ToyHouse(), encoder="hashing", threshold=0.1)
        >>> observation, _ = env.reset(seed=0)
        >>> _, reward, _, _, info = env.step(f"look <next_state>{observation}</next_state>")
        >>> reward, info["world_model"]["action"], info["world_model"]["distance"]
        (1.0, 'look', 0.0)
    """

    def __init__(
        self,
        env: gym.Env[str, str],
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] = DEFAULT_ENCODER,
        threshold: float = DEFAULT_THRESHOLD,
        kind: RewardKind = "binary",
        weight: float = 1.0,
        mode: RewardMode = "add",
        predictor: str | WorldModel | None = None,
        tags: Sequence[str] = (OPEN_TAG, CLOSE_TAG),
        history: int = 4,
        measures: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        """Wrap an environment and load the encoder.

        Args:
            env: An environment whose observations and actions are text.
            encoder: See `embedding.make_encoder`.
            threshold: τ_d; calibrate it for another encoder or environment (`calibration.calibrate`).
            kind: `"binary"` or `"continuous"`.
            weight: Factor of the gap reward.
            mode: What becomes of the task reward.
            predictor: A world model or its name (`world_models.WORLD_MODELS`), for steps without a prediction.
            tags: What opens and closes a prediction in the action text.
            history: Turns the predictor is shown.
            measures: How messages of a kind are measured otherwise; `{"tool": {"gap": "rouge"}}` compares tool results
                by ROUGE-L, as the paper does. See `GapReward`.

        Raises:
            InvalidConfigError: If the environment is not text, or an argument is out of range.
            DependencyNotInstalled: If the encoder or ROUGE needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        require_text_env(env, "WorldModelRewardWrapper", history)
        if mode not in get_args(RewardMode):
            raise InvalidConfigError(f"Expected `mode` to be one of {get_args(RewardMode)}, actual: {mode!r}.")
        if not math.isfinite(weight):
            raise InvalidConfigError(f"Expected a finite `weight`, actual: {weight}.")
        if isinstance(tags, str) or len(tags) != 2:
            raise InvalidConfigError(f"Expected `tags` to be an opening and a closing tag, actual: {tags!r}.")
        check_tags(*tags)
        gap = GapReward(encoder, threshold, kind, measures)
        model = None if predictor is None else make_world_model(predictor)
        # Tags as a list, as JSON has no tuples. No copies: an encoder that the user brings may be a large model.
        gym.utils.RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,
            encoder=encoder,
            threshold=threshold,
            kind=kind,
            weight=weight,
            mode=mode,
            predictor=predictor,
            tags=list(tags),
            history=history,
            measures=None if measures is None else {name: dict(changes) for name, changes in measures.items()},
        )
        gym.Wrapper.__init__(self, env)

        self.gap = gap
        self.weight = float(weight)
        self.mode: RewardMode = mode
        self.predictor = model
        self.tags = (tags[0], tags[1])
        self._turns: deque[Turn] = deque(maxlen=history)
        self._task = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Reset the environment; its info is returned as it is."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._turns.clear()
        self._turns.append(Turn("", observation))
        self._task = str(info.get("task", ""))
        return observation, info

    def step(self, action: Any) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step with the action less its prediction and score the prediction.

        Args:
            action: Text that may hold a prediction, or `{"action": …, "prediction": …}`.

        Returns:
            The step of the environment with the reward of the mode and `info["world_model"]`.

        Raises:
            InvalidConfigError: If the action is neither.
        """
        text, prediction = self._read(action)
        source = "none" if prediction is None else "action"
        if prediction is None and self.predictor is not None:
            # Before the step: a predictor must not see what it predicts.
            prediction = self.predictor.predict([tuple(self._turns)], [text], [self._task])[0]
            source = "predictor"
        observation, task_reward, terminated, truncated, info = self.env.step(text)
        self._turns.append(Turn(text, observation))
        message_kind = str(info.get("message_kind", ""))
        measure = self.gap.measure(message_kind)
        gaps = self.gap([prediction], [observation], [message_kind])
        gap_reward = float(gaps.rewards[0])
        breakdown = {
            "action": text,
            "prediction": prediction or "",
            "source": source,
            "distance": float(gaps.distances[0]),
            "reward": gap_reward,
            "task_reward": float(task_reward),
            "weight": self.weight,
            "gap": measure.gap,
            "threshold": measure.threshold,
            "kind": measure.kind,
            "mode": self.mode,
            "encoder": self.gap.encoder.name,
        }
        reward = self._combine(float(task_reward), gap_reward)
        return observation, reward, terminated, truncated, {**info, "world_model": breakdown}

    def _read(self, action: Any) -> tuple[str, str | None]:
        """The action for the environment and the agent's prediction."""
        given: Any = None
        if isinstance(action, Mapping):
            if unknown := set(action) - {"action", "prediction"}:
                raise InvalidConfigError(
                    f"Expected the keys `action` and `prediction`, actual also: {sorted(unknown)}."
                )
            action, given = action.get("action"), action.get("prediction")
        if not isinstance(action, str) or not isinstance(given, str | None):
            raise InvalidConfigError(
                'Expected a text action or {"action": text, "prediction": text}, '
                f"actual: {type(action).__name__} and {type(given).__name__}."
            )
        text, written = split_prediction(action, *self.tags)
        prediction = written if given is None else given
        return text, prediction if prediction is not None and prediction.strip() else None

    def _combine(self, task_reward: float, gap_reward: float) -> float:
        if self.mode == "add":
            return task_reward + self.weight * gap_reward
        return self.weight * gap_reward if self.mode == "replace" else task_reward
