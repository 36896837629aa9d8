"""The two loops of an evaluation: players one episode at a time, in threads, and agents many episodes in one batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Protocol

import gymnasium as gym

from rwml_gym.agents.evaluation.panel import Place
from rwml_gym.agents.evaluation.recorder import EpisodeRecorder
from rwml_gym.agents.players.base import Agent, MakeEnv, Move, Player, WritingAgent
from rwml_gym.agents.players.endpoint import BudgetSpentError, EndpointRefusedError
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec, roll_out
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord
from rwml_gym.errors import StorageError
from rwml_gym.reward.tags import CLOSE_TAG, OPEN_TAG, split_prediction

__all__ = ["MakePlayer", "Record", "play_batch", "play_players"]

MakePlayer = Callable[[int], Player]
"""Makes the player of an episode from its seed."""


class Record(Protocol):
    """Where steps and episodes go."""

    def step(self, record: StepRecord) -> None:
        """Take a step."""
        ...

    def end(self, record: EpisodeRecord) -> None:
        """Take an episode, after its steps."""
        ...


def play_players(
    make_env: MakeEnv,
    make_player: MakePlayer,
    places: Sequence[Place],
    record: Record,
    concurrency: int = 1,
    scored: bool = False,
) -> None:
    """Play each episode with a player of its own.

    Args:
        make_env: Makes the environment; each thread has one.
        make_player: Makes the players.
        places: The episodes, which begin in this order.
        record: Where steps and episodes go.
        concurrency: Number of threads; with 1 everything happens in this one.
        scored: Whether the environment takes predictions out of actions, as a reward wrapper does.

    Raises:
        BudgetSpentError: If the agent's budget is spent. Episodes that were not finished are not recorded.
        EndpointRefusedError: If the agent's server refuses every call; the same holds.
        StorageError: If a record cannot be written.
    """
    waiting: queue.SimpleQueue[Place] = queue.SimpleQueue()
    for place in places:
        waiting.put(place)
    worker = _Worker(make_env, make_player, record, waiting, scored)
    count = min(concurrency, len(places))
    if count <= 1:
        worker.run()
    else:
        threads = [threading.Thread(target=worker.run, daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # in pieces, so that Ctrl-C is heard
                    thread.join(0.2)
        finally:
            worker.stop.set()
    if worker.failure is not None:
        raise worker.failure


class _Worker:
    """What the threads of `play_players` share."""

    def __init__(
        self,
        make_env: MakeEnv,
        make_player: MakePlayer,
        record: Record,
        waiting: queue.SimpleQueue[Place],
        scored: bool,
    ) -> None:
        self._scored = scored
        self._make_env, self._make_player, self._record, self._waiting = make_env, make_player, record, waiting
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Play episodes until none is left."""
        env: gym.Env[str, str] | None = None
        try:
            while not self.stop.is_set():
                try:
                    place = self._waiting.get_nowait()
                except queue.Empty:
                    return
                env = self._play(env or self._make_env(), place)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # told by the thread that waits for all
            self.failure = self.failure or error
            self.stop.set()
        finally:
            if env is not None:
                env.close()

    def _play(self, env: gym.Env[str, str], place: Place) -> gym.Env[str, str] | None:
        """Play an episode; return the environment if it can be used again."""
        recorder, at, failed = EpisodeRecorder(place, self._record.step), perf_counter(), "agent"
        try:
            player = self._make_player(place.seed)
            failed = "environment"
            if isinstance(place.game, str):
                observation, info = env.reset(options={"game": place.game})
            else:
                observation, info = env.reset(seed=place.game)
            recorder.begin(observation, info)
            over = False
            while not over:
                failed = "agent"
                move = player.move(observation, info)
                if self.stop.is_set():
                    return env  # the episode is not finished
                failed = "environment"
                observation, reward, terminated, truncated, info = env.step(
                    _tagged(move) if self._scored else move.action
                )
                now = perf_counter()
                recorder.take(move, observation, float(reward), terminated, truncated, info, now - at)
                at, over = now, terminated or truncated
        except (BudgetSpentError, EndpointRefusedError, StorageError):  # neither agent nor environment has failed
            raise
        except (Exception, SystemExit) as error:  # an agent that exits has failed; it must not end the evaluation
            self._record.end(recorder.end(f"{type(error).__name__}: {error}", failed))
            if failed == "agent":
                return env
            with suppress(Exception):  # it has failed already, which is recorded
                env.close()
            return None
        self._record.end(recorder.end())
        return env


def play_batch(make_env: MakeEnv, agent: Agent, places: Sequence[Place], record: Record, slots: int = 16) -> None:
    """Play all episodes with one agent, many side by side.

    Args:
        make_env: Makes the environment; each slot has one.
        agent: The agent. Where it fails, the episodes that are running are recorded as failed.
        places: The episodes.
        record: Where steps and episodes go.
        slots: Episodes side by side.
    """
    watcher = _Watcher(agent, places, record)
    roll_out(
        make_env,
        agent,
        [EpisodeSpec(place.game, place.seed) for place in places],
        slots,
        on_error="drop",
        on_agent_error="drop",
        ended=watcher.ended,
        watcher=watcher,
    )


class _Watcher:
    """Records the episodes of a batch."""

    def __init__(self, agent: Agent, places: Sequence[Place], record: Record) -> None:
        self._agent, self._record = agent, record
        self._recorders = [EpisodeRecorder(place, record.step) for place in places]

    def began(self, number: int, observation: str, info: dict[str, Any]) -> None:
        self._recorders[number].begin(observation, info)

    def stepped(
        self, number: int, slot: int, action: str, answer: tuple[str, float, bool, bool, dict[str, Any]], seconds: float
    ) -> None:
        self._recorders[number].take(self._move(slot, action), *answer, seconds)

    def ended(self, number: int, env: gym.Env[str, str], episode: Episode) -> None:
        self._record.end(self._recorders[number].end(episode.error, episode.failed))

    def _move(self, slot: int, text: str) -> Move:
        if isinstance(self._agent, WritingAgent):
            return self._agent.last_move(slot)
        return Move(*split_prediction(text))


def _tagged(move: Move) -> str:
    """Return the action with its prediction between tags, if there is one."""
    return move.action if move.prediction is None else f"{move.action} {OPEN_TAG}{move.prediction}{CLOSE_TAG}"
