"""RWML stage 1, the main job: collect, calibrate, filter, train a world model with GRPO, and show what it learnt.

The method is that of arXiv 2602.05842. Each stage leaves its result in the run's folder; a run that was killed and is
started again with the same command takes up finished stages as they are and goes on in the one that was interrupted.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.checkpoint import load_adapter_weights, read_json, save_adapter, train_loop, write_json
from rwml_gym.agents.config import RWMLConfig
from rwml_gym.agents.evaluate import Prediction, evaluate_predictions
from rwml_gym.agents.grpo import Group, group_advantages, has_signal, update
from rwml_gym.agents.language_model import LanguageModelAgent, LanguageWorldModel
from rwml_gym.agents.models import add_adapter, add_reference, load_model
from rwml_gym.agents.report import write_report
from rwml_gym.agents.rollout import collect
from rwml_gym.agents.runs import open_run
from rwml_gym.agents.sft import sft_update
from rwml_gym.calibration import calibrate
from rwml_gym.errors import InvalidConfigError, InvalidGameError
from rwml_gym.gap import GapReward
from rwml_gym.prompts import Prompts
from rwml_gym.transitions import TransitionDataset
from rwml_gym.world_models import MostFrequentOutcome, NothingChanges, WorldModel

__all__ = ["choose_games", "drop_too_easy", "grpo_step", "run", "seed_of", "sft_step"]


def seed_of(*parts: int | str) -> int:
    """A seed for one purpose, from the run's seed and names or numbers that say what it is for."""
    entropy = [p if isinstance(p, int) else int.from_bytes(p.encode(), "little") for p in parts]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class _Run:
    """What the stages share."""

    config: RWMLConfig
    folder: Path
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
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
        GameNotFoundError: No games where they were looked for.
        ModelNotFoundError: The language model cannot be loaded.
        EncoderNotFoundError: The encoder cannot be loaded.
    """
    folder = Path(folder)
    make_env, make_held_out = _environments(config)  # before anything else: bad input costs no time
    gap = GapReward(config.encoder, config.threshold if config.threshold is not None else 1.0)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    open_run(config, folder)
    print(f"Run folder: {folder}")
    base, tokenizer = load_model(config.model, config.dtype, accelerator.device)
    prompts = Prompts(tokenizer, config.prompt_style, config.history, config.max_prompt_tokens)
    model = add_adapter(base, config.lora_rank, config.lora_alpha, seed_of(config.seed, "adapter"))
    world_model = LanguageWorldModel(model, tokenizer, prompts, config.max_new_tokens, config.batch_rows)
    job = _Run(config, folder, model, tokenizer, world_model, accelerator)

    train, held_out = _transitions(job, make_env, make_held_out)
    gap = _calibrated(job, gap, train)
    models: dict[str, WorldModel] = {
        "nothing changes": NothingChanges(),
        "most frequent": MostFrequentOutcome(train),
    }
    results = {
        name: evaluate_predictions(held_out, baseline.predict(*_columns(held_out)), gap)
        for name, baseline in models.items()
    }
    results["base"] = _evaluate(job, "base", held_out, gap)

    sft_data, rest = _share(train, config.filter.share, seed_of(config.seed, "share"))
    warm = _fine_tune(job, "warm start", sft_data, config.sft.steps)
    if config.warm_start:
        print("GRPO starts from the fine-tuned model. This deviates from the paper, which starts from the base model.")
        results["warm start"] = _evaluate(job, "warm start", held_out, gap)
    kept = _filter(job, rest, gap)
    if not config.warm_start:
        _reset_adapter(job)
    _grpo(job, kept, gap)
    results["RWML"] = _evaluate(job, "RWML", held_out, gap)
    if config.baseline:
        steps = _steps_in_the_same_time(job, warm)
        if config.warm_start:
            load_adapter_weights(model, _adapter(job, "warm start"))
        else:
            _reset_adapter(job)
        _fine_tune(job, "SFT same time", rest, steps)
        results["SFT same time"] = _evaluate(job, "SFT same time", held_out, gap)
    print(write_report(folder, config, results, gap.threshold))
    return results


# Collecting


def _environments(config: RWMLConfig) -> tuple[Callable[[], gym.Env[str, str]], Callable[[], gym.Env[str, str]] | None]:
    """Makers of the training and the held-out environment; no second one if games of one split are divided."""
    arguments = {
        "data": config.data,
        "task_types": config.task_types,
        "grammar": config.grammar,
        "max_episode_steps": config.collect.max_steps,
        "disable_env_checker": True,
    }
    make = partial(gym.make, config.env_id, split=config.split, **arguments)
    make().close()
    if config.split != "generated":
        return make, None
    return make, partial(gym.make, config.env_id, split="generated_held_out", **arguments)


def choose_games(env: gym.Env[str, str], count: int, seed: int) -> list[str]:
    """Names of `count` distinct games of an environment, in random order; games that cannot be loaded are passed over.

    Raises:
        InvalidConfigError: There are not as many.
    """
    games = env.unwrapped.games  # type: ignore[attr-defined]
    available = len(games.names)
    chosen: list[str] = []
    # Sampling positions works for millions of generated games, too.
    for position in random.Random(seed).sample(range(available), min(available, 2 * count + 100)):
        try:
            games.load(games.names[position])
        except InvalidGameError as error:
            tqdm.write(f"  left out: {error}")
            continue
        chosen.append(games.names[position])
        if len(chosen) == count:
            return chosen
    raise InvalidConfigError(
        f"Expected {count} playable games, actual {len(chosen)} of {available} tried; ask for fewer with "
        "--collect.games and --collect.held-out-games, or allow more task types."
    )


def _transitions(
    job: _Run, make_env: Callable[[], gym.Env[str, str]], make_held_out: Callable[[], gym.Env[str, str]] | None
) -> tuple[TransitionDataset, TransitionDataset]:
    """Training and held-out transitions, of different games; collected once."""
    config = job.config.collect
    seed = seed_of(job.config.seed, "games")
    with make_env() as env:
        if make_held_out is None:
            games = choose_games(env, config.games + config.held_out_games, seed)
            train_games, held_out_games = games[: config.games], games[config.games :]
        else:
            train_games = choose_games(env, config.games, seed)
            with make_held_out() as held_out_env:
                held_out_games = choose_games(held_out_env, config.held_out_games, seed)
    train = _collect(job, "train", make_env, [g for g in train_games for _ in range(config.rollouts)])
    held_out = _collect(job, "held_out", make_held_out or make_env, held_out_games)
    if set(train.games) & set(held_out.games):
        raise InvalidConfigError("Expected no game both in training and held out; the environment repeats names.")
    limit = job.config.max_held_out
    if limit and len(held_out) > limit:
        picked = sorted(random.Random(seed_of(job.config.seed, "held out")).sample(range(len(held_out)), limit))
        held_out = TransitionDataset(held_out[i] for i in picked)
    invalid = float(np.mean([t.invalid_action for t in train]))
    print(
        f"Transitions: {len(train)} of {len(train.games)} training games, {len(held_out)} of {len(held_out.games)} "
        f"held-out games; {invalid:.0%} of the training actions were invalid."
    )
    return train, held_out


def _collect(
    job: _Run, name: str, make_env: Callable[[], gym.Env[str, str]], games: Sequence[str]
) -> TransitionDataset:
    path = job.folder / "transitions" / name
    if path.is_dir():
        return TransitionDataset.load(path)
    config = job.config.collect
    agent = LanguageModelAgent(
        job.model,
        job.tokenizer,
        job.prompts,
        config.temperature,
        config.random_share,
        seed_of(job.config.seed, "agent", name),
    )
    with tqdm(total=len(games), desc=f"collect {name}", unit="episode", dynamic_ncols=True) as bar:
        transitions = collect(make_env, agent, games, job.config.history, config.slots, bar.update)
    transitions.save(path)
    return transitions


def _columns(data: TransitionDataset) -> tuple[list[Any], list[str], list[str]]:
    return [t.history for t in data], [t.action for t in data], [t.task for t in data]


def _share(data: TransitionDataset, share: float, seed: int) -> tuple[TransitionDataset, TransitionDataset]:
    """A random share of the transitions, and the rest."""
    order = random.Random(seed).sample(range(len(data)), len(data))
    count = min(max(1, round(share * len(data))), len(data) - 1)
    return TransitionDataset(data[i] for i in order[:count]), TransitionDataset(data[i] for i in order[count:])


# Measuring


def _calibrated(job: _Run, gap: GapReward, train: TransitionDataset) -> GapReward:
    if job.config.threshold is not None:
        print(f"Threshold τ_d = {gap.threshold} as configured, not calibrated.")
        return gap
    path = job.folder / "calibration.json"
    if not path.is_file():
        calibration = calibrate(train, gap.encoder, job.config.precision, job.config.seed, job.config.calibration_pairs)
        print(calibration.table())
        (job.folder / "calibration.txt").write_text(calibration.table() + "\n", encoding="utf-8")
        write_json(path, {"threshold": calibration.threshold, "calibration": json.loads(calibration.to_json())})
    return GapReward(gap.encoder, read_json(path)["threshold"])


def _evaluate(job: _Run, name: str, held_out: TransitionDataset, gap: GapReward) -> list[Prediction]:
    path = job.folder / "evaluation" / f"{_slug(name)}.json"
    if path.is_file():
        return [Prediction(**row) for row in read_json(path)]
    with tqdm(total=len(held_out), desc=f"evaluate {name}", unit="transition", dynamic_ncols=True) as bar:
        attempts = job.world_model.attempts(held_out, 1, temperature=0.0, progress=bar.update)
    predictions = [job.prompts.read_prediction(c.text) for (c,) in attempts]
    result = evaluate_predictions(held_out, predictions, gap)
    write_json(path, [p.to_json() for p in result])
    print(f"{name}: held-out reward at τ_d {np.mean([p.reward for p in result]):.3f}")
    return result


# Training


def sft_step(
    world_model: LanguageWorldModel,
    data: Sequence[Any],
    batch_size: int,
    learning_rate: Callable[[int], float],
    seed: int,
    accelerator: Accelerator,
    number: int,
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    """Next-state SFT on the batch that belongs to step `number`; epochs are shuffled anew.

    Returns:
        See `sft.sft_update`.
    """
    picked: list[int] = []
    position = number * batch_size
    while len(picked) < batch_size:
        epoch, offset = divmod(position, len(data))
        order = random.Random(seed_of(seed, epoch)).sample(range(len(data)), len(data))
        picked += order[offset : offset + batch_size - len(picked)]
        position = number * batch_size + len(picked)
    prompts = world_model.prompts
    batch = [data[i] for i in picked]
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(number)
    return sft_update(
        world_model.model,
        optimizer,
        [prompts.predict(t.history, t.action, t.task) for t in batch],
        [prompts.target(t.next_state)[: world_model.max_new_tokens] for t in batch],
        accelerator,
    )


def _fine_tune(job: _Run, name: str, data: TransitionDataset, steps: int) -> list[dict[str, Any]]:
    """Next-state SFT of the adapter as it is; its metrics."""
    config = job.config.sft
    path = job.folder / "metrics" / f"{_slug(name)}.json"
    if not path.is_file():
        print(f"Next-state SFT ({name}): {steps} steps of {config.batch_size} on {len(data)} transitions")
        metrics = train_loop(
            name,
            job.folder / "checkpoints" / _slug(name),
            job.model,
            config.learning_rate,
            steps,
            partial(
                sft_step,
                job.world_model,
                data,
                config.batch_size,
                lambda number: config.learning_rate * min(1.0, (number + 1) / max(1, config.warmup)),
                seed_of(job.config.seed, name),
                job.accelerator,
            ),
            lambda row: f"loss {row['loss']:.3f}",
            job.config.stage.checkpoint_every,
            job.accelerator.prepare,
        )
        save_adapter(job.model, _adapter(job, name))
        write_json(path, metrics)
    load_adapter_weights(job.model, _adapter(job, name))
    rows: list[dict[str, Any]] = read_json(path)
    return rows


def drop_too_easy(rates: Sequence[float], config: Any, seed: int) -> list[int]:
    """Which triplets to train on: too-easy ones only with a small probability, hopeless ones as configured.

    Args:
        rates: Share of right attempts, one a triplet.
        config: A `FilterConfig`.
        seed: Of the draws.

    Returns:
        Indices that are kept, ascending.
    """
    rng = random.Random(seed)
    keep = [config.keep_easy if rate >= config.easy_rate else config.keep_hard if rate == 0 else 1.0 for rate in rates]
    return [i for i, probability in enumerate(keep) if rng.random() < probability]


def _filter(job: _Run, data: TransitionDataset, gap: GapReward) -> TransitionDataset:
    """The triplets that GRPO trains on, by attempts of the fine-tuned model."""
    config = job.config.filter
    path = job.folder / "filter.json"
    tried = data if not config.limit else data[: config.limit]  # `data` is in random order
    if not path.is_file():
        with tqdm(total=len(tried), desc="filter", unit="transition", dynamic_ncols=True) as bar:
            attempts = job.world_model.attempts(
                tried, config.attempts, seed=seed_of(job.config.seed, "filter"), progress=bar.update
            )
        rewards = _rewards(job, tried, attempts, gap)[0]
        rates = rewards.mean(1).tolist()
        kept = drop_too_easy(rates, config, seed_of(job.config.seed, "keep"))
        write_json(path, {"rates": rates, "kept": kept})
    content = read_json(path)
    rates, kept = np.array(content["rates"]), content["kept"]
    print(
        f"Filter: {len(tried)} triplets tried {config.attempts} times: {np.mean(rates >= config.easy_rate):.0%} too "
        f"easy, {np.mean(rates == 0):.0%} never right; {len(kept)} kept."
    )
    if not kept:
        raise InvalidConfigError("The filter kept no triplet: try more of them (filter.limit) or raise keep_hard.")
    return TransitionDataset(tried[i] for i in kept)


def _rewards(
    job: _Run, transitions: Sequence[Any], attempts: Sequence[Sequence[Any]], gap: GapReward
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and distances of the attempts, (T, n) each; one encoder call."""
    shape = (len(attempts), len(attempts[0]))
    gaps = gap(
        [job.prompts.read_prediction(c.text) for row in attempts for c in row],
        [t.next_state for t, row in zip(transitions, attempts, strict=True) for _ in row],
    )
    return gaps.rewards.reshape(shape), gaps.distances.reshape(shape)


