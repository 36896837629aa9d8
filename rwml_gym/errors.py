"""The errors of this package; each message names the fix."""

from __future__ import annotations

import re

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
    "InvalidTypeError",
    "ModelNotFoundError",
    "PromptTooLongError",
    "RWMLGymError",
    "StorageError",
    "TextTooLongError",
    "TrainingDivergedError",
    "UnsolvableGameError",
    "UnsupportedRenderModeError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerTimeoutError",
    "WorldModelError",
]


_TWO_STOPS = re.compile(r"(?<=[^\s.])\.\.(?=\s|$)")


class RWMLGymError(Exception):
    """Base class of all errors that this package raises on purpose."""

    def __str__(self) -> str:
        """Return the message; a sentence that quotes another error's ends in one full stop."""
        return _TWO_STOPS.sub(".", super().__str__())


class InvalidConfigError(RWMLGymError, ValueError):
    """An argument or configuration value is not allowed (an unknown split, task type, mode …)."""


class InvalidTypeError(InvalidConfigError, TypeError):
    """An argument has a type that is not allowed, where Gymnasium or its users expect a `TypeError`."""


class UnsupportedRenderModeError(InvalidConfigError, TypeError):
    """An environment has no such render mode.

    It is a `TypeError` too, after which Stable-Baselines3's `make_vec_env` tries again without a mode.
    """


class GameNotFoundError(RWMLGymError, FileNotFoundError):
    """There is no game data in the given place."""


class InvalidGameError(RWMLGymError, ValueError):
    """A game file is corrupt, or its game cannot be solved."""


class UnsolvableGameError(InvalidGameError):
    """A game cannot be solved; orders and draws of games leave it out."""


class ModelNotFoundError(RWMLGymError, OSError):
    """A language model or adapter cannot be loaded."""


class UnsupportedModelError(RWMLGymError, ValueError):
    """A language model can be loaded, and its architecture cannot be computed correctly."""


class HubError(RWMLGymError, OSError):
    """A model hub cannot be reached, or refuses an upload."""


class EncoderNotFoundError(RWMLGymError, OSError):
    """A text encoder cannot be loaded."""


class EncoderError(RWMLGymError, ValueError):
    """An encoder fails, or does not return one row of finite numbers per text."""


class WorldModelError(RWMLGymError, ValueError):
    """A world model fails, or does not return one prediction per action."""


class InvalidObservationError(RWMLGymError, ValueError):
    """An observation is not in the environment's space, or its description is not text."""


class ConfigMismatchError(RWMLGymError, ValueError):
    """A run folder belongs to a run with another configuration."""


class StorageError(RWMLGymError, OSError):
    """Results cannot be written, such as on a full disk."""


class CheckpointError(RWMLGymError, OSError):
    """A checkpoint or adapter cannot be written, or the one to resume from is damaged."""


class TrainingDivergedError(RWMLGymError, ArithmeticError):
    """The loss or gradient of a step is not finite, and no checkpoint contains its update; or weights are not."""


class PromptTooLongError(RWMLGymError, ValueError):
    """What a prompt must hold is longer than its token limit, even without any data that could be left out."""


class TextTooLongError(RWMLGymError, ValueError):
    """A text is longer than its space allows, so it does not fit into the shared memory."""


class WorkerError(RWMLGymError):
    """A call failed in a worker process; the message holds the worker's traceback.

    If the environment's exception can be pickled, it is raised again with this error as its ``__cause__``.

    Attributes:
        worker: Index of the worker.
        slots: The environments that the worker runs.
    """

    def __init__(self, message: str, worker: int = -1, slots: range = range(0)) -> None:
        super().__init__(message)
        self.worker = worker
        self.slots = slots


class WorkerDiedError(WorkerError):
    """A worker process ended: it was killed, crashed, or called `sys.exit`.

    Attributes:
        exitcode: Its exit status, or minus the number of the signal that ended it; None if it still runs.
    """

    def __init__(self, message: str, worker: int = -1, slots: range = range(0), exitcode: int | None = None) -> None:
        super().__init__(message, worker, slots)
        self.exitcode = exitcode


class WorkerTimeoutError(WorkerError, TimeoutError):
    """A worker process did not answer in time."""
