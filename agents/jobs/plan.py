"""The plan of a training, as `--dry-run` prints it: data, updates, memory, and what deviates from the paper.

Nothing is played, downloaded or written, and no weights are loaded. Bad input is an error, as in the training. What is
only missing on this machine (games, transitions, a model, an encoder, a library) is listed instead, so that the plan of
a training on another machine can be read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.memory import plan_memory
from rwml_gym.agents.config.paper import PAPER, TRIPLETS, choices, deviations, other_changes
from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import RWMLConfig, StageConfig
from rwml_gym.agents.jobs import policy, sft, world_model
from rwml_gym.agents.jobs.data import check_prompts
from rwml_gym.agents.jobs.fork import begins_with, check_fork
from rwml_gym.agents.language.judge import OWN
from rwml_gym.agents.language.models import add_adapter, load_shape
from rwml_gym.agents.learning.memory_plan import available_memory
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.precision import choose_precision, default_device
from rwml_gym.agents.runs.folder import check_run
from rwml_gym.agents.runs.tracking import check_tracker
from rwml_gym.agents.runs.worlds import Games, Source
from rwml_gym.encoders.local import local_folder
from rwml_gym.errors import (
    DependencyNotInstalled,
    EncoderNotFoundError,
    GameNotFoundError,
    ModelNotFoundError,
)
from rwml_gym.transitions import InvalidDatasetError, TransitionDataset, count_games

__all__ = ["plan_run"]

_Found = TypeVar("_Found")

_MISSING = (DependencyNotInstalled, EncoderNotFoundError, GameNotFoundError, InvalidDatasetError, ModelNotFoundError)
"""Errors about what another machine may have."""


@dataclass
class _Parts:
    """What a plan is made of, as far as it is on this machine.

    Attributes:
        missing: What is not, one sentence each.
        title: What the environment is called.
        games: The games to play.
        data: Transitions to learn from and to measure on, where they are recorded already.
        needed: Tokens of the longest prompt without any turns.
    """

    missing: list[str] = field(default_factory=list)
    title: str = ""
    games: Games | None = None
    data: tuple[TransitionDataset, TransitionDataset] | None = None
    needed: int | None = None

    def look(self, find: Callable[[], _Found]) -> _Found | None:
        """Return what `find` finds; `None` if it is missing, which is noted."""
        try:
            return find()
        except _MISSING as error:
            self.missing.append(" ".join(str(error).split()))
            return None


def plan_run(config: JobConfig, folder: str | Path, fork: str | Path | None = None) -> str:
    """Return the plan of a training as text.

    Args:
        config: The configuration.
        folder: The run's folder; it is not made.
        fork: Folder of a run that is forked, see `jobs.fork`.

    Raises:
        InvalidConfigError: The training would refuse the configuration before its first step.
        ConfigMismatchError: The folder holds a run of another configuration, or that in `fork` does not go with it.
        CheckpointError: The run in `fork` did not come so far.
        PromptTooLongError: What a prompt must hold does not fit into it.
    """
    config = check_run(config, Path(folder))
    # Imitation is what policy training begins with, so it plays and prompts as that does.
    imitates = isinstance(config, SFTJobConfig) and config.target == "actions"
    job: Any = sft.imitation(config) if isinstance(config, SFTJobConfig) and imitates else config
    parts = _Parts()
    parts.look(lambda: check_tracker(config.tracker))
    source = parts.look(lambda: Source(job))
    if source is not None:
        parts.title = source.world.title
        if isinstance(job, SFTJobConfig) and job.transitions is not None:
            parts.data = parts.look(lambda: sft.recorded(job))
        else:
            parts.games = parts.look(lambda: _module(job).choose(job, source, load=False))
    shape = parts.look(lambda: _shape(job))
    if source is not None and shape is not None and parts.games is not None:
        parts.needed = _check(job, source, parts.games, shape[1])
    for path in filter(None, (getattr(job, "adapter", None), _imitated(job))):
        if not Path(path).is_dir():
            parts.missing.append(f"Expected a folder, actual: {path!r}, which is not there.")
    if isinstance(job, RWMLConfig) and job.judge not in (None, OWN):
        parts.look(lambda: load_shape(str(job.judge), job.dtype))
    for name in _encoders(job):
        parts.look(lambda name=name: _find_encoder(name))  # type: ignore[misc]
    lengths = _world_model if isinstance(job, RWMLConfig) else _policy if isinstance(job, PolicyConfig) else _states
    data, updates = lengths(job, parts)
    if fork is not None and (shared := begins_with(config, Path(folder))):
        check_fork(config, Path(fork))
        updates = [f"All up to {shared} is taken from {fork}.", *updates]
    sections: Mapping[str, list[str]] = {
        "Data": data,
        "Updates": updates,
        "Memory": _memory(job, shape[0])
        if shape is not None
        else ["not planned: the model's shape is missing, see below"],
        "Missing on this machine, where the training would stop": parts.missing,
        "Deviations from the paper (arXiv 2602.05842)": list(map(str, deviations(config)))
        or ["none" if config.env in PAPER else f"The paper does not train on {config.env!r}."],
        "Not in the paper": choices(config),
        f"Not in the paper either, and other than in the preset paper-{config.env}": other_changes(config),
    }
    lines = [f"Plan of `rwml-gym train {config.command}` in {folder}; nothing is played, loaded or written."]
    for title, found in sections.items():
        lines += ["", f"{title}:", *(f"  {line}" for line in found)] if found else []
    return "\n".join(lines)


# What is there


def _module(config: JobConfig) -> Any:
    return world_model if isinstance(config, RWMLConfig) else policy if isinstance(config, PolicyConfig) else sft


def _shape(config: JobConfig) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    model, tokenizer = load_shape(config.model, config.dtype)
    return add_adapter(model, config.lora_rank, config.lora_alpha), tokenizer


def _check(config: Any, source: Source, games: Games, tokenizer: PreTrainedTokenizerBase) -> int:
    """Make the prompts, check that they have room for what they must hold, and return how many tokens that takes."""
    acts = isinstance(config, PolicyConfig)
    show_policy = config.episode.show_policy if acts else config.show_policy
    world = source.world.prompt_world
    rules = games.rules if show_policy and not acts and world == "service" else None
    prompts = config.make_prompts(tokenizer, world, **{"rules": rules, **_module(config).prompt_settings(config)})
    return check_prompts(prompts, games, show_policy, predicts=not acts)


def _imitated(config: JobConfig) -> str | None:
    return config.imitation.transitions if isinstance(config, PolicyConfig) and config.imitation.steps else None


def _encoders(config: JobConfig) -> list[str]:
    if isinstance(config, RWMLConfig):
        return [config.encoder] if config.judge is None else []
    return [config.stage.encoder] if isinstance(config, PolicyConfig) and config.episode.predictions else []


def _find_encoder(name: str) -> None:
    """Look for an encoder's files, which are not loaded."""
    if name != "hashing" and "://" not in name and local_folder(name) is None:
        raise EncoderNotFoundError(
            f"Expected the encoder {name!r} in a folder or a package, actual: neither. The training would ask the hub."
        )