def grpo_step(
    job: Any, data: Sequence[Any], gap: GapReward, number: int, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """One world-model GRPO update: sample groups until enough have a reward difference, then update on those.

    Args:
        job: The run.
        data: The triplets.
        gap: The reward.
        number: Of the step; prompts and samples follow from it.
        optimizer: Over the adapter.

    Returns:
        Means over all sampled groups (`reward`, `distance`), how many there were (`groups`) and how many of them had
        a reward difference (`signal_groups`, `signal_share`), and what `grpo.update` returns.
    """
    config = job.config.stage
    signal: list[Group] = []
    rewards: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    lengths: list[int] = []
    count = min(config.groups, len(data))
    order = random.Random(seed_of(job.config.seed, "prompts", number)).sample(range(len(data)), len(data))
    for index in range(config.rounds):
        wanted = order[index * count : (index + 1) * count]
        if len(signal) >= config.groups or not wanted:
            break
        chosen = [data[i] for i in wanted]
        attempts = job.world_model.attempts(
            chosen, config.group_size, config.temperature, seed_of(job.config.seed, "sample", number, index)
        )
        reward, distance = _rewards(job, chosen, attempts, gap)
        rewards.append(reward)
        distances.append(distance)
        advantages = group_advantages(reward, job.config.grpo.scale_rewards)
        lengths += [len(c.tokens) for row in attempts for c in row]
        for i in np.flatnonzero(has_signal(reward)):
            signal.append(
                Group(
                    job.prompts.predict(chosen[i].history, chosen[i].action, chosen[i].task),
                    [c.tokens for c in attempts[i]],
                    advantages[i].tolist(),
                    [c.logprobs for c in attempts[i]],
                )
            )
    found = len(signal)
    # All groups that were paid for are used; more than were wanted do not hurt.
    stats = update(job.model, optimizer, signal, job.config.grpo, job.accelerator, job.config.max_new_tokens)
    total = sum(len(r) for r in rewards)
    return {
        "reward": float(np.concatenate(rewards).mean()),
        "distance": float(np.concatenate(distances).mean()),
        "groups": total,
        "signal_groups": found,
        "signal_share": found / total,
        "tokens": float(np.mean(lengths)),
        **stats,
    }


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
            partial(grpo_step, job, data, gap),
            _grpo_line,
            config.checkpoint_every,
            job.accelerator.prepare,
        )
        save_adapter(job.model, _adapter(job, "RWML"))
        write_json(path, metrics)
    load_adapter_weights(job.model, _adapter(job, "RWML"))


