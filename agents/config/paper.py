"""The settings of the RWML paper (arXiv 2602.05842 v2), written down once, and how a configuration deviates from them.

`PAPER` holds what the paper says, with the place where it says it. The presets `paper-alfworld` and `paper-tau2` follow
it; where they cannot, `why` gives the reason. `OPEN` holds what the paper leaves open and why the presets have the
values that they have. What deviates is found by comparing, see `deviations`; `other_changes` lists all other options
that are not the preset's, so no list can go stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.files import flatten
from rwml_gym.agents.config.policy import POLICY_PRESETS
from rwml_gym.agents.config.sft import SFT_PRESETS
from rwml_gym.agents.config.world_model import PRESETS

__all__ = [
    *("OPEN", "PAPER", "TRIPLETS", "Deviation", "Given", "Triplets"),
    *("choices", "deviations", "other_changes", "value_at"),
]


@dataclass(frozen=True)
class Given:
    """What the paper says of a setting.

    Attributes:
        value: The value, in the units of the configuration.
        place: Where the paper says it: a table, an equation, or the subject of the passage.
        why: Why the preset has another value, if it has.
    """

    value: Any
    place: str
    why: str = ""


@dataclass(frozen=True)
class Triplets:
    """Numbers of triplets in the paper.

    Attributes:
        validation: Those that the filter's model is fine-tuned on; 0 if the paper does not say.
        tried: Those that the filter tries; 0 if the paper does not say.
        kept: Those that it keeps, which are trained on.
    """

    validation: int
    tried: int
    kept: int


TRIPLETS: dict[str, Triplets] = {"alfworld": Triplets(2_288, 21_011, 15_813), "tau2": Triplets(0, 0, 5_578)}
"""The sizes of the paper's data, by environment."""

Settings = Mapping[str, Given]

_LORA = "LoRA learns as much from data of this size with few weights (LoRA Without Regret, Schulman et al. 2025)"
_RATE = (
    "a LoRA adapter needs about ten times the learning rate of all weights (LoRA Without Regret, Schulman et al. 2025)"
)
_USER = (
    "users that are models need an endpoint; give one with "
    '--env-arguments \'{"user": "model", "user_model": "NAME"}\', or the scripted user plays'
)
_ANY: Settings = {
    "prompt_style": Given("chat", "prompts"),
    "lora_rank": Given("all weights", "training setup", _LORA),
}
_RWML: Settings = {
    **_ANY,
    "collect.max_steps": Given(30, "interaction learning"),
    "collect.temperature": Given(1.0, "interaction learning"),
    "collect.random_share": Given(0.0, "interaction learning: the model itself plays"),
    "filter.share": Given(0.1, "filter: the validation split"),
    "filter.attempts": Given(10, "filter: K"),
    "filter.easy_rate": Given(
        0.0,
        "Table A2: τ_easy",
        "read as the text has it, 'consistently achieve high reward'; --filter.easy-rate 0 follows the table",
    ),
    "filter.keep_easy": Given(0.1, "equation 1: p"),
    "filter.keep_hard": Given(1.0, "equation 1"),
    "filter.limit": Given(0, "filter: all triplets are tried"),
    "encoder": Given("Qwen/Qwen3-Embedding-8B", "reward: E"),
    "warm_start": Given(False, "world-model learning: from the base model"),
    "stage.epochs": Given(2, "training setup"),
    "stage.groups": Given(32, "training setup: batch"),
    "grpo.scale_rewards": Given(True, "world-model learning: A = (r - mean) / std"),
    "grpo.learning_rate": Given(1e-6, "training setup", _RATE),
}
_SFT: Settings = {
    **_ANY,
    "target": Given("states", "baselines: WM SFT"),
    "sft.epochs": Given(2, "baselines: WM SFT"),
    "sft.batch_size": Given(32, "baselines: WM SFT"),
    "sft.learning_rate": Given(2e-6, "baselines: WM SFT", _RATE),
    "sft.empty_thought": Given(True, "baselines: WM SFT, label with an empty thought"),
}
_POLICY: Settings = {
    **_ANY,
    "imitation.steps": Given(0, "policy learning: from the RWML weights or the base model"),
    "stage.group_size": Given(8, "policy learning: G"),
    "stage.task_weight": Given(1.0, "policy learning: task success, not discounted"),
    "stage.world_model_weight": Given(0.0, "policy learning: task success alone"),
    "evaluation.max_steps": Given(30, "evaluation"),
    "evaluation.repeats": Given(3, "evaluation: mean of 3 runs"),
}
_ALFWORLD: Settings = {
    "model": Given("Qwen/Qwen2.5-7B-Instruct", "models"),
    "split": Given("train", "data: the training set"),
}
_TAU2: Settings = {
    "model": Given("Qwen/Qwen3-8B", "models"),
    "domain": Given("all", "data: retail, telecom and airline"),
    "split": Given("train", "data: the training split"),
    "show_policy": Given(True, "prompts: the agent's instruction"),
}

