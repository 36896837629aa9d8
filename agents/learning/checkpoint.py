"""Training loops that survive being killed, full disks and diverging: all a run needs to go on, written atomically.

A checkpoint is a folder that appears under its final name only when it is complete, and only of finite numbers; the
one before it stays too, for the case that a disk damages the newest. Randomness needs no saving: each step derives its
seeds from the run's seed and the step's number.
"""

from __future__ import annotations

import copy
import math
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from rwml_gym.errors import CheckpointError, InvalidConfigError, TrainingDivergedError
from rwml_gym.files import read_json, write_json

__all__ = [
    "load_adapter_weights",
    "save_adapter",
    "train_loop",
]

Metrics = dict[str, Any]
_STEP = re.compile(r"step-(\d{6,})")
_KEPT = 2  # checkpoints: the newest, and one to fall back on
_MAX_SKIPPED = 5  # in a row: a model that has diverged for good is not worth computing on


def save_adapter(model: PeftModel, path: Path) -> None:
    """Saves the policy's adapter in PEFT format (`adapter_config.json`, `adapter_model.safetensors`), atomically.

    Raises:
        CheckpointError: It cannot be written; what was there before stays.
    """
    with _written(path, _size(get_peft_model_state_dict(model, adapter_name="default"))) as partial:
        model.save_pretrained(str(partial), selected_adapters=["default"], safe_serialization=True)


