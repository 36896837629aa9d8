"""What every training job is told: which world, which model, and what to do when something fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rwml_gym.agents.language.prompts import STYLES, Prompts, PromptStyle, PromptWorld, Tokenizer
from rwml_gym.errors import InvalidConfigError

__all__ = ["FaultConfig", "JobConfig", "at_least", "find_preset", "share"]

Config = TypeVar("Config")


def at_least(config: object, least: float, *names: str) -> None:
    """Checks that fields of a configuration are not below a number."""
    for name in names:
        if getattr(config, name) < least:
            raise InvalidConfigError(f"Expected {name} of at least {least}, actual {getattr(config, name)}")


def share(config: object, *names: str) -> None:
    """Checks that fields of a configuration lie between 0 and 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise InvalidConfigError(f"Expected {name} between 0 and 1, actual {getattr(config, name)}")


def find_preset(presets: Mapping[str, Config], name: str) -> Config:
    """A preset by name.

    Raises:
        InvalidConfigError: There is none of that name.
    """
    if name not in presets:
        raise InvalidConfigError(f"Expected a preset among {sorted(presets)}, actual {name!r}")
    return presets[name]


@dataclass(frozen=True)
class FaultConfig:
    """What a run does when something fails; whatever it does, it says so and keeps its last good checkpoint.

    Attributes:
        on_nan: A loss or gradient that is no number: `stop`, or `skip` the step.
        on_save_error: A checkpoint that cannot be written: `stop`, or `go_on` and try again at the next.
        on_env_error: An environment that raises while it is trained on: `raise`, or `drop` the episode.
    """

    on_nan: Literal["stop", "skip"] = "stop"
    on_save_error: Literal["stop", "go_on"] = "stop"
    on_env_error: Literal["raise", "drop"] = "raise"


@dataclass(frozen=True)
class JobConfig:
    """The part that all jobs share.

    Attributes:
        env: `alfworld`, or `tau2` for τ²-bench with its scripted user.
        split: Its games. ALFWorld: `generated` (if absent), or an official split (`train`, `valid_seen`,
            `valid_unseen`, `valid_train`). τ²-bench: `train` (if absent), with `test` held out, or another split.
        domain: Of τ²-bench: `airline`, `retail`, `telecom`, `telecom-workflow` or `mock`.
        data: Folder of official ALFWorld games; `$ALFWORLD_DATA` if absent.
        task_types: Of ALFWorld; only these, all if absent.
        rooms: Of generated ALFWorld games; only these, all if absent.
        difficulty: Of generated ALFWorld games: how many receptacles may hold what is asked for, least and most.
        grammar: Of ALFWorld: `installed` or `original`, see `ALFWorldEnv`.
        model: Language model, see `models.load_model`.
        dtype: `auto`, `float32` or `bfloat16`.
        lora_rank: LoRA r, on all linear layers.
        lora_alpha: LoRA scale.
        prompt_style: `transcript` or `chat`, see `prompts.Prompts`.
        history: Window H, in turns.
        max_prompt_tokens: Longer prompts lose their oldest turns.
        max_state_characters: Longer states are shown in part; 0 for no limit.
        tracker: Where metrics go beside the run's folder, through accelerate: `tensorboard`, `wandb`, `trackio`, `all`
            that are installed, or `none`.
        push_to_hub: Where to upload the adapter when it is trained, such as `name/repository` (private); nowhere if
            absent.
        faults: What to do when something fails.
        seed: Everything follows from it.
    """

    env: Literal["alfworld", "tau2"] = "alfworld"
    split: str | None = None
    domain: str = "retail"
    data: str | None = None
    task_types: tuple[str, ...] | None = None
    rooms: tuple[str, ...] | None = None
    difficulty: tuple[int, int] | None = None
    grammar: Literal["installed", "original"] = "installed"
    model: str = "SmolLM2-135M-Instruct"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    lora_rank: int = 16
    lora_alpha: int = 32
    prompt_style: PromptStyle = "transcript"
    history: int = 4
    max_prompt_tokens: int = 1024
    max_state_characters: int = 0
    tracker: Literal["none", "tensorboard", "wandb", "trackio", "all"] = "none"
    push_to_hub: str | None = None
    faults: FaultConfig = field(default_factory=FaultConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "max_prompt_tokens", "lora_rank")
        at_least(self, 0, "history", "max_state_characters")
        if self.prompt_style not in STYLES:
            raise InvalidConfigError(f"Expected prompt_style among {list(STYLES)}, actual {self.prompt_style!r}")

    def prompts(self, tokenizer: Tokenizer, **settings: Any) -> Prompts:
        """What the model is shown and how its answers are read.

        Args:
            tokenizer: The model's.
            **settings: Further arguments of `Prompts`.
        """
        world: PromptWorld = "service" if self.env == "tau2" else "game"
        return Prompts(
            tokenizer,
            self.prompt_style,
            self.history,
            self.max_prompt_tokens,
            world,
            self.max_state_characters,
            **settings,
        )
