"""The RWML reward for many environments at once, with one call of the encoder and of the predictor per step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, iterate

from rwml_gym.encoders.cached import DEFAULT_ENCODER, Encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Turn
from rwml_gym.vector.infos import Info, vectorize_infos
from rwml_gym.vector.slots import one_per_slot
from rwml_gym.wrappers.checks import new_name, require_new_key
from rwml_gym.wrappers.scorer import RewardOptions, Scored, Scorer

__all__ = ["WorldModelRewardVectorWrapper"]


class WorldModelRewardVectorWrapper(Scored, VectorWrapper):
    """Scores the predictions of all slots of a vector environment and turns the scores into rewards.

    Returns the same, to the last bit, as a vector environment of `WorldModelRewardWrapper`s, including infos, unless
    the predictor learns: here one predictor learns from all slots. Actions are a sequence of what that wrapper takes;
    if they are not text, an array, or `{"action": array, "prediction": one per slot}`. `spec` is that of the
    environments below, because Gymnasium does not record vector wrappers.

    *The end of an episode.* The last prediction is compared with the last observation of the episode, never with the
    first of the next: with `SameStep` that is `infos["final_obs"]`, and the results are in
    `infos["final_info"]["world_model"]`. With `NextStep` the step after the end is a reset: its slot has no gap reward
    and no `"world_model"`.

    `infos["world_model"]` is a dictionary of arrays, as Gymnasium makes them: floats as float64, texts as objects, and
    `_name` as the mask of the slots that have `name`.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> from rwml_gym.vector.env import TextVectorEnv
        >>> envs = WorldModelRewardVectorWrapper(TextVectorEnv([ToyHouseEnv] * 2), encoder="hashing", threshold=0.1)
        >>> observations, _ = envs.reset(seed=0)
        >>> _, rewards, _, _, infos = envs.step([f"look <next_state>{observations[0]}</next_state>", "look"])
        >>> rewards, infos["world_model"]["distance"]
        (array([1., 0.]), array([0., 1.]))
        >>> envs.close()
    """

    def __init__(
        self,
        env: VectorEnv,
        encoder: str | Encoder | Callable[[Sequence[str]], np.ndarray] = DEFAULT_ENCODER,
        **options: Unpack[RewardOptions],  # type: ignore[misc] # mypy does not follow the editable install
    ):
        """Wrap a vector environment and load the encoder.

        Args:
            env: Any vector environment whose slots have equal spaces.
            encoder: See `WorldModelRewardWrapper`, also for the arguments below.
            **options: See `WorldModelRewardWrapper`. `describe` and `describe_action` take what is one slot's, and the
                predictor is asked once a step for all slots without a prediction.

        Raises:
            InvalidConfigError: If an argument is out of range, the slots' spaces differ, or the environment does not
                declare its autoreset mode.
            DependencyNotInstalled: If the encoder, ROUGE or the predictor needs a library that is not installed.
            EncoderNotFoundError: If the encoder cannot be loaded.
        """
        if not isinstance(env, VectorEnv):
            raise InvalidConfigError(
                f"Expected a vector environment, actual: {env!r}. Use `WorldModelRewardWrapper` for a single one."
            )
        for name, space, single in (
            ("observation_space", env.observation_space, env.single_observation_space),
            ("action_space", env.action_space, env.single_action_space),
        ):
            expected = batch_space(single, env.num_envs)
            if space != expected:
                raise InvalidConfigError(f"Expected the {name} {expected}, equal in all slots, actual: {space}.")
        self.info_key = new_name(env, options.pop("name", "world_model"))
        super().__init__(env)
        self._autoreset = _autoreset_mode(env)
        self._scorer = Scorer(env.single_observation_space, env.single_action_space, encoder=encoder, **options)
        self._turns: list[deque[Turn]] = [deque(maxlen=self._scorer.history) for _ in range(env.num_envs)]
        self._tasks = [""] * env.num_envs
        self._ended = np.zeros(env.num_envs, dtype=np.bool_)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Info]:
        """Reset the slots, or those of `options["reset_mask"]`; infos are returned unchanged.

        Raises:
            InvalidConfigError: If infos have the key of the results already, or `measures` asks for a view and the
                environment has no message roles.
            InvalidObservationError: If an observation is not in its space.
        """
        # Read it first, because the environment may remove it from the options.
        mask = None if options is None else options.get("reset_mask")
        observations, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type] # also one per slot
        _check_infos(infos, ended=False)
        require_new_key(infos, self.info_key)
        self._scorer.check_roles(infos)
        slots = list(iterate(self.observation_space, observations))
        for slot in range(self.num_envs):
            if mask is None or mask[slot]:
                self._ended[slot] = False
                self._start(slot, slots[slot], infos)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Step all slots with the actions without their predictions, and score the predictions.

        Args:
            actions: One action per slot, as in `WorldModelRewardWrapper`; or an array of them; or
                `{"action": …, "prediction": …}` for all slots, with `None` for no prediction.

        Returns:
            The step of the environment, with the rewards according to the mode and `infos["world_model"]`.

        Raises:
            ResetNeeded: Before the first reset.
            InvalidConfigError: If the actions are none of these.
            WorldModelError: If the predictor raises, or does not return one prediction per action.
            EncoderError: If the encoder fails.
            InvalidObservationError: If an observation is not in its space.
        """
        if not all(self._turns):
            raise ResetNeeded("Expected reset() before the first step(), actual: none. Call reset().")
        scorer = self._scorer
        given, shown, predictions = self._read(actions)
        played = given if isinstance(self.single_action_space, spaces.Text) else shown
        # In mode NextStep, the step of a slot that has ended is a reset.
        starting = self._ended if self._autoreset is AutoresetMode.NEXT_STEP else np.zeros_like(self._ended)
        playing = np.flatnonzero(~starting).tolist()
        histories = {slot: tuple(self._turns[slot]) for slot in playing}
        sources = ["action"] * self.num_envs
        if scorer.predictor is not None and (asked := [slot for slot in playing if predictions[slot] is None]):
            # Before the step, so that the predictor cannot see the outcomes.
            made = scorer.predict(
                [histories[slot] for slot in asked], [shown[slot] for slot in asked], [self._tasks[i] for i in asked]
            )
            for slot, prediction in zip(asked, made, strict=True):
                predictions[slot], sources[slot] = prediction, "predictor"

        observations, task_rewards, terminations, truncations, infos = self.env.step(given)
        self._ended = np.asarray(terminations | truncations)
        same_step = self._ended.copy() if self._autoreset is AutoresetMode.SAME_STEP else np.zeros_like(self._ended)
        _check_infos(infos, bool(same_step.any()))
        # Update the histories first, so that they stay correct if anything below fails.
        slots = list(iterate(self.observation_space, observations))
        states = self._remember(shown, infos, slots, starting, same_step)
        roles = [
            str(_of(infos.get("final_info", {}) if same_step[slot] else infos, "message_role", slot, "") or "")
            for slot in playing
        ]
        scored, scores = scorer.score(
            [played[slot] for slot in playing],
            [shown[slot] for slot in playing],
            [predictions[slot] for slot in playing],
            [sources[slot] for slot in playing],
            [states[slot] for slot in playing],
            roles,
            [scorer.reward(task_rewards[slot]) for slot in playing],
        )
        if playing:
            scorer.learn(
                [histories[slot] for slot in playing],
                [shown[slot] for slot in playing],
                [states[slot] for slot in playing],
            )
        rewards = np.array(task_rewards, dtype=np.float64)
        rewards[playing] = scored
        infos = self._add(infos, dict(zip(playing, scores, strict=True)), same_step)
        return observations, rewards, terminations, truncations, infos

    def _start(self, slot: int, observation: Any, infos: Info) -> None:
        """Start an episode of a slot."""
        self._turns[slot].clear()
        self._turns[slot].append(Turn("", self._scorer.state(observation)))
        self._tasks[slot] = str(_of(infos, "task", slot, "") or "")

    def _read(self, actions: Any) -> tuple[Any, list[Any], list[Any]]:
        """Return the actions for the environment, the actions for the predictor, and the agent's predictions."""
        n, scorer = self.num_envs, self._scorer
        predictions: Any = [None] * n
        # An environment's own actions may have these keys, too.
        own = isinstance(self.single_action_space, spaces.Dict) and self.action_space.contains(actions)
        if (
            isinstance(actions, Mapping)
            and "action" in actions
            and set(actions) <= {"action", "prediction"}
            and not own
        ):
            if not isinstance(self.single_action_space, spaces.Dict) or "prediction" in actions:
                given = actions.get("prediction")
                actions, predictions = actions["action"], predictions if given is None else given
        predictions = one_per_slot("predictions", predictions, n)
        text = isinstance(self.single_action_space, spaces.Text)
        try:
            each = actions if text else list(iterate(self.action_space, actions))
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidConfigError(
                f"Expected actions in {self.action_space}, one per slot, actual: {str(actions)[:200]}."
            ) from error
        each = one_per_slot("actions", each, n)
        written: list[Any] = [None] * n
        if text:
            pairs = [scorer.read(action) for action in each]
            each, written = [action for action, _ in pairs], [prediction for _, prediction in pairs]
            actions = tuple(each)
        named = [scorer.read_parts(action, of)[1] for action, of in zip(each, predictions, strict=True)]
        written = [own if of is None else of for own, of in zip(written, named, strict=True)]
        return actions, [scorer.shown(action) for action in each], written

    def _remember(
        self, shown: list[Any], infos: Info, slots: list[Any], starting: np.ndarray, same_step: np.ndarray
    ) -> dict[int, Any]:
        """Add the realised states to the histories and return them; an unreadable one does not stop other slots."""
        states: dict[int, Any] = {}
        failures: list[Exception] = []
        for slot in range(self.num_envs):
            try:
                try:
                    if not starting[slot]:
                        states[slot] = self._scorer.state(infos["final_obs"][slot] if same_step[slot] else slots[slot])
                        self._turns[slot].append(Turn(shown[slot], states[slot]))
                finally:  # the next episode has begun, even if the end of this one cannot be read
                    if starting[slot] or same_step[slot]:
                        self._start(slot, slots[slot], infos)
            except Exception as error:  # the observation is not in its space, or `describe` raises
                error.add_note(f"Raised by the observation of slot {slot}.")
                failures.append(error)
        if failures:
            raise failures[0]
        return states

    def _add(self, infos: Info, scores: dict[int, Info], same_step: np.ndarray) -> Info:
        """Add the results to the infos; for a slot that ended in this step, to its final info."""
        going, final = (
            vectorize_infos(
                [
                    {self.info_key: scores[slot]} if slot in scores and same_step[slot] == ended else None
                    for slot in range(self.num_envs)
                ]
            )
            for ended in (False, True)
        )
        return {**infos, **going, **({"final_info": {**infos["final_info"], **final}} if final else {})}


