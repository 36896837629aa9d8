"""RWML stage 1, the main job: collect, calibrate, filter, train a world model with GRPO, and show what it learnt.

The method is that of arXiv 2602.05842.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from rwml_gym.agents.config.base import turn_tokens
from rwml_gym.agents.config.memory import plan_memory
from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.jobs.data import (
    as_played,
    check_prompts,
    check_target_view,
    divide,
    fitting,
    some_of,
    viewed,
    with_arbitrary_parts,
    with_outcome,
    with_placebo,
)
from rwml_gym.agents.jobs.filter import Triplets
from rwml_gym.agents.jobs.fork import begins_with, check_fork, take_over
from rwml_gym.agents.jobs.held_out import keep_best, make_context, mean_reward, predict_held_out, score_held_out
from rwml_gym.agents.jobs.reward import calibrated_gap, check_judge, check_placebo, check_reward, run_gap
from rwml_gym.agents.language.models import add_reference
from rwml_gym.agents.language.world_model import LanguageWorldModel, score_attempts
from rwml_gym.agents.learning.checkpoint import load_adapter_weights, save_adapter
from rwml_gym.agents.learning.distributed import share, total
from rwml_gym.agents.learning.forgetting import Forgetting
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import group_advantages, has_signal, update
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.learning.sft import sft_update
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.reports.evaluate import Prediction, outcome_type
from rwml_gym.agents.reports.lines import world_model_line
from rwml_gym.agents.reports.world_model import write_report
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import Games, Source
from rwml_gym.agents.seeding import in_balanced_epochs, in_epochs, seed_of
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.nuisance import nuisance_spans
from rwml_gym.transitions import Transition, TransitionDataset, count_games
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges, WorldModel

__all__ = ["choose", "grpo_step", "prompt_settings", "run_world_model", "sft_step"]

Step = Callable[[int, torch.optim.Optimizer], Mapping[str, Any]]


def run_world_model(
    config: RWMLConfig, folder: str | Path, fork: str | Path | None = None
) -> dict[str, list[Prediction]]:
    """Run the main job, or what is left of it. The errors are those of `Run.open`, and of loading the encoder.

    Several processes started by accelerate share the games that the model plays, and the transitions of each filter,
    update and evaluation. The metrics are those of one process, except for times and rounding.

    Args:
        config: The configuration.
        folder: The run's folder: config, versions, transitions, calibration, checkpoints, adapters, metrics, report.
        fork: Folder of a run whose games and SFT are taken over, see `jobs.fork`.

    Returns:
        Held-out predictions of every model, by the model's name.
    """
    if not begins_with(config, Path(folder)):  # as it has been forked before
        fork = None
    run = Run.open(
        config,
        folder,
        games=partial(choose, config),
        check=partial(_check, fork=fork),
        prompts=prompt_settings(config),
        rules=config.show_policy,
    )
    if fork is not None:
        take_over(run, Path(fork))
    world_model = run.world_model()

    # Play
    train, all_held_out = (
        with_arbitrary_parts(run, viewed(_collect(run, name), config.target_view)) for name in ("train", "held_out")
    )
    train = fitting(with_outcome(train), run.prompts, run.say)
    predictable = fitting(with_outcome(all_held_out), run.prompts, run.say)
    held_out = some_of(predictable, config.max_held_out, run.seed("held out"))
    run.say(
        f"Transitions: {len(train)} of {count_games(train)} for training, {len(held_out)} of {count_games(held_out)} "
        f"held out; {np.mean([t.invalid_action for t in train]):.0%} of the training actions were invalid."
    )

    # What is measured, and by which threshold, is the same with a placebo; only what is learnt is not.
    learnt = train if config.placebo == "none" else with_placebo(run, train)
    if config.placebo != "none":
        run.say(
            f"Placebo: SFT and GRPO learn {config.placebo} answers. All that is measured is measured on the world's."
        )

    # Reward, which does not see arbitrary parts
    plain, played = run_gap(run), as_played(run, train)
    with run.accelerator.main_process_first():  # the others read what it wrote
        gap, table = calibrated_gap(config, run.world.roles, plain, played, run.folder)
    run.say(table if config.judge is None else "The reward is a judge's. It gets hacked, see docs/hacking.md.")
    # What is predicted does not depend on the thresholds, which the attempts may yet choose.
    forgot: dict[str, Forgetting] = {}
    predict = partial(predict_held_out, run, world_model, held_out, forgot)
    others: dict[str, WorldModel] = {"nothing changes": NothingChanges(), "most frequent": MostFrequentOutcome(played)}
    predictions = {name: predict(name, other) for name, other in others.items()} | {"base": predict("base")}

    # Filter
    sft_data, rest = divide(learnt, config.filter.share, run.seed("share"))
    sft_rows = _fine_tune(run, world_model, "warm start", sft_data, config.sft.updates(len(sft_data)))
    if config.warm_start:
        run.say(
            "GRPO starts from the fine-tuned model. This deviates from the paper, which starts from the base model."
        )
        predictions["warm start"] = predict("warm start")
    triplets = Triplets(run, world_model, rest, gap, played)
    kept, gap = triplets.at(0), triplets.gap
    score = partial(score_held_out, run, held_out, gap)
    results = {name: score(name, predicted) for name, predicted in predictions.items()}

    # Update
    _start_policy(run)
    stage = config.stage
    if steps := stage.updates(len(kept)):
        run.say(f"GRPO: {steps} steps of {stage.groups} groups of {stage.group_size} on {len(kept)} triplets")
    if config.warm_start:
        add_reference(run.model)  # the reference is what the policy starts from
    keep_prompts = (
        stage.keep_prompts and plan_memory(config, run.model, kept_prompts=stage.rounds * stage.groups).fits()
    )
    if stage.keep_prompts and not keep_prompts:
        run.say("Prompts run twice, to sample and with gradient: their kept graphs would not fit into memory.")

    def evaluate(name: str) -> None:
        score(name, predict(name))
        if run.is_main:
            save_adapter(run.model, run.adapter(name))

    rows = run.train(
        "RWML",
        _evaluated(
            "RWML",
            lambda number, optimizer: grpo_step(
                world_model, triplets.at(number), gap, config, run.accelerator, number, optimizer, keep_prompts
            ),
            stage.evaluate_every,
            evaluate,
        ),
        steps=steps,
        learning_rate=config.grpo.learning_rate,
        checkpoint_every=stage.checkpoint_every,
        line=world_model_line,
    )
    results["RWML"] = score("RWML", predict("RWML"))
    if config.baseline:
        _start_policy(run)
        # From the warm start on at the rate that its schedule ended with: a new peak would undo what it learnt.
        rate = config.sft.decay if config.warm_start else 1.0
        steps = _steps_for_equal_wall_clock(run, rows, sft_rows)
        _fine_tune(run, world_model, "SFT same time", rest, steps, rate, evaluate)
        results["SFT same time"] = score("SFT same time", predict("SFT same time"))
        if stage.evaluate_every:
            keep_best(run, "SFT same time", ["warm start"] if config.warm_start else [])

    # Show
    context = make_context(run, all_held_out, held_out, forgot)
    if run.is_main:
        run.say(write_report(run.folder, config, results, gap, context))
    rewards = {f"held-out reward, {name}": mean_reward(found) for name, found in results.items()}
    run.publish("RWML", "as a world model of", rewards, context.data_version)
    run.accelerator.end_training()
    return results


# The steps


def sft_step(
    world_model: LanguageWorldModel,
    data: Sequence[Transition],
    config: SFTConfig,
    seed: int,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
    micro_tokens: int | None = None,
) -> dict[str, Any]:
    """Do next-state SFT on the batch that belongs to step `number`; every epoch is shuffled anew.

    Args:
        world_model: The model, its prompts and the token limit of a target.
        data: Transitions.
        config: Batch size, balance, loss and gradient clipping; in several processes each takes its share of the batch.
        seed: Seed of the shuffling.
        accelerator: Where to compute.
        number: Number of the step, from 0.
        optimizer: Optimizer of the adapter.
        micro_tokens: Token limit of a pass, see `options.tokens_per_pass`.

    Returns:
        See `sft.sft_update`.
    """
    positions = range(number * config.batch_size, (number + 1) * config.batch_size)
    if config.balance:
        chosen = in_balanced_epochs([outcome_type(t) for t in data], positions, seed)
    else:
        chosen = in_epochs(len(data), positions, seed)
    batch = [data[i] for i in share(accelerator, chosen)]
    prompts, length = world_model.prompts, world_model.max_new_tokens
    masked = [prompts.target_mask(t.next_state, nuisance_spans)[:length] for t in batch if config.mask_arbitrary]
    return sft_update(
        world_model.model,
        optimizer,
        [prompts.ask(t) for t in batch],
        [prompts.target(t.next_state)[:length] for t in batch],
        accelerator,
        config.max_grad_norm,
        micro_tokens,
        masks=masked if config.mask_arbitrary else None,
        loss=config.token_loss,
    )


def grpo_step(
    world_model: LanguageWorldModel,
    data: Sequence[Transition],
    gap: GapReward,
    config: RWMLConfig,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
    keep_prompts: bool = False,
) -> dict[str, Any]:
    """Do one world-model GRPO update: sample groups until enough have a reward difference, then update on those.

    Args:
        world_model: The policy and its prompts.
        data: The triplets.
        gap: The reward.
        config: Its `stage`, `grpo` and `seed`.
        accelerator: Where to compute; in several processes each samples its share of the groups.
        number: Number of the step; which triplets are taken and what is sampled follow from it.
        optimizer: Optimizer of the adapter.
        keep_prompts: Whether a prompt runs once for sampling and update, see `sampling.run_prompts`.

    Returns:
        Means over the sampled groups of all processes (`reward`, `distance`), their number (`groups`), how many of them
        had a reward difference (`signal_groups`, `signal_share`), mean length (`tokens`), and what `grpo.update`
        returns.
    """
    stage, prompts = config.stage, world_model.prompts
    order = _order(config, data, number)
    signal: list[Group] = []
    with_signal = 0.0
    sums = np.zeros(4)  # of this process: groups, rewards, distances, tokens
    for sampling in range(stage.rounds):
        places = order[sampling * stage.groups : (sampling + 1) * stage.groups]
        if not places or with_signal >= stage.groups:
            break
        seed = seed_of(config.seed, "sample", number, sampling)
        own = share(accelerator, range(len(places)))
        chosen = [data[places[i]] for i in own]
        prefixes = world_model.run_prompts(chosen) if keep_prompts else None
        attempts = world_model.attempts(
            chosen, stage.group_size, config.grpo.temperature, seed=seed, places=own, prefixes=prefixes
        )
        score = score_attempts(prompts, chosen, attempts, gap)
        advantages = group_advantages(score.rewards, config.grpo.scale_rewards)
        tokens = sum(len(c.tokens) for row in attempts for c in row)
        sums += [len(chosen), score.rewards.sum(), score.distances.sum(), tokens]
        differs = has_signal(score.rewards)
        with_signal += total(accelerator, [differs.sum()])[0]
        signal += [
            Group(
                prompts.ask(t),
                [c.tokens for c in row],
                advantage.tolist(),
                [c.logprobs for c in row],
                prefix=prefix,
            )
            for t, row, advantage, useful, prefix in zip(
                chosen, attempts, advantages, differs, prefixes or [None] * len(chosen), strict=True
            )
            if useful
        ]
        del prefixes  # the graphs of groups without signal
    # All sampled groups are used, because they are paid for; more than were wanted do no harm.
    stats = update(world_model.model, optimizer, signal, config.grpo, accelerator, world_model.max_new_tokens)
    sampled, rewards, distances, tokens = total(accelerator, sums.tolist())
    completions = sampled * stage.group_size
    return {
        "reward": rewards / completions,
        "distance": distances / completions,
        "groups": int(sampled),
        "signal_groups": int(with_signal),
        "signal_share": with_signal / sampled,
        "tokens": tokens / completions,
        **stats,
    }


def _order(config: RWMLConfig, data: Sequence[Transition], number: int) -> list[int]:
    """Return the indices of the triplets of step `number`: balanced, the next ones of the epoch, or random ones."""
    stage, size = config.stage, len(data)
    if stage.epochs is None and not stage.balance:
        return random.Random(seed_of(config.seed, "prompts", number)).sample(range(size), size)
    count = stage.rounds * stage.groups
    positions, seed = range(number * count, (number + 1) * count), seed_of(config.seed, "prompts")
    if stage.balance:
        return in_balanced_epochs([outcome_type(t) for t in data], positions, seed)
    return in_epochs(size, positions, seed)


# The stages


def _check(run: Run, fork: str | Path | None = None) -> None:
    if fork is not None:
        check_fork(run.config, Path(fork))
    check_reward(run)
    plan_memory(run.config, run.model).check()
    check_prompts(run.prompts, run.games, run.config.show_policy, predicts=True)


def prompt_settings(config: RWMLConfig) -> dict[str, Any]:
    """Return the arguments of `Prompts` that this job sets."""
    return {"empty_thought": config.sft.empty_thought, "json_schema": config.target_view == "schema"}


def choose(config: RWMLConfig, source: Source, load: bool = True) -> Games:
    """Choose the games that a run plays, see `Source.prepare`."""
    check_target_view(source, config.target_view)
    check_judge(source, config.judge)
    check_placebo(source, config)
    played = config.collect
    numbers = (config.seed, played.games, played.held_out_games, played.max_steps, played.rollouts)
    return source.prepare(*numbers, load=load, **source.known_arguments)


def _collect(run: Run, name: str) -> TransitionDataset:
    config: RWMLConfig = run.config
    exploring = config.collect.random_share > 0
    agent = LanguageModelAgent(
        run.model,
        run.tokenizer,
        run.prompts,
        config.collect.temperature,
        config.collect.random_share,
        run.seed("agent", name),
        run.source.explorer(run.seed("caller", name)) if exploring else None,
        config.collect.action_tokens or turn_tokens(config.env),
        config.show_policy,
    )
    training = name == "train"
    make_env = run.games.make_env if training else run.games.make_held_out_env
    games = run.games.train if training else run.games.held_out
    return run.collect(name, make_env, agent, games, history=config.history, slots=config.collect.slots)


def _start_policy(run: Run) -> None:
    """Put the adapter to where GRPO and its baseline start: the warm start, or nothing learnt."""
    if run.config.warm_start:
        load_adapter_weights(run.model, run.adapter("warm start"))
        return
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()


def _fine_tune(
    run: Run,
    world_model: LanguageWorldModel,
    name: str,
    data: TransitionDataset,
    steps: int,
    rate: float | None = None,
    evaluate: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Fine-tune with the configured schedule, or at a constant share of its peak (`rate`)."""
    sft: SFTConfig = run.config.sft
    step: Step = partial(
        sft_step, world_model, data, sft, run.seed(name), run.accelerator, micro_tokens=run.config.grpo.micro_tokens
    )
    if evaluate is not None:
        step = _evaluated(name, step, run.config.stage.evaluate_every, evaluate)
    if steps:
        run.say(f"Next-state SFT ({name}): {steps} steps of {sft.batch_size} on {len(data)} transitions")
    return run.train(
        name,
        step,
        steps=steps,
        learning_rate=sft.learning_rate * (1.0 if rate is None else rate),
        warmup=sft.warmup,
        decay=sft.decay if rate is None else 1.0,
        checkpoint_every=run.config.stage.checkpoint_every,
    )


def _evaluated(name: str, step: Step, every: int, evaluate: Callable[[str], None]) -> Step:
    """Return a step that predicts the held-out transitions before every so many updates, but the first.

    The time that this takes is kept apart, as `seconds_evaluated`.
    """

    def evaluated(number: int, optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
        began = time.monotonic()
        if not every or not number or number % every:
            return step(number, optimizer)
        evaluate(f"{name} step {number}")
        seconds = round(time.monotonic() - began, 3)
        return {**step(number, optimizer), "seconds_evaluated": seconds}

    return evaluated


def _steps_for_equal_wall_clock(run: Run, rows: Sequence[Mapping[str, Any]], sft: Sequence[Mapping[str, Any]]) -> int:
    """How many SFT steps take as long as GRPO took; decided once, because clocks differ."""

    def count() -> dict[str, float]:
        grpo = sum(row["seconds"] - row.get("seconds_evaluated", 0.0) for row in rows)
        per_step = float(np.median([row["seconds"] for row in sft])) if sft else 1.0
        return {"grpo_seconds": grpo, "sft_seconds_per_step": per_step, "steps": round(grpo / per_step)}

    return int(run.once("same_time.json", count)["steps"])
