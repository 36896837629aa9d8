"""Supervised fine-tuning as a job: imitate actions, or learn next states word for word (the paper's WM SFT)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from rwml_gym.agents.config.base import JobConfig, at_least, find_preset
from rwml_gym.agents.config.policy import (
    EpisodeConfig,
    EvaluationConfig,
    ImitationConfig,
    PolicyConfig,
    PolicyStageConfig,
)
from rwml_gym.agents.jobs.interaction import Games, prepare_games
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.jobs.runs import check_run, one_process, start_run
from rwml_gym.agents.jobs.tracking import make_accelerator, make_log
from rwml_gym.agents.jobs.world_model_training import sft_step
from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.learning.checkpoint import save_adapter, train_loop
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.agents.players.language_model import LanguageWorldModel
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import read_json, write_json
from rwml_gym.transitions import TransitionDataset

__all__ = ["SFT_PRESETS", "SFTJobConfig", "run_sft", "sft_preset"]


@dataclass(frozen=True)
class SFTJobConfig(JobConfig):
    """What is learnt from what.

    Attributes:
        target: `actions`: what an agent should do, from the expert's episodes or recorded ones that were won; success
            is measured before and after. `states`: what the world will answer, from anybody's play; the loss on
            held-out games is measured.
        transitions: Folder of recorded transitions; if absent, the expert (`actions`) or a random agent (`states`)
            plays.
        games: That are played to learn from.
        held_out_games: On which it is measured.
        max_steps: Step budget of an episode.
        max_new_tokens: Longest state that is learnt whole.
        sft: Steps, batch and learning rate; a batch is of episodes or of transitions.
        checkpoint_every: Updates between checkpoints.
    """

    target: Literal["actions", "states"] = "actions"
    transitions: str | None = None
    games: int = 64
    held_out_games: int = 20
    max_steps: int = 30
    max_new_tokens: int = 96
    sft: SFTConfig = field(default_factory=SFTConfig)
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "games", "held_out_games", "max_steps", "max_new_tokens", "checkpoint_every")
        if self.target not in ("actions", "states"):
            raise InvalidConfigError(f"Expected target among ['actions', 'states'], actual {self.target!r}")


SFT_PRESETS: dict[str, SFTJobConfig] = {
    # Minutes on two cores.
    "demo": SFTJobConfig(max_prompt_tokens=1024, max_steps=15, sft=SFTConfig(steps=30)),
    "smollm2": SFTJobConfig(max_prompt_tokens=2048, games=500, held_out_games=100, sft=SFTConfig(steps=300)),
    # To see that an installation works; its numbers mean nothing.
    "smoke": SFTJobConfig(
        max_prompt_tokens=512, games=3, held_out_games=2, max_steps=8, sft=SFTConfig(steps=2, batch_size=2)
    ),
}


def sft_preset(name: str) -> SFTJobConfig:
    """A preset by name.

    Raises:
        InvalidConfigError: There is none of that name.
    """
    return find_preset(SFT_PRESETS, name)


def run_sft(config: SFTJobConfig, folder: str | Path) -> dict[str, Any]:
    """Fine-tunes, or goes on with what is left of it.

    Args:
        config: The configuration.
        folder: The run's folder; the adapter goes to `adapters/` in it.

    Returns:
        The result in numbers: evaluations of success for `actions`, losses a token for `states`.

    Raises:
        ConfigMismatchError: The folder holds a run of another configuration.
        InvalidConfigError: A value that does not work.
        DependencyNotInstalled: A library that the environment or the tracker needs is not installed.
        ModelNotFoundError: The language model cannot be loaded.
    """
    if config.target == "actions":
        evaluations = run_policy(_imitation(config), folder)
        return {"evaluations": [vars(evaluation) for evaluation in evaluations]}
    return _learn_states(config, Path(folder))


def _imitation(config: SFTJobConfig) -> PolicyConfig:
    """Imitation is what policy training begins with; here it ends there."""
    shared = {name: getattr(config, name) for name in JobConfig.__dataclass_fields__}
    return PolicyConfig(
        **shared,
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


def _learn_states(config: SFTJobConfig, folder: Path) -> dict[str, Any]:
    check_run(config, folder)
    games = prepare_games(config, config.games, config.held_out_games, config.max_steps)
    accelerator = make_accelerator(folder, config.tracker)
    one_process(accelerator)
    base, tokenizer = load_model(config.model, config.dtype, accelerator.device)
    model = add_adapter(base, config.lora_rank, config.lora_alpha, seed_of(config.seed, "adapter"))
    world_model = LanguageWorldModel(model, tokenizer, config.prompts(tokenizer), config.max_new_tokens)
    start_run(config, folder)
    print(f"Run folder: {folder}")
    train, held_out = _transitions(config, games, folder)
    path = folder / "result.json"
    if not path.is_file():
        before = _loss(world_model, held_out)
        print(f"Next-state SFT: {config.sft.steps} steps of {config.sft.batch_size} on {len(train)} transitions")
        metrics = train_loop(
            "sft",
            folder / "checkpoints",
            model,
            config.sft.learning_rate,
            config.sft.steps,
            partial(sft_step, world_model, train, config.sft, seed_of(config.seed, "sft"), accelerator),
            lambda row: f"loss {row['loss']:.3f}",
            config.checkpoint_every,
            accelerator.prepare,
            log=make_log(accelerator, "sft", config),
            on_nan=config.faults.on_nan,
            on_save_error=config.faults.on_save_error,
        )
        save_adapter(model, folder / "adapters" / "sft")
        write_json(folder / "metrics" / "sft.json", metrics)
        write_json(path, {"loss_before": before, "loss_after": _loss(world_model, held_out)})
    result: dict[str, Any] = read_json(path)
    accelerator.end_training()
    print(
        f"Held-out loss a token: {result['loss_before']:.3f} before, {result['loss_after']:.3f} after "
        f"({len(held_out)} transitions); adapter in {folder / 'adapters' / 'sft'}"
    )
    return result


def _transitions(config: SFTJobConfig, games: Games, folder: Path) -> tuple[TransitionDataset, TransitionDataset]:
    """What is learnt from and what is measured on, recorded once a run."""

    def recorded(name: str, make_env: Any, names: list[str]) -> TransitionDataset:
        path = folder / "transitions" / name
        if not path.is_dir():
            seed = seed_of(config.seed, "agent", name)
            agent = RandomCallerAgent(seed) if config.env == "tau2" else RandomAgent(seed)
            with tqdm(total=len(names), desc=f"collect {name}", unit="episode", dynamic_ncols=True) as bar:
                collect(make_env, agent, names, config.history or config.max_steps, progress=bar.update).save(path)
        return TransitionDataset(t for t in TransitionDataset.load(path) if t.next_state.strip())

    held_out = recorded("held_out", games.make_held_out_env, games.held_out)
    if config.transitions is None:
        return recorded("train", games.make_env, games.train), held_out
    return TransitionDataset(t for t in TransitionDataset.load(config.transitions) if t.next_state.strip()), held_out


@torch.no_grad()
def _loss(world_model: LanguageWorldModel, data: TransitionDataset) -> float:
    """Mean negative log-likelihood of a token of the realised states."""
    prompts, total, count = world_model.prompts, 0.0, 0
    device = next(world_model.model.parameters()).device
    for transition in data:
        target = prompts.target(transition.next_state)[: world_model.max_new_tokens]
        prompt = prompts.predict(transition.history, transition.action, transition.task)
        logprobs = completion_logprobs(world_model.model, [prompt], torch.tensor([target], device=device))
        total, count = total - float(logprobs.sum()), count + len(target)
    return total / count
