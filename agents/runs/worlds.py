"""The environments that commands and jobs know: one entry each, and what any registered id is without one."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.spaces import Text
from tqdm import tqdm

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.config.base import EnvConfig, nearest
from rwml_gym.agents.language.instructions import PromptWorld, describe_rules
from rwml_gym.agents.players.base import Agent, MakeEnv
from rwml_gym.agents.players.baselines import NoOpAgent, RandomAgent, TransferAgent
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.agents.seeding import seed_of
from rwml_gym.envs.base import MAX_LISTED, GameSource
from rwml_gym.errors import DependencyNotInstalled, GameNotFoundError, InvalidConfigError, InvalidGameError
from rwml_gym.text import printable
from rwml_gym.transitions import TransitionDataset

__all__ = ["WORLDS", "GameName", "GameSet", "Games", "Source", "World"]

GameName = str | int
"""The name of a game, or the seed of an episode where the environment names no games."""

SEEDS = 2**31


@dataclass(frozen=True)
class World:
    """What commands and jobs know of an environment.

    Attributes:
        title: What tables and model cards call it.
        env_id: Its registered Gymnasium id.
        options: Names of the `EnvConfig` fields that its constructor takes.
        split: The split that is trained on where none is given; `None` where the environment has no splits.
        held_out: For each training split the split whose games are held out. Of other splits, some games are.
        evaluation_split: The split that is evaluated where none is given.
        expert: Whether it takes `expert=True` and then gives `info["expert_action"]`.
        prompt_world: What prompts are a transcript of.
        roles: Whether its answers have message roles (`info["message_role"]`).
        known_info: Whether it takes `known_info=True` and then gives `info["known_info"]`.
        player: Makes the player of recordings and of random actions from a seed; `None` where nobody knows its actions.
        agents: Further agents that play it, by name.
        reference: Agents of `agents` that serve nobody; their score stands beside every result.
    """

    title: str
    env_id: str
    options: tuple[str, ...] = ()
    split: str | None = None
    held_out: Mapping[str, str] = field(default_factory=dict)
    evaluation_split: str | None = None
    expert: bool = False
    prompt_world: PromptWorld = "game"
    roles: bool = False
    known_info: bool = False
    player: Callable[[int], Agent] | None = RandomAgent
    agents: Mapping[str, Callable[[int], Agent]] = field(default_factory=dict)
    reference: tuple[str, ...] = ()


WORLDS: dict[str, World] = {
    "alfworld": World(
        title="ALFWorld",
        env_id="rwml_gym/ALFWorld-v0",
        options=("split", "data", "task_types", "rooms", "difficulty", "grammar"),
        split="generated",
        held_out={"generated": "generated_held_out", "train": "valid_seen"},
        evaluation_split="generated_held_out",
        expert=True,
    ),
    "tau2": World(
        title="τ²-bench",
        env_id="rwml_gym/Tau2-v0",
        options=("split", "domain"),
        split="train",
        held_out={"train": "test"},
        evaluation_split="base",
        prompt_world="service",
        roles=True,
        known_info=True,
        player=RandomCallerAgent,
        agents={
            "random-caller": RandomCallerAgent,
            "no-op": lambda seed: NoOpAgent(),
            "transfer": lambda seed: TransferAgent(),
        },
        reference=("no-op", "transfer"),
    ),
    "toy": World(
        title="the toy house",
        env_id="rwml_gym/ToyHouse-v0",
        options=("split",),
        split="train",
        held_out={"train": "held_out"},
        evaluation_split="held_out",
        expert=True,
    ),
}


@dataclass(frozen=True)
class GameSet:
    """Games and how to play them.

    Attributes:
        make_env: Makes their environment.
        games: Their names.
    """

    make_env: MakeEnv
    games: list[GameName]


@dataclass(frozen=True)
class Games:
    """What is played to train on and what to evaluate on; no game is in both.

    Attributes:
        make_env: Makes the environment of the training games.
        train: Their names, each as often as it is played.
        sets: Held-out games by name: of each split that was asked for, else all of them as `held-out`.
    """

    make_env: MakeEnv
    train: list[GameName]
    sets: Mapping[str, GameSet]

    @property
    def held_out(self) -> list[GameName]:
        """Names of all held-out games."""
        return [game for held_out in self.sets.values() for game in held_out.games]

    @property
    def make_held_out_env(self) -> MakeEnv:
        """Makes the environment of the held-out games, of the first split where there are several."""
        return next(iter(self.sets.values())).make_env

    def rules(self, game: str) -> str:
        """Describe the rules by which an agent plays a game, see `describe_rules`; the errors are those of `info`."""
        return describe_rules(self.info(game))

    def info(self, game: str) -> dict[str, Any]:
        """Return the info with which a game begins.

        Raises:
            GameNotFoundError: If none of the environments has a game of this name.
        """
        for make_env in (self.make_env, *(held_out.make_env for held_out in self.sets.values())):
            with make_env() as env:
                if games_of(env) is None:
                    return env.reset(seed=0)[1]
                with contextlib.suppress(GameNotFoundError):
                    return env.reset(options={"game": game})[1]
        raise GameNotFoundError(
            f"Expected a game of the environment, whose rules or tools the prompt shows, actual: {game!r}. Choose the "
            "environment of the transitions (--env, --domain, --split), or show no rules (--no-show-policy)."
        )


class Source:
    """The environment of a configuration: its world, how to make it, and its games.

    Args:
        config: Which environment.

    Raises:
        InvalidConfigError: If the environment is unknown, is not text, or does not take an option that is set.
        DependencyNotInstalled: If the environment needs a library that is not installed.
    """

    def __init__(self, config: EnvConfig) -> None:
        self.config = config
        self._arguments = config.arguments()
        self.world = WORLDS.get(config.env) or self._registered()
        named = set(self._arguments) & set(EnvConfig.__dataclass_fields__)
        if config.env in WORLDS and (unknown := sorted(named - set(self.world.options))):
            raise InvalidConfigError(
                f"Expected options of the environment {config.env!r}, {', '.join(self.world.options)}, actual: "
                f"{', '.join(unknown)}. Remove {'it' if len(unknown) == 1 else 'them'}."
            )

    def make(self, max_steps: int | None = None, split: str | None = None, **arguments: Any) -> MakeEnv:
        """Return a function that makes the environment.

        Args:
            max_steps: Step budget of an episode; the registered one if absent.
            split: The split where the configuration has none.
            **arguments: Further arguments of the environment.
        """
        given = {**({} if split is None else {"split": split}), **self._arguments, **arguments}
        if max_steps is not None:
            given["max_episode_steps"] = max_steps
        return partial(_make, self.world.env_id, **given)

    def load(self, path: str | Path) -> TransitionDataset:
        """Load recorded transitions of this environment, see `TransitionDataset.load`.

        Those of an environment that is none of `WORLDS` are taken as they are, because its name says nothing.

        Raises:
            InvalidConfigError: They are of another environment.
            InvalidDatasetError: There are none, or they cannot be read.
        """
        found = TransitionDataset.load(path)
        others = {world.env_id: name for name, world in WORLDS.items() if world.env_id != self.world.env_id}
        if wrong := sorted({transition.env_id for transition in found} & set(others)):
            raise InvalidConfigError(
                f"Expected transitions of {self.world.env_id} in {str(path)!r}, actual: of {wrong[0]}. Choose their "
                f"environment (--env {others[wrong[0]]}), or other transitions."
            )
        return found

    def prepare(
        self,
        seed: int,
        games: int,
        held_out_games: int | None,
        max_steps: int,
        rollouts: int = 1,
        *,
        splits: Sequence[str] = (),
        held_out_steps: int | None = None,
        load: bool = True,
        **arguments: Any,
    ) -> Games:
        """Choose the games of a run. Nothing is played yet, so that bad input costs no time.

        Args:
            seed: The run's seed.
            games: Number of training games; 0 for all that are not held out.
            held_out_games: Number of games that are held out, of each split if there are several; `None` for all of
                them.
            max_steps: Step budget of an episode.
            rollouts: How often each training game is listed.
            splits: Splits whose games are held out; the counterpart of the training split if absent, or else a part of
                the training split.
            held_out_steps: Step budget of an episode with a held-out game; `max_steps` if absent.
            load: Whether to load the chosen games, so that unplayable ones are passed over.
            **arguments: Further arguments of the environment.
        """
        seed = seed_of(seed, "games")
        make = self.make(max_steps, self.world.split, **arguments)
        make_held_out = partial(make, max_episode_steps=held_out_steps or max_steps)
        other = self.held_out_split
        counterparts = {name: name for name in splits} if splits else {} if other is None else {"held-out": other}
        sets: dict[str, GameSet] = {}
        with make() as env:
            if not games:
                _check_end(env, "training")
            if counterparts:
                train = choose_games(env, games or None, seed, load=load)
                for name, split in counterparts.items():
                    make_split = partial(make_held_out, split=split)
                    with make_split() as held_out_env:
                        if held_out_games is None:
                            _check_end(held_out_env, "held-out")
                        sets[name] = GameSet(make_split, choose_games(held_out_env, held_out_games, seed, load=load))
            elif held_out_games is None:
                raise InvalidConfigError(
                    f"Expected a number of held-out games, actual: all. {self.world.title} has no split to hold out "
                    "for this one: give a number (--evaluation.games), or splits (--evaluation.splits)."
                )
            else:
                chosen = choose_games(env, games + held_out_games if games else None, seed, load=load)
                if held_out_games >= len(chosen):
                    raise InvalidConfigError(
                        f"Expected games to train on, actual: {held_out_games} of {len(chosen)} are held out. Hold out "
                        "fewer (--collect.held-out-games, --evaluation.games)."
                    )
                train = chosen[: len(chosen) - held_out_games]
                sets["held-out"] = GameSet(make_held_out, chosen[len(train) :])
        result = Games(make, [game for game in train for _ in range(rollouts)], sets)
        if both := set(train) & set(result.held_out):
            raise InvalidConfigError(
                f"Expected no game both in training and held out, actual: {sorted(map(str, both))}."
            )
        return result

    @property
    def held_out_split(self) -> str | None:
        """The split whose games are all held out; `None` where some games of the training split are."""
        return self.world.held_out.get(self._arguments.get("split", self.world.split))

    @property
    def expert_arguments(self) -> dict[str, Any]:
        """What asks the environment for its expert; nothing where its info has the advice anyway."""
        return {"expert": True} if self.config.env in WORLDS else {}

    @property
    def known_arguments(self) -> dict[str, Any]:
        """What asks the environment for what the simulated user knows, for world models; nothing where it has none."""
        return {"known_info": True} if self.world.known_info and "known_info" not in self._arguments else {}

    def player(self, seed: int) -> Agent:
        """Make the random player of this environment, whose info must say which actions there are."""
        if self.world.player is None:
            raise InvalidConfigError(
                'Expected info["admissible_actions"] or info["tools"] for a random player, actual: neither in '
                f"{self.world.env_id}. Add one of them, or play with an agent of your own "
                "(`rwml-gym check-env` says what each key of info gives)."
            )
        return self.world.player(seed)

    def explorer(self, seed: int) -> Agent | None:
        """Who plays random actions beside a language model; `None` where they are drawn from the admissible ones."""
        return None if self.world.player in (None, RandomAgent) else self.player(seed)

    def _registered(self) -> World:
        """Find out from one reset what a registered id is, so that bad input shows before any work."""
        name = self.config.env
        try:
            env = _make(name, **self._arguments)
        except (gym.error.Error, ModuleNotFoundError) as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name not in (None, name.partition(":")[0])
            if missing or isinstance(error, DependencyNotInstalled):  # the id is known, but it needs a library
                raise
            ids = [key for key in gym.registry if key.startswith("rwml_gym/")]
            raise InvalidConfigError(
                f"Expected env among {list(WORLDS)} or a registered Gymnasium id (module:Id-v0), actual: {name!r} "
                f"({error}).{nearest(name, [*WORLDS, *ids])}"
            ) from error
        with env:
            observation, info = env.reset(seed=0)
            if not isinstance(observation, str) or not isinstance(env.action_space, Text):
                raise InvalidConfigError(
                    f"Expected text observations and actions of {name}, actual: {env.observation_space} and "
                    f"{env.action_space}. Register an id that wraps it in gymnasium.wrappers.TransformObservation and "
                    "TransformAction, which put them into words."
                )
        tools, admissible = bool(info.get("tools")), "admissible_actions" in info
        return World(
            title=name.rpartition(":")[2],
            env_id=name,
            expert="expert_action" in info,
            prompt_world="service" if tools else "game",
            roles="message_role" in info,
            player=RandomCallerAgent if tools else RandomAgent if admissible else None,
            agents={"random-caller": RandomCallerAgent} if tools else {},
        )


def _make(env_id: str, **arguments: Any) -> gym.Env[str, str]:
    """Make an environment; an unknown argument is an `InvalidConfigError`."""
    try:
        return gym.make(env_id, disable_env_checker=True, **arguments)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        reason = str(error).partition(" was raised from")[0]
        raise InvalidConfigError(
            f"Expected arguments that {env_id} takes, actual: {arguments} ({reason}). Change --env-arguments."
        ) from error


def games_of(env: gym.Env[str, str]) -> GameSource[Any] | None:
    """Return the games of an environment; `None` if it names none, whatever its attribute `games` may be."""
    games = getattr(env.unwrapped, "games", None)
    return games if hasattr(games, "names") and hasattr(games, "load") else None


def choose_games(
    env: gym.Env[str, str],
    count: int | None,
    seed: int,
    exclude: Collection[GameName] = (),
    *,
    load: bool = True,
) -> list[GameName]:
    """Choose distinct games of an environment, in random order; unplayable ones are named and passed over.

    Where the environment names no games, seeds take their place.

    Args:
        env: The environment.
        count: Number of games; it is an error if there are fewer. `None` for all that are playable, of games that have
            an end.
        seed: Seed of the choice.
        exclude: Games that are not chosen.
        load: Whether to load each game; otherwise all count as playable.
    """
    if count == 0:
        return []
    games = games_of(env)
    rng = random.Random(seed)
    if games is None:
        assert count is not None
        seeds: list[GameName] = [n for n in rng.sample(range(SEEDS), count + len(exclude)) if n not in exclude]
        return seeds[:count]
    available = len(games.names)
    drawn = available if count is None else min(available, 2 * count + len(exclude) + 100)
    chosen: list[GameName] = []
    # Positions, because there are billions of generated games; some spare ones, because files can be corrupt.
    for position in rng.sample(range(available), drawn):
        name = games.names[position]
        if name in exclude:
            continue
        try:
            if load:
                games.load(name)
        except InvalidGameError as error:
            tqdm.write(printable(f"Left out: {error}"))
            continue
        chosen.append(name)
        if len(chosen) == count:
            return chosen
    if count is None:
        return chosen
    raise InvalidConfigError(
        f"Expected {count} playable games, actual: {len(chosen)}. Ask for fewer (--games; in trainings "
        "--collect.games, --stage.games and --evaluation.games), or allow more (--split, --task-types, "
        "--env-arguments)."
    )


def first_games(env: gym.Env[str, str], count: int | None, default: int = 100) -> list[GameName]:
    """List the first `count` games of an environment; if absent all, or `default` of games without end."""
    games = games_of(env)
    if games is None:
        seeds: list[GameName] = [*range(count or default)]
        return seeds
    names: Sequence[str] = games.names
    return list(names[: count or (default if len(names) > MAX_LISTED else len(names))])


def _check_end(env: gym.Env[str, str], what: str) -> None:
    """Check that all games of an environment may be asked for."""
    games = games_of(env)
    if games is None or len(games.names) > MAX_LISTED:
        raise InvalidConfigError(f"Expected a number of {what} games, actual: all. These games have no end: give one.")
