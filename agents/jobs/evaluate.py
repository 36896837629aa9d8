"""Play an agent on an environment and a split, and say how often it succeeds, with intervals.

    rwml-gym evaluate --agent expert --split generated_held_out
    rwml-gym evaluate --env tau2 --domain retail --split test --agent transfer
    rwml-gym evaluate --agent model --adapter runs/demo/adapters/rwml

An episode is a game of the split with the registered step budget. A plain Gymnasium loop over the same games gives the
same success rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from rwml_gym.agents.config.base import EnvConfig, nearest
from rwml_gym.agents.config.evaluate import AgentName, EvaluateConfig
from rwml_gym.agents.jobs.worlds import GameName, Source, World, first_games
from rwml_gym.agents.players.base import Agent, MakeEnv
from rwml_gym.agents.players.baselines import ExpertAgent, RandomAgent, TaskWordsAgent
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec, roll_out
from rwml_gym.errors import InvalidConfigError
from rwml_gym.statistics import wilson_interval

__all__ = ["evaluate", "make_agent", "play", "reference_scores", "success", "success_table"]


def evaluate(config: EvaluateConfig, ended: Callable[[Episode], None] | None = None) -> list[Episode]:
    """Play an agent as configured.

    Args:
        config: Who plays what.
        ended: Called with each episode that ends.

    Raises:
        InvalidConfigError: If agent, environment or split do not go together.
        DependencyNotInstalled: If the environment needs a library that is not installed.
    """
    source = Source(config)
    _check_agent(config, source.world)
    arguments = source.expert_arguments if config.agent == "expert" else {}
    make_env = source.make(config.max_steps, source.world.evaluation_split, **arguments)
    with make_env() as env:
        games = first_games(env, config.episodes)
    slots = config.slots if config.agent == "model" else 1
    return play(make_env, make_agent(config, source), games, slots, ended)


def make_agent(config: EvaluateConfig, source: Source | None = None) -> Agent:
    """Make the agent of a configuration; a model is loaded here.

    Args:
        config: Who plays.
        source: The configured environment, which the agent must be able to play; made here if absent.
    """
    source = source or Source(config)
    _check_agent(config, source.world)
    match config.agent:
        case None:
            return source.player(config.seed)
        case "random":
            return RandomAgent(config.seed)
        case "task-words":
            return TaskWordsAgent(config.seed)
        case "expert":
            return ExpertAgent()
        case "model":
            return _model_agent(config, source.world)
    return source.world.agents[config.agent](config.seed)


def play(
    make_env: MakeEnv,
    agent: Agent,
    games: Sequence[GameName],
    slots: int = 1,
    ended: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Play one episode of each game.

    Args:
        make_env: Makes a text environment, with its step budget.
        agent: Who plays.
        games: Names of games, or seeds.
        slots: Episodes side by side; an agent that draws at random plays other episodes with another number of them.
        ended: Called with each episode that ends.

    Returns:
        The episodes, in the order of `games`.
    """
    tell = None if ended is None else lambda number, env, episode: ended(episode)
    return roll_out(make_env, agent, [EpisodeSpec(game) for game in games], slots, ended=tell)


def reference_scores(
    config: EnvConfig, split: str | None = None, max_steps: int | None = None
) -> dict[str, list[Episode]]:
    """Play the agents that serve nobody; every score of their environment should stand beside theirs.

    On τ²-bench `no-op` says goodbye at once, and `transfer` transfers to a human before it does; other environments
    have none.

    Args:
        config: Which environment.
        split: The split where the configuration has none.
        max_steps: Step budget of an episode; the registered one if absent.

    Example:
        >>> scores = reference_scores(EnvConfig("tau2", domain="mock"), "base")
        >>> success(scores["no-op"])
        '1/9 (11.1%)'
    """
    source = Source(config)
    make_env = source.make(max_steps, split)
    if not source.world.reference:
        return {}
    with make_env() as env:
        games = first_games(env, None)
    return {name: play(make_env, source.world.agents[name](0), games) for name in source.world.reference}


def success(episodes: Sequence[Episode]) -> str:
    """Say how many episodes were won, of how many, and their share."""
    won = sum(episode.won for episode in episodes)
    return f"{won}/{len(episodes)} ({won / len(episodes):.1%})"


def success_table(episodes: Sequence[Episode]) -> str:
    """Make a table of success by task type, with 95 % intervals, mean steps and the share of invalid actions."""
    versions = ", ".join(sorted({episode.data_version for episode in episodes} - {""}))
    lines = [
        f"{len(episodes)} episodes{f' ({versions})' if versions else ''}. [95 % interval, Wilson]",
        "",
        f"{'':<34} {'n':>5}  {'success':<22} {'steps':>6} {'invalid':>8}",
    ]
    types = sorted({episode.task_type for episode in episodes})
    rows = [("all", list(episodes))]
    sound = [episode for episode in episodes if not episode.info.get("known_problem")]
    if 0 < len(sound) < len(episodes):
        rows.append(("without known problems", sound))
    if len(types) > 1:
        rows += [(name, [episode for episode in episodes if episode.task_type == name]) for name in types]
    for name, chosen in rows:
        won, steps = sum(episode.won for episode in chosen), sum(episode.steps for episode in chosen)
        low, high = wilson_interval(won, len(chosen))
        invalid = sum(sum(episode.invalid) for episode in chosen) / max(steps, 1)
        share = f"{won / len(chosen):.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"{name:<34} {len(chosen):>5}  {share:<22} {steps / len(chosen):>6.1f} {invalid:>8.1%}")
    if len(sound) < len(episodes):
        flawed = len(episodes) - len(sound)
        lines += ["", f'{flawed} of {len(episodes)} tasks have wrong data: info["known_problem"] says what is wrong.']
    if not any("won" in episode.info for episode in episodes):
        lines += ["", 'The environment gives no info["won"], so nothing counts as won; its mean reward is shown below.']
        lines.append(f"mean reward of an episode: {sum(e.reward for e in episodes) / len(episodes):.3f}")
    return "\n".join(lines)


def _check_agent(config: EvaluateConfig, world: World) -> None:
    choosing = ["random", "task-words"] if world.player is RandomAgent else []  # among the admissible actions
    known = [*choosing, *(["expert"] if world.expert else []), *world.agents, "model"]
    if config.agent is not None and config.agent not in known:
        others = "" if config.agent in get_args(AgentName) else nearest(config.agent, known)
        raise InvalidConfigError(
            f"Expected an agent that plays {world.title}, {', '.join(known)}, actual: {config.agent!r}. Choose another "
            f"--agent or --env.{others}"
        )


def _model_agent(config: EvaluateConfig, world: World) -> Agent:
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.players.language_model import LanguageModelAgent

    model, tokenizer = load_model(config.model, config.dtype)
    return LanguageModelAgent(
        model if config.adapter is None else load_adapter(model, config.adapter),
        tokenizer,
        config.make_prompts(tokenizer, world.prompt_world, thoughts=config.thoughts),
        config.temperature,
        seed=config.seed,
        action_tokens=config.action_tokens,
        show_policy=config.show_policy,
        decoding=config.decoding,
    )
