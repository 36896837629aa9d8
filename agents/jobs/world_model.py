"""RWML stage 1, the main job: collect, calibrate, filter, train a world model with GRPO, and show what it learnt.

The method is that of arXiv 2602.05842. Each stage leaves its result in the run's folder; a run that was killed and is
started again with the same command takes up finished stages as they are and goes on in the one that was interrupted.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedModel

from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.jobs.interaction import MakeEnv, held_out_tasks, prepare_games
from rwml_gym.agents.jobs.run_gap import calibrated_gap, make_gap
from rwml_gym.agents.jobs.runs import check_run, one_process, start_run
from rwml_gym.agents.jobs.success import count_successes, score_baselines
from rwml_gym.agents.jobs.tracking import make_accelerator, make_log
from rwml_gym.agents.jobs.world_model_training import drop_too_easy, grpo_step, score_attempts, sft_step
from rwml_gym.agents.language.models import add_adapter, add_reference, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.checkpoint import load_adapter_weights, save_adapter, train_loop
from rwml_gym.agents.learning.memory_plan import plan
from rwml_gym.agents.players.language_model import LanguageModelAgent, LanguageWorldModel
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.reports.evaluate import Prediction, evaluate_predictions
from rwml_gym.agents.reports.model_card import push_adapter, write_card
from rwml_gym.agents.reports.world_model import Context, write_report
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import read_json, write_json
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import TransitionDataset
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges, WorldModel

__all__ = ["run"]


@dataclass
class _Run:
    """What the stages share."""

    config: RWMLConfig
    folder: Path
    model: PeftModel
    world_model: LanguageWorldModel
    accelerator: Accelerator

    @property
    def prompts(self) -> Prompts:
        return self.world_model.prompts


def run(config: RWMLConfig, folder: str | Path) -> dict[str, list[Prediction]]:
    """Runs the main job, or what is left of it.

    Args:
        config: The configuration.
        folder: The run's folder: config, versions, transitions, calibration, checkpoints, adapters, metrics, report.

    Returns:
        Held-out predictions of every model, by the model's name.

    Raises:
        ConfigMismatchError: The folder holds a run of another configuration.
        InvalidConfigError: A value that does not work; also an unknown split or task type.
        DependencyNotInstalled: A library that the environment or the reward needs is not installed.
        GameNotFoundError: No games where they were looked for.
        ModelNotFoundError: The language model cannot be loaded.
        EncoderNotFoundError: The encoder cannot be loaded.
    """
    folder = Path(folder)
    # Whatever can be wrong with the input shows before the run's folder is made.
    check_run(config, folder)
    collect = config.collect
    games = prepare_games(config, collect.games, collect.held_out_games, collect.max_steps, collect.rollouts)
    gap = make_gap(config, config.encoder)
    accelerator = make_accelerator(folder, config.tracker)
    one_process(accelerator)
    base, tokenizer = load_model(config.model, config.dtype, accelerator.device)
    prompts = config.prompts(tokenizer)
    start_run(config, folder)
    print(f"Run folder: {folder}")
    model = add_adapter(base, config.lora_rank, config.lora_alpha, seed_of(config.seed, "adapter"))
    _plan_memory(config, model)
    world_model = LanguageWorldModel(model, tokenizer, prompts, config.max_new_tokens, config.batch_rows)
    job = _Run(config, folder, model, world_model, accelerator)

    train = _that_say_something(_collect(job, "train", games.make_env, games.train))
    played = _collect(job, "held_out", games.make_held_out_env, games.held_out)
    held_out = _sample(_that_say_something(played), config.max_held_out, seed_of(config.seed, "held out"))
    print(
        f"Transitions: {len(train)} of {len(train.games)} training games, {len(held_out)} of {len(held_out.games)} "
        f"held-out games; {np.mean([t.invalid_action for t in train]):.0%} of the training actions were invalid."
    )
    gap = calibrated_gap(config, gap.encoder, train, folder)
    context = _context(job, played, held_out)
    results = {
        "nothing changes": _evaluate(job, "nothing changes", held_out, gap, NothingChanges()),
        "most frequent": _evaluate(job, "most frequent", held_out, gap, MostFrequentOutcome(train)),
        "base": _evaluate(job, "base", held_out, gap),
    }

    sft_data, rest = _divide(train, config.filter.share, seed_of(config.seed, "share"))
    sft_metrics = _fine_tune(job, "warm start", sft_data, config.sft.steps)
    if config.warm_start:
        print("GRPO starts from the fine-tuned model. This deviates from the paper, which starts from the base model.")
        results["warm start"] = _evaluate(job, "warm start", held_out, gap)
    kept = _filter(job, rest, gap)
    _start_policy(job)
    _grpo(job, kept, gap)
    results["RWML"] = _evaluate(job, "RWML", held_out, gap)
    if config.baseline:
        _start_policy(job)
        _fine_tune(job, "SFT same time", rest, _steps_in_the_same_time(job, sft_metrics))
        results["SFT same time"] = _evaluate(job, "SFT same time", held_out, gap)
    print(write_report(folder, config, results, gap, context))
    _publish(job, results, context.data_version)
    accelerator.end_training()
    return results


def _plan_memory(config: RWMLConfig, model: PeftModel) -> None:
    """Warns before an update that will not fit."""
    rows = config.stage.groups * config.stage.group_size
    plan(
        cast(PreTrainedModel, model),
        rows,
        config.max_prompt_tokens,
        config.max_new_tokens,
        group_size=config.stage.group_size,
        micro_tokens=config.grpo.tokens_per_pass(model.device.type),
        sampling_rows=config.batch_rows,
    ).check()


def _publish(job: _Run, results: Mapping[str, Sequence[Prediction]], data_version: str) -> None:
    """Writes the model card of the adapter, and uploads it if asked; once a run."""
    config, folder, done = job.config, _adapter(job, "RWML"), job.folder / "published.json"
    if done.is_file():
        return
    metrics = {f"held-out reward, {name}": float(np.mean([p.reward for p in found])) for name, found in results.items()}
    command = f"rwml-gym train rwml --config config.yaml --run-dir {job.folder.name}"
    world = "τ²-bench" if config.env == "tau2" else "ALFWorld"
    title = f"{config.model.rsplit('/', 1)[-1]} as a world model of {world}"
    write_card(folder, config.model, title, config, metrics, data_version, command)
    url = push_adapter(folder, config.push_to_hub) if config.push_to_hub is not None else None
    write_json(done, {"url": url})


# Collecting and dividing


def _collect(job: _Run, name: str, make_env: MakeEnv, games: Sequence[str]) -> TransitionDataset:
    path = job.folder / "transitions" / name
    if path.is_dir():
        return TransitionDataset.load(path)
    config = job.config.collect
    agent = LanguageModelAgent(
        job.model,
        job.world_model.tokenizer,
        job.prompts,
        config.temperature,
        config.random_share,
        seed_of(job.config.seed, "agent", name),
        RandomCallerAgent(seed_of(job.config.seed, "caller", name)) if job.config.env == "tau2" else None,
        config.action_tokens,
        config.show_policy,
    )
    with tqdm(total=len(games), desc=f"collect {name}", unit="episode", dynamic_ncols=True) as bar:
        transitions = collect(make_env, agent, games, job.config.history, config.slots, bar.update)
    transitions.save(path)
    return transitions


def _that_say_something(data: TransitionDataset) -> TransitionDataset:
    """Without those to which the world says nothing, such as the agent's own end of a conversation: none can earn."""
    return TransitionDataset(transition for transition in data if transition.next_state.strip())


