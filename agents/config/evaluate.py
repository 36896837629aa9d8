"""The configuration of an evaluation: who plays what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rwml_gym.agents.config.base import EnvConfig, at_least
from rwml_gym.agents.language.prompts import PromptStyle
from rwml_gym.agents.players.base import Decoding

__all__ = ["AgentName", "EvaluateConfig"]

AgentName = Literal["random", "expert", "task-words", "no-op", "transfer", "random-caller", "model"]


@dataclass(frozen=True)
class EvaluateConfig(EnvConfig):
    """Play an agent on a split and say how often it succeeds, with a 95 % interval.

    Attributes:
        agent: `random`, `task-words`, `expert` (ALFWorld, toy), `model`, or on τ²-bench `no-op`, `transfer` and
            `random-caller`.
        episodes: Number of games, from the first on; if absent all, or 100 of games without end.
        max_steps: Step budget of an episode; the registered one if absent.
        seed: Seed of the agent.
        model: Language model of the agent `model`, see `language.models.load_model`.
        adapter: Folder of a LoRA adapter for it.
        dtype: Data type of the model: `auto`, `float32` or `bfloat16`.
        temperature: Temperature of its sampling; 0 takes the likeliest token.
        decoding: `free` text, or `constrained` to or `scored` among the admissible actions, see `LanguageModelAgent`.
        prompt_style: `transcript` or `chat`, see `Prompts`.
        history: Turns it is shown; 0 for the whole episode.
        max_prompt_tokens: Longer prompts lose their oldest turns.
        action_tokens: Token limit of a turn.
        thoughts: Whether it writes a thought before each action (ReAct).
        show_policy: Whether it is shown τ²-bench's policy.
        slots: Episodes it plays side by side.
    """

    agent: AgentName = "random"
    episodes: int | None = None
    max_steps: int | None = None
    seed: int = 0
    model: str = "SmolLM2-135M-Instruct"
    adapter: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    temperature: float = 0.0
    decoding: Decoding = "free"
    prompt_style: PromptStyle = "transcript"
    history: int = 4
    max_prompt_tokens: int = 1024
    action_tokens: int = 16
    thoughts: bool = False
    show_policy: bool = False
    slots: int = 16

    def __post_init__(self) -> None:
        at_least(self, 0, "history", "temperature")
        at_least(self, 1, "max_prompt_tokens", "action_tokens", "slots")
        for name in ("episodes", "max_steps"):
            if getattr(self, name) is not None:
                at_least(self, 1, name)
