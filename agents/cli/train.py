"""The training commands: a preset or a file, changed by options, run in a folder."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from rwml_gym.agents.config.base import EnvConfig, JobConfig, find_preset, turn_tokens
from rwml_gym.agents.config.policy import POLICY_PRESETS
from rwml_gym.agents.config.sft import SFT_PRESETS
from rwml_gym.agents.config.world_model import PRESETS
from rwml_gym.errors import InvalidConfigError
from rwml_gym.terminal import say

__all__ = ["policy", "rwml", "sft"]


@dataclass(frozen=True)
class Start:
    """What the other options change, and where the run goes."""

    preset: str = ""
    config: str = ""
    run_dir: str = ""
    env: str = ""
    fork: str = ""
    dry_run: bool = False


def _train(name: str, title: str, presets: Mapping[str, Any], job: str, words: list[str]) -> None:
    start, rest = tyro.cli(Start, args=words, add_help=False, return_unknown_args=True)
    default = f"demo-{start.env}" if f"demo-{start.env}" in presets else "demo"
    if start.preset and start.config:
        raise InvalidConfigError("Expected --preset or --config, actual: both. Options change single values of either.")
    config: JobConfig = find_preset(presets, start.preset or default)
    if start.config:
        from rwml_gym.agents.config.files import load_config  # needs pydantic, which other commands do without

        config = load_config(type(config), start.config)
    if start.env and start.env != config.env:
        tokens = turn_tokens(config.env)
        # A preset's choice of games belongs to its own environment, as does how long an action is.
        config = replace(config, **{**{field.name: field.default for field in fields(EnvConfig)}, "env": start.env})
        config = replace(config, **(_with_own_turns(config) if turn_tokens(start.env) != tokens else {}))
    prefix = "" if name == "rwml" else f"{name}-"
    folder = start.run_dir or f"runs/{prefix}{Path(start.config).stem if start.config else start.preset or default}"
    config = tyro.cli(
        type(config),
        args=rest,
        default=config,
        prog=f"rwml-gym train {name}",
        description=f"{title} Presets: {', '.join(presets)} (--preset, default {default}). Instead of a preset, a YAML "
        "file of options (--config), such as a run's config.yaml. Results go to --run-dir."
        + ("" if name == "sft" else " With --fork RUN, all up to its SFT or its first evaluation is another run's."),
    )
    if start.fork and name == "sft":
        raise InvalidConfigError(
            "Expected --fork with `train rwml` or `train policy`, actual: `train sft`. Leave it out."
        )
    forking = {"fork": start.fork} if start.fork else {}
    if start.dry_run:
        say(pkgutil.resolve_name("rwml_gym.agents.jobs.plan:plan_run")(config, folder, **forking))
    else:
        pkgutil.resolve_name(job)(config, folder, **forking)


def _with_own_turns(config: JobConfig) -> dict[str, Any]:
    """Return the parts of a preset with the environment's token limit of a turn, in place of one for other turns."""
    parts = {name: getattr(config, name) for name in ("episode", "collect") if hasattr(config, name)}
    return {name: replace(part, action_tokens=None) for name, part in parts.items()}


rwml = partial(
    _train,
    "rwml",
    "RWML stage 1: train a language model as a world model.",
    PRESETS,
    "rwml_gym.agents.jobs.world_model:run_world_model",
)
policy = partial(
    _train,
    "policy",
    "Stage 2: train a language model to play, from stage 1's adapter if given (--adapter).",
    POLICY_PRESETS,
    "rwml_gym.agents.jobs.policy:run_policy",
)
sft = partial(
    _train,
    "sft",
    "Supervised fine-tuning: imitate an expert or recorded episodes, or learn next states (--target).",
    SFT_PRESETS,
    "rwml_gym.agents.jobs.sft:run_sft",
)