# What is planned


def _world_model(config: RWMLConfig, parts: _Parts) -> tuple[list[str], list[str]]:
    collect, filters, stage = config.collect, config.filter, config.stage
    games = collect.games if parts.games is None else len(parts.games.train) // collect.rollouts
    held_out = collect.held_out_games if parts.games is None else len(parts.games.held_out)
    most = games * collect.rollouts * collect.max_steps
    shared = max(1, round(filters.share * most))
    tried = min(most - shared, filters.limit or most)
    paper = TRIPLETS.get(config.env)
    data = [
        f"{_where(config, parts)}: games {games:,}, rollouts of each {collect.rollouts}, steps of a rollout at most "
        f"{collect.max_steps}, so transitions at most {most:,}; held-out games {held_out:,}",
        f"Filter: SFT on {filters.share:.0%} of the transitions, {filters.attempts} attempts at each of the others"
        + (f", at most {filters.limit:,}" if filters.limit else ""),
        _lengths(config, config.max_new_tokens, parts),
    ]
    tune = {"the paper's": paper.validation if paper else 0, "at most": shared}
    train = {"the paper's": paper.kept if paper else 0, "at most": tried}
    updates = [
        f"SFT of the filter: {_count(config.sft, tune, f'{config.sft.batch_size} transitions')}",
        f"GRPO: {_count(stage, train, f'{stage.groups} groups of {stage.group_size}')}",
    ]
    return data, updates


