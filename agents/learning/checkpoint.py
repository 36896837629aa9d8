"""Checkpoints and adapters, written atomically: a folder is complete or does not exist.

A checkpoint holds finite numbers only. The previous one stays too, in case the newest is damaged on disk.
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

__all__ = ["load_adapter_weights", "save_adapter"]

Metrics = dict[str, Any]
_STEP = re.compile(r"step-(\d{6,})")
_KEPT = 2  # checkpoints: the newest and a fallback


def save_adapter(model: PeftModel, path: Path) -> None:
    """Save the policy's adapter in PEFT format (`adapter_config.json`, `adapter_model.safetensors`), atomically.

    If it cannot be written, a `CheckpointError` is raised, and an earlier adapter in `path` does not change.
    """
    with _written(path, _size(get_peft_model_state_dict(model, adapter_name="default"))) as partial:
        model.save_pretrained(str(partial), selected_adapters=["default"], safe_serialization=True)


def load_adapter_weights(model: PeftModel, path: Path) -> None:
    """Load the weights of a saved adapter into the policy's adapter of the same shape."""
    set_peft_model_state_dict(model, load_file(path / "adapter_model.safetensors"), adapter_name="default")


@contextmanager
def _written(path: Path, needed: int) -> Iterator[Path]:
    """Yield a folder to fill. It replaces `path` at the end of the context and is deleted after an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:  # safetensors raises its own error for a full disk
        shutil.rmtree(partial, ignore_errors=True)
        there = next((parent for parent in path.parents if parent.is_dir()), Path())
        raise CheckpointError(
            f"Expected to write {needed:,} bytes to {str(path)!r}, actual: {error}; {shutil.disk_usage(there).free:,} "
            "bytes are free. Make room, or make the folder writable; everything saved before is intact, and the same "
            "command continues from there."
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
        shutil.rmtree(old, ignore_errors=True)  # never read again; the next checkpoint retries


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
            raise ValueError(f"expected the metrics of {_step_of(latest)} steps, actual: {len(metrics)}")
        set_peft_model_state_dict(model, weights, adapter_name="default")
        for key, value in state.items():
            index, _, field = key.partition(".")
            parameter = parameters[int(index)]
            # AdamW keeps its step count on the CPU.
            optimizer.state[parameter][field] = value if field == "step" else value.to(parameter.device)
    except (FileNotFoundError, SafetensorError, ValueError, IndexError, RuntimeError) as error:
        before = f"from {found[-2].name}" if len(found) > 1 else "from the start"
        raise CheckpointError(
            f"Expected an intact checkpoint of this model in {str(latest)!r}, actual: damaged or of another model "
            f"({str(error).splitlines()[0]}). Delete that folder. Then the same command continues {before}."
        ) from error
    return metrics


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    return sorted((p for p in folder.glob("step-*") if _STEP.fullmatch(p.name)), key=_step_of)
