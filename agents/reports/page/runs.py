"""The folders that a page shows: which kind each is, and what is wrong with those that are none."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwml_gym.agents.traces.folder import EPISODES, HEADER, Trace, read_trace
from rwml_gym.errors import InvalidConfigError, StorageError
from rwml_gym.files import read_json

__all__ = ["TrainingFolder", "labels", "open_runs"]

_CONFIG = "config.json"


@dataclass(frozen=True)
class TrainingFolder:
    """The folder of a training, finished or not.

    Attributes:
        folder: The folder.
        config: Its configuration.
    """

    folder: Path
    config: Mapping[str, Any]


def open_runs(folders: Sequence[str | Path]) -> list[Trace | TrainingFolder]:
    """Open the folders of evaluations and trainings.

    Raises:
        InvalidConfigError: If there is none, one is given twice, or one is neither.
        StorageError: If one cannot be read.
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise InvalidConfigError(
            "Expected at least one RUN, the folder of an evaluation or a training, actual: none. Give the --run-dir of "
            "`rwml-gym evaluate` or `rwml-gym train`."
        )
    seen: dict[Path, Path] = {}
    for path in paths:
        if (real := path.resolve()) in seen:
            raise InvalidConfigError(
                f"Expected every RUN once, actual: {str(path)!r} is the same folder as {str(seen[real])!r}. Leave one "
                "out."
            )
        seen[real] = path
    return [_open(path) for path in paths]


def labels(runs: Sequence[Trace | TrainingFolder]) -> list[str]:
    """Return a name for each run: the last part of its path, with as many parts before it as tell it from others."""
    parts = [run.folder.resolve().parts for run in runs]
    found = []
    for own in parts:
        others = [other for other in parts if other is not own]
        length = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        found.append("/".join(own[-length:]))
    return found


def _open(path: Path) -> Trace | TrainingFolder:
    wanted = f"a RUN with {HEADER} (an evaluation) or {_CONFIG} (a training)"
    fix = "Give the --run-dir of `rwml-gym evaluate` or `rwml-gym train`."
    if not path.is_dir():
        actual = "a file" if path.exists() else "no such folder"
        raise InvalidConfigError(f"Expected {wanted}, actual: {str(path)!r} is {actual}. {fix}")
    if (path / HEADER).is_file() and ((path / EPISODES).exists() or not (path / _CONFIG).is_file()):
        return read_trace(path)
    if (path / _CONFIG).is_file():
        config = read_mapping(path / _CONFIG)
        return TrainingFolder(path, config)
    raise InvalidConfigError(f"Expected {wanted}, actual: {str(path)!r} has neither. {fix}")


def read_mapping(path: Path) -> Mapping[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        StorageError: If it cannot be read, or holds something else.
    """
    content = read_file(path)
    if not isinstance(content, dict):
        raise StorageError(
            f"Expected a mapping in {str(path)!r}, actual: {type(content).__name__}. Leave this RUN out."
        )
    return content


def read_file(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: If it cannot be read.
    """
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Expected JSON in {str(path)!r}, actual: {getattr(error, 'strerror', None) or error}. Repeat the command "
            "that wrote it, or leave this RUN out."
        ) from error


def read_optional(path: Path) -> Any:
    """Read a JSON file of a training; `None` if it is not there, because the training is not so far."""
    return read_file(path) if path.is_file() else None


def read_metrics(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the metrics of the updates of a training by stage; of a stage that still runs, those of its last checkpoint.

    Raises:
        StorageError: If a file cannot be read.
    """
    found = {path.stem: read_file(path) for path in sorted((folder / "metrics").glob("*.json"))}
    found.pop("hashes", None)
    for stage in sorted((folder / "checkpoints").glob("*")):
        if stage.name in found:
            continue
        for checkpoint in sorted(stage.glob("step-*/metrics.json"), reverse=True):
            with contextlib.suppress(StorageError):  # a damaged checkpoint: training goes on from the one before
                found[stage.name] = read_file(checkpoint)
                break
    return {name: [row for row in rows if isinstance(row, dict)] for name, rows in found.items() if rows}
