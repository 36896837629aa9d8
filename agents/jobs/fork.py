"""Fork a run of stage 1: go on from another run's next-state SFT with another reward, filter, or GRPO.

What was played, learnt by SFT and predicted up to there is copied. Several runs that differ only in what comes after
SFT then need it once, and start from the very same model.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.learning.checkpoint import adapter_damage
from rwml_gym.agents.precision import choose_precision, default_device
from rwml_gym.agents.runs.folder import CONFIG_FILE, Differences, differences, told
from rwml_gym.agents.runs.run import Run
from rwml_gym.errors import CheckpointError, ConfigMismatchError, InvalidConfigError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import damage, seal

__all__ = ["FORK_FILE", "check_fork", "find_fork", "has_sft", "take_over"]

FORK_FILE = "fork.json"
"""In the folder of a forked run: which run it took over from, and the versions that made what it took."""

_REWARD = ("encoder", "gap", "judge", "tool_gap")
_THRESHOLD = ("calibration_pairs", "precision", "threshold", "threshold_by", "tool_threshold", "source_encoder")
_AFTER_SFT = (
    *_REWARD,
    *_THRESHOLD,
    *("source_threshold", "reward", "tool_reward", "warm_start", "baseline", "stage", "grpo", "filter"),
    *("tracker", "push_to_hub", "faults"),
)
_BEFORE_ITS_END = ("filter.share", "grpo.micro_tokens")  # parts of these that SFT depends on, the latter by rounding
_ATTEMPTS = (*_REWARD, "filter.attempts", "filter.limit")  # what the distances of the filter's attempts depend on

_SFT, _ATTEMPTED = "metrics/warm_start.json", "attempts.json"
_MADE = (
    *(f"predictions/{name}.json" for name in ("nothing_changes", "most_frequent", "base", "warm_start")),
    *(f"forgetting/{name}.json" for name in ("probe", "base", "warm_start")),
)


def check_fork(config: RWMLConfig, source: Path) -> Differences:
    """Check that a run can be forked with a configuration.

    Args:
        config: The configuration of the fork.
        source: Folder of the run.

    Returns:
        What the run has otherwise, all of which acts after SFT.

    Raises:
        InvalidConfigError: There is no run.
        ConfigMismatchError: It differs in something that SFT depends on; the message names it.
        CheckpointError: Its SFT is not finished, or what it left is damaged.
    """
    if not (source / CONFIG_FILE).is_file():
        raise InvalidConfigError(
            f"Expected the folder of a run of `train rwml` in --fork, actual: {str(source)!r}, which holds none."
        )
    _, found = differences(config, source)
    if wrong := {key: values for key, values in found.items() if not _acts_after_sft(key)}:
        raise ConfigMismatchError(
            f"Expected a run with the same options up to the end of its SFT in --fork, actual: {told(wrong)}. Use the "
            "same options, or leave out --fork."
        )
    if problem := _unfinished(source):
        raise CheckpointError(
            f"Expected a run that finished its SFT in --fork, actual: {problem}, in {str(source)!r}. Finish it with "
            "its own command, or leave out --fork."
        )
    return found


def find_fork(config: RWMLConfig, folder: Path) -> Path | None:
    """Find a run that can be forked among the folders in `folder`, if there is one."""
    config = RWMLConfig(**{**vars(config), "dtype": choose_precision(config.dtype, default_device()).name})
    for path in sorted(folder.glob(f"*/{CONFIG_FILE}")):
        try:
            check_fork(config, path.parent)
        except (CheckpointError, ConfigMismatchError):
            continue
        return path.parent
    return None


def has_sft(folder: Path) -> bool:
    """Return whether a run has finished its SFT, its own or one that it took over."""
    return not _unfinished(folder)


def take_over(run: Run, source: Path) -> None:
    """Copy what another run made up to the end of its SFT; `check_fork` has checked that it may be."""
    if run.is_main:
        _, found = differences(run.config, source)
        for name in ("transitions/train", "transitions/held_out", "adapters/warm_start"):
            _copy(source / name, run.folder / name)
        same = not any(_within(key, _ATTEMPTS) for key in found)
        for name in (*_MADE, *((_ATTEMPTED,) if same else ()), _SFT):  # the last one says that all is there
            if not damage(source, name):
                write_json(run.folder / name, read_json(source / name))
                seal(run.folder, name)
        write_json(run.folder / FORK_FILE, {"from": source.name, "versions": read_json(source / "versions.json")})
        run.say(f"Forked from {source}: its games, transitions and SFT are taken as they are.")
    run.accelerator.wait_for_everyone()


def _acts_after_sft(key: str) -> bool:
    return _within(key, _AFTER_SFT) and key not in _BEFORE_ITS_END


def _within(key: str, names: tuple[str, ...]) -> bool:
    return key in names or key.partition(".")[0] in names


def _unfinished(folder: Path) -> str:
    """Say what is missing of a run's SFT; an empty text if nothing is."""
    for name in ("train", "held_out"):
        if not (folder / "transitions" / name).is_dir():
            return f"no transitions {name!r}"
    return damage(folder, _SFT) or adapter_damage(folder / "adapters" / "warm_start")


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; the copy is complete or absent."""
    partial = target.with_name(f".{target.name}-{uuid.uuid4().hex}.partial")
    try:
        shutil.copytree(source, partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
