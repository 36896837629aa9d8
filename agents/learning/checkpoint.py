"""Checkpoints and adapters, written atomically: a folder is complete or does not exist.

A checkpoint holds finite numbers only. The previous one stays too: if a file of the newest is not what was written,
training goes on from the one before.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rwml_gym.agents.language.adapters.outside import ADAPTER_FILES
from rwml_gym.agents.packaged import public_name
from rwml_gym.errors import CheckpointError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import damage, seal

__all__ = ["load_adapter_weights", "save_adapter"]

Metrics = dict[str, Any]
_STEP = re.compile(r"step-(\d{6,})")
_KEPT = 2  # checkpoints: the newest and a fallback
_FILES = ("adapter.safetensors", "optimizer.safetensors", "metrics.json")


def save_adapter(model: PeftModel, path: Path) -> None:
    """Save the policy's adapter in PEFT format (`adapter_config.json`, `adapter_model.safetensors`), atomically.

    The base model is named as others know it, without a folder of this machine.

    If it cannot be written, a `CheckpointError` is raised, and an earlier adapter in `path` does not change.
    """
    with _written(path, _size(get_peft_model_state_dict(model, adapter_name="default"))) as partial:
        model.save_pretrained(str(partial), selected_adapters=["default"], safe_serialization=True)
        (partial / "README.md").unlink(missing_ok=True)  # PEFT's card is empty, but for the base model's folder
        config = read_json(partial / "adapter_config.json")
        name = public_name(config.get("base_model_name_or_path") or "")
        write_json(partial / "adapter_config.json", {**config, "base_model_name_or_path": name})
        seal(partial, *ADAPTER_FILES)


def adapter_damage(path: Path) -> str:
    """Say what of an adapter of `save_adapter` is not as it was saved; an empty text if all is."""
    return damage(path, *ADAPTER_FILES)


def load_adapter_weights(model: PeftModel, path: Path) -> None:
    """Load the weights of a saved adapter into the policy's adapter of the same shape.

    Raises:
        CheckpointError: If the adapter is damaged, or of another shape.
    """
    reason = adapter_damage(path)
    if not reason:
        weights = load_file(path / "adapter_model.safetensors")
        reason = _misfit(model, weights)
    if reason:
        raise CheckpointError(
            f"Expected an intact adapter of this model in {str(path)!r}, actual: {reason}. Delete that folder. Then "
            "the same command makes it again from the last checkpoint."
        )
    set_peft_model_state_dict(model, weights, adapter_name="default")


def _misfit(model: PeftModel, weights: Mapping[str, Tensor]) -> str:
    """Say how weights differ from those of the policy's adapter in names and shapes; an empty text if they do not."""
    own = {name: value.shape for name, value in get_peft_model_state_dict(model, adapter_name="default").items()}
    given = {name: value.shape for name, value in weights.items()}
    for name in [*own, *given]:
        if own.get(name) != given.get(name):
            expected, actual = (str(tuple(shapes[name])) if name in shapes else "none" for shapes in (own, given))
            return f"of another model: expected {name} of shape {expected}, actual: {actual}"
    return ""


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
        seal(partial, *_FILES)
    for old in checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)  # never read again; the next checkpoint retries


def restore(
    folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]
) -> list[Metrics]:
    """Load the newest intact checkpoint into model and optimizer, and return its metrics; none if there is none.

    Raises:
        CheckpointError: If there are checkpoints and all are damaged, or the newest intact one is of another model.
    """
    found = checkpoints(folder)
    problems: list[str] = []
    for checkpoint in reversed(found):
        problem = damage(checkpoint, *_FILES)
        if not problem:
            if problems:
                warnings.warn(
                    f"Expected intact checkpoints, actual: {'; '.join(problems)}. The run goes on from "
                    f"{checkpoint.name}.",
                    stacklevel=3,
                )
            return _load(checkpoint, model, optimizer, parameters)
        problems.append(f"{str(checkpoint)!r} is damaged ({problem})")
    if problems:
        raise CheckpointError(
            f"Expected an intact checkpoint in {str(folder)!r}, actual: {'; '.join(problems)}. Delete that folder. "
            "Then the same command continues from the start."
        )
    return []


def _load(
    checkpoint: Path, model: PeftModel, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]
) -> list[Metrics]:
    try:
        weights = load_file(checkpoint / "adapter.safetensors")
        state = load_file(checkpoint / "optimizer.safetensors")
        metrics: list[Metrics] = read_json(checkpoint / "metrics.json")
        problem = _misfit(model, weights)
        if not isinstance(metrics, list) or not all(isinstance(row, dict) for row in metrics):
            problem = "metrics.json holds no list of mappings"
        elif len(metrics) != _step_of(checkpoint):
            problem = f"expected the metrics of {_step_of(checkpoint)} steps, actual: {len(metrics)}"
        if problem:
            raise ValueError(problem)
        set_peft_model_state_dict(model, weights, adapter_name="default")
        for key, value in state.items():
            index, _, field = key.partition(".")
            parameter = parameters[int(index)]
            # AdamW keeps its step count on the CPU.
            optimizer.state[parameter][field] = value if field == "step" else value.to(parameter.device)
    except (FileNotFoundError, SafetensorError, ValueError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected a checkpoint of this model in {str(checkpoint)!r}, actual: {str(error).splitlines()[0]}. "
            "Continue with the model it was made with, or use another run folder."
        ) from error
    return metrics


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    return sorted((p for p in folder.glob("step-*") if _STEP.fullmatch(p.name)), key=_step_of)
