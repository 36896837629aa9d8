"""The errors of this package: typed, few, each message naming the fix."""

from __future__ import annotations

from gymnasium.error import DependencyNotInstalled

__all__ = [
    "ConfigMismatchError",
    "DependencyNotInstalled",
    "EncoderNotFoundError",
    "GameNotFoundError",
    "InvalidConfigError",
    "InvalidGameError",
    "ModelNotFoundError",
    "RWMLGymError",
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


class EncoderNotFoundError(RWMLGymError, OSError):
    """A text encoder cannot be loaded."""


class ConfigMismatchError(RWMLGymError, ValueError):
    """A run folder belongs to a run of another configuration."""
