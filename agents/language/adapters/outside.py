"""Checks of models and adapters that others made, before a library reads them and after it did.

Only safetensors files are read: others are pickled, and reading them can run code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from rwml_gym.agents.language.adapters.kinds import check_kind

__all__ = ["ADAPTER_FILES", "one_line", "read_adapter", "unmatched", "weights_problem"]

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def weights_problem(folder: Path) -> str:
    """Say why the weights in a model's folder cannot be used; an empty text if they can be opened."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        if pickled:
            return (
                f"{pickled[0]} is pickled, so reading it could run code; save the weights as safetensors "
                "(`save_pretrained`) where you trust it"
            )
        return "it has no *.safetensors file"
    for path in files:
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{path.name} cannot be read: {one_line(error)}"
    return ""


def read_adapter(folder: Path) -> tuple[PeftConfig, dict[str, Tensor]]:
    """Read an adapter's configuration and weights.

    Raises:
        ValueError: If a file is missing, damaged, or holds what no adapter has; the message names it.
        InvalidConfigError: If the adapter is of a kind that does not work here.
    """
    weights_file, config_file = ADAPTER_FILES
    given = _mapping(folder / config_file)
    if not isinstance(given.get("peft_type"), str):
        raise ValueError(f"{config_file} has no peft_type")
    if problem := _not_finite(given):
        raise ValueError(f"{config_file} holds {problem}, which is no finite number")
    if not (folder / weights_file).is_file():
        raise ValueError(weights_problem(folder) if not list(folder.glob("*.safetensors")) else f"no {weights_file}")
    try:
        weights = load_file(folder / weights_file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights_file} cannot be read: {one_line(error)}") from error
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{weights_file} holds numbers in {name} that are not finite")
    config = PeftConfig.from_pretrained(str(folder))
    check_kind(config)
    return config, weights


def unmatched(model: PeftModel, weights: Mapping[str, Tensor]) -> str:
    """Load weights into the model's adapter, and say which have no place there, or are missing."""
    found: Any = set_peft_model_state_dict(model, dict(weights))
    # AdaLoRA's rank numbers follow from its configuration, so they are not saved.
    own = {name for name, _ in model.named_parameters() if "default" in name.split(".") and "ranknum" not in name}
    missing = sorted(own.intersection(found.missing_keys))
    if missing:
        return f"it has no weights for {missing[0]}{_others(missing)}"
    if found.unexpected_keys:
        return f"{found.unexpected_keys[0]}{_others(found.unexpected_keys)} has no place in this model"
    return ""


def one_line(error: Exception) -> str:
    """Return what an error says, without advice to switch a protection off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if any(word in str(error) for word in ("trust_remote_code", "weights_only", "use_safetensors")):
        return "it needs code or pickled files of its own, which are not run here"
    if isinstance(error, KeyError):
        return f"there is nothing for {lines[0]}"
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} others" if len(names) > 1 else ""


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"no {path.name}")
    try:
        given = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON: {one_line(error)}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path.name} holds no mapping")
    return given


def _not_finite(value: Any, name: str = "") -> str:
    """Name the first number that is not finite, however deep it lies."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} = {value}"
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((problem for key, part in inner if (problem := _not_finite(part, f"{name}.{key}".strip(".")))), "")
