"""Supervised fine-tuning as a job: imitate actions, or learn next states (the paper's WM SFT)."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.config.policy import (
    EpisodeConfig,
    EvaluationConfig,
    ImitationConfig,
    PolicyConfig,
    PolicyStageConfig,
)
from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.jobs.data import check_prompts, check_target_view, fitting, viewed, with_outcome
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.jobs.world_model import sft_step
from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.prompts import world_of
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.learning.distributed import share, total
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import Games, GameSet, Source
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import check_view
from rwml_gym.transitions import InvalidDatasetError, TransitionDataset, count_games

__all__ = ["choose", "imitation", "prompt_settings", "recorded", "run_sft"]


def run_sft(config: SFTJobConfig, folder: str | Path) -> dict[str, Any]:
    """Fine-tune, or go on with what is left of it. The errors are those of `Run.open`.

    Several processes started by accelerate share every batch; the metrics are those of one process, except for times
    and rounding.

    Args:
        config: The configuration.
        folder: The run's folder; the adapter goes to `adapters/` in it.

    Returns:
        The result in numbers: evaluations of success for `actions`, losses per token for `states`.
    """
    if config.target == "actions":
        evaluations = run_policy(imitation(config), folder)
        return {"evaluations": [vars(evaluation) for evaluation in evaluations]}
    return _learn_states(config, folder)


def imitation(config: SFTJobConfig) -> PolicyConfig:
    """Return the policy training that imitates actions: it begins with imitation, and here it ends there."""
    return PolicyConfig(
        **{shared.name: getattr(config, shared.name) for shared in fields(JobConfig)},
        episode=EpisodeConfig(
            max_steps=config.max_steps, action_tokens=config.action_tokens, show_policy=config.show_policy
        ),
        imitation=ImitationConfig(
            steps=config.sft.updates(0),
            games=config.games,
            transitions=config.transitions,
            batch_size=config.sft.batch_size,
            learning_rate=config.sft.learning_rate,
            warmup=config.sft.warmup,
        ),
        stage=PolicyStageConfig(steps=0, games=1, checkpoint_every=config.checkpoint_every),
        evaluation=EvaluationConfig(games=config.held_out_games),
    )


def _learn_states(config: SFTJobConfig, folder: str | Path) -> dict[str, Any]:
    run, train, held_out = _open_recorded(config, folder) if config.transitions is not None else _play(config, folder)
    train, held_out = (viewed(data, config.target_view) for data in (train, held_out))
    train, held_out = (fitting(data, run.prompts, run.say) for data in (train, held_out))
    world_model = run.world_model()
    before = run.once("loss_before.json", lambda: _loss(run, world_model, held_out))
    steps = config.sft.updates(len(train))
    run.say(
        f"Next-state SFT: {steps} steps of {config.sft.batch_size} on {len(train)} transitions of "
        f"{count_games(train)}; {len(held_out)} transitions of {count_games(held_out)} are held out"
    )
    run.train(
        "sft",
        partial(sft_step, world_model, train, config.sft, run.seed("sft"), run.accelerator),
        steps=steps,
        learning_rate=config.sft.learning_rate,
        warmup=config.sft.warmup,
        decay=config.sft.decay,
        checkpoint_every=config.checkpoint_every,
    )
    result: dict[str, Any] = run.once(
        "result.json", lambda: {"loss_before": before, "loss_after": _loss(run, world_model, held_out)}
    )
    versions = ", ".join(sorted({transition.data_version for transition in train}))
    run.publish("sft", "as a world model of", result, versions)
    run.accelerator.end_training()
    run.say(
        f"Held-out loss per token: {result['loss_before']:.3f} before, {result['loss_after']:.3f} after "
        f"({len(held_out)} transitions); adapter in {run.adapter('sft')}"
    )
    return result


def prompt_settings(config: SFTJobConfig) -> dict[str, Any]:
    """Return the arguments of `Prompts` that this job sets."""
    return {"empty_thought": config.sft.empty_thought, "json_schema": config.target_view == "schema"}


def choose(config: SFTJobConfig, source: Source, load: bool = True) -> Games:
    """Choose the games that are played to learn next states from, see `Source.prepare`."""
    check_target_view(source, config.target_view)
    numbers = (config.seed, config.games, config.held_out_games, config.max_steps)
    return source.prepare(*numbers, load=load, **source.known_arguments)


def recorded(config: SFTJobConfig) -> tuple[TransitionDataset, TransitionDataset]:
    """Load the configured transitions: those to learn next states from, and those of other games to measure on.

    Raises:
        InvalidConfigError: They are of too few games, or some games are in both.
        InvalidDatasetError: There are none, or they cannot be read.
    """
    data = with_outcome(_load(str(config.transitions), config.history))
    check_view(data, config.target_view)
    if config.held_out_transitions is not None:
        held_out = with_outcome(_load(config.held_out_transitions, config.history))
        if both := set(data.games) & set(held_out.games):
            raise InvalidConfigError(
                f"Expected held_out_transitions of other games than transitions, actual: {len(both)} games in both, "
                f"such as {min(both)!r}. Record other games, or leave it out."
            )
        return data, held_out
    games = len(data.games)
    if games < 2:
        raise InvalidConfigError(
            f"Expected transitions of at least 2 games in {config.transitions!r}, one of them to hold out, actual: "
            f"{games}. Record more games (`rwml-gym record --games 40`)."
        )
    share = min(config.held_out_games, games - 1) / games
    return data.split_by_game(share, seed_of(config.seed, "held out"))


def _load(path: str, history: int) -> TransitionDataset:
    if not Path(path).is_dir():
        raise InvalidDatasetError(
            f"Expected recorded transitions in {path!r}, actual: no such folder. Record some (`rwml-gym record`), or "
            "run `rwml-gym train rwml` first, which leaves those that it trained on in its folder's transitions/kept."
        )
    return TransitionDataset.load(path).with_window(history)


_Data = tuple[Run, TransitionDataset, TransitionDataset]


def _play(config: SFTJobConfig, folder: str | Path) -> _Data:
    """Open a run that plays for its data."""
    run = Run.open(
        config,
        folder,
        games=partial(choose, config),
        check=lambda run: check_prompts(run.prompts, run.games, config.show_policy, predicts=True),
        prompts=prompt_settings(config),
        rules=config.show_policy,
    )
    return run, with_outcome(_collect(run, "train")), with_outcome(_collect(run, "held_out"))


def _open_recorded(config: SFTJobConfig, folder: str | Path) -> _Data:
    """Open a run on the configured transitions; nothing is played."""
    train, held_out = recorded(config)

    def no_games(source: Source) -> Games:
        make_env, other = source.make(config.max_steps, source.world.split), source.held_out_split
        return Games(
            make_env, [], {"held-out": GameSet(make_env if other is None else partial(make_env, split=other), [])}
        )

    prompts = {"world": world_of(train), **prompt_settings(config)}
    return Run.open(config, folder, games=no_games, prompts=prompts, rules=config.show_policy), train, held_out


def _collect(run: Run, name: str) -> TransitionDataset:
    config: SFTJobConfig = run.config
    training = name == "train"
    make_env = run.games.make_env if training else run.games.make_held_out_env
    games = run.games.train if training else run.games.held_out
    player = run.source.player(run.seed("agent", name))
    return run.collect(name, make_env, player, games, history=config.history or config.max_steps)


@torch.no_grad()
def _loss(run: Run, world_model: LanguageWorldModel, data: TransitionDataset) -> float:
    """Mean negative log-likelihood per token of the realised states."""
    prompts, loss, count = world_model.prompts, 0.0, 0
    device = next(world_model.model.parameters()).device
    for transition in share(run.accelerator, list(data)):
        target = prompts.target(transition.next_state)[: world_model.max_new_tokens]
        prompt = prompts.ask(transition)
        logprobs = completion_logprobs(world_model.model, [prompt], torch.tensor([target], device=device))
        loss, count = loss - float(logprobs.sum()), count + len(target)
    loss, tokens = total(run.accelerator, [loss, count])
    return loss / tokens
