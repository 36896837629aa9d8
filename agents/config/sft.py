"""The configuration of supervised fine-tuning, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

from rwml_gym.agents.config.base import JobConfig, find_preset, one_of
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.ranges import at_least
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import VIEWS, ViewName

__all__ = ["SFT_PRESETS", "SFTJobConfig", "sft_preset"]


@dataclass(frozen=True)
class SFTJobConfig(JobConfig):
    """What is learnt from what.

    Attributes:
        target: `actions`: what an agent should do, from the expert's episodes or recorded ones that were won; success
            on held-out games is measured afterwards. `states`: the next observation, from anybody's play; the loss on
            held-out games is measured before and after.
        transitions: Folder of recorded transitions; if absent, the expert (`actions`) or a random agent (`states`)
            plays. For `states`, some of its own games are held out, and no environment is needed.
        games: Number of games that are played to learn from.
        held_out_games: Number of games on which it is measured.
        max_steps: Step budget of an episode.
        max_new_tokens: Token limit of a learnt state.
        target_view: With `states`, what of the results of tools is learnt, a name of `VIEWS`.
        sft: Steps, batch and learning rate; a batch is of episodes or of transitions.
        checkpoint_every: Updates between checkpoints.
    """

    command: ClassVar[str] = "sft"

    target: Literal["actions", "states"] = "actions"
    transitions: str | None = None
    games: int = 64
    held_out_games: int = 20
    max_steps: int = 30
    max_new_tokens: int = 96
    target_view: ViewName = "raw"
    sft: SFTConfig = field(default_factory=SFTConfig)
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "games", "held_out_games", "max_steps", "max_new_tokens", "checkpoint_every")
        one_of(self, "target", ("actions", "states"))
        one_of(self, "target_view", tuple(VIEWS))
        if self.target == "actions" and self.target_view != "raw":
            raise InvalidConfigError(
                f"Expected the target view 'raw' with the target 'actions', actual: {self.target_view!r}. Learn "
                "states, or remove the view: actions have none."
            )


SFT_PRESETS: dict[str, SFTJobConfig] = {
    # Minutes on two cores.
    "demo": SFTJobConfig(max_prompt_tokens=1024, max_steps=15, sft=SFTConfig(steps=30)),
    "smollm2": SFTJobConfig(max_prompt_tokens=2048, games=500, held_out_games=100, sft=SFTConfig(steps=300)),
    # To see that an installation works; its numbers mean nothing.
    "smoke": SFTJobConfig(
        max_prompt_tokens=512, games=3, held_out_games=2, max_steps=8, sft=SFTConfig(steps=2, batch_size=2)
    ),
}

sft_preset = partial(find_preset, SFT_PRESETS)
