"""Worker processes that each run a share of the slots of a vector environment."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import CloudpickleWrapper, clear_mpi_env_vars

from rwml_gym.errors import WorkerDiedError, WorkerError, WorkerTimeoutError
from rwml_gym.vector.slots import EnvFactory, Slots, SlotsDescription, require_same_space

__all__ = ["Workers"]

SECONDS_TO_CLOSE = 10.0
SECONDS_TO_TERMINATE = 2.0
# When a worker ends, its end of the pipe closes and the parent sees it at once, unless a child of the worker holds it.
SECONDS_BETWEEN_CHECKS = 1.0
PROTOCOL = pickle.HIGHEST_PROTOCOL
MAKE_ANOTHER = "Call close() and make another vector environment."


@dataclass
class Worker:
    """A worker process, as the parent sees it."""

    index: int
    slots: range
    process: BaseProcess
    connection: Connection

    @property
    def share(self) -> slice:
        """The part of a list with one element per slot that belongs to this worker."""
        return slice(self.slots.start, self.slots.stop)

    def __str__(self) -> str:
        slots = f"slots {self.slots[0]} to {self.slots[-1]}" if len(self.slots) > 1 else f"slot {self.slots[0]}"
        return f"Worker {self.index} ({slots}, process {self.process.pid})"


@dataclass
class Failure:
    """An exception on its way to the parent."""

    pickled: bytes | None
    traceback: str


class Workers:
    """Worker processes that run `Slots`, and the calls to them: one message per worker and call.

    Every call waits for all workers, even if one fails, so that no answer is left in a pipe for the next call. After
    the death of a worker, a timeout or an interruption, only `close` may be called, which then only ends the workers.
    """

    def __init__(
        self,
        env_fns: Sequence[EnvFactory],
        autoreset_mode: AutoresetMode,
        number: int,
        context: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Start the processes, which make the environments at the same time.

        Args:
            env_fns: Make one environment each.
            autoreset_mode: What follows the end of an episode.
            number: Number of processes; the slots are spread evenly, in order.
            context: Start method of the processes: ``fork``, ``spawn`` or ``forkserver``; Python's default if None.
            timeout: Seconds after which a worker without an answer counts as hung; None for no limit.
        """
        ctx: Any = multiprocessing.get_context(context)
        self.timeout = timeout
        self._broken: WorkerError | None = None
        self._workers: list[Worker] = []
        self._finalizer = weakref.finalize(self, _end, self._workers, os.getpid())
        bounds = [len(env_fns) * index // number for index in range(number + 1)]
        try:
            with clear_mpi_env_vars():
                for index, slots in enumerate(map(range, bounds, bounds[1:])):
                    ours, theirs = ctx.Pipe()
                    made = CloudpickleWrapper(env_fns[slots.start : slots.stop])  # type: ignore[arg-type] # any object
                    arguments = (theirs, ours, made, autoreset_mode, slots.start)
                    process = ctx.Process(target=_work, name=f"TextVectorEnv-{index}", args=arguments, daemon=True)
                    process.start()
                    theirs.close()  # otherwise this end stays open when the worker dies
                    self._workers.append(Worker(index, slots, process, ours))
            self.description = self._agreed(self._results(self._receive_all(deadline=None)))
        except BaseException:
            self._finalizer()
            raise

    def run(self, method: str, arguments: Callable[[slice], tuple[Any, ...]]) -> list[Any]:
        """Call a method of `Slots` in all workers, and return one result per worker.

        Args:
            method: Name of the method.
            arguments: Returns the arguments for the slots of a slice.

        Raises:
            WorkerDiedError: If a worker has died.
            WorkerTimeoutError: If a worker does not answer in time.
            Exception: What an environment raised, from a `WorkerError` with the worker's traceback. If the exception
                cannot be pickled, the `WorkerError` itself.
        """
        if self._broken is not None:
            raise self._broken
        # Pickle everything before sending anything: a failure must not reach only some of the workers.
        messages = [pickle.dumps((method, arguments(worker.share)), PROTOCOL) for worker in self._workers]
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        # Broken until the call succeeds, because anything may interrupt it, most likely a KeyboardInterrupt.
        self._broken = WorkerError(f"Expected all answers, actual: the call was interrupted. {MAKE_ANOTHER}")
        try:
            for worker, message in zip(self._workers, messages, strict=True):
                self._send(worker, message)
            answers = self._receive_all(deadline)
        except WorkerError as error:
            self._broken = error
            raise
        self._broken = None
        return self._results(answers)

    def close(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments and end the processes.

        Args:
            timeout: Seconds to wait for the environments to close, 10 by default.
            terminate: Whether to end the processes at once, without closing the environments.

        Raises:
            WorkerDiedError: If a worker has died. In this case and the next two, the processes are still ended.
            WorkerTimeoutError: If an environment does not close in time.
            Exception: What an environment raised.
        """
        if not self._finalizer.alive:
            return
        answers: list[bytes] = []
        try:
            if not terminate and self._broken is None:
                deadline = time.monotonic() + (SECONDS_TO_CLOSE if timeout is None else timeout)
                for worker in self._workers:
                    self._send(worker, pickle.dumps(("close", ()), PROTOCOL))
                answers = self._receive_all(deadline)
                for worker in self._workers:
                    worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            self._finalizer()
        self._results(answers)

    def _send(self, worker: Worker, message: bytes) -> None:
        try:
            worker.connection.send_bytes(message)
        except OSError:
            raise _died(worker) from None

    def _receive_all(self, deadline: float | None) -> list[bytes]:
        return [self._receive(worker, deadline) for worker in self._workers]

    def _receive(self, worker: Worker, deadline: float | None) -> bytes:
        while not worker.connection.poll(_seconds_to_wait(deadline)):
            if not worker.process.is_alive() and not worker.connection.poll(0):
                raise _died(worker)
            for other in self._workers:  # another worker may die while this one computes
                if other.process.exitcode:
                    raise _died(other)
            if deadline is not None and time.monotonic() >= deadline:
                raise WorkerTimeoutError(
                    f"Expected a timely answer, actual: none from {worker}. {MAKE_ANOTHER}", worker.index, worker.slots
                )
        try:
            return worker.connection.recv_bytes()
        except (EOFError, OSError):
            raise _died(worker) from None

    def _results(self, answers: Sequence[bytes]) -> list[Any]:
        results = [pickle.loads(answer) for answer in answers]
        failures = [
            (worker, result)
            for worker, result in zip(self._workers, results, strict=False)  # killed workers have no answers
            if isinstance(result, Failure)
        ]
        if failures:
            _raise(failures)
        return results

    def _agreed(self, descriptions: Sequence[SlotsDescription]) -> SlotsDescription:
        """Return the description that holds for all slots."""
        first = descriptions[0]
        for worker, description in zip(self._workers, descriptions, strict=True):
            for name in ("observation_space", "action_space"):
                space, expected = getattr(description, name), getattr(first, name)
                require_same_space(name, space, expected, f"slot {worker.slots[0]}")
        return first


def _died(worker: Worker) -> WorkerDiedError:
    worker.process.join(SECONDS_TO_TERMINATE)  # the pipe may close before the process ends
    exitcode = worker.process.exitcode
    if exitcode is None:
        fate = "its pipe is closed but the process still runs"
    elif exitcode < 0:
        fate = f"killed by {signal.Signals(-exitcode).name}"
    else:
        fate = f"exit status {exitcode}"
    return WorkerDiedError(
        f"Expected live workers, actual: {worker} died ({fate}). {MAKE_ANOTHER}", worker.index, worker.slots, exitcode
    )


def _seconds_to_wait(deadline: float | None) -> float:
    if deadline is None:
        return SECONDS_BETWEEN_CHECKS
    return min(SECONDS_BETWEEN_CHECKS, max(0.0, deadline - time.monotonic()))


def _raise(failures: Sequence[tuple[Worker, Failure]]) -> NoReturn:
    """Raise the first failure, with notes on the others."""
    (worker, failure), *others = failures
    origin = WorkerError(f"Expected a result from {worker}, actual:\n{failure.traceback}", worker.index, worker.slots)
    for other_worker, other in others:
        origin.add_note(f"The call also failed in {other_worker}:\n{other.traceback}")
    if failure.pickled is None:
        raise origin
    raise pickle.loads(failure.pickled) from origin


def _end(workers: Sequence[Worker], parent: int) -> None:
    if os.getpid() != parent:  # a fork of the parent inherits this, but does not own the processes
        return
    for worker in workers:
        worker.connection.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(SECONDS_TO_TERMINATE)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()


def _work(
    connection: Connection,
    parents_end: Connection,
    env_fns: Any,
    autoreset_mode: AutoresetMode,
    first: int,
) -> None:
    """Run a worker process: make its environments, then answer calls until it must close."""
    parents_end.close()  # a fork inherits it, and would not notice the end of the parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides what follows
    try:
        slots = Slots(env_fns.fn, autoreset_mode, first)
        answer = pickle.dumps(slots.description, PROTOCOL)
    except Exception as error:
        connection.send_bytes(_failure(error))
        return
    try:
        connection.send_bytes(answer)
        method = ""
        while method != "close":
            message = connection.recv_bytes()
            try:
                method, arguments = pickle.loads(message)
                answer = pickle.dumps(getattr(slots, method)(*arguments), PROTOCOL)
            except Exception as error:
                answer = _failure(error)
            connection.send_bytes(answer)
    except (EOFError, ConnectionError):  # the parent is gone
        slots.close()


def _failure(error: Exception) -> bytes:
    try:
        pickled = pickle.dumps(error, PROTOCOL)
        pickle.loads(pickled)  # some exceptions can be pickled but not unpickled
    except Exception:  # any failure of pickling; the traceback is still sent
        pickled = None
    return pickle.dumps(Failure(pickled, "".join(traceback.format_exception(error))), PROTOCOL)
