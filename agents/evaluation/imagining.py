"""Who imagines: the world model and the proposals of an evaluation with the agents `imagining` and `voting`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rwml_gym.agents.config.evaluate import LEARNING, EvaluateConfig
from rwml_gym.agents.players.baselines import EpisodeAgent
from rwml_gym.agents.players.imagination import EngineImagination, Imagination, ModelImagination
from rwml_gym.agents.players.imagining import ImaginingAgent, Proposals
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.runs.worlds import GameName, Source, choose_games
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import TransitionDataset
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges, WorldModel
from rwml_gym.world_models.retrieval import RetrievalWorldModel

__all__ = ["imagining_agent"]

_RECORD_STEPS = 30  # of a game that a world model learns from
_ACTION_TOKENS, _PROMPT_TOKENS = 16, 1024


def imagining_agent(config: EvaluateConfig, source: Source, games: Sequence[GameName]) -> ImaginingAgent:
    """Make the agent; models are loaded here, and those that look up learn.

    Args:
        config: Who plays.
        source: The environment.
        games: The games that are played, from which no world model may learn.

    Raises:
        InvalidConfigError: If the engine cannot be copied, or recorded transitions are of games that are played.
        InvalidDatasetError: If the recorded transitions cannot be read.
        ModelNotFoundError: If a language model or an adapter cannot be loaded.
    """
    return ImaginingAgent(
        None if config.imagine is None else _imagination(config, source, games),
        config.imagine_steps,
        config.imagine_discount,
        config.imagine_candidates,
        _proposals(config, source),
        config.seed,
    )


def _imagination(config: EvaluateConfig, source: Source, games: Sequence[GameName]) -> Imagination:
    name = str(config.imagine)
    if name == "engine":
        return EngineImagination(source.make(None, source.world.evaluation_split))
    model: WorldModel
    if name == "nothing-changes":
        model = NothingChanges()
    elif name in LEARNING:
        transitions = _transitions(config, source, games)
        model = (
            MostFrequentOutcome(transitions)
            if name == "most-frequent"
            else RetrievalWorldModel(transitions, config.encoder, capacity=len(transitions))
        )
    else:
        from rwml_gym.agents.language.world_model import PACKAGED_WORLD_MODELS, load_world_model  # imports torch

        # An adapter of a run names its base model without its folder, which is this machine's.
        elsewhere = name not in PACKAGED_WORLD_MODELS and Path(config.model).is_dir()
        model = load_world_model(name, config.model if elsewhere else None)
    return ModelImagination(model)


def _transitions(config: EvaluateConfig, source: Source, games: Sequence[GameName]) -> TransitionDataset:
    """Return what a lookup learns from: recorded transitions, or those of a random player in training games."""
    if config.imagine_transitions is not None:
        found = source.load(config.imagine_transitions)
        if both := sorted(set(found.games) & set(map(str, games))):
            raise InvalidConfigError(
                f"Expected transitions of other games than those that are played, actual: {len(both)} games in both, "
                f"such as {both[0]!r}. Record games of another split (rwml-gym record --split)."
            )
        return found
    make_env, split = source.make(_RECORD_STEPS), _training_split(source)
    if split is not None:
        make_env = partial(make_env, split=split)
    with make_env() as env:
        chosen = choose_games(env, config.imagine_games, seed_of(config.seed, "imagine"), exclude=set(games))
    return collect(make_env, EpisodeAgent(source.player, config.seed), chosen, slots=1)


def _training_split(source: Source) -> str | None:
    """Return the split that is trained on where the configured one is held out; `None` where there are no splits."""
    played = source.config.arguments().get("split", source.world.evaluation_split)
    return next((split for split, held_out in source.world.held_out.items() if held_out == played), source.world.split)


def _proposals(config: EvaluateConfig, source: Source) -> Proposals | None:
    if config.samples is None:
        return None
    from rwml_gym.agents.language.models import load_adapter, load_model
    from rwml_gym.agents.players.proposing import ModelProposals

    model, tokenizer = load_model(config.model, config.dtype)
    config = replace(config, max_prompt_tokens=config.max_prompt_tokens or _PROMPT_TOKENS)
    return ModelProposals.of(
        model if config.adapter is None else load_adapter(model, config.adapter),
        tokenizer,
        config.make_prompts(tokenizer, source.world.prompt_world),
        count=config.samples,
        temperature=config.temperature,
        action_tokens=config.action_tokens or _ACTION_TOKENS,
        show_policy=config.show_policy,
        decoding=config.decoding,
    )
