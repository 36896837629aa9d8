"""Rollouts: episodes in parallel slots, where a failing environment is recorded data and not a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import gymnasium as gym

from rwml_gym.agents.players.base import Agent, MakeEnv, WritingAgent
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import EPISODE, Transition, TransitionDataset
from rwml_gym.wrappers import RecordTransitions

if TYPE_CHECKING:  # imports torch, which agents without a model do not need
    from rwml_gym.agents.players.language_model import TurnRecord

__all__ = ["Episode", "EpisodeSpec", "OnError", "Watcher", "collect", "roll_out"]

OnError = Literal["raise", "drop"]


@dataclass(frozen=True)
class EpisodeSpec:
    """An episode to play.

    Attributes:
        game: Name of the game, for `reset(options={"game": name})`, or a seed for `reset(seed=…)`.
        seed: Seed of a language model's sampling; the agent chooses it if absent.
    """

    game: str | int
    seed: int | None = None


@dataclass
class Episode:
    """An episode that was played to its end, or until its environment failed.

    Attributes:
        spec: The episode that was requested.
        rewards: Reward of each step.
        gap_rewards: Reward of `WorldModelRewardWrapper` at each step; empty without the wrapper.
        observations: The world's answer to each action.
        roles: The message role of each answer (`info["message_role"]`); "" where there are none.
        invalid: Whether the environment rejected the action of each step.
        info: The last info.
        written: Prompts and completions of a language-model agent, turn by turn; empty for other agents.
        error: The exception that ended the episode, `None` if neither environment nor agent failed.
        failed: Who failed, `environment` or `agent`; empty if neither did.
    """

    spec: EpisodeSpec
    rewards: list[float] = field(default_factory=list)
    gap_rewards: list[float] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    invalid: list[bool] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    written: list[TurnRecord] = field(default_factory=list)
    error: str | None = None
    failed: str = ""

    @property
    def won(self) -> bool:
        """Whether the task was solved."""
        return self.error is None and bool(self.info.get("won"))

    @property
    def judged(self) -> bool:
        """Whether the environment says if the task was solved (`info["won"]`)."""
        return "won" in self.info

    @property
    def reward(self) -> float:
        """Sum of the rewards."""
        return sum(self.rewards)

    @property
    def steps(self) -> int:
        """Number of actions."""
        return len(self.rewards)

    @property
    def game(self) -> str:
        """Name of the game, or the seed: what `reset` took, whatever the environment calls it."""
        return str(self.spec.game)

    @property
    def task_type(self) -> str:
        """Task type of the game, or its domain; empty if the environment reports neither."""
        return str(self.info.get("task_type") or self.info.get("domain") or "")

    @property
    def data_version(self) -> str:
        """Version of the game's data."""
        return str(self.info.get("data_version") or "")


class Watcher(Protocol):
    """Is told what happens in a rollout, as it happens."""

    def began(self, number: int, observation: str, info: dict[str, Any]) -> None:
        """Take note that episode `number` starts with an observation."""
        ...

    def stepped(
        self, number: int, slot: int, action: str, answer: tuple[str, float, bool, bool, dict[str, Any]], seconds: float
    ) -> None:
        """Take note of an action of episode `number`.

        Args:
            number: The episode.
            slot: Its slot.
            action: What the agent wrote.
            answer: What `step` returned.
            seconds: Time of the environment, and this episode's share of the time of the agent.
        """
        ...


