"""Policy training, stage 2 of RWML: imitation if wanted, then GRPO on task success and gap reward.

The method is that of arXiv 2602.05842.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from rwml_gym.agents.config.memory import plan_memory
from rwml_gym.agents.config.policy import ImitationConfig, PolicyConfig
from rwml_gym.agents.jobs.channels import credit_of_games, measures
from rwml_gym.agents.jobs.data import check_prompts
from rwml_gym.agents.jobs.fork import begins_with, check_fork, take_over
from rwml_gym.agents.language.instructions import describe_task
from rwml_gym.agents.language.models import add_reference
from rwml_gym.agents.learning.distributed import share, total
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.memory_plan import release_memory
from rwml_gym.agents.learning.sft import Demonstration, demonstrations, sft_update
from rwml_gym.agents.players.base import MakeEnv
from rwml_gym.agents.players.baselines import ExpertAgent
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec, collect, roll_out
from rwml_gym.agents.reports.dark_room import dark_room
from rwml_gym.agents.reports.lines import policy_line
from rwml_gym.agents.reports.policy import Evaluation, write_policy_report
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import GameName, Games, GameSet, Source, choose_games, games_of
from rwml_gym.agents.seeding import in_epochs, seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.text import printable
from rwml_gym.transitions import Transition, TransitionDataset
from rwml_gym.wrappers import WorldModelRewardWrapper

__all__ = ["choose", "grpo_step", "imitation_step", "prompt_settings", "run_policy"]


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
        _imitate(run)
    if config.grpo.beta and (config.adapter is not None or config.imitation.steps):
        add_reference(run.model)  # the reference is what the policy starts from
    if stage.steps:
        run.say(
            f"GRPO: {stage.steps} steps of {stage.groups} groups of {stage.group_size} episodes on "
            f"{len(run.games.train)} games, sequences: {stage.sequence}"
        )
    agent, make_env = _agent(run, config.grpo.temperature), _predicting(run, run.games.make_env)
    seen: list[dict[str, Any]] = []

    def step(number: int, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        every = config.evaluation.every
        evaluated = _evaluated(run, number) if number == 0 or (every and number % every == 0) else []
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
    final = _evaluated(run, stage.steps)
    before = [found for row in rows for found in row["evaluations"]]
    evaluations = [Evaluation(**found) for found in [*before, *final]]
    if run.is_main:
        run.say(write_policy_report(run.folder, config, evaluations))
        results = {f"{e.name} {e.unit}, after {e.step} updates": str(e).partition(": ")[2] for e in evaluations}
        run.publish("policy", "plays", results, str(_first_info(run).get("data_version", "")))
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


def imitation_step(
    model: nn.Module,
    data: Sequence[Demonstration],
    config: ImitationConfig,
    seed: int,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
    micro_tokens: int | None = None,
) -> dict[str, Any]:
    """Imitate the batch that belongs to step `number`; every epoch is shuffled anew.

    Args:
        model: The policy.
        data: Demonstrations.
        config: Batch size; in several processes each takes its share.
        seed: Seed of the shuffling.
        accelerator: Where to compute.
        number: Number of the step, from 0.
        optimizer: Optimizer of the adapter.
        micro_tokens: Token limit of a pass, see `options.tokens_per_pass`.

    Returns:
        See `sft.sft_update`.
    """
    positions = range(number * config.batch_size, (number + 1) * config.batch_size)
    batch = [data[i] for i in in_epochs(len(data), positions, seed)]
    mine = share(accelerator, batch)
    return sft_update(
        model,
        optimizer,
        [demonstration.prompt for demonstration in mine],
        [demonstration.target for demonstration in mine],
        accelerator,
        micro_tokens=micro_tokens,
        masks=[demonstration.mask for demonstration in mine],
    )


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
    _predicting(run, run.games.make_env)().close()  # an encoder that cannot be loaded shows now


def _predicting(run: Run, make_env: MakeEnv) -> MakeEnv:
    """Wrap the environment so that predictions are taken out of the agent's actions."""
    return partial(_wrapped, make_env, run.config, run.world.roles) if run.config.episode.predictions else make_env


def _wrapped(make_env: MakeEnv, config: PolicyConfig, roles: bool) -> gym.Env[str, str]:
    stage = config.stage
    return WorldModelRewardWrapper(
        make_env(), stage.encoder, stage.threshold, mode="report", measures=measures(config.stage, roles)
    )


def _agent(run: Run, temperature: float) -> LanguageModelAgent:
    episode = run.config.episode
    return LanguageModelAgent(
        run.model,
        run.tokenizer,
        run.prompts,
        temperature,
        seed=run.seed("agent"),
        action_tokens=run.config.turn_tokens,
        show_policy=episode.show_policy,
        decoding=episode.decoding,
    )


