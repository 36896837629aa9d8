"""Fork a run: go on from where another run began to do otherwise, with another reward, filter, or GRPO.

What was played, learnt and measured up to there is copied. Several runs that differ only in what comes later then need
it once, and begin with the very same model. A run of stage 1 is forked behind its next-state SFT, one of stage 2 behind
its imitation and its first evaluation.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.learning.checkpoint import adapter_damage
from rwml_gym.agents.precision import choose_precision, default_device
from rwml_gym.agents.runs.folder import CONFIG_FILE, Differences, differences, told
from rwml_gym.agents.runs.run import Run
from rwml_gym.errors import CheckpointError, ConfigMismatchError, InvalidConfigError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import damage, seal

__all__ = ["FORK_FILE", "begins_with", "check_fork", "find_fork", "take_over"]

FORK_FILE = "fork.json"
"""In the folder of a forked run: which run it took over from, and the versions that made what it took."""

_ANY_TIME = ("tracker", "push_to_hub", "faults")
_REWARD = ("encoder", "gap", "judge", "tool_gap")
_THRESHOLDS = (
    *("calibration_pairs", "precision", "threshold", "threshold_by", "tool_threshold"),
    *("source_encoder", "source_threshold"),
)
_ATTEMPTS = (*_REWARD, "filter.attempts", "filter.limit")  # what the distances of the filter's attempts depend on


@dataclass(frozen=True)
class _Beginning:
    """What runs of a job can have in common.

    Attributes:
        title: What it is called.
        after: Options that act only afterwards, by dotted key or by the part of the configuration that holds them.
        before: Keys of these parts that do act before its end, `grpo.micro_tokens` by rounding.
        folders: Folders that it leaves.
        adapters: Those of them that are adapters.
        files: Files that it leaves, some of them only with some options.
        last: The last of its files.
    """

    title: str
    after: tuple[str, ...]
    before: tuple[str, ...]
    folders: tuple[str, ...]
    adapters: tuple[str, ...]
    files: tuple[str, ...]
    last: str

    def leaves_open(self, key: str) -> bool:
        """Return whether an option acts only afterwards."""
        return _within(key, self.after) and key not in self.before

    def missing(self, folder: Path) -> str:
        """Say what a run lacks of it; an empty text if nothing."""
        if absent := [name for name in self.folders if not (folder / name).is_dir()]:
            return f"no {absent[0]}"
        problems = damage(folder, self.last), *(adapter_damage(folder / name) for name in self.adapters)
        return next(filter(None, problems), "")


_WORLD_MODEL = _Beginning(
    title="its SFT",
    after=(
        *(*_ANY_TIME, *_REWARD, *_THRESHOLDS, "reward", "tool_reward"),
        *("warm_start", "baseline", "stage", "grpo", "filter"),
    ),
    before=("filter.share", "grpo.micro_tokens"),
    folders=("transitions/train", "transitions/held_out", "adapters/warm_start"),
    adapters=("adapters/warm_start",),
    files=(
        *(f"predictions/{name}.json" for name in ("nothing_changes", "most_frequent", "base", "warm_start")),
        *(f"forgetting/{name}.json" for name in ("probe", "base", "warm_start")),
    ),
    last="metrics/warm_start.json",
)
_POLICY = _Beginning(
    title="its first evaluation",
    after=(*_ANY_TIME, "stage", "grpo", "evaluation.every"),
    before=("stage.games", "stage.sequence", "grpo.micro_tokens"),
    folders=(),
    adapters=(),
    files=(),
    last="evaluations/0.json",
)
_IMITATING = replace(
    _POLICY, folders=("adapters/imitation",), adapters=("adapters/imitation",), files=("metrics/imitation.json",)
)


def _beginning(config: JobConfig) -> _Beginning:
    if isinstance(config, RWMLConfig):
        return _WORLD_MODEL
    if isinstance(config, PolicyConfig):
        return _IMITATING if config.imitation.steps else _POLICY
    raise InvalidConfigError(
        f"Expected a run of stage 1 or 2 with --fork, actual: `train {config.command}`. Leave out --fork."
    )


def check_fork(config: JobConfig, source: Path) -> Differences:
    """Check that a run can be forked with a configuration.

    Args:
        config: The configuration of the fork.
        source: Folder of the run.

    Returns:
        What the run has otherwise, all of which acts only afterwards.

    Raises:
        InvalidConfigError: There is no run, or nothing of such runs can be taken over.
        ConfigMismatchError: It differs in something that acts before; the message names it.
        CheckpointError: It did not come so far, or what it left is damaged.
    """
    beginning = _beginning(config)
    if not (source / CONFIG_FILE).is_file():
        raise InvalidConfigError(
            f"Expected the folder of a run of `train {config.command}` in --fork, actual: {str(source)!r}, which holds "
            "none."
        )
    _, found = differences(config, source)
    if wrong := {key: values for key, values in found.items() if not beginning.leaves_open(key)}:
        raise ConfigMismatchError(
            f"Expected a run with the same options up to the end of {beginning.title} in --fork, actual: "
            f"{told(wrong)}. Use the same options, or leave out --fork."
        )
    if problem := beginning.missing(source):
        raise CheckpointError(
            f"Expected a run that finished {beginning.title} in --fork, actual: {problem}, in {str(source)!r}. Finish "
            "it with its own command, or leave out --fork."
        )
    return found


def find_fork(config: JobConfig, folder: Path) -> Path | None:
    """Find a run that can be forked among the folders in `folder`, if there is one."""
    config = replace(config, dtype=choose_precision(config.dtype, default_device()).name)
    for path in sorted(folder.glob(f"*/{CONFIG_FILE}")):
        try:
            check_fork(config, path.parent)
        except (CheckpointError, ConfigMismatchError):
            continue
        return path.parent
    return None


def begins_with(config: JobConfig, folder: Path) -> str:
    """Say what a run of this configuration takes from another one; an empty text if it has its own already."""
    beginning = _beginning(config)
    return beginning.title if beginning.missing(folder) else ""


def take_over(run: Run, source: Path) -> None:
    """Copy what another run made up to where this one does otherwise; `check_fork` has checked that it may be."""
    if run.is_main:
        beginning, (_, found) = _beginning(run.config), differences(run.config, source)
        for name in beginning.folders:
            _copy(source / name, run.folder / name)
        attempts = () if any(_within(key, _ATTEMPTS) for key in found) else ("attempts.json",)
        for name in (*beginning.files, *attempts, beginning.last):  # the last one says that all is there
            if not damage(source, name):
                write_json(run.folder / name, read_json(source / name))
                seal(run.folder, name)
        write_json(run.folder / FORK_FILE, {"from": source.name, "versions": read_json(source / "versions.json")})
        run.say(f"Forked from {source}: all up to {beginning.title} is taken as it is.")
    run.accelerator.wait_for_everyone()


def _within(key: str, names: tuple[str, ...]) -> bool:
    return key in names or key.partition(".")[0] in names


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; the copy is complete or absent."""
    partial = target.with_name(f".{target.name}-{uuid.uuid4().hex}.partial")
    try:
        shutil.copytree(source, partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
