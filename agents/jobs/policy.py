"""Policy training, stage 2 of RWML: imitation if wanted, GRPO on task success and gap reward, and what came of it.

The method is that of arXiv 2602.05842. Each stage leaves its result in the run's folder; a run that was killed and is
started again with the same command takes up finished stages as they are and goes on in the one that was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
from accelerate import Accelerator
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedModel

from rwml_gym.agents.config.policy import PolicyConfig
from rwml_gym.agents.jobs.interaction import Games, MakeEnv, choose_games, prepare_games
from rwml_gym.agents.jobs.policy_training import grpo_policy_step, imitation_step
from rwml_gym.agents.jobs.runs import check_run, start_run
from rwml_gym.agents.jobs.tracking import make_accelerator, make_log
from rwml_gym.agents.language.models import add_adapter, add_reference, load_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.checkpoint import load_adapter_weights, save_adapter, train_loop
from rwml_gym.agents.learning.demonstrations import Demonstration, demonstrations
from rwml_gym.agents.learning.distributed import check_distributed
from rwml_gym.agents.learning.memory_plan import plan
from rwml_gym.agents.learning.schedules import constant_with_warmup
from rwml_gym.agents.players.baselines import ExpertAgent
from rwml_gym.agents.players.language_model import LanguageModelAgent, describe_task
from rwml_gym.agents.players.rollout import Job, collect, roll_out
from rwml_gym.agents.reports.model_card import push_adapter, write_card
from rwml_gym.agents.reports.policy import Evaluation, write_policy_report
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import read_json, write_json
from rwml_gym.transitions import TransitionDataset
from rwml_gym.wrappers import WorldModelRewardWrapper

__all__ = ["run_policy"]


@dataclass
class _Run:
    """What the stages share."""

    config: PolicyConfig
    folder: Path
    games: Games
    model: PeftModel
    prompts: Prompts
    accelerator: Accelerator
    agent: LanguageModelAgent

    def wrapped(self, make_env: MakeEnv) -> MakeEnv:
        """The environment as the agent plays it: what it predicts is taken out of its actions."""
        return partial(_wrapped, make_env, self.config) if self.config.episode.predictions else make_env


def run_policy(config: PolicyConfig, folder: str | Path) -> list[Evaluation]:
    """Trains a policy, or goes on with what is left of it.

    Args:
        config: The configuration.
        folder: The run's folder: config, versions, checkpoints, adapters, metrics, evaluations, report.

    Returns:
        The evaluations, in the order of the updates before them.

    Raises:
        ConfigMismatchError: The folder holds a run of another configuration.
        InvalidConfigError: A value that does not work; also an unknown split or task type.
        DependencyNotInstalled: A library that the environment, the reward or the tracker needs is not installed.
        GameNotFoundError: No games where they were looked for.
        ModelNotFoundError: The language model or the adapter cannot be loaded.
        TrainingDivergedError: A loss or gradient was no number, see `FaultConfig`.
    """
    job = _prepare(config, Path(folder))
    if config.imitation.steps:
        _imitate(job)
    evaluations = _train(job)
    if job.accelerator.is_main_process:
        print(write_policy_report(job.folder, config, evaluations))
        _publish(job, evaluations)
    job.accelerator.end_training()
    return evaluations


def _prepare(config: PolicyConfig, folder: Path) -> _Run:
    # Whatever can be wrong with the input shows before the run's folder is made.
    check_run(config, folder)
    stage, episode = config.stage, config.episode
    games = prepare_games(config, stage.games, config.evaluation.games, episode.max_steps)
    accelerator = make_accelerator(folder, config.tracker)
    check_distributed(accelerator)
    base, tokenizer = load_model(config.model, config.dtype, accelerator.device)
    prompts = config.prompts(
        tokenizer, thoughts=episode.thoughts, predictions=episode.predictions, thinking=episode.thinking
    )
    if config.adapter is not None:
        model = load_adapter(base, config.adapter, trainable=True)
    else:
        model = add_adapter(base, config.lora_rank, config.lora_alpha, seed_of(config.seed, "adapter"))
    agent = _agent(config, model, prompts, 1.0)
    _plan_memory(config, model)
    job = _Run(config, folder, games, model, prompts, accelerator, agent)
    job.wrapped(games.make_env)().close()  # an encoder that cannot be loaded shows now
    if accelerator.is_main_process:
        start_run(config, folder)
        print(f"Run folder: {folder}")
    accelerator.wait_for_everyone()
    return job


def _plan_memory(config: PolicyConfig, model: PeftModel) -> None:
    """Warns before an update that will not fit; of the longest episodes that the configuration allows."""
    stage, episode = config.stage, config.episode
    episodes, micro_tokens = stage.groups * stage.group_size, config.grpo.tokens_per_pass(model.device.type)
    if stage.rows == "turn" or config.history:
        rows, prompt, written = episodes * episode.max_steps, config.max_prompt_tokens, episode.action_tokens
        counted = written
    else:
        rows, prompt, written = episodes, 1, config.max_prompt_tokens + episode.action_tokens
        counted = min(written, episode.max_steps * episode.action_tokens)
    slots = min(episode.slots, episodes)
    plan(
        cast(PreTrainedModel, model), rows, prompt, written, counted, micro_tokens=micro_tokens, sampling_rows=slots
    ).check()


def _wrapped(make_env: MakeEnv, config: PolicyConfig) -> gym.Env[str, str]:
    stage = config.stage
    tools = {"tool": {"gap": "rouge", "threshold": stage.tool_threshold}} if config.env == "tau2" else None
    return WorldModelRewardWrapper(make_env(), stage.encoder, stage.threshold, mode="report", measures=tools)


def _publish(job: _Run, evaluations: Sequence[Evaluation]) -> None:
    """Writes the model card of the adapter, and uploads it if asked; once a run."""
    config, done = job.config, job.folder / "published.json"
    if done.is_file():
        return
    world = "τ²-bench" if config.env == "tau2" else "ALFWorld"
    with job.games.make_env() as env:
        _, info = env.reset(options={"game": job.games.train[0]})
    results = {f"{e.name} games, after {e.step} updates": str(e).partition(": ")[2] for e in evaluations}
    command = f"rwml-gym train policy --config config.yaml --run-dir {job.folder.name}"
    title = f"{config.model.rsplit('/', 1)[-1]} plays {world}"
    data_version = str(info.get("data_version", ""))
    adapter = job.folder / "adapters" / "policy"
    write_card(adapter, config.model, title, config, results, data_version, command)
    url = push_adapter(adapter, config.push_to_hub) if config.push_to_hub is not None else None
    write_json(done, {"url": url})


def _agent(config: PolicyConfig, model: PeftModel, prompts: Prompts, temperature: float) -> LanguageModelAgent:
    return LanguageModelAgent(
        model,
        prompts.tokenizer,
        prompts,
        temperature,
        seed=seed_of(config.seed, "agent"),
        action_tokens=config.episode.action_tokens,
        show_policy=config.episode.show_policy,
        decoding=config.episode.decoding,
    )


def _loop(job: _Run, name: str, steps: int, learning_rate: float, warmup: int, **settings: Any) -> list[dict[str, Any]]:
    """A training loop in its own folder of checkpoints; its metrics and its adapter when it is through."""
    slug = name.lower().replace(" ", "_")
    path, adapter = job.folder / "metrics" / f"{slug}.json", job.folder / "adapters" / slug
    if not path.is_file():
        faults = job.config.faults
        metrics = train_loop(
            name,
            job.folder / "checkpoints" / slug,
            job.model,
            learning_rate,
            steps,
            checkpoint_every=job.config.stage.checkpoint_every,
            prepare=job.accelerator.prepare,
            schedule=constant_with_warmup(warmup),
            log=make_log(job.accelerator, name, job.config),
            on_nan=faults.on_nan,
            on_save_error=faults.on_save_error,
            writes=job.accelerator.is_main_process,
            **settings,
        )
        if job.accelerator.is_main_process:
            save_adapter(job.model, adapter)
            write_json(path, metrics)
        job.accelerator.wait_for_everyone()
    load_adapter_weights(job.model, adapter)
    rows: list[dict[str, Any]] = read_json(path)
    return rows


# Imitation


def _imitate(job: _Run) -> None:
    imitation = job.config.imitation
    data = _demonstrations(job)
    what = "episodes" if job.prompts.history == 0 else "turns"
    print(f"Imitation: {imitation.steps} steps of {imitation.batch_size} on {len(data)} {what}")
    step = partial(imitation_step, job.model, data, imitation, seed_of(job.config.seed, "imitation"), job.accelerator)
    line: Callable[[Mapping[str, Any]], str] = lambda row: f"loss {row['loss']:.3f}"  # noqa: E731
    _loop(job, "imitation", imitation.steps, imitation.learning_rate, imitation.warmup, step=step, line=line)


def _demonstrations(job: _Run) -> list[Demonstration]:
    """Won episodes of the expert on games that are not trained on, or recorded ones."""
    config = job.config
    with job.games.make_env() as env:
        _, info = env.reset(options={"game": job.games.train[0]})
    describe: Callable[[str], str] = lambda task: describe_task({**info, "task": task}, config.episode.show_policy)  # noqa: E731
    window = config.history or config.episode.max_steps
    if config.imitation.transitions is not None:
        recorded = TransitionDataset.load(config.imitation.transitions)
    else:
        make = partial(job.games.make_env, expert=True)
        with make() as env:
            names = choose_games(
                env,
                config.imitation.games,
                seed_of(config.seed, "expert"),
                exclude={*job.games.train, *job.games.held_out},
            )
        recorded = collect(make, ExpertAgent(), names, window)
    won = TransitionDataset(transition for transition in recorded if transition.won)
    if not won:
        raise InvalidConfigError("No episode to imitate was won: raise episode.max_steps, or give other transitions.")
    return demonstrations(won, job.prompts, describe)


# GRPO


def _train(job: _Run) -> list[Evaluation]:
    config, stage = job.config, job.config.stage
    if config.grpo.beta and (config.adapter is not None or config.imitation.steps):
        add_reference(job.model)  # the reference is what the policy starts from
    print(
        f"GRPO: {stage.steps} steps of {stage.groups} groups of {stage.group_size} episodes on "
        f"{len(job.games.train)} games, rows: {stage.rows}"
    )

    def step(number: int, optimizer: Any) -> dict[str, Any]:
        every = config.evaluation.every
        evaluated = _evaluate(job, number) if number == 0 or (every and number % every == 0) else []
        games, make_env = job.games.train, job.wrapped(job.games.make_env)
        row = grpo_policy_step(job.agent, make_env, games, config, job.accelerator, number, optimizer)
        return {**row, "evaluations": [vars(evaluation) for evaluation in evaluated]}

    rows = _loop(job, "policy", stage.steps, config.grpo.learning_rate, stage.warmup, step=step, line=_line)
    path = job.folder / "evaluation.json"
    if not path.is_file():
        final = _evaluate(job, stage.steps)
        if job.accelerator.is_main_process:
            write_json(path, [vars(evaluation) for evaluation in final])
        job.accelerator.wait_for_everyone()
    before = [Evaluation(**found) for row in rows for found in row["evaluations"]]
    return [*before, *(Evaluation(**found) for found in read_json(path))]


def _evaluate(job: _Run, number: int) -> list[Evaluation]:
    """Plays the games that success is measured on, with the policy as it is; every process plays all of them."""
    evaluation = job.config.evaluation
    agent = _agent(job.config, job.model, job.prompts, evaluation.temperature)
    results = []
    sets: list[tuple[str, MakeEnv, Sequence[str]]] = [("held-out", job.games.make_held_out_env, job.games.held_out)]
    if evaluation.training_games:
        sets.insert(0, ("training", job.games.make_env, job.games.train))
    for name, make_env, games in sets:
        # The same seeds every time: a difference between two evaluations is one of the policy.
        jobs = [
            Job(game, seed_of(job.config.seed, "evaluate", place, repeat))
            for place, game in enumerate(games)
            for repeat in range(evaluation.repeats)
        ]
        if not jobs:
            continue
        with tqdm(total=len(jobs), desc=f"evaluate {name}", unit="episode", leave=False, dynamic_ncols=True) as bar:
            played = roll_out(job.wrapped(make_env), agent, jobs, job.config.episode.slots, progress=bar.update)
        steps = sum(len(episode.rewards) for episode in played)
        found = Evaluation(
            name,
            number,
            sum(episode.won for episode in played),
            len(played),
            sum(sum(episode.invalid) for episode in played) / max(steps, 1),
            steps / len(played),
        )
        tqdm.write(f"  after {number} updates, {found}")
        results.append(found)
    return results


def _line(row: Mapping[str, Any]) -> str:
    gap = f"  gap reward {row['gap_reward']:.3f}" if row["gap_reward"] else ""
    failed = f"  failed {row['failed']}" if row["failed"] else ""
    return (
        f"success {row['success']:.3f}{gap}  steps {row['steps']:.1f}  invalid {row['invalid']:.0%}  groups with "
        f"signal {row['signal_groups']} of {row['groups']}  KL {row['kl']:.4f}  approx. KL {row['approx_kl']:.4f}  "
        f"clipped {row['clip_fraction']:.1%}  mismatch {row['sampling_mismatch']:.4f}{failed}  "
        f"({row['seconds_rollout']:.0f} s play, {row['seconds_update']:.0f} s update)"
    )
