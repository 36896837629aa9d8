"""The configuration of an evaluation: who plays what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rwml_gym.agents.config.base import EnvConfig, ModelConfig
from rwml_gym.agents.players.base import Decoding
from rwml_gym.agents.ranges import at_least
from rwml_gym.errors import InvalidConfigError

__all__ = ["AgentName", "EvaluateConfig"]

AgentName = Literal["random", "expert", "task-words", "no-op", "transfer", "random-caller", "model"]


@dataclass(frozen=True)
class EvaluateConfig(ModelConfig, EnvConfig):
    """Play an agent on a split and say how often it succeeds, with a 95 % interval.

    Attributes:
        agent: `model`; `random` or `task-words` where admissible actions are listed; `expert` (ALFWorld, toy); on
            τ²-bench `random-caller`, `no-op` or `transfer`. If absent, the one that draws its actions at random.
        episodes: Number of games, from the first on; if absent all, or 100 of games without end.
        max_steps: Step budget of an episode; the registered one if absent.
        seed: Seed of the agent.
        adapter: Folder of a LoRA adapter for the agent `model`.
        temperature: Temperature of the model's sampling; 0 takes the likeliest token.
        decoding: `free` text, or `constrained` to or `scored` among the admissible actions, see `LanguageModelAgent`.
        action_tokens: Token limit of a turn.
        thoughts: Whether the model writes a thought before each action (ReAct).
        show_policy: Whether the prompt holds τ²-bench's policy and tool schemas.
        slots: Episodes that the model plays side by side.
    """

    agent: AgentName | None = None
    episodes: int | None = None
    max_steps: int | None = None
    seed: int = 0
    adapter: str | None = None
    temperature: float = 0.0
    decoding: Decoding = "free"
    action_tokens: int = 16
    thoughts: bool = False
    show_policy: bool = False
    slots: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "temperature", "seed")
        at_least(self, 1, "action_tokens", "slots", "episodes", "max_steps")
        if self.adapter is not None and self.agent != "model":
            raise InvalidConfigError(
                f"Expected the agent 'model' for an adapter, actual: {self.agent!r}. Use --agent model, or leave out "
                "--adapter."
            )
