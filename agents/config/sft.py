"""The configuration of supervised fine-tuning, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from rwml_gym.agents.config.base import JobConfig, find_preset, one_of
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.ranges import at_least
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import VIEWS, ViewName

__all__ = ["SFT_PRESETS", "SFTJobConfig", "sft_preset"]


# The options of SFT that the imitation of actions has.
_IMITATED = ("steps", "batch_size", "learning_rate", "warmup")


@dataclass(frozen=True)
class SFTJobConfig(JobConfig):
    """What is learnt from what.

    Attributes:
        target: `actions`: what an agent should do, from the expert's episodes or recorded ones that were won; success
            on held-out games is measured afterwards. `states`: the next observation, from anybody's play; the loss on
            held-out games is measured before and after.
        transitions: Folder of recorded transitions; if absent, the expert (`actions`) or a random agent (`states`)
            plays. For `states`, no environment is needed.
        held_out_transitions: For `states`, folder of recorded transitions of other games to measure on; if absent, some
            of the games of `transitions` are held out.
        games: Number of games that are played to learn from.
        held_out_games: Number of games on which it is measured.
        max_steps: Step budget of an episode.
        max_new_tokens: Token limit of a learnt state.
        action_tokens: With `actions`, token limit of a turn where success is measured; 16 in games and 256 in customer
            service if absent.
        target_view: With `states`, what of the results of tools is learnt, a name of `VIEWS`.
        show_policy: Whether prompts hold the rules that the agent plays by where the environment has some: τ²-bench's
            policy and tool schemas, for `states` as in the paper.
        sft: Steps or epochs, batch and learning rate; a batch is of episodes or of transitions.
        checkpoint_every: Updates between checkpoints.
    """

    command: ClassVar[str] = "sft"

    target: Literal["actions", "states"] = "actions"
    transitions: str | None = None
    held_out_transitions: str | None = None
    games: int = 64
    held_out_games: int = 20
    max_steps: int = 30
    max_new_tokens: int = 96
    action_tokens: int | None = None
    show_policy: bool = False
    target_view: ViewName = "raw"
    sft: SFTConfig = field(default_factory=SFTConfig)
    checkpoint_every: int = 10

    @property
    def predicts(self) -> bool:
        """Whether the trained model is a world model."""
        return self.target == "states"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "games", "held_out_games", "max_steps", "max_new_tokens", "action_tokens", "checkpoint_every")
        one_of(self, "target", ("actions", "states"))
        if self.held_out_transitions is not None and (self.target == "actions" or self.transitions is None):
            raise InvalidConfigError(
                "Expected transitions to learn states from beside held_out_transitions, actual: target "
                f"{self.target!r}, transitions {self.transitions!r}. Give both, with target 'states'."
            )
        if self.sft.epochs is not None and self.target == "actions":
            raise InvalidConfigError(
                f"Expected sft.steps for target 'actions', actual: sft.epochs {self.sft.epochs}. Give sft.steps, or "
                "learn 'states'."
            )
        if self.sft.mask_arbitrary:
            raise InvalidConfigError(
                "Expected no sft.mask_arbitrary, actual: true. Recorded states have no arbitrary parts; only "
                "`rwml-gym train rwml --nuisance` puts some in."
            )
        unused = [name for name in self.sft.changed if name not in _IMITATED]
        if unused and self.target == "actions":
            raise InvalidConfigError(
                f"Expected no {' and no '.join(f'sft.{name}' for name in unused)} for target 'actions', actual: "
                f"{', '.join(str(getattr(self.sft, name)) for name in unused)}. Learn 'states', or leave it out."
            )
        if self.action_tokens is not None and self.target == "states":
            raise InvalidConfigError(
                f"Expected no action_tokens with target 'states', actual: {self.action_tokens}. Nobody plays there: "
                "leave it out, or learn 'actions'."
            )
        one_of(self, "target_view", tuple(VIEWS))
        if self.target == "actions" and self.target_view != "raw":
            raise InvalidConfigError(
                f"Expected the target view 'raw' with the target 'actions', actual: {self.target_view!r}. Learn "
                "states, or remove the view: actions have none."
            )


# What the paper's presets share; the learning rate is ten times the paper's 2e-6, as LoRA needs (`config.paper`).
_PAPER: dict[str, Any] = dict(
    prompt_style="chat",
    target="states",
    sft=SFTConfig(epochs=2, batch_size=32, learning_rate=2e-5),
)

SFT_PRESETS: dict[str, SFTJobConfig] = {
    # Minutes on two cores.
    "demo": SFTJobConfig(max_prompt_tokens=1024, max_steps=15, sft=SFTConfig(steps=30)),
    "smollm2": SFTJobConfig(max_prompt_tokens=2048, games=500, held_out_games=100, sft=SFTConfig(steps=300)),
    # The paper's WM SFT, line by line; `config.paper` has the paper's table and why some values differ. It learns from
    # the triplets that `train rwml` of the same preset trained on, in that run's default folder. Not run here.
    "paper-alfworld": SFTJobConfig(
        **_PAPER,
        model="Qwen/Qwen2.5-7B-Instruct",
        split="train",
        transitions="runs/paper-alfworld/transitions/kept",
        held_out_transitions="runs/paper-alfworld/transitions/held_out",
        max_prompt_tokens=4096,
        max_new_tokens=512,
    ),
    "paper-tau2": SFTJobConfig(
        **_PAPER,
        env="tau2",
        domain="all",
        split="train",
        model="Qwen/Qwen3-8B",
        transitions="runs/paper-tau2/transitions/kept",
        held_out_transitions="runs/paper-tau2/transitions/held_out",
        max_prompt_tokens=16_384,
        max_new_tokens=1024,
        show_policy=True,
        target_view="schema",
    ),
    # To see that an installation works; its numbers mean nothing.
    "smoke": SFTJobConfig(
        max_prompt_tokens=512, games=3, held_out_games=2, max_steps=8, sft=SFTConfig(steps=2, batch_size=2)
    ),
}

sft_preset = partial(find_preset, SFT_PRESETS)