def _sample(data: TransitionDataset, limit: int, seed: int) -> TransitionDataset:
    """At most `limit` random transitions, in their order; all for 0."""
    if not limit or len(data) <= limit:
        return data
    return TransitionDataset(data[i] for i in sorted(random.Random(seed).sample(range(len(data)), limit)))


def _divide(data: TransitionDataset, share: float, seed: int) -> tuple[TransitionDataset, TransitionDataset]:
    """A random share of the transitions and the rest, both in random order."""
    order = random.Random(seed).sample(range(len(data)), len(data))
    count = min(max(1, round(share * len(data))), len(data) - 1)
    return TransitionDataset(data[i] for i in order[:count]), TransitionDataset(data[i] for i in order[count:])


# Measuring


def _context(job: _Run, played: TransitionDataset, held_out: TransitionDataset) -> Context:
    """What the table says beside its numbers; `played` are all held-out games, `held_out` what is predicted."""
    config, length = job.config, job.config.max_new_tokens
    fits = {
        role: float(np.mean([len(job.prompts.target(t.next_state)) <= length for t in held_out if t.role == role]))
        for role in sorted({t.role for t in held_out})
    }
    version = ", ".join(sorted({t.data_version for t in held_out}))
    if config.env != "tau2":
        return Context(version, fits, length)
    path = job.folder / "task_scores.json"
    if not path.is_file():
        split = held_out_tasks(config)
        scores = {name: str(score) for name, score in score_baselines(config.domain, split).items()}
        write_json(path, {"split": split, **scores, "player": str(count_successes(played)), "data_version": version})
    scores = read_json(path)
    return Context(
        version,
        fits,
        length,
        f"Tasks won, {config.domain} {scores['split']} ({scores['data_version']}): goodbye at once {scores['no-op']}, "
        f"transfer at once {scores['transfer']}, whoever played the held-out games here {scores['player']}",
    )


