"""Learning-rate schedules: factors by step number from 0, as pure functions, so that a restart needs no state."""

from __future__ import annotations

from collections.abc import Callable

from rwml_gym.errors import InvalidConfigError

__all__ = ["Schedule", "constant_with_warmup", "linear_to", "warmup_linear"]

Schedule = Callable[[int], float]


def constant_with_warmup(warmup: int) -> Schedule:
    """Return a factor that rises linearly over `warmup` steps, then stays at 1.

    It is one step ahead of transformers' schedule of this name, whose first step has a learning rate of 0.

    Args:
        warmup: Number of warm-up steps, the last of which has factor 1; 0 for none.
    """
    if warmup < 0:
        raise InvalidConfigError(f"Expected `warmup` of at least 0 steps, actual: {warmup}.")

    def factor(number: int) -> float:
        return min(1.0, (number + 1) / max(1, warmup))

    return factor


def warmup_linear(warmup: int, steps: int) -> Schedule:
    """Return a factor that rises linearly over `warmup` steps, then falls linearly to 0 right after the last step.

    After the warm-up it equals transformers' `get_linear_schedule_with_warmup`.

    Args:
        warmup: Number of warm-up steps, below `steps`; 0 for none.
        steps: Number of all steps.
    """
    rise = constant_with_warmup(warmup)
    if warmup >= steps:
        raise InvalidConfigError(f"Expected `warmup` below the {steps} steps of the run, actual: {warmup}.")

    def factor(number: int) -> float:
        return rise(number) if number < warmup else max(0.0, (steps - number) / (steps - warmup))

    return factor


def linear_to(share: float, warmup: int, steps: int) -> Schedule:
    """Return a factor that rises linearly over `warmup` steps, then falls linearly to `share` at the last step.

    Args:
        share: Factor of the last step; 1 for a constant rate after the warm-up.
        warmup: Number of warm-up steps; 0 for none.
        steps: Number of all steps.
    """
    rise = constant_with_warmup(warmup)

    def factor(number: int) -> float:
        done = max(0, number + 1 - warmup) / max(1, steps - warmup)
        return rise(number) * (1 - (1 - share) * min(1.0, done))

    return factor
