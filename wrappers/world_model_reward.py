"""The RWML reward for any environment: it rewards predictions of the next observation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from rwml_gym.encoders.cached import DEFAULT_ENCODER, Encoder
from rwml_gym.reward.gap import RewardShape
from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import WorldModel
from rwml_gym.wrappers.arguments import recorded
from rwml_gym.wrappers.checks import new_name, require_new_key, require_no_autoreset
from rwml_gym.wrappers.scorer import Describe, RewardMode, Scored, Scorer

__all__ = ["RewardMode", "WorldModelRewardWrapper"]


class WorldModelRewardWrapper(Scored, gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Scores a prediction of the next observation against the realised one and turns the score into a reward.

    The agent writes its prediction into the action text between two tags, or steps with
    `{"action": …, "prediction": …}`; the environment receives only the action (see `reward.tags.split_prediction` for
    irregular texts). If the agent makes no prediction, a `predictor` may; without one the gap reward is 0.

    *What is compared.* Texts are compared in the space of a text encoder. Other observations are turned into text by
    `describe`, or are compared as numbers (see `encoders.numbers.SpaceEncoder` for the scaling, and for when not to use
    it). The agent's observations do not change. The default threshold is for all-MiniLM-L6-v2 on ALFWorld: calibrate
    it for anything else (`rwml-gym calibrate`), and for numbers measure the reward of the predictor
    `"nothing-changes"`.

    The reward of a step depends on `mode`:

    - `"add"`: task reward + weight x gap reward,
    - `"replace"`: weight x gap reward,
    - `"report"`: task reward.

    *The sign of the weight.* A positive weight rewards predictable steps. An agent that predicts itself learns a world
    model. But for every predictor, staying where nothing happens is the easiest way to be right, so exploration
    shrinks: watch the share of repeated and invalid actions. A negative weight rewards surprise, which is curiosity:
    exploration grows, and unpredictable observations (random ids, noise) are rewarded for ever. An agent must not make
    the predictions that it is rewarded to miss, so use a negative weight with a predictor only. A predictor that learns
    makes the reward change with time. Compare with a run in mode `"report"`.

    `info["world_model"]` of a step has all results:

    - `action`: what the environment received, if it is text or `describe_action` turns it into text; `prediction`: the
      scored text, `""` if there was none or it was not text;
    - `source`: the source of the prediction, `"action"`, `"predictor"` or `"none"`;
    - `distance` in `[0, 2]` and `reward` (the gap reward, before the weight), see `gap.GapReward`;
    - `gap`, `threshold`, `shape` and `view`: the measure, which may depend on the message role (`info["message_role"]`,
      `measures`);
    - `task_reward`, `weight`, `mode`, `encoder`.

    `name` is another key than `"world_model"`, for several reward wrappers around one another. The info of a reset has
    no such key, as there is no prediction. The spaces are those of the environment; an
    action with a prediction need not be in `action_space`. Put `Autoreset` outside.

    Arguments that are names are recorded in `spec`, so `gymnasium.make(env.spec)` makes the same environment, with the
    first `weight` where it was changed since. A copy (`copy.deepcopy`) shares an encoder or world model that is an
    object; one made by name is copied with what it has learned. Wrappers
    with the same encoder name share one encoder and its cache in a process. A predictor made by name is not shared. For
    many environments at once, use `WorldModelRewardVectorWrapper`.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> env = WorldModelRewardWrapper(ToyHouseEnv(), encoder="hashing", threshold=0.1)
        >>> observation, _ = env.reset(seed=0)
        >>> _, reward, _, _, info = env.step(f"look <next_state>{observation}</next_state>")
        >>> reward, info["world_model"]["action"], info["world_model"]["distance"]
        (1.0, 'look', 0.0)
        >>> env = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor="learned", weight=-0.1, shape="continuous")
        >>> _ = env.reset(seed=0)
        >>> env.step(1)[4]["world_model"]["source"]  # nothing learned yet
        'none'
        >>> env.step(1)[4]["world_model"]["source"]
        'predictor'
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] = DEFAULT_ENCODER,
        threshold: float | None = None,
        shape: RewardShape = "binary",
        weight: float = 1.0,
        mode: RewardMode = "add",
        predictor: str | WorldModel | None = None,
        tags: Sequence[str] = (OPEN_TAG, CLOSE_TAG),
        history: int = 4,
        measures: Mapping[str, Mapping[str, Any]] | None = None,
        describe: Describe | None = None,
        describe_action: Describe | None = None,
        scale: float | Sequence[float] | None = None,
        name: str = "world_model",
    ):
        """Wrap an environment and load the encoder, if texts are compared.

        Args:
            env: Any environment.
            encoder: See `encoders.cached.make_encoder`.
            threshold: τ_d; `distances.DEFAULT_THRESHOLD` if absent. Calibrate it for another encoder or environment
                (`diagnostics.calibration.calibrate`).
            shape: `"binary"`, `"continuous"` or `"stepped"`, see `Measure.reward`.
            weight: Factor of the gap reward; for its sign, see above.
            mode: How the gap reward is combined with the task reward.
            predictor: A world model or its name (`world_models.by_name.WORLD_MODELS`: `"nothing-changes"`,
                `"most-frequent"`, `"retrieval"`, `"learned"`, `"smollm2-alfworld"`), for steps without a prediction.
                `learn`, if it exists, is called after each step.
            tags: Opening and closing tag of a prediction in the action text, used if actions and states are text.
            history: Number of turns that the predictor sees.
            measures: Other measures for message roles, see `GapReward`. The paper compares the schemas of tool results
                by ROUGE-L in steps of 0.2: `{"tool": {"gap": "rouge", "shape": "stepped", "view": "schema"}}`.
            describe: Function from an observation to text, or its name as `"module:function"`.
            describe_action: Function from an action to text for the predictor, or its name.
            scale: Unit of numbers that are compared as numbers, see `SpaceEncoder`.
            name: Key of the results in `info`; give each of several reward wrappers around one another its own.

        Raises:
            InvalidConfigError: If an argument is out of range, or observations are neither text nor numeric and there
                is no `describe`.
            DependencyNotInstalled: If the encoder, ROUGE or the predictor needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        require_no_autoreset(env, "WorldModelRewardWrapper")
        arguments: dict[str, Any] = {
            "encoder": encoder,
            "threshold": threshold,
            "shape": shape,
            "weight": weight,
            "mode": mode,
            "predictor": predictor,
            "tags": tags,
            "history": history,
            "measures": measures,
            "describe": describe,
            "describe_action": describe_action,
            "scale": scale,
        }
        self.info_key = new_name(env, name)
        scorer = Scorer(env.observation_space, env.action_space, **arguments)
        gym.utils.RecordConstructorArgs.__init__(self, **recorded(**arguments, name=name))
        gym.Wrapper.__init__(self, env)

        self._scorer = scorer
        self._turns: deque[Turn] = deque(maxlen=scorer.history)
        self._task = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; its info is returned unchanged.

        Raises:
            InvalidConfigError: If info has the key of the results already, or `measures` asks for a view and the
                environment has no message roles.
            InvalidObservationError: If the observation is not in its space.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        require_new_key(info, self.info_key)
        self._scorer.check_roles(info)
        self._turns.clear()
        self._turns.append(Turn("", self._scorer.state(observation)))
        self._task = str(info.get("task") or "")
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step with the action without its prediction, and score the prediction.

        Args:
            action: An action of the environment, a text with a prediction, or `{"action": …, "prediction": …}`.

        Returns:
            The step of the environment, with the reward according to the mode and `info["world_model"]`.

        Raises:
            ResetNeeded: Before the first reset.
            InvalidConfigError: If the action is none of these.
            WorldModelError: If the predictor raises, or does not return one prediction.
            EncoderError: If the encoder fails.
            InvalidObservationError: If the observation is not in its space.
        """
        if not self._turns:
            raise ResetNeeded("Expected reset() before the first step(), actual: none. Call reset().")
        scorer = self._scorer
        action, prediction = scorer.read(action)
        shown, source = scorer.shown(action), "action"
        history = tuple(self._turns)
        if prediction is None and scorer.predictor is not None:
            # Before the step, so that the predictor cannot see the outcome.
            (prediction,) = scorer.predict([history], [shown], [self._task])
            source = "predictor"
        observation, task_reward, terminated, truncated, info = self.env.step(action)
        state = scorer.state(observation)
        self._turns.append(Turn(shown, state))
        role = str(info.get("message_role") or "")
        task_rewards = [scorer.reward(task_reward)]
        (reward,), (scores,) = scorer.score([action], [shown], [prediction], [source], [state], [role], task_rewards)
        scorer.learn([history], [shown], [state])
        return observation, reward, terminated, truncated, {**info, self.info_key: scores}