def _imitate(run: Run) -> None:
    imitation: ImitationConfig = run.config.imitation
    data = _demonstrations(run)
    what = "episodes" if run.prompts.history == 0 else "turns"
    run.say(f"Imitation: {imitation.steps} steps of {imitation.batch_size} on {len(data)} {what}")
    run.train(
        "imitation",
        partial(
            imitation_step,
            run.model,
            data,
            imitation,
            run.seed("imitation"),
            run.accelerator,
            micro_tokens=run.config.grpo.micro_tokens,
        ),
        steps=imitation.steps,
        learning_rate=imitation.learning_rate,
        warmup=imitation.warmup,
        checkpoint_every=run.config.stage.checkpoint_every,
    )


def _demonstrations(run: Run) -> list[Demonstration]:
    """Won episodes of the expert on games that are not trained on, or recorded ones."""
    config: PolicyConfig = run.config
    info = cache(partial(_info_of_domain, run))

    def describe(transition: Transition) -> str:
        domain = transition.game.partition("/")[0] if run.world.prompt_world == "service" else ""
        return describe_task({**info(domain), "task": transition.task}, config.episode.show_policy)

    if config.imitation.transitions is not None:
        loaded = run.source.load(config.imitation.transitions)
        if config.history:  # otherwise an episode is one text, of all its steps
            loaded = loaded.with_window(config.history)
        held_out = set(map(str, run.games.held_out))
        recorded = TransitionDataset(transition for transition in loaded if transition.game not in held_out)
        if len(recorded) < len(loaded):
            run.say(f"Left out: {len(loaded) - len(recorded)} transitions of games that the policy is evaluated on.")
    else:
        make = partial(run.games.make_env, **run.source.expert_arguments)
        with make() as env:
            taken = {*run.games.train, *run.games.held_out}
            names = choose_games(env, config.imitation.games, run.seed("expert"), exclude=taken)
        recorded = collect(make, ExpertAgent(), names, config.history or config.episode.max_steps)
    won = TransitionDataset(transition for transition in recorded if transition.won)
    if not won:
        raise InvalidConfigError(
            "Expected won episodes to imitate, actual: none. Raise episode.max_steps, or give other transitions."
        )
    return demonstrations(won, run.prompts, describe)


def _info_of_domain(run: Run, domain: str) -> dict[str, Any]:
    """Return an info of a service's domain, which has its tools and its policy; of games there is one domain."""
    if not domain:
        return _first_info(run)
    with run.games.make_env() as env:
        games = games_of(env)
        named = [] if games is None else [game for game in games.names if game.partition("/")[0] == domain]
    return run.games.info(named[0] if named else domain)


def _first_info(run: Run) -> dict[str, Any]:
    game = run.games.train[0]
    with run.games.make_env() as env:
        return env.reset(options={"game": game})[1] if isinstance(game, str) else env.reset(seed=game)[1]


def _evaluated(run: Run, number: int) -> list[dict[str, Any]]:
    """Return the evaluations after so many updates; a run that was killed, or forked, has them already."""
    return list(run.once(f"evaluations/{number}.json", lambda: [vars(found) for found in _evaluate(run, number)]))


def _evaluate(run: Run, number: int) -> list[Evaluation]:
    """Play the games that success is measured on, with the policy as it is; several processes share them."""
    evaluation = run.config.evaluation
    agent = _agent(run, evaluation.temperature)
    results = []
    sets = dict(run.games.sets)
    if evaluation.training_games:
        steps = evaluation.max_steps or run.config.episode.max_steps
        training = GameSet(partial(run.games.make_env, max_episode_steps=steps), run.games.train)
        sets = {"training": training, **sets}
    for name, games in sets.items():
        # The same seeds every time: a difference between two evaluations is one of the policy.
        specs = [
            EpisodeSpec(game, run.seed("evaluate", place, repeat))
            for place, game in enumerate(games.games)
            for repeat in range(evaluation.repeats)
        ]
        if not specs:
            continue
        own = share(run.accelerator, specs)
        with run.progress(f"evaluate {name}", len(own), "episode", leave=False) as bar:
            slots = run.config.episode.slots
            played = roll_out(_predicting(run, games.make_env), agent, own, slots, progress=bar.update)
        sums = [
            len(played),
            sum(episode.won for episode in played),
            sum(sum(episode.invalid) for episode in played),
            sum(episode.steps for episode in played),
            sum(episode.reward for episode in played),
            sum(episode.judged for episode in played),
        ]
        episodes, won, invalid, steps, reward, known, *by_game = total(
            run.accelerator, [*sums, *_by_game(games.games, played)]
        )
        found = Evaluation(
            name,
            number,
            int(won),
            int(episodes),
            invalid / max(steps, 1),
            steps / episodes,
            reward / episodes,
            known > 0,
            "games" if isinstance(games.games[0], str) else "episodes",
            [[int(won), int(count)] for won, count in zip(by_game[::2], by_game[1::2], strict=True)],
        )
        if run.is_main:
            tqdm.write(printable(f"  after {number} updates, {found}"))
        results.append(found)
    return results


def _by_game(games: Sequence[GameName], played: Sequence[Episode]) -> list[int]:
    """Return how many episodes were won and played, game by game."""
    found = {game: [0, 0] for game in games}
    for episode in played:
        found[episode.spec.game][0] += episode.won
        found[episode.spec.game][1] += 1
    return [number for counts in found.values() for number in counts]