PAPER: dict[str, dict[str, Settings]] = {
    "alfworld": {
        "rwml": {
            **_RWML,
            **_ALFWORLD,
            "collect.games": Given(2_048, "data: tasks"),
            "collect.rollouts": Given(3, "data: rollouts"),
            "collect.drop_invalid": Given("some", "triplets", "the paper does not say how many are removed"),
            "filter.threshold": Given(0.1, "Table A2: τ_d of the filter"),
            "threshold": Given(0.2, "Table A2: τ_d of the training"),
            "stage.group_size": Given(8, "training setup: G"),
        },
        "sft": {**_SFT, **_ALFWORLD},
        "policy": {
            **_POLICY,
            **_ALFWORLD,
            "stage.steps": Given(300, "policy learning"),
            "episode.max_steps": Given(15, "policy learning: episodes in training"),
            "episode.thoughts": Given(True, "policy learning: reasoning before each action"),
            "evaluation.splits": Given(("valid_seen", "valid_unseen"), "evaluation: in and out of distribution"),
        },
    },
    "tau2": {
        "rwml": {
            **_RWML,
            **_TAU2,
            "collect.games": Given(178, "data: tasks"),
            "collect.rollouts": Given(6, "data: rollouts"),
            "env_arguments": Given("GPT-4.1 as user in 3 rollouts, Qwen3-235B in 3", "data: users", _USER),
            "filter.threshold": Given(0.15, "Table A2: τ_d of the filter"),
            "threshold": Given(0.4, "Table A2: τ_d of the training, of user words"),
            "tool_gap": Given("rouge", "reward of tool results"),
            "tool_reward": Given("stepped", "reward of tool results: in steps of 0.2"),
            "target_view": Given("schema", "targets: values are replaced by their schema"),
            "stage.group_size": Given(16, "training setup: G"),
        },
        "sft": {
            **_SFT,
            **_TAU2,
            "target_view": Given("schema", "targets: values are replaced by their schema"),
        },
        "policy": {
            **_POLICY,
            **{path: given for path, given in _TAU2.items() if path != "show_policy"},
            "stage.steps": Given(200, "policy learning"),
            "episode.max_steps": Given(30, "policy learning: episodes in training"),
            "episode.show_policy": Given(True, "policy learning: tau2's own prompts"),
            "env_arguments": Given("Qwen3-235B as user", "evaluation: user", _USER),
        },
    },
}
"""What the paper says, by environment, command of `rwml-gym train` and path of the setting in the configuration."""

