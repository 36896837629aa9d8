"""The common part of the reward wrappers for one and for many environments: read, predict and score steps."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, SupportsFloat, TypedDict, get_args

import numpy as np
from gymnasium import spaces

from rwml_gym.checks import real_number, whole_number
from rwml_gym.encoders.cached import DEFAULT_ENCODER, Embedded, Encoder, make_encoder
from rwml_gym.encoders.numbers import SpaceEncoder, inside, is_text, outside
from rwml_gym.errors import InvalidConfigError, InvalidObservationError, RWMLGymError, WorldModelError
from rwml_gym.reward.gap import GapReward, Measure, RewardShape
from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG, check_tags, split_prediction
from rwml_gym.text import is_blank
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import OnlineWorldModel, WorldModel, predict_checked, takes_tasks
from rwml_gym.world_models.by_name import ENCODING, READING, make_world_model
from rwml_gym.wrappers.arguments import unshared

__all__ = ["Describe", "RewardMode", "RewardOptions", "Scored", "Scorer"]

RewardMode = Literal["add", "replace", "report"]
Describe = str | Callable[[Any], str]

_KEYS = {"action", "prediction"}


class RewardOptions(TypedDict, total=False):
    """The arguments of both reward wrappers, as `WorldModelRewardWrapper` explains them."""

    threshold: float | None
    shape: RewardShape
    weight: float
    mode: RewardMode
    predictor: str | WorldModel | None
    tags: Sequence[str]
    history: int
    measures: Mapping[str, Mapping[str, Any]] | None
    describe: Describe | None
    describe_action: Describe | None
    scale: float | Sequence[float] | None
    name: str


class Scorer:
    """Scores predictions of an environment's steps; it has no episode state, so that one scorer serves many slots.

    A *state* is what is predicted: the observation, or its description.

    Attributes:
        gap: The gap reward.
        predictor: World model that predicts if the agent does not.
        tags: Opening and closing tag of a prediction in the action text.
        history: Number of turns that the predictor sees.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
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
        """Check the arguments and load the encoder; see `WorldModelRewardWrapper`."""
        self.weight = weight
        self.mode = mode
        if isinstance(tags, str) or not isinstance(tags, Sequence) or len(tags) != 2:
            raise InvalidConfigError(f"Expected `tags` to be an opening and a closing tag, actual: {tags!r}.")
        check_tags(*tags)
        history = whole_number("history", history, 1, "turn")
        encoder, predictor = unshared(encoder), unshared(predictor)
        self._describe = _function(describe, "describe")
        self._describe_action = _function(describe_action, "describe_action")
        self._observation_space, self._action_space = observation_space, action_space
        self.text = self._describe is not None or isinstance(observation_space, spaces.Text)
        self._text_actions = isinstance(action_space, spaces.Text)
        if self.text and scale is not None:
            raise InvalidConfigError("Expected numeric observations for `scale`, actual: text. Remove `scale`.")
        states: Any = encoder
        if not self.text:
            holds_text = _holds_text(observation_space)
            # The default is not loaded where it is not needed; any other one is, so that a wrong name shows.
            named = not isinstance(encoder, str) or encoder != DEFAULT_ENCODER
            texts = make_encoder(encoder) if holds_text or named else None
            states = SpaceEncoder(observation_space, scale, texts if holds_text else None)
        self.gap = GapReward(states, threshold, shape, measures)
        self.predictor = None
        self._own_predictor = False
        self._actions: SpaceEncoder | None = None
        if predictor is not None:
            if isinstance(predictor, str) and predictor in READING and not self.text:
                raise InvalidConfigError(
                    f"Expected observations that are text for the predictor {predictor!r}, actual: "
                    f"{observation_space}. Give `describe` to say them in words, or use another predictor."
                )
            actions: Any = None
            if isinstance(predictor, str) and predictor in ENCODING:
                if self._text_actions or self._describe_action is not None:
                    actions = make_encoder(encoder)
                else:
                    actions = self._actions = SpaceEncoder(action_space, name="action")
            self.predictor = make_world_model(predictor, self.gap.encoder, actions)
            self._own_predictor = isinstance(predictor, str)
            by_words = any(measure.reads_text for measure in self.gap.measures.values())
            if predictor == "learned" and by_words:
                raise InvalidConfigError(
                    "Expected the cosine gap of raw texts for the predictor 'learned', which returns no text, actual: "
                    f"{measures}. "
                    "Use another predictor, or remove `measures`."
                )
        self._takes_tasks = self.predictor is not None and takes_tasks(self.predictor)
        self.tags = (tags[0], tags[1])
        self.history = history

    def __deepcopy__(self, memo: dict[int, Any]) -> Scorer:
        """Copy what an environment may change; encoders and a world model of the user's are shared."""
        twin = copy.copy(self)
        if self._own_predictor:
            twin.predictor = copy.deepcopy(self.predictor, memo)
        return twin

    @property
    def weight(self) -> float:
        """Factor of the gap reward."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        number = real_number(weight)
        if not math.isfinite(number):
            raise InvalidConfigError(f"Expected a finite `weight`, actual: {weight!r}.")
        self._weight = number

    @property
    def mode(self) -> RewardMode:
        """How the gap reward is combined with the task reward."""
        return self._mode

    @mode.setter
    def mode(self, mode: RewardMode) -> None:
        if mode not in get_args(RewardMode):
            raise InvalidConfigError(f"Expected `mode` to be one of {get_args(RewardMode)}, actual: {mode!r}.")
        self._mode: RewardMode = mode

    def check_roles(self, info: Mapping[str, Any]) -> None:
        """Check, with the info of a reset, that an environment has the message roles that a view asks for.

        Raises:
            InvalidConfigError: If it names no roles.
        """
        viewed = {role: m.view for role, m in self.gap.measures.items() if role and m.view != "raw"}
        if viewed and "message_role" not in info:
            raise InvalidConfigError(
                f"Expected an environment with message roles (`info['message_role']`) for the views {viewed}, actual: "
                "none. Remove `view` from `measures`: this environment has no results of tools."
            )

    def reward(self, reward: Any) -> float:
        """Return an environment's reward as a number.

        Raises:
            InvalidConfigError: If it is no single number.
        """
        if np.ndim(reward) or not isinstance(reward, SupportsFloat):
            raise InvalidConfigError(
                f"Expected one number as the environment's reward, actual: {reward!r}. Put "
                "`gymnasium.wrappers.TransformReward` below the reward wrapper to make it one."
            )
        return float(reward)

    def state(self, observation: Any) -> Any:
        """Return the state to predict and store: the observation's description, its text, or a copy of it.

        Raises:
            InvalidObservationError: If the observation is not in its space, or its description is not text.
        """
        if self._describe is not None:
            described = self._describe(observation)
            if not isinstance(described, str):
                raise InvalidObservationError(
                    f"Expected text from `describe`, actual: {str(described)[:200]} ({type(described).__name__})."
                )
            return described
        if not inside(self._observation_space, observation):
            raise outside(self._observation_space, observation)
        # Environments may keep writing into the arrays that they returned.
        return observation if isinstance(observation, str) else copy.deepcopy(observation)

    def read(self, action: Any) -> tuple[Any, Any]:
        """Return the action for the environment and the agent's prediction; `None` for no prediction.

        Raises:
            InvalidConfigError: If the action does not fit the environment, or has other keys.
        """
        given: Any = None
        # An environment's own actions may have these keys, too.
        own = isinstance(self._action_space, spaces.Dict) and self._action_space.contains(action)
        named = self._text_actions or not isinstance(self._action_space, spaces.Dict) or "prediction" in action
        if isinstance(action, Mapping) and named and not own:
            if unknown := set(action) - _KEYS:
                raise InvalidConfigError(
                    f"Expected only the keys `action` and `prediction`, actual: also {sorted(map(str, unknown))}."
                )
            if "action" not in action and not self._text_actions:
                raise InvalidConfigError(
                    'Expected an action in {"action": …, "prediction": …}, actual: only a prediction. Add it.'
                )
            action, given = action.get("action"), action.get("prediction")
        if self._text_actions and not isinstance(action, str):
            raise InvalidConfigError(
                'Expected a text action or {"action": text, "prediction": text}, '
                f"actual: {type(action).__name__} and {type(given).__name__}."
            )
        return self.read_parts(action, given)

    def read_parts(self, action: Any, given: Any) -> tuple[Any, Any]:
        """Return what `read` does, for an action and a prediction passed separately."""
        if not self.text:
            try:
                return action, self._embedded(given)
            except InvalidObservationError as error:
                raise InvalidConfigError(
                    f"Expected a prediction in {self._observation_space}, actual: {str(given)[:200]} "
                    f"({type(given).__name__})."
                ) from error
        if not isinstance(given, str | None):
            raise InvalidConfigError(
                f'Expected a text action or {{"action": text, "prediction": text}}, actual: {type(action).__name__} '
                f"and {type(given).__name__}."
            )
        if isinstance(action, str) and self._text_actions:
            action, written = split_prediction(action, *self.tags)
            given = written if given is None else given
        return action, None if given is None or is_blank(given) else given

    def shown(self, action: Any) -> Any:
        """Return an action as the predictor sees it.

        Raises:
            InvalidConfigError: If its description is not text.
        """
        if self._describe_action is not None:
            described = self._describe_action(action)
            if not isinstance(described, str):
                raise InvalidConfigError(
                    "Expected text from `describe_action`, "
                    f"actual: {str(described)[:200]} ({type(described).__name__})."
                )
            return described
        if self._actions is not None:
            self._actions.rows([action])  # raise for an action that cannot be encoded before the environment steps
        return action if isinstance(action, str) else copy.deepcopy(action)

    def predict(self, histories: Sequence[Sequence[Turn]], actions: Sequence[Any], tasks: Sequence[str]) -> list[Any]:
        """Call the predictor once for all actions.

        Raises:
            WorldModelError: If it raises, or does not return one prediction per action.
        """
        assert self.predictor is not None
        made = predict_checked(self.predictor, histories, actions, tasks if self._takes_tasks else None, self.text)
        if self.text:
            return made
        try:
            return [self._embedded(prediction) for prediction in made]
        except InvalidObservationError as error:
            raise WorldModelError(
                f"Expected predictions in {self._observation_space} (or None, or Embedded) from "
                f"{type(self.predictor).__name__}.predict, actual: {str(made)[:200]}."
            ) from error

    def _embedded(self, prediction: Any) -> Embedded | None:
        """Check and encode a predicted state that is not text, before the environment steps."""
        if prediction is None or isinstance(prediction, Embedded):
            return prediction
        return Embedded(self.gap.encoder.rows([prediction])[0])

    def learn(self, histories: Sequence[Sequence[Turn]], actions: Sequence[Any], states: Sequence[Any]) -> None:
        """Let the predictor learn from transitions, if it can.

        Raises:
            WorldModelError: If the predictor raises.
        """
        if isinstance(self.predictor, OnlineWorldModel):
            try:
                self.predictor.learn(histories, actions, states)
            except RWMLGymError:
                raise
            # A user's model may raise anything.
            except Exception as error:
                raise WorldModelError(
                    f"Expected {type(self.predictor).__name__}.learn to take {len(actions)} transitions, "
                    f"actual: {type(error).__name__}: {error}."
                ) from error

    def score(
        self,
        played: Sequence[Any],
        actions: Sequence[Any],
        predictions: Sequence[Any],
        sources: Sequence[str],
        states: Sequence[Any],
        roles: Sequence[str],
        task_rewards: Sequence[float],
    ) -> tuple[list[float], list[dict[str, Any]]]:
        """Score steps, with one call of the encoder for all.

        Args:
            played: Actions as the environment received them.
            actions: The same as the predictor sees them.
            predictions: Predictions; `None` for a missing one.
            sources: Where each prediction comes from.
            states: The realised next states.
            roles: Message roles of the next states.
            task_rewards: Rewards of the environment.

        Returns:
            The reward of each step according to the mode, and the contents of its `info["world_model"]`.
        """
        gaps = self.gap(predictions, states, roles)
        rewards: list[float] = []
        infos: list[dict[str, Any]] = []
        for i, (distance, reward) in enumerate(zip(gaps.distances.tolist(), gaps.rewards.tolist(), strict=True)):
            measure: Measure = self.gap.measure(roles[i])
            prediction = predictions[i]
            # What the environment received where that is text, not its description.
            name = played[i] if isinstance(played[i], str) else actions[i]
            info: dict[str, Any] = {"action": name} if isinstance(name, str) else {}
            info |= {
                "prediction": prediction if isinstance(prediction, str) else "",
                "source": sources[i] if _made(prediction) else "none",
                "distance": distance,
                "reward": reward,
                "task_reward": task_rewards[i],
                "weight": self.weight,
                "gap": measure.gap,
                "threshold": measure.threshold,
                "shape": measure.shape,
                "view": measure.view,
                "mode": self.mode,
                "encoder": self.gap.encoder.name,
            }
            infos.append(info)
            if self.mode == "add":
                rewards.append(task_rewards[i] + self.weight * reward)
            else:
                rewards.append(self.weight * reward if self.mode == "replace" else task_rewards[i])
        return rewards, infos


class Scored:
    """The properties of the scorer that both reward wrappers expose.

    Attributes:
        info_key: Key of the results in `info`.
    """

    _scorer: Scorer
    info_key: str

    @property
    def gap(self) -> GapReward:
        """The gap reward."""
        return self._scorer.gap

    @property
    def predictor(self) -> WorldModel | None:
        """World model that predicts if the agent does not."""
        return self._scorer.predictor

    @property
    def tags(self) -> tuple[str, str]:
        """Opening and closing tag of a prediction in the action text."""
        return self._scorer.tags

    @property
    def weight(self) -> float:
        """Factor of the gap reward; may be set, for example to anneal it."""
        return self._scorer.weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._scorer.weight = weight

    @property
    def mode(self) -> RewardMode:
        """How the gap reward is combined with the task reward; may be set."""
        return self._scorer.mode

    @mode.setter
    def mode(self, mode: RewardMode) -> None:
        self._scorer.mode = mode


def _made(prediction: Any) -> bool:
    return prediction is not None and not (isinstance(prediction, str) and is_blank(prediction))


def _holds_text(space: spaces.Space) -> bool:
    if isinstance(space, spaces.Dict):
        return any(map(_holds_text, space.spaces.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(_holds_text, space.spaces))
    numbers = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    return not isinstance(space, numbers) and is_text(space)


def _function(given: Describe | None, what: str) -> Callable[[Any], str] | None:
    """Return a given function, or load it by its name `"module:function"`, which a spec can store as JSON."""
    if given is None or (callable(given) and not isinstance(given, str)):
        return given
    if isinstance(given, str) and given.count(":") == 1:
        module, name = given.split(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InvalidConfigError(f"Expected a function for `{what}`, actual: {given!r} ({error}).") from error
        if callable(found):
            return found
    raise InvalidConfigError(f"Expected a function or 'module:function' for `{what}`, actual: {given!r}.")
