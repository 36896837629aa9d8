"""Playing inside a world model, outside, and the imagined actions again outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gymnasium as gym

from rwml_gym.agents.players.base import Agent, MakeEnv
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec, roll_out
from rwml_gym.agents.reports.world_model_evaluation import Recognition, Successes
from rwml_gym.agents.runs.worlds import GameName
from rwml_gym.envs.base import admissible_actions
from rwml_gym.transitions import Transition, Turn
from rwml_gym.world_models.base import WorldModel
from rwml_gym.world_models.env import Start, Success, WorldModelEnv

__all__ = ["collect_starts", "play_inside", "recognition"]


def collect_starts(make_env: MakeEnv, games: Sequence[GameName], transitions: Sequence[Transition]) -> list[Start]:
    """Reset the real environment for each game; its actions are those of the first state and all recorded ones.

    Args:
        make_env: Makes the real environment.
        games: Names of games.
        transitions: Recorded transitions; actions that the environment rejected are left out.
    """
    recorded: dict[str, list[str]] = {}
    for transition in transitions:
        if not transition.invalid_action:
            recorded.setdefault(transition.game, []).append(transition.action)
    starts = []
    with make_env() as env:
        for game in games:
            observation, info = env.reset(options={"game": game})
            actions = dict.fromkeys((*admissible_actions(info), *recorded.get(str(game), ())))
            starts.append(
                Start(
                    str(game),
                    observation,
                    str(info.get("task") or ""),
                    tuple(actions),
                    str(info.get("data_version") or ""),
                    str(info.get("task_type") or ""),
                )
            )
    return starts


def play_inside(
    model: WorldModel,
    starts: Sequence[Start],
    make_env: MakeEnv,
    make_agent: Callable[[], Agent],
    max_steps: int,
    success: Success,
    history: int,
    real: Sequence[Episode] | None = None,
) -> tuple[Successes, list[Episode]]:
    """Play each game inside the model, in reality, and the imagined actions in reality.

    Args:
        model: The world model.
        starts: The games.
        make_env: Makes the real environment with the same step budget.
        make_agent: Makes the agent anew for each series, so that both begin alike.
        max_steps: Step budget inside the model.
        success: Recognises success inside the model.
        history: Number of turns that the model sees.
        real: The agent's real episodes, if they are known from another model.

    Returns:
        The successes, and the real episodes for the next model.
    """
    specs = [EpisodeSpec(start.game) for start in starts]
    actions: dict[int, list[str]] = {}

    def keep(number: int, env: gym.Env[str, str], episode: Episode) -> None:
        inner = env.unwrapped
        assert isinstance(inner, WorldModelEnv)
        actions[number] = [turn.action for turn in inner.turns[1:]]

    def make_model_env() -> gym.Env[str, str]:
        return WorldModelEnv(model, starts, max_steps, success, history)

    imagined = roll_out(make_model_env, make_agent(), specs, slots=1, ended=keep)
    real = list(roll_out(make_env, make_agent(), specs, slots=1) if real is None else real)
    replayed, invalid, played = [], 0, 0
    with make_env() as env:
        for number, start in enumerate(starts):
            _, info = env.reset(options={"game": start.game})
            for action in actions[number]:
                _, _, terminated, truncated, info = env.step(action)
                played += 1
                invalid += bool(info.get("invalid_action"))
                if terminated or truncated:
                    break
            replayed.append(bool(info.get("won")))
    found = Successes(
        tuple(start.game for start in starts),
        tuple(episode.won for episode in imagined),
        tuple(episode.won for episode in real),
        tuple(replayed),
        tuple(episode.steps for episode in real),
        invalid / played if played else 0.0,
    )
    return found, real


def recognition(transitions: Sequence[Transition], success: Success) -> Recognition:
    """Ask after each step of the recorded episodes whether success is recognised: right only at the end of a won one.

    Episodes whose first step is not recorded, or that were abandoned, are left out.
    """
    episodes: dict[tuple[str, int], list[Transition]] = {}
    for transition in transitions:
        episodes.setdefault((transition.game, transition.episode), []).append(transition)
    won = recognised = lost = mistaken = 0
    for steps in episodes.values():
        steps.sort(key=lambda t: t.step)
        if steps[0].step or steps[0].won is None:
            continue
        turns: list[Turn] = [steps[0].history[-1]]
        found = []
        for transition in steps:
            turns.append(Turn(transition.action, transition.next_state))
            found.append(bool(success(transition.task, turns)))
        if steps[0].won:
            won += 1
            recognised += found[-1] and not any(found[:-1])
        else:
            lost += 1
            mistaken += any(found)
    return Recognition(won, recognised, lost, mistaken)
