"""Plays an agent on an environment and a split, and says how often it succeeds, with intervals.

    rwml-gym evaluate --agent expert --split generated_held_out
    rwml-gym evaluate --env tau2 --domain retail --split test --agent transfer
    rwml-gym evaluate --agent model --model SmolLM2-135M-Instruct --adapter runs/demo/adapter

An episode is a game of the split and the registered step budget; the plain Gymnasium loop in the README plays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium as gym

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.language.prompts import PromptStyle
from rwml_gym.agents.players.base import Agent
from rwml_gym.agents.players.baselines import ExpertAgent, NoOpAgent, RandomAgent, TaskWordsAgent, TransferAgent
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.agents.players.rollout import Job, roll_out
from rwml_gym.errors import InvalidConfigError
from rwml_gym.statistics import wilson_interval

__all__ = [
    "AGENTS",
    "Episode",
    "EvaluateConfig",
    "evaluate",
    "make_agent",
    "play",
    "success_table",
]

AGENTS = ("random", "expert", "task-words", "no-op", "transfer", "random-caller", "model")
ENVIRONMENTS = {"alfworld": "rwml_gym/ALFWorld-v0", "tau2": "rwml_gym/Tau2-v0"}
GENERATED_EPISODES = 100


@dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated.

    Attributes:
        agent: `random`, `expert` (ALFWorld), `task-words`, `no-op`, `transfer`, `random-caller` (τ²-bench), or `model`.
        env: `alfworld` or `tau2`.
        split: A split of it; by default `generated_held_out`, or `test` of τ²-bench.
        domain: Domain of τ²-bench.
        data: Folder of official ALFWorld games.
        task_types: Of ALFWorld; only these, all if absent.
        episodes: How many games, from the first on; by default all, or 100 generated ones.
        max_steps: Step budget of an episode; the registered one if absent.
        seed: Of the agent.
        model: For the agent `model`, see `rwml_gym.agents.language.models.load_model`.
        adapter: Folder of a LoRA adapter for it.
        dtype: Of the model: `auto`, `float32` or `bfloat16`.
        temperature: Of its sampling; 0 takes the likeliest token.
        decoding: `free` text, or `constrained` to or `scored` among the admissible actions, see `LanguageModelAgent`.
        prompt_style: `transcript` or `chat`, see `Prompts`.
        history: Turns it is shown; 0 for the whole episode.
        max_prompt_tokens: Longer prompts lose their oldest turns.
        action_tokens: Its longest turn.
        thoughts: Whether it writes a thought before each action (ReAct).
        show_policy: Whether it is shown τ²-bench's policy.
        slots: Episodes it plays side by side.
    """

    agent: Literal["random", "expert", "task-words", "no-op", "transfer", "random-caller", "model"] = "random"
    env: Literal["alfworld", "tau2"] = "alfworld"
    split: str | None = None
    domain: str = "retail"
    data: str | None = None
    task_types: tuple[str, ...] | None = None
    episodes: int | None = None
    max_steps: int | None = None
    seed: int = 0
    model: str = "SmolLM2-135M-Instruct"
    adapter: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    temperature: float = 0.0
    decoding: Literal["free", "constrained", "scored"] = "free"
    prompt_style: PromptStyle = "transcript"
    history: int = 4
    max_prompt_tokens: int = 1024
    action_tokens: int = 16
    thoughts: bool = False
    show_policy: bool = False
    slots: int = 16


@dataclass(frozen=True)
class Episode:
    """One episode that was played to its end.

    Attributes:
        game: Its name.
        task_type: Its task type, or its domain.
        won: Whether the task was done.
        reward: Sum of the rewards.
        steps: Number of actions.
        invalid: How many of them the world refused.
        data_version: Where the game came from.
    """

    game: str
    task_type: str
    won: bool
    reward: float
    steps: int
    invalid: int
    data_version: str


