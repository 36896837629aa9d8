"""A training loop that continues after kills, full disks and divergence.

It saves no random state, because each step derives its seeds from the run's seed and the step's number.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from tqdm import tqdm

from rwml_gym.agents.learning.checkpoint import Metrics, checkpoints, restore, save
from rwml_gym.agents.learning.memory_plan import release_memory
from rwml_gym.errors import CheckpointError, InvalidConfigError, TrainingDivergedError

__all__ = ["train_loop"]

_MAX_SKIPPED = 5  # in a row; after that the model has diverged for good


def train_loop(
    name: str,
    folder: Path,
    model: PeftModel,
    learning_rate: float,
    steps: int,
    step: Callable[[int, torch.optim.Optimizer], Mapping[str, Any]],
    line: Callable[[Mapping[str, Any]], str],
    checkpoint_every: int,
    prepare: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: optimizer,
    *,
    schedule: Callable[[int], float] | None = None,
    log: Callable[[int, Mapping[str, Any]], None] | None = None,
    on_nan: Literal["stop", "skip"] = "stop",
    on_save_error: Literal["stop", "go_on"] = "stop",
    writes: bool = True,
) -> list[Metrics]:
    """Run `step` for each step number, starting after the last checkpoint in `folder` if there is one.

    Args:
        name: Label of the progress bar.
        folder: Folder of the checkpoints; the newest two are kept.
        model: Model whose trainable parameters are optimised (AdamW without weight decay).
        learning_rate: Learning rate of AdamW; a step may set another.
        steps: Number of all steps.
        step: Does one update and returns its metrics; must depend on the step's number and the model only.
        line: Formats the metrics as one line for the console.
        checkpoint_every: Steps between checkpoints; the last step always writes one.
        prepare: Returns the optimizer that `step` gets (accelerate's `prepare`).
        schedule: Factor of the learning rate by step number from 0, see `learning.schedules`; the metrics contain the
            resulting rate.
        log: Called with the number of each step, from 1, and its metrics. Steps after the last checkpoint are logged
            again after a restart.
        on_nan: Reaction to a `loss` or `grad_norm` that is not finite: `stop`; or `skip`: restore weights and optimizer
            from a copy in memory, mark the step's metrics as `skipped`, and continue.
        on_save_error: Reaction to a checkpoint that cannot be written: `stop`; or `go_on`: warn and try again at the
            next one. The last checkpoint always stops.
        writes: Whether this process writes checkpoints and shows its progress. One of several processes does, and all
            read.

    Returns:
        The metrics of every step, including those before a restart, each with its wall-clock `seconds`.

    Raises:
        TrainingDivergedError: If a loss or gradient is not finite, or too many in a row are not.
        CheckpointError: If a checkpoint cannot be written, or the last one is damaged.
    """
    if on_nan not in ("stop", "skip"):
        raise InvalidConfigError(f"Expected `on_nan` 'stop' or 'skip', actual: {on_nan!r}.")
    if on_save_error not in ("stop", "go_on"):
        raise InvalidConfigError(f"Expected `on_save_error` 'stop' or 'go_on', actual: {on_save_error!r}.")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    metrics = restore(folder, model, optimizer, parameters)
    prepared = prepare(optimizer)
    hidden = len(metrics) >= steps or not writes
    with tqdm(total=steps, initial=len(metrics), desc=name, unit="step", dynamic_ncols=True, disable=hidden) as bar:
        for number in range(len(metrics), steps):
            began = time.monotonic()
            put_back = _remember(optimizer, parameters) if on_nan == "skip" else None
            rate = {} if schedule is None else {"learning_rate": learning_rate * schedule(number)}
            for group in optimizer.param_groups if rate else ():
                group["lr"] = rate["learning_rate"]
            row = {"step": number + 1, **step(number, prepared), **rate}
            bad = _not_finite(row)
            if bad:
                before = _skipped_last(metrics)
                if put_back is None or before + 1 == _MAX_SKIPPED:
                    raise TrainingDivergedError(_advice(name, folder, number + 1, bad, before))
                put_back()
                row["skipped"] = True
            row["seconds"] = round(time.monotonic() - began, 3)
            metrics.append(row)
            if writes:
                bar.write(
                    f"  {name} {number + 1:>3}/{steps}  {line(row)}  {row['seconds']:.1f} s{'  SKIPPED' if bad else ''}"
                )
            bar.update()
            if log is not None:
                log(number + 1, row)
            last = number + 1 == steps
            if writes and ((number + 1) % checkpoint_every == 0 or last):
                try:
                    save(folder, model, optimizer, parameters, metrics)
                except CheckpointError as error:
                    if last or on_save_error == "stop":
                        raise
                    warnings.warn(f"{error} The run tries again at the next checkpoint.", stacklevel=2)
            if (number + 1) % checkpoint_every == 0:
                release_memory()
    return metrics


def _not_finite(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: row[name] for name in ("loss", "grad_norm") if not math.isfinite(row.get(name, 0.0))}


def _skipped_last(metrics: list[Metrics]) -> int:
    """Return how many of the last steps were skipped in a row, including steps before a restart."""
    return next((i for i, row in enumerate(reversed(metrics)) if not row.get("skipped")), len(metrics))


def _remember(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> Callable[[], None]:
    """Copy weights and optimizer; return a function that restores them from the copy."""
    weights = [parameter.detach().clone() for parameter in parameters]
    state = copy.deepcopy(optimizer.state_dict())

    @torch.no_grad()
    def put_back() -> None:
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.copy_(weight)
        optimizer.load_state_dict(state)
        optimizer.zero_grad()

    return put_back


def _advice(name: str, folder: Path, step: int, bad: Mapping[str, float], skipped: int) -> str:
    kept = checkpoints(folder)
    last = f"The last checkpoint, without this step, is {str(kept[-1])!r}" if kept else "There is no checkpoint yet"
    values = ", ".join(f"{key} {value}" for key, value in bad.items())
    before = f", after {skipped} steps in a row that were skipped for the same reason" if skipped else ""
    skip = "" if skipped else ", or skip such steps (on_nan='skip')"
    return (
        f"Expected finite numbers in {name}, actual: it diverged at step {step}: {values}{before}. {last}. The same "
        f"command would diverge again: use a lower learning rate or another seed, in another run folder{skip}."
    )