def _grpo_line(row: Mapping[str, Any]) -> str:
    return (
        f"reward {row['reward']:.3f}  gap {row['distance']:.3f}  groups with signal {row['signal_groups']:>2} of "
        f"{row['groups']} ({row['signal_share']:.0%})  KL {row['kl']:.4f}  clipped {row['clip_fraction']:.1%}  "
        f"mismatch {row['sampling_mismatch']:.4f}"
    )


def _steps_in_the_same_time(job: _Run, warm: Sequence[Mapping[str, Any]]) -> int:
    """How many SFT steps fit into the wall-clock time that GRPO took; decided once, as clocks differ."""
    path = job.folder / "same_time.json"
    if not path.is_file():
        grpo = sum(row["seconds"] for row in read_json(job.folder / "metrics" / "rwml.json"))
        per_step = float(np.median([row["seconds"] for row in warm])) if warm else 1.0
        write_json(path, {"grpo_seconds": grpo, "sft_seconds_per_step": per_step, "steps": round(grpo / per_step)})
    return int(read_json(path)["steps"])


def _reset_adapter(job: _Run) -> None:
    """Back to the model as it is: the adapter adds nothing."""
    with torch.no_grad():
        for name, parameter in job.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()


def _adapter(job: _Run, name: str) -> Path:
    return job.folder / "adapters" / _slug(name)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_")
