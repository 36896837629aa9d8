"""Rewards an agent for predicting what the world will say next: the RWML reward for any environment."""

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
from rwml_gym.wrappers.checks import require_no_autoreset
from rwml_gym.wrappers.scorer import Describe, RewardMode, Scored, Scorer

__all__ = ["RewardMode", "WorldModelRewardWrapper"]


class WorldModelRewardWrapper(Scored, gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Scores a prediction of the next observation against the realised one and makes a reward of it.

    The agent writes its prediction into the action text between two tags, or steps with
    `{"action": …, "prediction": …}`; the environment sees the action alone (`predictions.split_prediction` says how odd
    texts are read). Where the agent makes none, a `predictor` may; without one nothing is earned.

    *What is compared.* Texts, in the space of a text encoder. Other observations through `describe`, a function from an
    observation to text; or else as they are, numbers being their own embedding (`space_encoder.SpaceEncoder` says how
    they are scaled, and where that is a bad idea). The agent's observations stay what they were. The default threshold
    is one for all-MiniLM-L6-v2 on ALFWorld: elsewhere measure one (`rwml-gym calibrate`), and for numbers look at what
    the predictor `"nothing-changes"` earns.

    The reward of a step is, by `mode`,

    - `"add"`: task reward + weight x gap reward,
    - `"replace"`: weight x gap reward,
    - `"report"`: task reward.

    *The sign of the weight.* With a positive weight the agent is paid for what is predicted. If it predicts itself,
    it learns the world; but whoever predicts, staying where nothing happens is the easiest way to be right, so
    exploration shrinks: mind the share of repeated and invalid actions. With a negative weight it is paid for being
    surprised, which is curiosity: exploration grows, and what can never be predicted (random ids, noise) pays for ever.
    An agent must not make the predictions that it is paid to miss, so a negative weight is for predictors. The
    predictors that learn make the reward change with time. Compare with a run in mode `"report"`.

    `info["world_model"]` of a step holds all that was computed:

    - `action`: what the environment saw, where that is text or `describe_action` makes it so; `prediction`: the text
      that was scored, `""` if there was none or it was not text;
    - `source`: who predicted, `"action"`, `"predictor"` or `"none"`;
    - `distance` in `[0, 2]` and `reward` (the gap reward, before the weight), see `gap.GapReward`;
    - `gap`, `threshold` and `shape`: how it was measured, which may depend on the role of the answer
      (`info["message_role"]`, `measures`);
    - `task_reward`, `weight`, `mode`, `encoder`.

    The info of a reset has no `"world_model"`: nothing was predicted. The spaces stay those of the environment; what
    the agent adds to an action need not lie in `action_space`. Put `Autoreset` outside.

    Arguments that are names are recorded in `spec`, so `gymnasium.make(env.spec)` makes the same environment. Wrappers
    with the same encoder name share one encoder and its cache in a process; a predictor made by name belongs to its
    wrapper. For many environments at once there is `WorldModelRewardVectorWrapper`.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> env = WorldModelRewardWrapper(ToyHouseEnv(), encoder="hashing", threshold=0.1)
        >>> observation, _ = env.reset(seed=0)
        >>> _, reward, _, _, info = env.step(f"look <next_state>{observation}</next_state>")
        >>> reward, info["world_model"]["action"], info["world_model"]["distance"]
        (1.0, 'look', 0.0)
        >>> env = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor="learned", weight=-0.1, shape="continuous")
        >>> _ = env.reset(seed=0)
        >>> env.step(1)[4]["world_model"]["source"]  # nothing learnt yet
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
    ):
        """Wrap an environment and load the encoder, where texts are to be compared.

        Args:
            env: Any environment.
            encoder: See `embedding.make_encoder`.
            threshold: τ_d; `gap.DEFAULT_THRESHOLD` if absent. Calibrate it for another encoder or environment
                (`calibration.calibrate`).
            shape: `"binary"` or `"continuous"`.
            weight: Factor of the gap reward; its sign matters, see above.
            mode: What becomes of the task reward.
            predictor: A world model or its name (`predictors.WORLD_MODELS`: `"nothing-changes"`, `"most-frequent"`,
                `"retrieval"`, `"learned"`), for steps without a prediction. One that has `learn` learns from each step.
            tags: What opens and closes a prediction in the action text; looked for where actions and states are text.
            history: Turns the predictor is shown.
            measures: How messages of a role are measured otherwise; `{"tool": {"gap": "rouge"}}` compares tool results
                by ROUGE-L, as the paper does. See `GapReward`.
            describe: Makes text of an observation; the function, or its name as `"module:function"`.
            describe_action: Makes text of an action for the predictor, likewise.
            scale: The unit of numbers that are compared as they are, see `SpaceEncoder`.

        Raises:
            InvalidConfigError: If an argument is out of range, or observations are neither text nor numbers and there
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
        scorer = Scorer(env.observation_space, env.action_space, **arguments)
        # JSON has no tuples, arrays, other mappings or NumPy's numbers.
        arguments["weight"], arguments["tags"] = scorer.weight, list(tags)
        arguments["measures"] = None if measures is None else {name: dict(of) for name, of in measures.items()}
        arguments["scale"] = None if scale is None else np.asarray(scale, dtype=float).tolist()
        # No copies: an encoder that the user brings may be a large model.
        gym.utils.RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        gym.Wrapper.__init__(self, env)

        self._scorer = scorer
        self._turns: deque[Turn] = deque(maxlen=history)
        self._task = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; its info is returned as it is.

        Raises:
            InvalidObservationError: If the observation is outside of its space.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._turns.clear()
        self._turns.append(Turn("", self._scorer.state(observation)))
        self._task = str(info.get("task", ""))
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step with the action less its prediction and score the prediction.

        Args:
            action: What the environment takes, text that may hold a prediction, or
                `{"action": …, "prediction": …}`.

        Returns:
            The step of the environment with the reward of the mode and `info["world_model"]`.

        Raises:
            ResetNeeded: Before the first reset.
            InvalidConfigError: If the action is none of these.
            WorldModelError: If the predictor raises, or returns something else than one prediction.
            EncoderError: If the encoder fails.
            InvalidObservationError: If the observation is outside of its space.
        """
        if not self._turns:
            raise ResetNeeded("Cannot step before the first reset(): call reset().")
        scorer = self._scorer
        action, prediction = scorer.read(action)
        shown, source = scorer.shown(action), "action"
        history = tuple(self._turns)
        if prediction is None and scorer.predictor is not None:
            # Before the step: a predictor must not see what it predicts.
            (prediction,) = scorer.predict([history], [shown], [self._task])
            source = "predictor"
        observation, task_reward, terminated, truncated, info = self.env.step(action)
        state = scorer.state(observation)
        self._turns.append(Turn(shown, state))
        role = str(info.get("message_role", ""))
        (reward,), (scores,) = scorer.score([shown], [prediction], [source], [state], [role], [float(task_reward)])
        scorer.learn([history], [shown], [state])
        return observation, reward, terminated, truncated, {**info, "world_model": scores}
