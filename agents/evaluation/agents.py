"""Who plays: an agent of this package, a local model, a model behind an API, or somebody's own agent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rwml_gym.agents.config.base import TURN_TOKENS, mapping_of, nearest
from rwml_gym.agents.config.evaluate import CHOOSING, EvaluateConfig
from rwml_gym.agents.evaluation.play import MakePlayer
from rwml_gym.agents.players.base import Agent, Move, Player
from rwml_gym.agents.players.baselines import ExpertAgent, RandomAgent, TaskWordsAgent
from rwml_gym.agents.players.endpoint import Budget, EndpointModel
from rwml_gym.agents.players.messages import Answer, ChatPlayer
from rwml_gym.agents.players.own import load_agent
from rwml_gym.agents.runs.worlds import GameName, Source, World
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import read_json
from rwml_gym.terminal import say
from rwml_gym.text import printable

__all__ = ["Cast", "agent_names", "check_agent", "make_cast", "random_agent"]


@dataclass(frozen=True)
class Cast:
    """Who plays the episodes; one of the two is given.

    Attributes:
        make_player: Makes the player of an episode from its seed.
        agent: Plays many episodes in one batch.
        concurrency: Episodes side by side.
        budget: What calls may cost.
    """

    make_player: MakePlayer | None = None
    agent: Agent | None = None
    concurrency: int = 1
    budget: Budget | None = None


def agent_names(world: World) -> list[str]:
    """List the agents of this package that play an environment."""
    # Among the admissible actions.
    choosing = ["random", "task-words", *CHOOSING] if world.player is RandomAgent else []
    return [*choosing, *(["expert"] if world.expert else []), *world.agents, "model"]


def random_agent(world: World) -> str:
    """Return the name of the agent that plays an environment where none is given."""
    return next((name for name, make in world.agents.items() if make is world.player), "random")


def check_agent(config: EvaluateConfig, world: World) -> None:
    """Raise `InvalidConfigError` if the configured agent does not play the environment."""
    known = agent_names(world)
    if config.agent is None or config.agent in known:
        return
    if config.endpoint == "":
        raise InvalidConfigError(f"Expected a model's name in --agent litellm:MODEL, actual: {config.agent!r}.")
    if config.endpoint is None and ":" not in config.agent:
        raise InvalidConfigError(
            f"Expected an agent that plays {world.title}, {', '.join(known)}, litellm:MODEL or module:name, actual: "
            f"{config.agent!r}. Choose another --agent or --env.{nearest(config.agent, known)}"
        )


def make_cast(config: EvaluateConfig, source: Source | None = None, games: Sequence[GameName] = ()) -> Cast:
    """Make who plays a configuration; a local model is loaded here.

    Args:
        config: Who plays.
        source: The configured environment, which the agent must be able to play; made here if absent.
        games: The games that are played, from which no world model may learn.

    Raises:
        InvalidConfigError: If agent and environment do not go together, there is no such agent, or the file of its
            adapter that says how it was trained is damaged.
    """
    source = source or Source(config)
    world = source.world
    check_agent(config, world)
    if differences := _other_than_trained(config, world):
        say(f"The adapter was trained to play otherwise: {differences}.", sys.stderr)
    if config.endpoint is not None:
        budget = Budget(config.max_cost)
        model = EndpointModel(
            config.endpoint,
            mapping_of("agent_arguments", config.agent_arguments),
            config.attempts,
            config.timeout,
            budget,
            config.prices,
        )
        return Cast(_chat(config, world, model), concurrency=config.concurrency, budget=budget)
    if config.agent is not None and ":" in config.agent:
        make = load_agent(config.agent, world.prompt_world, config.show_policy, config.predictions, config.show_actions)
        return Cast(make, concurrency=config.concurrency)
    if config.agent == "model":
        return _local_model(config, world)
    if config.agent in CHOOSING:
        from rwml_gym.agents.evaluation.imagining import imagining_agent

        return Cast(agent=imagining_agent(config, source, games), concurrency=config.slots)
    return Cast(lambda seed: _Alone(_baseline(config, source, seed)))


def _baseline(config: EvaluateConfig, source: Source, seed: int) -> Agent:
    match config.agent:
        case None:
            return source.player(seed)
        case "random":
            return RandomAgent(seed)
        case "task-words":
            return TaskWordsAgent(seed)
        case "expert":
            return ExpertAgent()
    return source.world.agents[config.agent](seed)


class _Alone:
    """Plays an episode with an agent of batches."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        agent.reset([True])

    def move(self, observation: str, info: dict[str, Any]) -> Move:
        return Move(self._agent.act([observation], [info])[0])