def _evaluate(
    job: _Run, name: str, held_out: TransitionDataset, gap: GapReward, model: WorldModel | None = None
) -> list[Prediction]:
    """Scores the language model with its adapter as it is, or another world model, on the held-out transitions."""
    path = job.folder / "evaluation" / f"{_slug(name)}.json"
    if not path.is_file():
        with tqdm(total=len(held_out), desc=f"evaluate {name}", unit="transition", dynamic_ncols=True) as bar:
            if model is None:
                attempts = job.world_model.attempts(held_out, 1, temperature=0.0, progress=bar.update)
                predictions = [job.prompts.read_prediction(c.text) for (c,) in attempts]
            else:
                histories, actions = [t.history for t in held_out], [t.action for t in held_out]
                predictions = model.predict(histories, actions, [t.task for t in held_out])
                bar.update(len(held_out))
        write_json(path, [p.to_json() for p in evaluate_predictions(held_out, predictions, gap)])
    result = [Prediction(**row) for row in read_json(path)]
    print(f"{name}: held-out reward at τ_d {np.mean([p.reward for p in result]):.3f}")
    return result


# Training


def _start_policy(job: _Run) -> None:
    """Puts the adapter to where GRPO and its baseline start: the warm start, or nothing learnt."""
    if job.config.warm_start:
        load_adapter_weights(job.model, _adapter(job, "warm start"))
        return
    with torch.no_grad():
        for name, parameter in job.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()


def _fine_tune(job: _Run, name: str, data: TransitionDataset, steps: int) -> list[dict[str, Any]]:
    """Next-state SFT of the adapter as it is; its metrics."""
    config = job.config.sft
    path = job.folder / "metrics" / f"{_slug(name)}.json"
    if not path.is_file():
        print(f"Next-state SFT ({name}): {steps} steps of {config.batch_size} on {len(data)} transitions")
        step = partial(sft_step, job.world_model, data, config, seed_of(job.config.seed, name), job.accelerator)
        metrics = train_loop(
            name,
            job.folder / "checkpoints" / _slug(name),
            job.model,
            config.learning_rate,
            steps,
            step,
            lambda row: f"loss {row['loss']:.3f}",
            job.config.stage.checkpoint_every,
            job.accelerator.prepare,
            **_guards(job, name),
        )
        save_adapter(job.model, _adapter(job, name))
        write_json(path, metrics)
    load_adapter_weights(job.model, _adapter(job, name))
    rows: list[dict[str, Any]] = read_json(path)
    return rows