def evaluate(config: EvaluateConfig, progress: Callable[[int], None] | None = None) -> list[Episode]:
    """Plays an agent as configured.

    Args:
        config: What to evaluate.
        progress: Called with the number of episodes done since the last call.

    Raises:
        InvalidConfigError: An agent, environment or split that do not go together.
    """
    arguments: dict[str, Any] = {"split": config.split or ("test" if config.env == "tau2" else "generated_held_out")}
    if config.env == "tau2":
        arguments["domain"] = config.domain
    elif config.agent == "expert":
        arguments["expert"] = True
    for name, value in (("data", config.data), ("task_types", config.task_types)):
        if value is not None:
            arguments[name] = value
    if config.max_steps is not None:
        arguments["max_episode_steps"] = config.max_steps
    if config.agent == "expert" and config.env != "alfworld":
        raise InvalidConfigError('The agent "expert" plays env "alfworld" only; choose another agent.')
    if config.agent in ("transfer", "random-caller") and config.env != "tau2":
        raise InvalidConfigError(f'The agent "{config.agent}" plays env "tau2" only; choose another agent.')
    make_env = partial(gym.make, ENVIRONMENTS[config.env], **arguments)
    with make_env() as env:
        names = env.unwrapped.games.names  # type: ignore[attr-defined]
        generated = arguments["split"].startswith("generated")
        count = config.episodes or (GENERATED_EPISODES if generated else len(names))
        games = list(names[:count])
    slots = config.slots if config.agent == "model" else 1
    return play(make_env, make_agent(config), games, slots, progress)


def make_agent(config: EvaluateConfig) -> Agent:
    """Makes the agent of a configuration; a model is loaded here."""
    match config.agent:
        case "random":
            return RandomAgent(config.seed)
        case "task-words":
            return TaskWordsAgent(config.seed)
        case "expert":
            return ExpertAgent()
        case "no-op":
            return NoOpAgent()
        case "transfer":
            return TransferAgent()
        case "random-caller":
            return RandomCallerAgent(config.seed)
        case "model":
            return _model_agent(config)
    raise InvalidConfigError(f"Unknown agent {config.agent!r}; expected one of {', '.join(AGENTS)}.")


def play(
    make_env: Callable[[], gym.Env[str, str]],
    agent: Agent,
    games: Sequence[str],
    slots: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Plays one episode a game.

    Args:
        make_env: Makes a text environment, with its step budget.
        agent: Who plays.
        games: Names of games.
        slots: Episodes side by side; an agent that draws at random plays other episodes with another number of them.
        progress: Called with the number of episodes done since the last call.

    Returns:
        The episodes, in the order of `games`.
    """
    played = roll_out(make_env, agent, [Job(game) for game in games], slots, progress=progress)
    return [
        Episode(
            game=str(episode.job.game),
            task_type=str(episode.info.get("task_type") or episode.info.get("domain") or ""),
            won=episode.won,
            reward=sum(episode.rewards),
            steps=len(episode.rewards),
            invalid=sum(episode.invalid),
            data_version=str(episode.info.get("data_version", "")),
        )
        for episode in played
    ]


def success_table(episodes: Sequence[Episode]) -> str:
    """A table of success by task type, with 95 % intervals, mean steps and the share of invalid actions."""
    versions = sorted({episode.data_version for episode in episodes})
    lines = [
        f"{len(episodes)} episodes ({', '.join(versions)}). [95 % interval, Wilson]",
        "",
        f"{'':<34} {'n':>5}  {'success':<22} {'steps':>6} {'invalid':>8}",
    ]
    types = sorted({episode.task_type for episode in episodes})
    rows = [("all", episodes)]
    if len(types) > 1:
        rows += [(name, [episode for episode in episodes if episode.task_type == name]) for name in types]
    for name, chosen in rows:
        won, steps = sum(episode.won for episode in chosen), sum(episode.steps for episode in chosen)
        low, high = wilson_interval(won, len(chosen))
        invalid = sum(episode.invalid for episode in chosen) / max(steps, 1)
        success = f"{won / len(chosen):.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"{name:<34} {len(chosen):>5}  {success:<22} {steps / len(chosen):>6.1f} {invalid:>8.1%}")
    return "\n".join(lines)


def _model_agent(config: EvaluateConfig) -> Agent:
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.language.prompts import Prompts
    from rwml_gym.agents.players.language_model import LanguageModelAgent

    model, tokenizer = load_model(config.model, config.dtype)
    prompts = Prompts(
        tokenizer,
        config.prompt_style,
        config.history,
        config.max_prompt_tokens,
        "service" if config.env == "tau2" else "game",
        thoughts=config.thoughts,
    )
    return LanguageModelAgent(
        model if config.adapter is None else load_adapter(model, config.adapter),
        tokenizer,
        prompts,
        config.temperature,
        seed=config.seed,
        action_tokens=config.action_tokens,
        show_policy=config.show_policy,
        decoding=config.decoding,
    )