def _check_infos(infos: Any, ended: bool) -> None:
    if not isinstance(infos, Mapping):
        raise InvalidConfigError(
            f"Expected infos as a dictionary of arrays, actual: {type(infos).__name__}. Put `DictInfoToList` outside "
            "WorldModelRewardVectorWrapper."
        )
    if ended and not {"final_obs", "final_info"} <= infos.keys():
        raise InvalidConfigError(
            f'Expected "final_obs" and "final_info" in the infos of slots that ended in mode SameStep, actual: '
            f'{sorted(map(str, infos))}. Correct the vector environment, or its metadata["autoreset_mode"].'
        )


def _of(infos: Info, key: str, slot: int, default: Any) -> Any:
    """Return the value of a key in the info of one slot."""
    has = infos.get(f"_{key}")
    return infos[key][slot] if key in infos and (has is None or has[slot]) else default


def _autoreset_mode(env: VectorEnv) -> AutoresetMode:
    mode = (env.metadata or {}).get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(str(known) for known in AutoresetMode)
        raise InvalidConfigError(
            f'Expected metadata["autoreset_mode"] of the vector environment to be one of {known}, actual: {mode!r}. '
            "Set it to the environment's mode: it decides whether an observation is the last of an episode or the "
            "first of the next."
        ) from None
