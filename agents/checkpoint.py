"""Training loops that survive being killed: everything a run needs to go on, written atomically, as safetensors.

A checkpoint is a folder that appears under its final name only when it is complete. Randomness needs no saving: each
step derives its seeds from the run's seed and the step's number.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tqdm import tqdm

__all__ = ["load_adapter_weights", "read_json", "save_adapter", "train_loop", "write_json"]

Metrics = dict[str, Any]
_STEP = re.compile(r"step-(\d{6})")


def write_json(path: Path, content: object) -> None:
    """Writes JSON so that the file is complete or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def save_adapter(model: PeftModel, path: Path) -> None:
    """Saves the policy's adapter in PEFT format (`adapter_config.json`, `adapter_model.safetensors`), atomically."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial), selected_adapters=["default"], safe_serialization=True)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(partial, path)


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
) -> list[Metrics]:
    """Runs `step` for each step number, from the last checkpoint in `folder` if there is one.

    Args:
        name: Shown beside the progress bar.
        folder: Where checkpoints go; only the newest is kept.
        model: Its trainable parameters are optimised (AdamW without weight decay).
        learning_rate: Of AdamW; a step may set another.
        steps: How many in all.
        step: Does one update and returns its metrics; must depend on the step's number and the model only.
        line: The metrics as one line for the console.
        checkpoint_every: Steps between checkpoints; there is always one after the last step.
        prepare: Called with the optimizer (accelerate's `prepare`); what it returns is stepped.

    Returns:
        The metrics of every step, those before a restart included, each with its wall-clock `seconds`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    metrics = _restore(folder, model, optimizer, parameters)
    prepared = prepare(optimizer)
    with tqdm(total=steps, initial=len(metrics), desc=name, unit="step", dynamic_ncols=True) as bar:
        for number in range(len(metrics), steps):
            began = time.monotonic()
            row = {"step": number + 1, **step(number, prepared)}
            row["seconds"] = round(time.monotonic() - began, 3)
            metrics.append(row)
            bar.write(f"  {name} {number + 1:>3}/{steps}  {line(row)}  {row['seconds']:.1f} s")
            bar.update()
            if (number + 1) % checkpoint_every == 0 or number + 1 == steps:
                _save(folder, model, optimizer, parameters, metrics)
    return metrics


def _save(
    folder: Path,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    metrics: list[Metrics],
) -> None:
    target = folder / f"step-{len(metrics):06d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = get_peft_model_state_dict(model, adapter_name="default")
    save_file({k: v.detach().contiguous().cpu() for k, v in weights.items()}, partial / "adapter.safetensors")
    state = {
        f"{index}.{key}": value.detach().contiguous().cpu()
        for index, parameter in enumerate(parameters)
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    save_file(state, partial / "optimizer.safetensors")
    write_json(partial / "metrics.json", metrics)
    os.replace(partial, target)
    for old in _checkpoints(folder)[:-1]:
        shutil.rmtree(old)


def _restore(
    folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]
) -> list[Metrics]:
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        return []
    latest = checkpoints[-1]
    set_peft_model_state_dict(model, load_file(latest / "adapter.safetensors"), adapter_name="default")
    for key, value in load_file(latest / "optimizer.safetensors").items():
        index, _, field = key.partition(".")
        parameter = parameters[int(index)]
        # AdamW keeps its step count on the CPU.
        optimizer.state[parameter][field] = value if field == "step" else value.to(parameter.device)
    metrics: list[Metrics] = read_json(latest / "metrics.json")
    return metrics


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if _STEP.fullmatch(p.name))