def _filter(job: _Run, data: TransitionDataset, gap: GapReward) -> TransitionDataset:
    """The triplets that GRPO trains on, by attempts of the fine-tuned model."""
    config, seed = job.config.filter, job.config.seed
    path = job.folder / "filter.json"
    tried = data if not config.limit else data[: config.limit]  # `data` is in random order
    if not path.is_file():
        with tqdm(total=len(tried), desc="filter", unit="transition", dynamic_ncols=True) as bar:
            attempts = job.world_model.attempts(
                tried, config.attempts, seed=seed_of(seed, "filter"), progress=bar.update
            )
        rates = score_attempts(job.prompts, tried, attempts, gap).rewards.mean(1).tolist()
        write_json(path, {"rates": rates, "kept": drop_too_easy(rates, config, seed_of(seed, "keep"))})
    content = read_json(path)
    success, kept = np.array(content["rates"]), content["kept"]
    print(
        f"Filter: {len(tried)} triplets tried {config.attempts} times: {np.mean(success >= config.easy_rate):.0%} too "
        f"easy, {np.mean(success == 0):.0%} never right; {len(kept)} kept."
    )
    if not kept:
        raise InvalidConfigError("The filter kept no triplet: try more (--filter.limit) or raise --filter.keep-hard.")
    return TransitionDataset(tried[i] for i in kept)


def _grpo(job: _Run, data: TransitionDataset, gap: GapReward) -> None:
    """World-model GRPO of the adapter as it is."""
    config = job.config.stage
    path = job.folder / "metrics" / "rwml.json"
    if not path.is_file():
        print(f"GRPO: {config.steps} steps of {config.groups} groups of {config.group_size} on {len(data)} triplets")
        if job.config.warm_start:
            add_reference(job.model)  # the reference is what the policy starts from
        metrics = train_loop(
            "GRPO",
            job.folder / "checkpoints" / "rwml",
            job.model,
            job.config.grpo.learning_rate,
            config.steps,
            partial(grpo_step, job.world_model, data, gap, job.config, job.accelerator),
            _grpo_line,
            config.checkpoint_every,
            job.accelerator.prepare,
            **_guards(job, "GRPO"),
        )
        save_adapter(job.model, _adapter(job, "RWML"))
        write_json(path, metrics)
    load_adapter_weights(job.model, _adapter(job, "RWML"))


def _guards(job: _Run, name: str) -> dict[str, Any]:
    """What a training loop tracks, and what it does when something fails."""
    faults = job.config.faults
    log = make_log(job.accelerator, name, job.config)
    return {"log": log, "on_nan": faults.on_nan, "on_save_error": faults.on_save_error}


def _grpo_line(row: Mapping[str, Any]) -> str:
    return (
        f"reward {row['reward']:.3f}  gap {row['distance']:.3f}  groups with signal {row['signal_groups']:>2} of "
        f"{row['groups']} ({row['signal_share']:.0%})  KL {row['kl']:.4f}  clipped {row['clip_fraction']:.1%}  "
        f"mismatch {row['sampling_mismatch']:.4f}"
    )


def _steps_in_the_same_time(job: _Run, sft_metrics: Sequence[Mapping[str, Any]]) -> int:
    """How many SFT steps fit into the wall-clock time that GRPO took; decided once, as clocks differ."""
    path = job.folder / "same_time.json"
    if not path.is_file():
        grpo = sum(row["seconds"] for row in read_json(job.folder / "metrics" / "rwml.json"))
        per_step = float(np.median([row["seconds"] for row in sft_metrics])) if sft_metrics else 1.0
        write_json(path, {"grpo_seconds": grpo, "sft_seconds_per_step": per_step, "steps": round(grpo / per_step)})
    return int(read_json(path)["steps"])


def _adapter(job: _Run, name: str) -> Path:
    return job.folder / "adapters" / _slug(name)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_")