def roll_out(
    make_env: MakeEnv,
    agent: Agent,
    specs: Sequence[EpisodeSpec],
    slots: int = 16,
    *,
    on_error: OnError = "raise",
    on_agent_error: OnError = "raise",
    progress: Callable[[int], None] | None = None,
    ended: Callable[[int, gym.Env[str, str], Episode], None] | None = None,
    watcher: Watcher | None = None,
) -> list[Episode]:
    """Play episodes in parallel slots and return them in the order of `specs`.

    Args:
        make_env: Makes a text environment with its step budget.
        agent: The agent. `reset` tells it which slots start a new episode; the observation of an idle slot is `None`.
        specs: The episodes to play.
        slots: Maximal number of episodes in parallel; the next episode starts in a slot that is free.
        on_error: Reaction to an exception of an environment: `raise` it, or `drop` the episode, which is returned with
            its `error`, and make a new environment.
        on_agent_error: The same for an exception of the agent: all episodes that are running are dropped.
        progress: Called with 1 for each episode that ends.
        ended: Called with an ended episode's number, its environment, before that is used again, and the episode.
        watcher: Is told of every step.
    """
    for name, value in (("on_error", on_error), ("on_agent_error", on_agent_error)):
        if value not in get_args(OnError):
            raise InvalidConfigError(f"Expected `{name}` among {list(get_args(OnError))}, actual: {value!r}.")
    if slots < 1:
        raise InvalidConfigError(f"Expected `slots` of at least 1, actual: {slots}.")
    envs: list[gym.Env[str, str]] = []
    try:
        envs += [make_env() for _ in range(min(slots, len(specs)))]
        run = _Slots(make_env, agent, specs, envs, on_error, on_agent_error, watcher)
        with agent.playing() if isinstance(agent, WritingAgent) else nullcontext():
            while run.fill():
                for number, slot in run.step():
                    if ended is not None:
                        ended(number, envs[slot], run.played[number])
                    if progress is not None:
                        progress(1)
        return run.played
    finally:
        for env in envs:
            env.close()


class _Slots:
    """The slots of a rollout and their episodes. The caller owns and closes `envs`."""

    def __init__(
        self,
        make_env: MakeEnv,
        agent: Agent,
        specs: Sequence[EpisodeSpec],
        envs: list[gym.Env[str, str]],
        on_error: OnError,
        on_agent_error: OnError,
        watcher: Watcher | None,
    ) -> None:
        self.on_agent_error, self.watcher = on_agent_error, watcher
        self.make_env, self.agent, self.specs, self.envs, self.on_error = make_env, agent, specs, envs, on_error
        self.played = [Episode(spec) for spec in specs]
        self.episodes: list[int | None] = [None] * len(envs)
        self.observations: list[str | None] = [None] * len(envs)
        self.infos: list[dict[str, Any]] = [{} for _ in envs]
        self.next = 0
        self.failed: list[tuple[int, int]] = []

    def fill(self) -> bool:
        """Start episodes in the free slots; return whether any episode is running or has just failed."""
        first, started = self.next == 0, [False] * len(self.envs)
        for slot, episode in enumerate(self.episodes):
            while episode is None and self.next < len(self.specs):
                number, self.next = self.next, self.next + 1
                if self._start(slot, self.specs[number], number):
                    self.episodes[slot] = episode = number
                    started[slot] = True
        if first or any(started):
            self._tell_agent(started if not first else [True] * len(started))
        return any(episode is not None for episode in self.episodes) or bool(self.failed)

    def step(self) -> list[tuple[int, int]]:
        """Play one action in each busy slot; return the numbers and slots of the episodes that ended."""
        over, self.failed = self.failed, []
        playing = [slot for slot, episode in enumerate(self.episodes) if episode is not None]
        began = perf_counter()
        try:
            actions = self.agent.act(self.observations, self.infos) if playing else []
        except Exception as error:
            if self.on_agent_error == "raise":
                raise
            return over + self._drop(playing, error)
        waited = (perf_counter() - began) / max(len(playing), 1)
        for slot in playing:
            number = self.episodes[slot]
            assert number is not None
            if self._take(slot, number, actions[slot], waited):
                if isinstance(self.agent, WritingAgent):
                    self.played[number].written = self.agent.written(slot)
                self.episodes[slot] = self.observations[slot] = None
                over.append((number, slot))
        return over

    def _tell_agent(self, started: list[bool]) -> None:
        numbers = [self.episodes[slot] if new else None for slot, new in enumerate(started)]
        seeds = [None if number is None else self.specs[number].seed for number in numbers]
        if isinstance(self.agent, WritingAgent):
            self.agent.reset(started, seeds)
        else:
            self.agent.reset(started)

    def _start(self, slot: int, spec: EpisodeSpec, number: int) -> bool:
        env = self.envs[slot]
        try:
            if isinstance(spec.game, str):
                self.observations[slot], self.infos[slot] = env.reset(options={"game": spec.game})
            else:
                self.observations[slot], self.infos[slot] = env.reset(seed=int(spec.game))
        except Exception as error:
            self._fail(slot, self.played[number], error)
            self.failed.append((number, slot))
            return False
        self.played[number].info = self.infos[slot]
        if self.watcher is not None:
            self.watcher.began(number, str(self.observations[slot]), self.infos[slot])
        return True

    def _drop(self, playing: Sequence[int], error: Exception) -> list[tuple[int, int]]:
        """End the episodes of these slots, whose agent has failed; return their numbers and slots."""
        dropped = []
        for slot in playing:
            number = self.episodes[slot]
            assert number is not None
            self.played[number].error = f"{type(error).__name__}: {error}"
            self.played[number].failed = "agent"
            self.episodes[slot] = self.observations[slot] = None
            dropped.append((number, slot))
        return dropped

    def _take(self, slot: int, number: int, action: str, waited: float) -> bool:
        """Step the environment of a slot; return whether its episode is over."""
        played, began = self.played[number], perf_counter()
        try:
            observation, reward, terminated, truncated, info = self.envs[slot].step(action)
        except Exception as error:
            self._fail(slot, played, error)
            return True
        self.observations[slot], self.infos[slot], played.info = observation, info, info
        played.rewards.append(float(reward))
        played.observations.append(observation)
        played.roles.append(str(info.get("message_role") or ""))
        played.invalid.append(bool(info.get("invalid_action", False)))
        if "world_model" in info:
            played.gap_rewards.append(float(info["world_model"]["reward"]))
        if self.watcher is not None:
            answer = (observation, float(reward), terminated, truncated, info)
            self.watcher.stepped(number, slot, action, answer, waited + perf_counter() - began)
        return terminated or truncated

    def _fail(self, slot: int, played: Episode, error: Exception) -> None:
        if self.on_error == "raise":
            raise error
        played.error, played.failed = f"{type(error).__name__}: {error}", "environment"
        try:
            self.envs[slot].close()
        except Exception as second:
            played.error += f" (closing the environment failed too, {type(second).__name__}: {second})"
        self.envs[slot] = self.make_env()


