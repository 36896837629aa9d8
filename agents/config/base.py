"""What configurations share: the environment, the model, what to do when something fails, and checks of values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, get_args

from rwml_gym.agents.language.instructions import PromptWorld
from rwml_gym.agents.language.prompts import STYLES, Prompts, PromptStyle, Tokenizer
from rwml_gym.agents.ranges import at_least
from rwml_gym.errors import InvalidConfigError

__all__ = [
    "TURN_TOKENS",
    "EnvConfig",
    "FaultConfig",
    "JobConfig",
    "ModelConfig",
    "TrackerName",
    "find_preset",
    "mapping_of",
    "nearest",
    "one_of",
    "turn_tokens",
]

TrackerName = Literal["none", "tensorboard", "wandb", "trackio", "all"]

Config = TypeVar("Config")

TURN_TOKENS: Mapping[PromptWorld, int] = {"game": 16, "service": 256}
"""Token limits of a turn where none is given: a command of a game is short, a call of a tool is long."""


def one_of(config: object, name: str, values: Sequence[str]) -> None:
    """Check that a field of a configuration is one of some values; the error names the nearest one."""
    actual = getattr(config, name)
    if actual not in values:
        raise InvalidConfigError(f"Expected {name} among {list(values)}, actual: {actual!r}.{nearest(actual, values)}")


def nearest(actual: object, values: Iterable[str]) -> str:
    """Name the nearest value in a sentence, with a blank before it; return an empty text if none is near."""
    found = difflib.get_close_matches(str(actual), list(values), 1)
    return f" Did you mean {found[0]!r}?" if found else ""


def mapping_of(name: str, text: str | None) -> dict[str, Any]:
    """Return the mapping that an option holds as JSON or YAML; it is empty if the option is absent."""
    if text is None:
        return {}
    from rwml_gym.agents.config.files import read_yaml  # only here, so that other commands start sooner

    try:
        given = read_yaml(text)
    except ValueError as error:
        given = f"invalid YAML ({error})"
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise InvalidConfigError(
            f'Expected {name} as a mapping such as {{"size": 4}}, actual: {text!r}, which is '
            f"{given if isinstance(given, str) else type(given).__name__}. Quote it as one word of the shell."
        )
    return given


def find_preset(presets: Mapping[str, Config], name: str) -> Config:
    """Find a preset by its name; the `InvalidConfigError` of an unknown name says which is nearest."""
    if name not in presets:
        raise InvalidConfigError(
            f"Expected a preset among {sorted(presets)}, actual: {name!r}.{nearest(name, presets)}"
        )
    return presets[name]


def turn_tokens(env: str) -> int:
    """Return the token limit of a turn of a training where none is given, see `TURN_TOKENS`.

    An own environment with tools counts as a game here, because nothing has been asked of it yet: give it a limit.
    """
    return TURN_TOKENS["service" if env in ("tau2", "rwml_gym/Tau2-v0") else "game"]


@dataclass(frozen=True)
class FaultConfig:
    """What a run does after a failure. It always says so and keeps its last good checkpoint.

    Attributes:
        on_nan: After a loss or gradient that is not finite: `stop`, or `skip` the step.
        on_save_error: After a failure to write a checkpoint: `stop`, or `go_on` and try again at the next one.
        on_env_error: After an error of an environment in training: `raise` it, or `drop` the episode.
    """

    on_nan: Literal["stop", "skip"] = "stop"
    on_save_error: Literal["stop", "go_on"] = "stop"
    on_env_error: Literal["raise", "drop"] = "raise"


@dataclass(frozen=True)
class EnvConfig:
    """Which environment is played, and which of its games.

    Attributes:
        env: `alfworld`, `tau2` (τ²-bench with its scripted user), `toy`, or any registered Gymnasium id of a text
            environment, `module:Id-v0` where a module registers it.
        env_arguments: Further arguments of the environment, a mapping as JSON or YAML such as `{"size": 4}`.
        split: Games of the environment. ALFWorld: `generated`, or an official split (`train`, `valid_seen`,
            `valid_unseen`, `valid_train`). τ²-bench: `train`, `test` or another. The command's default if absent.
        domain: Domain of τ²-bench: `airline`, `retail` (if absent), `telecom`, `telecom-workflow` or `mock`.
        data: Folder of official ALFWorld games; `$ALFWORLD_DATA` if absent.
        task_types: Task types of ALFWorld; all if absent.
        rooms: Rooms of generated ALFWorld games; all if absent.
        difficulty: How many receptacles may hold the object of a generated ALFWorld game, least and most.
        grammar: Grammar of ALFWorld, `installed` (if absent), `original` or `mixed`, see `ALFWorldEnv`.
    """

    env: str = "alfworld"
    env_arguments: str | None = None
    split: str | None = None
    domain: str | None = None
    data: str | None = None
    task_types: tuple[str, ...] | None = None
    rooms: tuple[str, ...] | None = None
    difficulty: tuple[int, int] | None = None
    grammar: Literal["installed", "original", "mixed"] | None = None

    def arguments(self) -> dict[str, Any]:
        """Collect the arguments of the environment that are set, those of `env_arguments` included.

        Raises:
            InvalidConfigError: If `env_arguments` is no mapping, or sets what another option sets.
        """
        fields = ("split", "domain", "data", "task_types", "rooms", "difficulty", "grammar")
        named = {name: getattr(self, name) for name in fields if getattr(self, name) is not None}
        given = mapping_of("env_arguments", self.env_arguments)
        if twice := sorted(set(given) & set(named)):
            raise InvalidConfigError(f"Expected each argument once, actual: {twice} twice. Remove one of the two.")
        return {**named, **given}


@dataclass(frozen=True)
class ModelConfig:
    """A language model, and what its prompts hold.

    Attributes:
        model: Language model, see `language.models.load_model`.
        dtype: Data type of the model: `auto`, `float32` or `bfloat16`.
        prompt_style: `transcript` or `chat`, see `language.prompts.Prompts`.
        history: Window H, in turns; 0 for the whole episode.
        max_prompt_tokens: Token limit of a prompt; longer ones lose their oldest turns.
        max_state_characters: Prompts show only the beginning of a longer state; 0 for no limit.
    """

    min_prompt_tokens = 1  # without annotation, so that it is no option

    model: str = "SmolLM2-135M-Instruct"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    prompt_style: PromptStyle = "transcript"
    history: int = 4
    max_prompt_tokens: int = 1024
    max_state_characters: int = 0

    def __post_init__(self) -> None:
        at_least(self, self.min_prompt_tokens, "max_prompt_tokens")
        at_least(self, 0, "history", "max_state_characters")
        one_of(self, "prompt_style", STYLES)
        one_of(self, "dtype", ("auto", "float32", "bfloat16"))

    def make_prompts(self, tokenizer: Tokenizer, world: PromptWorld, **settings: Any) -> Prompts:
        """Make the prompts of this configuration; `settings` are further arguments of `Prompts`."""
        style, limits = self.prompt_style, (self.max_prompt_tokens, world, self.max_state_characters)
        return Prompts(tokenizer, style, self.history, *limits, **settings)


@dataclass(frozen=True)
class JobConfig(ModelConfig, EnvConfig):
    """What all training jobs share.

    Attributes:
        lora_rank: LoRA r, on all linear layers.
        lora_alpha: LoRA scale.
        tracker: Where metrics go beside the run's folder, through accelerate: `tensorboard`, `wandb`, `trackio`, `all`
            that are installed, or `none`.
        push_to_hub: Repository to upload the trained adapter to, such as `name/repository` (private); none if absent.
        faults: What to do when something fails.
        seed: Seed of the run; everything follows from it.
    """

    command: ClassVar[str] = ""  # of `rwml-gym train`

    lora_rank: int = 16
    lora_alpha: int = 32
    tracker: TrackerName = "none"
    push_to_hub: str | None = None
    faults: FaultConfig = field(default_factory=FaultConfig)
    seed: int = 0

    @property
    def playing(self) -> dict[str, Any]:
        """The options of `rwml-gym evaluate` with which a trained agent plays as in its training; none of others."""
        return {}

    @property
    def predicts(self) -> bool:
        """Whether the trained model is a world model."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "lora_rank", "lora_alpha")
        at_least(self, 0, "seed")
        one_of(self, "tracker", get_args(TrackerName))
