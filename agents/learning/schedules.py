"""Learning-rate schedules: factors of the learning rate by step number, pure, so that a restart needs no state."""

from __future__ import annotations

from collections.abc import Callable

from rwml_gym.errors import InvalidConfigError

__all__ = ["Schedule", "constant_with_warmup", "warmup_linear"]

Schedule = Callable[[int], float]


def constant_with_warmup(warmup: int) -> Schedule:
    """Rises linearly over `warmup` steps, then stays at 1.

    Args:
        warmup: Steps; 0 for none. The last of them has factor 1.

    Returns:
        The factor by step number, from 0. It is that of transformers' schedule of this name a step later: theirs
        spends the first step on a learning rate of 0.

    Raises:
        InvalidConfigError: `warmup` is negative.
    """
    if warmup < 0:
        raise InvalidConfigError(f"Expected a warmup of at least 0 steps, actual {warmup}")

    def factor(number: int) -> float:
        return min(1.0, (number + 1) / max(1, warmup))

    return factor


def warmup_linear(warmup: int, steps: int) -> Schedule:
    """Rises linearly over `warmup` steps, then falls linearly towards 0, which it would reach after the last step.

    Args:
        warmup: Steps; 0 for none.
        steps: How many in all.

    Returns:
        The factor by step number, from 0; after the warm-up that of transformers' `get_linear_schedule_with_warmup`.

    Raises:
        InvalidConfigError: `warmup` is negative, or not below `steps`.
    """
    rise = constant_with_warmup(warmup)
    if warmup >= steps:
        raise InvalidConfigError(f"Expected a warmup below the {steps} steps there are, actual {warmup}")

    def factor(number: int) -> float:
        return rise(number) if number < warmup else max(0.0, (steps - number) / (steps - warmup))

    return factor
