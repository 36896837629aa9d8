"""Supervised fine-tuning as a job: imitate actions, or learn next states word for word (the paper's WM SFT)."""

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
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.jobs.run import Run, with_outcome
from rwml_gym.agents.jobs.world_model import check_target_view, sft_step, viewed
from rwml_gym.agents.jobs.worlds import Games, Source
from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.prompts import world_of
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.learning.distributed import share, total
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import check_view
from rwml_gym.transitions import TransitionDataset, count_games

__all__ = ["run_sft"]


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
        evaluations = run_policy(_imitation(config), folder)
        return {"evaluations": [vars(evaluation) for evaluation in evaluations]}
    return _learn_states(config, folder)


def _imitation(config: SFTJobConfig) -> PolicyConfig:
    """Imitation is what policy training begins with; here it ends there."""
    return PolicyConfig(
        **{shared.name: getattr(config, shared.name) for shared in fields(JobConfig)},
        episode=EpisodeConfig(max_steps=config.max_steps),
        imitation=ImitationConfig(
            steps=config.sft.steps,
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
    train, held_out = viewed(train, config.target_view), viewed(held_out, config.target_view)
    world_model = run.world_model()
    before = run.once("loss_before.json", lambda: _loss(run, world_model, held_out))
    run.say(
        f"Next-state SFT: {config.sft.steps} steps of {config.sft.batch_size} on {len(train)} transitions of "
        f"{count_games(train)}; {len(held_out)} transitions of {count_games(held_out)} are held out"
    )
    run.train(
        "sft",
        partial(sft_step, world_model, train, config.sft, run.seed("sft"), run.accelerator),
        steps=config.sft.steps,
        learning_rate=config.sft.learning_rate,
        warmup=config.sft.warmup,
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


_Data = tuple[Run, TransitionDataset, TransitionDataset]


def _play(config: SFTJobConfig, folder: str | Path) -> _Data:
    """Open a run that plays for its data."""
    run = Run.open(
        config,
        folder,
        games=lambda source: _games(source, config),
    )
    return run, with_outcome(_recorded(run, "train")), with_outcome(_recorded(run, "held_out"))


def _games(source: Source, config: SFTJobConfig) -> Games:
    check_target_view(source, config.target_view)
    return source.prepare(config.seed, config.games, config.held_out_games, config.max_steps)


def _open_recorded(config: SFTJobConfig, folder: str | Path) -> _Data:
    """Open a run on the configured transitions, some of whose games are held out; nothing is played."""
    data = with_outcome(TransitionDataset.load(str(config.transitions)))
    check_view(data, config.target_view)
    games = len(data.games)
    if games < 2:
        raise InvalidConfigError(
            f"Expected transitions of at least 2 games in {config.transitions!r}, one of them to hold out, actual: "
            f"{games}. Record more games (`rwml-gym record --games 40`)."
        )
    share = min(config.held_out_games, games - 1) / games
    train, held_out = data.split_by_game(share, seed_of(config.seed, "held out"))

    def no_games(source: Source) -> Games:
        make_env = source.make(config.max_steps)
        return Games(make_env, [], make_env, [])

    return Run.open(config, folder, games=no_games, prompts={"world": world_of(data)}), train, held_out


def _recorded(run: Run, name: str) -> TransitionDataset:
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
        prompt = prompts.predict(transition.history, transition.action, transition.task)
        logprobs = completion_logprobs(world_model.model, [prompt], torch.tensor([target], device=device))
        loss, count = loss - float(logprobs.sum()), count + len(target)
    loss, tokens = total(run.accelerator, [loss, count])
    return loss / tokens
