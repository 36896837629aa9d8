"""The errors of this package: typed, few, each message naming the fix."""

from __future__ import annotations

from gymnasium.error import DependencyNotInstalled

__all__ = [
    "CheckpointError",
    "ConfigMismatchError",
    "DependencyNotInstalled",
    "EncoderError",
    "EncoderNotFoundError",
    "GameNotFoundError",
    "HubError",
    "InvalidConfigError",
    "InvalidGameError",
    "InvalidObservationError",
    "ModelNotFoundError",
    "RWMLGymError",
    "TextTooLongError",
    "TrainingDivergedError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerTimeoutError",
    "WorldModelError",
]


class RWMLGymError(Exception):
    """Base of all errors raised by this package on purpose."""


class InvalidConfigError(RWMLGymError, ValueError):
    """An argument or configuration value is not among those that work (an unknown split, task type, mode …)."""


class GameNotFoundError(RWMLGymError, FileNotFoundError):
    """No game data where it was looked for."""


class InvalidGameError(RWMLGymError, ValueError):
    """A game file is corrupt, or its game cannot be solved."""


class ModelNotFoundError(RWMLGymError, OSError):
    """A language model or adapter cannot be loaded."""


class HubError(RWMLGymError, OSError):
    """A model hub cannot be reached, or refuses an upload."""


class EncoderNotFoundError(RWMLGymError, OSError):
    """A text encoder cannot be loaded."""


class EncoderError(RWMLGymError, ValueError):
    """An encoder fails, or returns other than one row of finite numbers a text."""


class WorldModelError(RWMLGymError, ValueError):
    """A world model fails, or returns other than one prediction an action."""


class InvalidObservationError(RWMLGymError, ValueError):
    """An observation lies outside of the environment's space, or its description is no text."""


class ConfigMismatchError(RWMLGymError, ValueError):
    """A run folder belongs to a run of another configuration."""


class CheckpointError(RWMLGymError, OSError):
    """A checkpoint or adapter cannot be written, or one to go on from is damaged."""


class TrainingDivergedError(RWMLGymError, ArithmeticError):
    """A step's loss or gradient is not finite; no checkpoint holds its update."""


class TextTooLongError(RWMLGymError, ValueError):
    """A text is longer than its space says, so it does not fit into the memory that processes share."""


class WorkerError(RWMLGymError):
    """A call failed in a worker process; the message holds the worker's traceback.

    Where it can be pickled, what the environment raised is raised again and this is its ``__cause__``.

    Attributes:
        worker: index of the worker.
        slots: the environments it runs.
    """

    def __init__(self, message: str, worker: int = -1, slots: range = range(0)) -> None:
        super().__init__(message)
        self.worker = worker
        self.slots = slots


class WorkerDiedError(WorkerError):
    """A worker process is gone: killed, crashed, or left by `sys.exit`.

    Attributes:
        exitcode: its exit status, minus the number of the signal that ended it, or None if it still runs.
    """

    def __init__(self, message: str, worker: int = -1, slots: range = range(0), exitcode: int | None = None) -> None:
        super().__init__(message, worker, slots)
        self.exitcode = exitcode


class WorkerTimeoutError(WorkerError, TimeoutError):
    """A worker process did not answer in time."""
