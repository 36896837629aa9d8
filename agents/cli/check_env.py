"""`rwml-gym check-env`: what an environment gives to training and evaluation, and what each missing key would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from gymnasium.utils.env_checker import data_equivalence

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.envs.base import INFO_KEYS, admissible_actions
from rwml_gym.errors import InvalidConfigError
from rwml_gym.terminal import say

__all__ = ["check_env"]


@dataclass(frozen=True)
class CheckEnv:
    """Say which keys of `info` an environment gives, which are missing, and what each would give."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """alfworld, tau2, toy, or any registered Gymnasium id (module:Id-v0 where a module registers it)."""
    env_arguments: str | None = None
    """Arguments of the environment, a mapping as JSON or YAML."""


def check_env(words: list[str]) -> int:
    """Run `rwml-gym check-env` with the words after it."""
    command = tyro.cli(CheckEnv, args=words, prog="rwml-gym check-env")
    from rwml_gym.agents.runs.worlds import Source, games_of

    source = Source(EnvConfig(command.env, command.env_arguments))
    expert = source.expert_arguments if source.world.expert else {}
    with source.make(None, source.world.split, **expert)() as env:
        observation, info = env.reset(seed=0)
        again, info_again = env.reset(seed=0)
        games = games_of(env)
        named = info.get("game")
        replayed = games is None or named is None or env.reset(options={"game": named})[0] == observation
        problems = _listing_problems(info)
        action = "look" if problems else (admissible_actions(info) or ("look",))[0]
        next_observation, _, _, _, stepped = env.step(action)
        for where, seen in (("reset", observation), ("step", next_observation)):
            if not env.observation_space.contains(seen):
                shown = f"{str(seen)[:60]!r} ({type(seen).__name__})"
                problems.append(f"The observation of {where} is not in the observation space: {shown}. Return text.")
        if "won" in stepped and not isinstance(stepped["won"], bool | None):
            problems.append(f"`won` is no bool: {stepped['won']!r}. Give True, False, or None where it is unknown.")
    say(f"{source.world.env_id}: {env.observation_space} and {env.action_space}")
    say(f"first observation: {str(observation)[:200]!r}\n")
    for key, gives in INFO_KEYS.items():
        say(f"  {'yes' if key in info else '-':<4}{key:<20}{gives}")
    if not data_equivalence((again, _plain(info_again)), (observation, _plain(info))):
        problems.append("Two resets with the same seed differ. Draw with self.np_random only.")
    if not replayed:
        problems.append("The game played by its name begins differently. Let the game follow from its name alone.")
    if missing := sorted(set(info) ^ set(stepped)):
        problems.append(f"Some keys of info are there only at reset or only at step: {', '.join(missing)}.")
    if games is None:
        problems.append(
            "It has no `games` (envs.base.GameSource), so seeds take their place, and each episode is its own game."
        )
    if source.world.player is None:
        problems.append("Nobody knows its actions, so there is no random player: give admissible_actions or tools.")
    say("\n" + ("\n".join(problems) if problems else "Nothing to object to."))
    return 0


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """Return an info whose arrays are lists, because Gymnasium cannot compare arrays of texts."""
    return {key: value.tolist() if getattr(value, "dtype", None) is not None else value for key, value in info.items()}


def _listing_problems(info: dict[str, Any]) -> list[str]:
    """Return what is wrong with the list of admissible actions."""
    try:
        admissible_actions(info)
    except InvalidConfigError as error:
        return [str(error)]
    return []
