"""The first fatal step of a failed ALFWorld episode: its actions are played again, and the expert asked in every state.

In each state a copy of the environment is played on by the expert. The number of its steps, against what is left of the
budget, says whether the game could still be won there.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium

import rwml_gym  # noqa: F401 (registers the environments)
from rwml_gym.errors import RWMLGymError

if TYPE_CHECKING:
    from rwml_gym.envs.alfworld import ALFWorldEnv

__all__ = ["FatalStep", "Replay", "find_fatal", "plays_alfworld"]

_ID = "rwml_gym/ALFWorld-v0"


@dataclass(frozen=True)
class FatalStep:
    """When a failed episode was lost.

    Attributes:
        left: In each state, from the one before the first action on, how many steps the expert needs to win; `None`
            where these are more than the budget has left.
        step: The first fatal step: after it the expert can never again win in the budget. 0 if it cannot even from the
            start; `None` if it can to the end, or the episode could not be played again.
        problem: Why the episode could not be played again; empty if it could.
    """

    left: tuple[int | None, ...] = ()
    step: int | None = None
    problem: str = ""

    @property
    def closest(self) -> tuple[int, int] | None:
        """The step before which the expert was nearest to winning for the last time, and how many steps it needed."""
        known = [(left, -place) for place, left in enumerate(self.left) if left is not None]
        if not known:
            return None
        left, place = min(known)
        return 1 - place, left


def plays_alfworld(header: Mapping[str, Any]) -> bool:
    """Return whether an evaluation is of ALFWorld."""
    return header.get("env") in ("alfworld", _ID)


class Replay:
    """Plays recorded ALFWorld episodes again.

    Args:
        header: The header of the evaluation, see `traces.folder`.

    Raises:
        RWMLGymError: If the environment cannot be made, such as without its data.
        ImportError: If it needs a library that is not installed.
    """

    def __init__(self, header: Mapping[str, Any]) -> None:
        from rwml_gym.envs.alfworld import ALFWorldEnv

        allowed = {*inspect.signature(ALFWorldEnv).parameters} - {"engine", "expert", "order", "share", "render_mode"}
        given = {"split": header.get("split"), **(header.get("env_arguments") or {})}
        arguments = {name: value for name, value in given.items() if name in allowed and value is not None}
        made = gymnasium.make(_ID, expert=True, disable_env_checker=True, **arguments)
        self._env: ALFWorldEnv = made.unwrapped  # type: ignore[assignment] # the budget is counted here
        limit = made.spec.max_episode_steps if made.spec is not None else None
        self.budget = int(header.get("max_steps") or limit or 0)

    def fatal(self, game: str, actions: Sequence[str], answers: Sequence[str]) -> FatalStep:
        """Play an episode again and find its first fatal step.

        Args:
            game: Name of the game.
            actions: `T` actions.
            answers: `T` observations that followed them; another one now means that this is another game.
        """
        env = self._env
        try:
            _, info = env.reset(options={"game": game})
        except RWMLGymError as error:
            return FatalStep(problem=f"The game could not be loaded: {error}")
        budget = max(self.budget, len(actions))
        left = [_steps_to_win(env, info, budget)]
        for number, (action, answer) in enumerate(zip(actions, answers, strict=True), 1):
            as_expert = action == info["expert_action"]
            observation, _, _, _, info = env.step(action)
            if observation.strip() != answer.strip():
                return FatalStep(problem=f"Played again, the game answered otherwise at step {number}.")
            if info["won"]:
                return FatalStep(problem=f"Played again, the game was won at step {number}.")
            # The expert does the same in the same state, so where the agent did what it would, one step less is left.
            before = left[-1]
            if as_expert:
                left.append(None if before is None else before - 1)
            else:
                left.append(_steps_to_win(env, info, budget - number))
        return find_fatal(left)


def find_fatal(left: Sequence[int | None]) -> FatalStep:
    """Find the first fatal step, given the steps that the expert needs in each state.

    A state in which it needs too many is no end if it can win in a later one: it searches, and may be lucky there.

    Example:
        >>> find_fatal([3, None, 2, 2, None, None]).step
        4
        >>> find_fatal([3, None, 2, 2, None, None]).closest
        (4, 2)
    """
    last = max((place for place, steps in enumerate(left) if steps is not None), default=-1)
    return FatalStep(tuple(left), last + 1 if last + 1 < len(left) else None)


def _steps_to_win(env: ALFWorldEnv, info: Mapping[str, Any], budget: int) -> int | None:
    """Let the expert play on in a copy; `None` if it needs more steps than the budget."""
    env = copy.deepcopy(env, {id(env.games): env.games})  # the games are shared: there may be thousands
    for steps in range(budget + 1):
        if info["won"]:
            return steps
        if steps < budget:
            info = env.step(info["expert_action"])[4]
    return None