def load_adapter_weights(model: PeftModel, path: Path) -> None:
    """Puts the weights of a saved adapter into the policy's adapter of the same shape."""
    set_peft_model_state_dict(model, load_file(path / "adapter_model.safetensors"), adapter_name="default")


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
    """Runs `step` for each step number, from the last checkpoint in `folder` if there is one.

    Args:
        name: Shown beside the progress bar.
        folder: Where checkpoints go; the newest two are kept.
        model: Its trainable parameters are optimised (AdamW without weight decay).
        learning_rate: Of AdamW; a step may set another.
        steps: How many in all.
        step: Does one update and returns its metrics; must depend on the step's number and the model only.
        line: The metrics as one line for the console.
        checkpoint_every: Steps between checkpoints; there is always one after the last step.
        prepare: Called with the optimizer (accelerate's `prepare`); what it returns is stepped.
        schedule: Factor of the learning rate by step number, from 0, see `schedules`; the rate that results is among
            the metrics.
        log: Called with the number of each step, from 1, and its metrics, see `tracking`. Steps after the last
            checkpoint are logged again after a restart.
        on_nan: After a step whose `loss` or `grad_norm` is not finite: `stop`, or `skip`: put weights and optimizer
            back as they were before it (a copy of both in memory), mark its metrics `skipped`, and go on.
        on_save_error: Where a checkpoint cannot be written: `stop`, or `go_on`: warn and try again at the next one; a
            last checkpoint that cannot be written always stops.
        writes: Whether this process writes checkpoints; of several that train together one does, and all read them.

    Returns:
        The metrics of every step, those before a restart included, each with its wall-clock `seconds`.

    Raises:
        TrainingDivergedError: A loss or gradient is not finite, or too many were in a row.
        CheckpointError: A checkpoint cannot be written, or the one to go on from is damaged.
        InvalidConfigError: Unknown `on_nan` or `on_save_error`.
    """
    if on_nan not in ("stop", "skip"):
        raise InvalidConfigError(f"Expected on_nan 'stop' or 'skip', actual {on_nan!r}")
    if on_save_error not in ("stop", "go_on"):
        raise InvalidConfigError(f"Expected on_save_error 'stop' or 'go_on', actual {on_save_error!r}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    metrics = _restore(folder, model, optimizer, parameters)
    prepared = prepare(optimizer)
    with tqdm(total=steps, initial=len(metrics), desc=name, unit="step", dynamic_ncols=True) as bar:
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
            bar.write(
                f"  {name} {number + 1:>3}/{steps}  {line(row)}  {row['seconds']:.1f} s{'  SKIPPED' if bad else ''}"
            )
            bar.update()
            if log is not None:
                log(number + 1, row)
            last = number + 1 == steps
            if writes and ((number + 1) % checkpoint_every == 0 or last):
                try:
                    _save(folder, model, optimizer, parameters, metrics)
                except CheckpointError as error:
                    if last or on_save_error == "stop":
                        raise
                    warnings.warn(f"{error} Trying again at the next checkpoint.", stacklevel=2)
    return metrics


# Steps that diverge


def _not_finite(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: row[name] for name in ("loss", "grad_norm") if not math.isfinite(row.get(name, 0.0))}


def _skipped_last(metrics: list[Metrics]) -> int:
    """How many of the last steps were skipped in a row; from the metrics, so that restarts count too."""
    return next((i for i, row in enumerate(reversed(metrics)) if not row.get("skipped")), len(metrics))


def _remember(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> Callable[[], None]:
    """Copies what a step changes; what it returns puts the copy back."""
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
    checkpoints = _checkpoints(folder)
    last = f"The last good checkpoint is {str(checkpoints[-1])!r}" if checkpoints else "There is no checkpoint yet"
    values = ", ".join(f"{key} {value}" for key, value in bad.items())
    before = f", after {skipped} steps in a row that were skipped for it" if skipped else ""
    skip = "" if skipped else ", or skip such steps (on_nan='skip')"
    return (
        f"{name} diverged at step {step}: {values}{before}. {last}; this step is not in it. The same command would "
        f"come to the same step: try a lower learning rate or another seed, in another run folder{skip}."
    )


# Checkpoints


@contextmanager
def _written(path: Path, needed: int) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when it is complete; after an error nothing of it stays."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        there = next((parent for parent in path.parents if parent.is_dir()), Path())
        raise CheckpointError(
            f"Cannot write {str(path)!r}: {error}. It needs {needed:,} bytes, {shutil.disk_usage(there).free:,} are "
            "free. What was saved before is whole: make room, or the folder writable, and the same command goes on "
            "from there."
        ) from error


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _save(
    folder: Path,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    metrics: list[Metrics],
) -> None:
    weights = {
        key: value.detach().contiguous().cpu()
        for key, value in get_peft_model_state_dict(model, adapter_name="default").items()
    }
    state = {
        f"{index}.{key}": value.detach().contiguous().cpu()
        for index, parameter in enumerate(parameters)
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    with _written(folder / f"step-{len(metrics):06d}", _size(weights) + _size(state)) as partial:
        save_file(weights, partial / "adapter.safetensors")
        save_file(state, partial / "optimizer.safetensors")
        write_json(partial / "metrics.json", metrics)
    for old in _checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)  # older ones are never read; the next checkpoint tries again


def _restore(
    folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]
) -> list[Metrics]:
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        return []
    latest = checkpoints[-1]
    try:
        weights = load_file(latest / "adapter.safetensors")
        state = load_file(latest / "optimizer.safetensors")
        metrics: list[Metrics] = read_json(latest / "metrics.json")
        if len(metrics) != _step_of(latest):
            raise ValueError(f"expected the metrics of {_step_of(latest)} steps, actual {len(metrics)}")
        set_peft_model_state_dict(model, weights, adapter_name="default")
        for key, value in state.items():
            index, _, field = key.partition(".")
            parameter = parameters[int(index)]
            # AdamW keeps its step count on the CPU.
            optimizer.state[parameter][field] = value if field == "step" else value.to(parameter.device)
    except (FileNotFoundError, SafetensorError, ValueError, IndexError, RuntimeError) as error:
        before = f"from {checkpoints[-2].name}, which is kept for this" if len(checkpoints) > 1 else "from the start"
        raise CheckpointError(
            f"The checkpoint {str(latest)!r} is damaged, or one of another model: {str(error).splitlines()[0]}. "
            f"Delete that folder, and the same command goes on {before}."
        ) from error
    return metrics


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((p for p in folder.glob("step-*") if _STEP.fullmatch(p.name)), key=_step_of)
