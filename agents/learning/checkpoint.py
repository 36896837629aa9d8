"""Checkpoints and adapters, written so that they are complete or not there at all.

A checkpoint holds finite numbers only. The one before it stays too, for the case that a disk damages the newest.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rwml_gym.errors import CheckpointError
from rwml_gym.files import read_json, write_json

__all__ = [
    "load_adapter_weights",
    "save_adapter",
]

Metrics = dict[str, Any]
_STEP = re.compile(r"step-(\d{6,})")
_KEPT = 2  # checkpoints: the newest, and one to fall back on


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


def save(
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
    for old in checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)  # older ones are never read; the next checkpoint tries again


def restore(
    folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]
) -> list[Metrics]:
    found = checkpoints(folder)
    if not found:
        return []
    latest = found[-1]
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
        before = f"from {found[-2].name}, which is kept for this" if len(found) > 1 else "from the start"
        raise CheckpointError(
            f"The checkpoint {str(latest)!r} is damaged, or one of another model: {str(error).splitlines()[0]}. "
            f"Delete that folder, and the same command goes on {before}."
        ) from error
    return metrics


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((p for p in folder.glob("step-*") if _STEP.fullmatch(p.name)), key=_step_of)