def _states(config: SFTJobConfig, parts: _Parts) -> tuple[list[str], list[str]]:
    paper = TRIPLETS.get(config.env)
    sizes = {"the paper's": paper.kept if paper else 0}
    if parts.data is not None:
        train, held_out = parts.data
        data = [
            f"{len(train):,} transitions of {count_games(train)}; {len(held_out):,} of {count_games(held_out)} held out"
        ]
        sizes["these"] = len(train)
    elif config.transitions is not None:
        data = [f"the transitions in {config.transitions!r}, which are not there yet"]
    else:
        most = config.games * config.max_steps
        data = [
            f"{_where(config, parts)}: games {config.games:,}, steps of each at most "
            f"{config.max_steps}, played at random"
        ]
        sizes["at most"] = most
    data.append(_lengths(config, config.max_new_tokens, parts))
    return data, [f"SFT: {_count(config.sft, sizes, f'{config.sft.batch_size} transitions')}"]


def _policy(config: PolicyConfig, parts: _Parts) -> tuple[list[str], list[str]]:
    stage, episode, evaluation, imitation = config.stage, config.episode, config.evaluation, config.imitation
    sets: dict[str, int | None]
    if parts.games is None:
        sets = dict.fromkeys(evaluation.splits or ("held-out",), evaluation.games)
        games = stage.games or None
    else:
        sets = {name: len(found.games) for name, found in parts.games.sets.items()}
        games = len(parts.games.train)
    where, data, updates = _where(config, parts), [], []
    if imitation.steps:
        expert = f"games of the expert {imitation.games:,}"
        data.append(f"{where}, imitation: {imitation.transitions or expert}")
        updates.append(f"Imitation: {imitation.steps:,} updates of {imitation.batch_size} demonstrations")
    if stage.steps:
        played = stage.steps * stage.groups * stage.group_size
        data.append(f"{where}: games {_or_all(games)}, steps of an episode at most {episode.max_steps}")
        updates.append(
            f"GRPO: {stage.steps:,} updates of {stage.groups} groups of {stage.group_size} episodes: {played:,} "
            f"episodes, at most {played * episode.max_steps:,} steps"
            + (f", and up to {stage.rounds} times as many for groups with signal" if stage.rounds > 1 else "")
        )
    data += [
        f"Evaluation: games {', '.join(f'{name} {_or_all(count)}' for name, count in sets.items())}; episodes of each "
        f"{evaluation.repeats}, steps of an episode at most {evaluation.max_steps or episode.max_steps}",
        _lengths(config, config.turn_tokens, parts),
    ]
    return data, updates


def _or_all(count: int | None) -> str:
    return "all" if count is None else f"{count:,}"


def _where(config: JobConfig, parts: _Parts) -> str:
    named = {name: value for name, value in config.arguments().items() if name in ("split", "domain")}
    return ", ".join([parts.title or config.env, *(f"{name} {value}" for name, value in named.items())])


def _lengths(config: JobConfig, written: int, parts: _Parts) -> str:
    window = f"{config.history} turns" if config.history else "the whole episode"
    needed = "" if parts.needed is None else f", {parts.needed:,} of them for instruction, task and rules"
    return (
        f"Prompts: {config.prompt_style}, {window}, tokens at most {config.max_prompt_tokens:,}{needed}; tokens "
        f"written at most {written:,}"
    )


def _count(options: StageConfig | SFTConfig, sizes: Mapping[str, int], batch: str) -> str:
    """Say how many updates there are, for each possible size of the data if that decides it."""
    if options.epochs is None:
        return f"{options.updates(0):,} updates of {batch}"
    counts = [f"{options.updates(size):,} on {label} {size:,}" for label, size in sizes.items() if size]
    return (
        f"{options.epochs:g} epochs in updates of {batch}: {', '.join(counts) or 'their number follows from the data'}"
    )


def _memory(config: JobConfig, model: PeftModel) -> list[str]:
    device: torch.device = default_device()
    plan = plan_memory(config, model, device=device)
    free = available_memory(device)
    fits = "fits into" if plan.fits(free) else "does not fit into"
    return [
        str(choose_precision(config.dtype, device)),
        *plan.lines,
        f"in all {plan.total / 1e9:.2f} GB, which {fits} the {free / 1e9:.2f} GB that are free here ({device.type})",
    ]
