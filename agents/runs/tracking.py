"""Learning curves in TensorBoard, Weights & Biases or trackio, through accelerate; a restarted run goes on in its own.

Each loop of a run counts its steps from 1, so its metrics are logged under its name (`RWML/loss`).
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from rwml_gym.agents.config.base import TrackerName
from rwml_gym.agents.config.files import flatten
from rwml_gym.errors import DependencyNotInstalled, InvalidConfigError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import damage, seal
from rwml_gym.installed import install_command

__all__ = ["check_tracker", "make_accelerator", "make_log"]

Log = Callable[[int, Mapping[str, Any]], None]
_FOLDER, _PROJECT = "tracking", "rwml-gym"
# Processes wait while one of them plays or calibrates, which takes hours with a large model; NCCL gives up after ten
# minutes. The launcher ends all processes as soon as one of them fails, so this limit is for one that hangs.
_PATIENCE = timedelta(days=1)


def make_accelerator(folder: str | Path, tracker: TrackerName = "none") -> Accelerator:
    """Make an accelerator for a run, on a GPU if there is one, that logs with a tracker. It writes nothing yet.

    Args:
        folder: The run's folder; what is tracked on disk goes into its `tracking`.
        tracker: `none`, `tensorboard`, `wandb` (an account of its own, or `WANDB_MODE=offline`), `trackio`, or `all`
            that are installed.

    Returns:
        The accelerator, for `make_log`.

    Raises:
        DependencyNotInstalled: The tracker is not installed; the message says how to.
        InvalidConfigError: Unknown tracker.
    """
    check_tracker(tracker)
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        log_with=None if tracker == "none" else tracker,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        project_config=ProjectConfiguration(str(folder), logging_dir=str(Path(folder) / _FOLDER)),
    )


def check_tracker(tracker: TrackerName) -> None:
    """Check that a tracker is known and installed; the errors are those of `make_accelerator`."""
    if tracker not in get_args(TrackerName):
        raise InvalidConfigError(f"Expected a tracker among {list(get_args(TrackerName))}, actual: {tracker!r}.")
    missing = not get_available_trackers() if tracker == "all" else importlib.util.find_spec(tracker) is None
    if tracker != "none" and missing:
        install = install_command("track") if tracker in ("tensorboard", "all") else f"pip install {tracker}"
        what = "No tracker" if tracker == "all" else f"The tracker {tracker}"
        raise DependencyNotInstalled(
            f"{what} is {'' if tracker == 'all' else 'not '}installed: {install}, or train without (--tracker none)"
        )


def make_log(accelerator: Accelerator, name: str, config: Any) -> Log | None:
    """Make the function with which `train_loop` logs steps; the first one of a run starts the trackers.

    Args:
        accelerator: Of `make_accelerator`.
        name: Of the loop; its metrics are tracked as `name/metric`.
        config: The run's configuration, a dataclass; tracked once a run, flattened.

    Returns:
        Takes a step's number and metrics, of which the numbers are tracked; None where nothing is.
    """
    if not accelerator.log_with:
        return None
    if not accelerator.trackers:
        _start(accelerator, config)
    for tracker in accelerator.trackers:
        if tracker.name == "wandb" and accelerator.is_main_process:
            # Its own steps may never go back, as they do from loop to loop and after a restart.
            tracker.tracker.define_metric(f"{name}/*", step_metric=f"{name}/step")

    def log(step: int, metrics: Mapping[str, Any]) -> None:
        values: dict[str, Any] = {f"{name}/{key}": value for key, value in metrics.items() if isinstance(value, Real)}
        values[f"{name}/step"] = step
        for tracker in accelerator.trackers:
            tracker.log(values, step=None if tracker.name == "wandb" else step)

    return log


def _start(accelerator: Accelerator, config: Any) -> None:
    path = Path(accelerator.logging_dir) / "run.json"
    new = bool(damage(path.parent, path.name))
    accelerator.wait_for_everyone()
    if new and accelerator.is_main_process:
        write_json(path, {"id": uuid.uuid4().hex})  # not the folder's name: a folder that is made anew is another run
        seal(path.parent, path.name)
    accelerator.wait_for_everyone()
    name = Path(accelerator.project_dir).name
    accelerator.init_trackers(
        _PROJECT,
        flatten(config) if new else None,
        {
            "wandb": {"name": name, "id": read_json(path)["id"], "resume": "allow", "dir": str(path.parent)},
            "trackio": {"name": name, "resume": "allow"},
        },
    )