_ANY_OPEN = {
    "history": "the window of the other presets",
    "max_prompt_tokens": "room for the rules of every domain and for the window",
    "seed": "the number of training seeds is not given; start again with other seeds",
}
_GRPO_OPEN = {
    "grpo.beta": "the default of this package; the paper has a KL term without its weight",
    "grpo.clip": "PPO's and TRL's default",
    "grpo.loss_type": "the paper's equation is GRPO's",
}
OPEN: dict[str, Mapping[str, str]] = {
    "rwml": {
        **_ANY_OPEN,
        **_GRPO_OPEN,
        "max_new_tokens": "room for reasoning and state",
        "sft.epochs": "the filter's model is fine-tuned as the paper's WM SFT is",
        "sft.learning_rate": "that of the WM SFT, ten times the paper's, as LoRA needs",
    },
    "sft": {**_ANY_OPEN, "max_new_tokens": "room for the label"},
    "policy": {
        **_ANY_OPEN,
        **_GRPO_OPEN,
        "grpo.learning_rate": "that of world-model learning",
        "stage.groups": "the default of this package",
        "episode.action_tokens": "room for reasoning and action",
        "evaluation.temperature": "that of training: at 0, runs of a deterministic environment are the same",
    },
}
"""What the paper leaves open, by command: the path of the setting, and why the presets have the value they have."""

_PRESETS: dict[str, Mapping[str, Any]] = {"rwml": PRESETS, "sft": SFT_PRESETS, "policy": POLICY_PRESETS}
_ABSENT = "no such option"
_ASIDE = (
    *("data", "dtype", "tracker", "push_to_hub", "faults"),
    *("batch_rows", "checkpoint_every", "stage.checkpoint_every"),
)


@dataclass(frozen=True)
class Deviation:
    """A setting that is not the paper's.

    Attributes:
        path: Its path in the configuration.
        paper: The paper's value.
        here: The configuration's value.
        place: Where the paper says it.
        why: The reason.
    """

    path: str
    paper: Any
    here: Any
    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: paper {_shown(self.paper)} ({self.place}), here {_shown(self.here)}; {self.why}"


def deviations(config: JobConfig) -> list[Deviation]:
    """Compare a configuration with the paper's settings for its environment.

    Args:
        config: The configuration of a job; environments that the paper has not have nothing to deviate from.

    Returns:
        What differs, with the preset's reason where the value is the preset's.
    """
    preset = _PRESETS.get(config.command, {}).get(f"paper-{config.env}")
    found = []
    for path, given in PAPER.get(config.env, {}).get(config.command, {}).items():
        here = value_at(config, path)
        if here != given.value:
            chosen = preset is None or here != value_at(preset, path) or not given.why
            why = "set for this run" if chosen else given.why
            found.append(Deviation(path, given.value, here, given.place, why))
    return found


def choices(config: JobConfig) -> list[str]:
    """List what the paper leaves open, with the configuration's values, one sentence each."""
    if config.env not in PAPER:
        return []
    preset = _PRESETS[config.command][f"paper-{config.env}"]
    return [
        f"{path}: {_shown(here)}; {why if here == value_at(preset, path) else 'set for this run'}"
        for path, why in OPEN[config.command].items()
        for here in [value_at(config, path)]
    ]


def other_changes(config: JobConfig) -> list[str]:
    """List the options that differ from the paper's preset and of which the paper says nothing, one line each.

    Left out is where a run computes, where it reports to, and when it saves.
    """
    preset = _PRESETS.get(config.command, {}).get(f"paper-{config.env}")
    if preset is None:
        return []
    said = {*PAPER[config.env][config.command], *OPEN[config.command]}
    here, there = flatten(config), flatten(preset)
    return [
        f"{path}: {_shown(value)} instead of {_shown(there[path])}"
        for path, value in here.items()
        if value != there.get(path) and path not in said and path.split(".")[0] not in _ASIDE and path not in _ASIDE
    ]


def value_at(config: Any, path: str) -> Any:
    """Return the value at a path of a configuration, such as `stage.groups`, or a text if there is no such option."""
    for name in path.split("."):
        config = getattr(config, name, _ABSENT)
    return config


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value in (None, "None") else str(value)
