"""Policy training, stage 2 of RWML: imitation if wanted, then GRPO on task success and gap reward.

The method is that of arXiv 2602.05842.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from rwml_gym.agents.config.memory import plan_memory
from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.jobs.channels import credit_of_games
from rwml_gym.agents.jobs.data import check_prompts
from rwml_gym.agents.jobs.fork import begins_with, check_fork, take_over
from rwml_gym.agents.jobs.imitation import first_info, imitate
from rwml_gym.agents.jobs.success import evaluate_policy, policy_agent, predicting
from rwml_gym.agents.language.models import add_reference
from rwml_gym.agents.learning.distributed import share, total
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.memory_plan import release_memory
from rwml_gym.agents.players.base import MakeEnv
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec, roll_out
from rwml_gym.agents.reports.dark_room import dark_room
from rwml_gym.agents.reports.lines import policy_line
from rwml_gym.agents.reports.policy import Evaluation, write_policy_report
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import GameName, Games, Source
from rwml_gym.agents.seeding import in_epochs, seed_of
from rwml_gym.errors import InvalidConfigError

__all__ = ["choose", "grpo_step", "prompt_settings", "run_policy"]


def run_policy(config: PolicyConfig, folder: str | Path, fork: str | Path | None = None) -> list[Evaluation]:
    """Train a policy, or go on with what is left of it. The errors are those of `Run.open` and `train_loop`.

    Args:
        config: The configuration.
        folder: The run's folder: config, versions, checkpoints, adapters, metrics, evaluations, report.
        fork: Folder of a run whose imitation and first evaluation are taken over, see `jobs.fork`.

    Returns:
        The evaluations, in the order of the updates before them.
    """
    stage = config.stage
    if not begins_with(config, Path(folder)):  # as it has been forked before
        fork = None
    run = Run.open(
        config,
        folder,
        games=partial(choose, config),
        check=partial(_check, fork=fork),
        adapter=config.adapter,
        prompts=prompt_settings(config),
    )
    if fork is not None:
        take_over(run, Path(fork))
    if config.imitation.steps:
        imitate(run)
    if config.grpo.beta and (config.adapter is not None or config.imitation.steps):
        add_reference(run.model)  # the reference is what the policy starts from
    if stage.steps:
        run.say(
            f"GRPO: {stage.steps} steps of {stage.groups} groups of {stage.group_size} episodes on "
            f"{len(run.games.train)} games, sequences: {stage.sequence}"
        )
    agent, make_env = policy_agent(run, config.grpo.temperature), predicting(run, run.games.make_env)
    seen: list[dict[str, Any]] = []

    def step(number: int, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        every = config.evaluation.every
        evaluated = evaluate_policy(run, number) if number == 0 or (every and number % every == 0) else []
        row = grpo_step(agent, make_env, run.games.train, config, run.accelerator, number, optimizer, run.world.roles)
        seen.append(row)
        if run.is_main and (warning := dark_room(seen)):
            warnings.warn(warning, stacklevel=2)
            seen.clear()  # the next warning is about other updates
        return {**row, "evaluations": evaluated}

    rows = run.train(
        "policy",
        step,
        steps=stage.steps,
        learning_rate=config.grpo.learning_rate,
        warmup=stage.warmup,
        checkpoint_every=stage.checkpoint_every,
        line=policy_line,
    )
    final = evaluate_policy(run, stage.steps)
    before = [found for row in rows for found in row["evaluations"]]
    evaluations = [Evaluation(**found) for found in [*before, *final]]
    if run.is_main:
        run.say(write_policy_report(run.folder, config, evaluations))
        results = {f"{e.name} {e.unit}, after {e.step} updates": str(e).partition(": ")[2] for e in evaluations}
        run.publish("policy", "plays", results, str(first_info(run).get("data_version", "")))
    run.accelerator.end_training()
    return evaluations


# The steps


def grpo_step(
    agent: LanguageModelAgent,
    make_env: MakeEnv,
    games: Sequence[GameName],
    config: PolicyConfig,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
    roles: bool = False,
) -> dict[str, Any]:
    """Do one policy update: play groups of equal games until enough have a reward difference, then update.

    Args:
        agent: The policy, as it plays.
        make_env: Makes the environment, wrapped if its gap reward is wanted.
        games: Training games. Every epoch is shuffled anew; in several processes each plays its share.
        config: Its `stage`, `grpo`, `episode`, `faults` and `seed`.
        accelerator: Where to compute.
        number: Number of the step; which games are played and all that is sampled follows from it.
        optimizer: Optimizer of the adapter.
        roles: Whether the world's answers have message roles.

    Returns:
        Over all episodes of all processes: `success`, `reward`, `steps`, the share of `invalid` actions, and the share
        of episodes of which the environment says whether they are won (`judged`); the mean `gap_reward`, which is the
        prediction accuracy if it is binary; tokens written in a turn (`tokens`), `episodes`, those that failed
        (`failed`), `groups`, those with a reward difference (`signal_groups`) and without any won episode
        (`failed_groups`); the gap's share of the squared advantages of the tokens (`gap_share`); what
        `grpo.update` returns; and `seconds_rollout` and `seconds_update`.
    """
    stage = config.stage
    began = time.monotonic()
    played: list[Episode] = []
    groups: list[Group] = []
    sums = np.zeros(4)  # of all processes: groups with signal, groups without a won episode, squared advantages
    for sampling in range(stage.rounds):
        # Play
        start = (number * stage.rounds + sampling) * stage.groups
        places = range(start, start + stage.groups)
        chosen = [games[i] for i in in_epochs(len(games), places, seed_of(config.seed, "epochs"))]
        mine = share(accelerator, list(enumerate(chosen)))
        specs = [
            EpisodeSpec(game, seed_of(config.seed, "episode", number, sampling, place, member))
            for place, game in mine
            for member in range(stage.group_size)
        ]
        episodes = roll_out(make_env, agent, specs, config.episode.slots, on_error=config.faults.on_env_error)
        played += episodes
        # Credit
        credits = credit_of_games(episodes, agent, config, number, sampling, roles)
        groups += [group for credit in credits for group in credit.groups]
        counts = [[c.signal, c.failed, c.task_square, c.gap_square] for c in credits]
        sums += total(accelerator, [sum(column) for column in zip(*counts, strict=True)] if counts else [0.0] * 4)
        if sums[0] >= stage.groups or not (stage.task_weight or stage.world_model_weight):
            break
    agent.sessions.clear()  # the weights change
    release_memory()
    rolled_out = time.monotonic()
    # Update. The constant of `dr_grpo` is the longest row there can be: a turn, or all turns of an episode.
    turns = config.episode.max_steps if stage.sequence == "episode" and not config.history else 1
    length = turns * config.turn_tokens
    observation = stage.observation_loss
    stats = update(
        agent.sessions.model,
        optimizer,
        groups,
        config.grpo,
        accelerator,
        length,
        observation if observation.is_on else None,
        observation.weight_at(number, stage.steps),
    )
    signal, failed, task_square, gap_square = sums.tolist()
    return {
        **_statistics(played, accelerator),
        "groups": (sampling + 1) * stage.groups,
        "signal_groups": int(signal),
        "failed_groups": int(failed),
        "gap_share": gap_square / max(task_square + gap_square, 1e-12),
        **stats,
        "seconds_rollout": round(rolled_out - began, 3),
        "seconds_update": round(time.monotonic() - rolled_out, 3),
    }


def _statistics(played: Sequence[Episode], accelerator: Accelerator) -> dict[str, Any]:
    whole = [episode for episode in played if episode.error is None]
    completions = [w.completion for episode in whole for w in episode.written if w.completion is not None]
    gaps = [gap for episode in whole for gap in episode.gap_rewards]
    sums = total(
        accelerator,
        [
            len(played),
            len(whole),
            sum(episode.won for episode in whole),
            sum(episode.judged for episode in whole),
            sum(episode.reward for episode in whole),
            sum(episode.steps for episode in whole),
            sum(sum(episode.invalid) for episode in whole),
            sum(len(completion.tokens) for completion in completions),
            len(completions),
            sum(gaps),
            len(gaps),
        ],
    )
    episodes, ended, won, judged, reward, steps, invalid, tokens, turns, gap, gap_turns = sums
    return {
        "success": won / max(ended, 1),
        "judged": judged / max(ended, 1),
        "reward": reward / max(ended, 1),
        "steps": steps / max(ended, 1),
        "invalid": invalid / max(steps, 1),
        "tokens": tokens / max(turns, 1),
        "gap_reward": gap / max(gap_turns, 1),
        "episodes": int(episodes),
        "failed": int(episodes - ended),
    }


# The stages


def prompt_settings(config: PolicyConfig) -> dict[str, Any]:
    """Return the arguments of `Prompts` that this job sets."""
    episode = config.episode
    return {"thoughts": episode.thoughts, "predictions": episode.predictions, "thinking": episode.thinking}


def choose(config: PolicyConfig, source: Source, load: bool = True) -> Games:
    """Choose the games that a run plays, see `Source.prepare`."""
    if config.imitation.steps and config.imitation.transitions is None and not source.world.expert:
        raise InvalidConfigError(
            f"Expected an environment with an expert to imitate, actual: {source.world.title}, which has none. Give "
            "recorded episodes with imitation.transitions, or set imitation.steps to 0."
        )
    evaluation = config.evaluation
    numbers = (config.seed, config.stage.games, evaluation.games, config.episode.max_steps)
    return source.prepare(*numbers, splits=evaluation.splits, held_out_steps=evaluation.max_steps, load=load)


def _check(run: Run, fork: str | Path | None = None) -> None:
    if fork is not None:
        check_fork(run.config, Path(fork))
    plan_memory(run.config, run.model).check()
    check_prompts(run.prompts, run.games, run.config.episode.show_policy)
    predicting(run, run.games.make_env)().close()  # an encoder that cannot be loaded shows now