def _chat(
    config: EvaluateConfig, world: World, ask: Callable[[list[dict[str, Any]], list[dict[str, Any]]], Answer]
) -> Callable[[int], Player]:
    settings = config.show_policy, config.predictions, config.show_actions
    return lambda seed: ChatPlayer(ask, world.prompt_world, *settings)


def _other_than_trained(config: EvaluateConfig, world: World) -> str:
    """Say which options differ from those of the adapter's training, where its folder holds these.

    Raises:
        InvalidConfigError: The file with these is damaged.
    """
    if config.adapter is None:
        return ""
    from rwml_gym.agents.players.language_model import AGENT_FILE

    path = Path(config.adapter) / AGENT_FILE
    if not path.is_file():
        return ""
    try:
        trained = dict(read_json(path))
    except (TypeError, ValueError) as error:
        raise InvalidConfigError(
            f"Expected options of an agent in {str(path)!r}, actual: {' '.join(str(error).split())[:200]}. Delete that "
            "file."
        ) from error
    here = {**vars(config), "action_tokens": config.action_tokens or TURN_TOKENS[world.prompt_world]}
    if not config.max_prompt_tokens:  # chosen by what there is to show
        here.pop("max_prompt_tokens")
    if world.prompt_world != "service":  # games have no policy
        here.pop("show_policy")
    told = ", ".join(
        f"--{name.replace('_', '-')} {value} (here {here[name]})"
        for name, value in trained.items()
        if name in here and here[name] != value
    )
    return printable(told)


def _local_model(config: EvaluateConfig, world: World) -> Cast:
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.players.chat_model import LocalChatModel, knows_tools
    from rwml_gym.agents.players.language_model import LanguageModelAgent

    service = world.prompt_world == "service"
    tokens = config.action_tokens or TURN_TOKENS[world.prompt_world]
    model, tokenizer = load_model(config.model, config.dtype)
    native = knows_tools(tokenizer)
    if config.tool_calls == "native" and not native:
        raise InvalidConfigError(
            f"Expected a chat template with tools for --tool-calls native, actual: none in {config.model}. Use "
            "--tool-calls text, which shows the schemas in the prompt, or another model."
        )
    adapted = model if config.adapter is None else load_adapter(model, config.adapter)
    if service and native and config.tool_calls != "text":
        chat = LocalChatModel.of(adapted, tokenizer, tokens, config.temperature)
        return Cast(lambda seed: _chat(config, world, chat.seeded(seed))(seed))
    room = int(getattr(model.config, "max_position_embeddings", 0) or 0) - tokens
    if not config.max_prompt_tokens:
        config = replace(config, max_prompt_tokens=max(room, 1) if service and config.show_policy else 1024)
    return Cast(
        agent=LanguageModelAgent(
            adapted,
            tokenizer,
            config.make_prompts(
                tokenizer, world.prompt_world, thoughts=config.thoughts, predictions=config.predictions
            ),
            config.temperature,
            seed=config.seed,
            action_tokens=tokens,
            show_policy=config.show_policy,
            decoding=config.decoding,
        ),
        concurrency=config.slots,
    )
