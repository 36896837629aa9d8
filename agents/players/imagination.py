"""Who says what an action would lead to: a world model, or the true engine as the ceiling of all of them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym

from rwml_gym.agents.players.base import MakeEnv
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError, WorldModelError
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import Histories, WorldModel, predict_checked, takes_tasks

__all__ = ["CountingWorldModel", "EngineImagination", "Imagination", "ModelImagination", "Outcome", "Question"]

# States of the engine that are kept, of each the changes of one game; a state that is gone is played again.
_STATES = 2048


@dataclass(frozen=True)
class Question:
    """What would an action lead to?

    Attributes:
        game: Name of the game.
        task: The task.
        turns: The whole episode, turns that were imagined before included.
        action: The action.
    """

    game: str
    task: str
    turns: tuple[Turn, ...]
    action: str


@dataclass(frozen=True)
class Outcome:
    """An imagined outcome.

    Attributes:
        observation: The observation; empty if nothing was predicted.
        actions: The actions that are admissible then; `None` if nobody says it.
        won: Whether the task is solved then; `None` if nobody says it.
        over: Whether the episode has ended.
        tokens: Tokens that were written for it.
    """

    observation: str
    actions: tuple[str, ...] | None = None
    won: bool | None = None
    over: bool = False
    tokens: int = 0


class Imagination(Protocol):
    """Says what actions would lead to, in batches."""

    def imagine(self, questions: Sequence[Question]) -> list[Outcome]:
        """Return one outcome per question; it does not depend on the other questions."""
        ...

    def playing(self) -> AbstractContextManager[Any]:
        """Return a context for a series of turns in which nothing learns."""
        ...


@runtime_checkable
class CountingWorldModel(WorldModel, Protocol):
    """A world model that writes, and counts what it writes."""

    def predict_counted(
        self, histories: Histories, actions: Sequence[Any], tasks: Sequence[str] | None = None
    ) -> list[tuple[str, int]]:
        """Return what `predict` does, each with its number of tokens."""
        ...

    def predicting(self) -> AbstractContextManager[Any]:
        """Return a context for many calls in which the weights do not change."""
        ...


class ModelImagination:
    """Asks a world model, all questions in one call of `predict`. The model does not learn here.

    Args:
        model: A world model that predicts text. It is given the whole episode and takes its own window of it.
    """

    def __init__(self, model: WorldModel) -> None:
        self._model, self._takes_tasks = model, takes_tasks(model)

    def imagine(self, questions: Sequence[Question]) -> list[Outcome]:
        """Return the predictions (`Imagination.imagine`).

        Raises:
            WorldModelError: If the model fails, or does not return one text per question.
        """
        histories, actions = [q.turns for q in questions], [q.action for q in questions]
        tasks = [q.task for q in questions] if self._takes_tasks else None
        if isinstance(self._model, CountingWorldModel):
            counted = self._model.predict_counted(histories, actions, tasks)
            return [Outcome(text, tokens=tokens) for text, tokens in counted]
        outcomes = []
        for prediction in predict_checked(self._model, histories, actions, tasks, text=True):
            if prediction is not None and not isinstance(prediction, str):
                raise WorldModelError(
                    f"Expected a world model that predicts text, actual: {type(self._model).__name__}, which predicts "
                    "vectors. Use another one, such as retrieval."
                )
            outcomes.append(Outcome(prediction or ""))
        return outcomes

    def playing(self) -> AbstractContextManager[Any]:
        """Return a context for a series of turns (`Imagination.playing`)."""
        return self._model.predicting() if isinstance(self._model, CountingWorldModel) else nullcontext()


class EngineImagination:
    """Asks the true engine: copies of an environment take the actions, so that every outcome is right.

    No agent could do this outside of a simulation. It is the ceiling of what a world model can give. It also knows
    which actions are admissible then, and whether the task is solved.

    Args:
        make_env: Makes an environment with the games of the one that is played. Its step budget is ignored.

    Raises:
        InvalidConfigError: If the environment does not name its games, does not play the one that it is told to, or
            cannot be copied.
    """

    def __init__(self, make_env: MakeEnv) -> None:
        self._make_env = make_env
        # By game and actions: the environment after them, and its last observation.
        self._states: OrderedDict[tuple[str, tuple[str, ...]], tuple[gym.Env[str, str], str]] = OrderedDict()
        with make_env() as env:
            info = env.reset(seed=0)[1]
            if not info.get("game"):
                raise InvalidConfigError(
                    'Expected an environment that names its games (info["game"]) for the engine as the world model, '
                    f"actual: {', '.join(info) or 'no keys'}. Use another world model (--imagine)."
                )
            self._check_replay(env, info["game"])
            try:
                _copy_of(env.unwrapped)
            except Exception as error:  # whatever the parts of an environment raise
                raise InvalidConfigError(
                    "Expected an environment that can be copied for the engine as the world model, actual: "
                    f"{type(error).__name__}: {error}. Use another world model (--imagine), or give the environment a "
                    "__deepcopy__."
                ) from error

    @staticmethod
    def _check_replay(env: gym.Env[str, str], game: str) -> None:
        """Check that an environment plays the game that it is told to."""
        try:
            again = env.reset(options={"game": game})[1].get("game")
        except Exception as error:  # whatever an environment raises
            again = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if again != game:
            raise InvalidConfigError(
                'Expected an environment that plays the game in reset(options={"game": name}) for the engine as the '
                f"world model, actual: {str(again)[:200]!r} in place of {game!r}. Use another world model (--imagine)."
            )

    def imagine(self, questions: Sequence[Question]) -> list[Outcome]:
        """Return what happens in copies (`Imagination.imagine`).

        Raises:
            WorldModelError: If the engine's episode is another one than the one that is played.
        """
        return [self._imagine(question) for question in questions]

    def playing(self) -> AbstractContextManager[Any]:
        """Return a context that does nothing (`Imagination.playing`)."""
        return nullcontext()

    def _imagine(self, question: Question) -> Outcome:
        actions = tuple(str(turn.action) for turn in question.turns[1:])
        key = question.game, actions
        env, observation = self._states.get(key) or self._replayed(question.game, actions)
        if observation != question.turns[-1].observation:
            raise WorldModelError(
                f"Expected the engine to answer as in the game {question.game!r} that is played, actual: "
                f"{observation[:200]!r} in place of {str(question.turns[-1].observation)[:200]!r}. Make both "
                "environments with the same arguments, and without wrappers that change observations."
            )
        self._keep(key, (env, observation))
        twin = _copy_of(env)
        observation, _, terminated, truncated, info = twin.step(question.action)
        over = bool(terminated or truncated)
        if not over:
            self._keep((question.game, (*actions, question.action)), (twin, observation))
        return Outcome(observation, admissible_actions(info), bool(info.get("won")), over)

    def _replayed(self, game: str, actions: Sequence[str]) -> tuple[gym.Env[str, str], str]:
        env: gym.Env[str, str] = self._make_env().unwrapped
        observation = env.reset(options={"game": game})[0]
        for action in actions:
            observation = env.step(action)[0]
        return env, observation

    def _keep(self, key: tuple[str, tuple[str, ...]], state: tuple[gym.Env[str, str], str]) -> None:
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > _STATES:
            self._states.popitem(last=False)


def _copy_of(env: gym.Env[str, str]) -> gym.Env[str, str]:
    """Copy an environment but for what no step changes, which takes longer to copy than the state."""
    shared = (getattr(env, "games", None), env.observation_space, env.action_space)
    return copy.deepcopy(env, {id(part): part for part in shared if part is not None})
