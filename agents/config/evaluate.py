"""The configuration of an evaluation: who plays what."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rwml_gym.agents.config.base import EnvConfig, ModelConfig, mapping_of, nearest, one_of
from rwml_gym.agents.players.base import Decoding
from rwml_gym.agents.ranges import above, at_least, within
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, GapName
from rwml_gym.world_models.by_name import READING

__all__ = ["CHOOSING", "ENDPOINT", "IMAGINED", "LEARNING", "OF_LOCAL", "EvaluateConfig"]

CHOOSING = ("imagining", "voting")
"""Agents that choose among several actions."""

LEARNING = ("most-frequent", "retrieval")
"""World models that learn from transitions before they imagine."""

IMAGINED = ("nothing-changes", *LEARNING, "engine")
"""World models of `imagining` without a language model."""

ENDPOINT = "litellm:"
"""What the name of an agent begins with that is a model behind an API or a local server."""

OF_LOCAL = (
    *("prompt_style", "history", "max_prompt_tokens", "max_state_characters", "thoughts"),
    *("decoding", "tool_calls", "action_tokens", "temperature"),
)
"""Options that only local language models use."""

_OF_ENDPOINT = ("attempts", "timeout")
_OF_LOADED = ("model", "dtype")


@dataclass(frozen=True)
class EvaluateConfig(ModelConfig, EnvConfig):
    """Play an agent on a split and say how often it succeeds, with a 95 % interval.

    Attributes:
        agent: Who plays. `random` or `task-words` where admissible actions are listed; `imagining` there, which
            imagines the outcomes of actions with --imagine and plays the one that promises most; `voting`, which plays
            the most frequent of --samples actions of a local model; `expert` (ALFWorld, toy); on τ²-bench
            `random-caller`, `no-op` or `transfer`; `model` for a local model; `litellm:MODEL` for a model behind an API
            or a local server; `module:name` for an own one, a function act(observation, info) or act(messages, tools),
            or a class of such. If absent, the one that draws its actions at random.
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
        adapter: Folder of a LoRA adapter for the agent `model`, or for the local model of --samples.
        imagine: World model of the agent `imagining`: `nothing-changes`; `most-frequent` or `retrieval`, which learn
            from other games first; `engine`, the true game as the ceiling; `smollm2-alfworld`, or an adapter's folder
            that `rwml-gym train rwml` left. Where --model is a folder, that is its base model.
        imagine_steps: How many steps are imagined from each candidate.
        imagine_discount: What the value of an outcome one step later is multiplied by.
        imagine_candidates: Maximal number of candidates in a turn, drawn anew in each; all if 0.
        imagine_transitions: Folder of recorded transitions (`rwml-gym record`) that `most-frequent` and `retrieval`
            learn from; if absent, a random player plays `imagine_games` games of the training split now.
        imagine_games: Number of these games.
        samples: Number of actions that the local model samples in each turn, for `voting`, or as the candidates of
            `imagining`, whose candidates are the admissible actions if absent.
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
    imagine: str | None = None
    imagine_steps: int = 1
    imagine_discount: float = 0.9
    imagine_candidates: int = 0
    imagine_transitions: str | None = None
    imagine_games: int = 40
    samples: int | None = None
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
        at_least(self, 1, "imagine_steps", "imagine_games", "samples")
        at_least(self, 0, "imagine_candidates")
        above(self, 0, "timeout")
        within(self, 0, 1, "imagine_discount")
        one_of(self, "tool_calls", ("auto", "native", "text"))
        if self.gap is not None:
            one_of(self, "gap", tuple(DISTANCES))
        if self.adapter is not None and not self.local:
            raise InvalidConfigError(
                f"Expected the agent 'model' for an adapter, or --samples of 'imagining' or 'voting', actual: "
                f"{self.agent!r}. Use --agent model, or leave out --adapter."
            )
        self._check_imagination()
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

    def check_used(self) -> None:
        """Refuse options that the agent does not use, so that nobody takes them for set.

        It is no check of every configuration, because tables of several agents have settings in common.

        Raises:
            InvalidConfigError: There are some.
        """
        changed = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        unused = changed & {*(() if self.loads_model else OF_LOCAL), *(() if self.endpoint else _OF_ENDPOINT)}
        plays_alone = self.agent is None or not (self.loads_model or self.endpoint or ":" in self.agent)
        unused |= changed & {"predictions", "show_policy", "show_actions"} if plays_alone else set()
        served_locally = (self.user or "").startswith("model:local:")
        reads = self.imagine is not None and self.imagine not in IMAGINED
        if not (self.loads_model or reads or served_locally):
            unused |= changed & {*_OF_LOADED}
        if self.endpoint or ":" in (self.agent or ""):
            unused |= changed & {"slots"}
        else:
            unused |= changed & {"concurrency"}
        if self.scored_by is None and self.imagine != "retrieval":
            unused |= changed & {"encoder"}
        if self.imagine is not None and self.imagine not in LEARNING:
            unused |= changed & {"imagine_games"}
        if self.imagine_steps == 1:
            unused |= changed & {"imagine_discount"}
        if not unused:
            return
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(unused))
        advice = "Leave it out." if len(unused) == 1 else "Leave them out."
        if self.endpoint and "temperature" in unused:
            advice = f"Give it in --agent-arguments '{{\"temperature\": {self.temperature:g}}}'."
        raise InvalidConfigError(f"Expected an agent that uses {names}, actual: {self.agent!r}. {advice}")

    def _check_imagination(self) -> None:
        changed = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if (field.name.startswith("imagine") or field.name == "samples")
            and getattr(self, field.name) != field.default
        ]
        if self.agent not in CHOOSING:
            if changed:
                raise InvalidConfigError(
                    f"Expected --agent imagining or voting with {', '.join(changed)}, actual: {self.agent!r}. Leave "
                    f"{'it' if len(changed) == 1 else 'them'} out, or choose one of these agents."
                )
            return
        if self.agent == "voting" and (self.samples is None or changed != ["--samples"]):
            raise InvalidConfigError(
                f"Expected --samples, and no --imagine, for the agent 'voting', actual: {', '.join(changed) or 'none'}"
                ". Say how many actions it samples in each turn, or use --agent imagining."
            )
        known = (*IMAGINED, *sorted(READING))
        folder = "/" in (self.imagine or "") or Path(self.imagine or "").is_dir()  # what is in it is seen when it loads
        if self.agent == "imagining" and (self.imagine is None or not (folder or self.imagine in known)):
            raise InvalidConfigError(
                f"Expected a world model for the agent 'imagining', {', '.join(known)} or the folder of an adapter "
                f"that rwml-gym train rwml left, actual: {self.imagine!r}. Give it by --imagine."
                f"{nearest(self.imagine or '', known)}"
            )
        if self.imagine_transitions is not None and self.imagine not in LEARNING:
            raise InvalidConfigError(
                f"Expected --imagine most-frequent or retrieval with --imagine-transitions, which only these learn "
                f"from, actual: {self.imagine!r}. Leave it out."
            )
        if self.samples is not None and (self.thoughts or self.predictions or self.decoding == "scored"):
            raise InvalidConfigError(
                "Expected plain actions from --samples, actual: --thoughts, --predictions or --decoding scored. Leave "
                "these out."
            )
        if self.samples is not None and self.samples > 1 and not self.temperature:
            raise InvalidConfigError(
                "Expected a temperature above 0 for several --samples, which are all the same at 0. Give "
                "--temperature 1."
            )

    @property
    def local(self) -> bool:
        """Whether a local language model writes actions."""
        return self.agent == "model" or self.samples is not None

    @property
    def loads_model(self) -> bool:
        """Whether a local language model writes actions, or imagines."""
        return self.local or (self.imagine is not None and self.imagine not in IMAGINED)

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