def collect(
    make_env: MakeEnv,
    agent: Agent,
    games: Sequence[str | int],
    history: int = 4,
    slots: int = 16,
    progress: Callable[[int], None] | None = None,
    *,
    first: int = 0,
    seeds: Sequence[int] | None = None,
    keep: Callable[[list[Transition]], None] | None = None,
) -> TransitionDataset:
    """Play one episode per game and return the transitions in the order of `games`: step 1 of RWML.

    Args:
        make_env: Makes a text environment with its step budget.
        agent: The agent, which plays all slots in one batch.
        games: At least one name of a game or seed, see `EpisodeSpec`; episodes are numbered in this order.
        history: Window H of the transitions.
        slots: Maximal number of episodes in parallel.
        progress: Called with 1 for each episode that ends.
        first: Number of the first episode.
        seeds: Seeds of a language model's episodes, one per game; the agent chooses them if absent.
        keep: Called with the transitions of each episode that ends.
    """
    if not games:
        raise InvalidConfigError("Expected at least one game to play, actual: none. Add names or seeds to `games`.")
    episodes: list[list[Transition]] = [[] for _ in games]
    seen: dict[int, int] = {}  # number of transitions already taken from an environment

    def record(number: int, env: gym.Env[str, str], played: Episode) -> None:
        new = env.transitions[seen.get(id(env), 0) :]  # type: ignore[attr-defined]
        seen[id(env)] = seen.get(id(env), 0) + len(new)
        named = f"{EPISODE}{first + number}"
        episodes[number] = [
            replace(t, episode=first + number, game=named if t.game == f"{EPISODE}{t.episode}" else t.game) for t in new
        ]
        if keep is not None:
            keep(episodes[number])

    specs = [EpisodeSpec(game, None if seeds is None else seeds[i]) for i, game in enumerate(games)]
    roll_out(lambda: RecordTransitions(make_env(), history), agent, specs, slots, progress=progress, ended=record)
    return TransitionDataset(transition for episode in episodes for transition in episode)
