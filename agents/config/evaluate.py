"""The configuration of an evaluation: who plays what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rwml_gym.agents.config.base import EnvConfig, ModelConfig, mapping_of, one_of
from rwml_gym.agents.players.base import Decoding
from rwml_gym.agents.ranges import above, at_least
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, GapName

__all__ = ["ENDPOINT", "EvaluateConfig"]

ENDPOINT = "litellm:"
"""What the name of an agent begins with that is a model behind an API or a local server."""


@dataclass(frozen=True)
class EvaluateConfig(ModelConfig, EnvConfig):
    """Play an agent on a split and say how often it succeeds, with a 95 % interval.

    Attributes:
        agent: Who plays. `random` or `task-words` where admissible actions are listed; `expert` (ALFWorld, toy); on
            τ²-bench `random-caller`, `no-op` or `transfer`; `model` for a local model; `litellm:MODEL` for a model
            behind an API or a local server; `module:name` for an own one, a function act(observation, info) or
            act(messages, tools), or a class of such. If absent, the one that draws its actions at random.
        agent_arguments: Arguments of litellm's `completion` for `litellm:MODEL`, a mapping as JSON or YAML such as
            `{"temperature": 0, "api_base": "http://localhost:8000/v1"}`.
        episodes: Number of games, see `evaluation.panel.choose`; if absent all, or 100 of games without end.
        panel: JSON file with the games to play, such as the `panel.json` of another evaluation.
        trials: How often each game is played.
        max_steps: Step budget of an episode, in actions; the registered one if absent. Of τ²-bench that is 100, as
            tau2's 200 steps count the agent's action and the answer to it.
        user: Who is served on τ²-bench: `scripted`; `solo` for nobody; `model:NAME` for a model of litellm, or
            `model:local:NAME` for a local one.
        seed: Seed of the agent; that of an episode follows from it, the game and the trial.
        adapter: Folder of a LoRA adapter for the agent `model`.
        temperature: Temperature of the local model's sampling; 0 takes the likeliest token.
        decoding: `free` text, or `constrained` to or `scored` among the admissible actions, see `LanguageModelAgent`.
        tool_calls: Whether a local model calls tools in its own notation: `native`; `text`; or `auto`, native if its
            chat template knows tools.
        max_prompt_tokens: Token limit of a prompt of a local model; longer ones lose their oldest turns. 0 for 1,024,
            or, where the prompt has a policy, for all that the model has room for.
        action_tokens: Token limit of a turn of a local model; 16 in games and 256 in customer service if absent.
        thoughts: Whether a local model writes a thought before each action (ReAct).
        predictions: Whether models write the observation that they expect behind each action.
        gap: Distance between that and the real one, for the trace: `cosine`, `rouge`, `exact` or `entities`; none is
            taken if absent, or with `predictions` the cosine.
        encoder: Text encoder of the gap.
        threshold: τ_d of the gap; the distance's default if absent.
        show_policy: Whether prompts hold τ²-bench's policy and the whole schemas of its tools.
        show_actions: Whether agents of messages are shown the admissible actions, where the environment lists some.
        slots: Episodes that a local model plays side by side.
        concurrency: Episodes that other models play side by side.
        timeout: How long an answer of `litellm:MODEL` may take, in seconds.
        attempts: How often a call is made that fails because the server is busy, late or broken.
        max_cost: What the calls may cost together, in US dollars; no limit if absent.
        prices: US dollars per million tokens of prompts and of answers, where litellm does not know them.
    """

    min_prompt_tokens = 0  # which means what `max_prompt_tokens` says above

    max_prompt_tokens: int = 0
    agent: str | None = None
    agent_arguments: str | None = None
    episodes: int | None = None
    panel: str | None = None
    trials: int = 1
    max_steps: int | None = None
    user: str | None = None
    seed: int = 0
    adapter: str | None = None
    temperature: float = 0.0
    decoding: Decoding = "free"
    tool_calls: Literal["auto", "native", "text"] = "auto"
    action_tokens: int | None = None
    thoughts: bool = False
    predictions: bool = False
    gap: GapName | None = None
    encoder: str = "all-MiniLM-L6-v2"
    threshold: float | None = None
    show_policy: bool = True
    show_actions: bool = True
    slots: int = 16
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 8
    max_cost: float | None = None
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "temperature", "seed", "max_cost")
        at_least(self, 1, "action_tokens", "slots", "episodes", "max_steps", "trials", "concurrency", "attempts")
        above(self, 0, "timeout")
        one_of(self, "tool_calls", ("auto", "native", "text"))
        if self.gap is not None:
            one_of(self, "gap", tuple(DISTANCES))
        if self.adapter is not None and self.agent != "model":
            raise InvalidConfigError(
                f"Expected the agent 'model' for an adapter, actual: {self.agent!r}. Use --agent model, or leave out "
                "--adapter."
            )
        if self.panel is not None and self.episodes is not None:
            raise InvalidConfigError("Expected --panel or --episodes, actual: both. Leave out one of them.")
        if self.threshold is not None and self.scored_by is None:
            raise InvalidConfigError("Expected --gap with --threshold, actual: none. Name the distance.")
        if self.endpoint is None:
            given = {"agent_arguments": self.agent_arguments, "max_cost": self.max_cost, "prices": self.prices}
            if unused := [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]:
                raise InvalidConfigError(
                    f"Expected --agent litellm:MODEL with {', '.join(unused)}, actual: {self.agent!r}. Leave "
                    f"{'it' if len(unused) == 1 else 'them'} out."
                )
        if self.prices is not None and min(self.prices) < 0:
            raise InvalidConfigError(f"Expected prices of at least 0, actual: {self.prices}.")
        mapping_of("agent_arguments", self.agent_arguments)
        if self.user is not None:
            self.user_arguments()

    @property
    def scored_by(self) -> GapName | None:
        """The distance that predictions are scored by; `None` if they are not."""
        return self.gap or ("cosine" if self.predictions else None)

    @property
    def endpoint(self) -> str | None:
        """Litellm's id of the model behind an API or a local server that plays; `None` if it is somebody else."""
        agent = self.agent or ""
        return agent.removeprefix(ENDPOINT) if agent.startswith(ENDPOINT) else None

    def user_arguments(self) -> dict[str, Any]:
        """Return the environment's arguments for the user; a local model is named `local:NAME`.

        Raises:
            InvalidConfigError: If there is no such user.
        """
        kind, _, name = (self.user or "").partition(":")
        if kind == "model" and name:
            return {"user": "model", "user_model": name}
        if self.user in (None, "scripted", "solo"):
            return {} if self.user is None else {"user": self.user}
        raise InvalidConfigError(
            f"Expected a user, scripted, solo or model:NAME, actual: {self.user!r}. A local model is model:local:NAME."
        )
