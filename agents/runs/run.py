"""A run: its folder, model and games, and the steps that every job takes in it.

Each stage leaves its result in the run's folder. A run that was killed and is started again with the same command takes
finished stages as they are and goes on in the one that was interrupted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.config.base import JobConfig
from rwml_gym.agents.language.models import add_adapter, load_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.world_model import WORLD_MODEL_FILE, LanguageWorldModel, WorldModelSettings
from rwml_gym.agents.learning.checkpoint import adapter_damage, load_adapter_weights, save_adapter
from rwml_gym.agents.learning.distributed import block, check_distributed, gathered
from rwml_gym.agents.learning.loop import train_loop
from rwml_gym.agents.learning.schedules import linear_to
from rwml_gym.agents.players.base import Agent, MakeEnv
from rwml_gym.agents.players.language_model import AGENT_FILE, LanguageModelAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.precision import Precision, choose_precision
from rwml_gym.agents.reports.model_card import push_adapter, write_card
from rwml_gym.agents.runs.folder import check_run, hold, start_run
from rwml_gym.agents.runs.tracking import make_accelerator, make_log
from rwml_gym.agents.runs.worlds import GameName, Games, Source, World
from rwml_gym.agents.seeding import seed_of
from rwml_gym.errors import CheckpointError, ConfigMismatchError
from rwml_gym.files import read_json, write_json
from rwml_gym.hashes import damage, seal
from rwml_gym.terminal import say
from rwml_gym.transitions import InvalidDatasetError, Transition, TransitionDataset

__all__ = ["Run"]

Row = dict[str, Any]


@dataclass
class Run:
    """The state that the stages of a job share.

    Attributes:
        config: The configuration.
        folder: The run's folder.
        source: The environment.
        games: Training and held-out games.
        model: The language model with the adapter that is trained.
        prompts: What it is shown and how its answers are read.
        accelerator: Where to compute.
    """

    config: Any
    folder: Path
    source: Source
    games: Games
    model: PeftModel
    prompts: Prompts
    accelerator: Accelerator

    @classmethod
    def open(
        cls,
        config: JobConfig,
        folder: str | Path,
        *,
        games: Callable[[Source], Games],
        check: Callable[[Run], object] = lambda run: None,
        adapter: str | None = None,
        prompts: Mapping[str, Any] | None = None,
        rules: bool = False,
    ) -> Run:
        """Load what a job needs; whatever can be wrong with the input shows before the run's folder is made.

        Args:
            config: The configuration.
            folder: The run's folder.
            games: Chooses the games, see `Source.prepare`.
            check: Further checks of a run, such as a reward that has to be loaded.
            adapter: Folder of the adapter to start from; a fresh one if absent.
            prompts: Further arguments of `Prompts`.
            rules: Whether prompts for predictions hold the rules of their games, see `Games.rules`.

        Raises:
            ConfigMismatchError: The folder holds a run of another configuration.
            InvalidConfigError: A value does not work, such as an unknown split or task type, or accelerate started
                processes that the jobs cannot share their work among.
            DependencyNotInstalled: The environment, the reward or the tracker needs a library that is not installed.
            GameNotFoundError: There are no games in the data folder.
            ModelNotFoundError: The language model or the adapter cannot be loaded.
            StorageError: Another process trains in the folder.
        """
        folder = Path(folder)
        config = check_run(config, folder)
        source = Source(config)
        chosen = games(source)
        accelerator = make_accelerator(folder, config.tracker)
        check_distributed(accelerator)
        precision = choose_precision(config.dtype, accelerator.device)
        _check_agreement(accelerator, precision)
        config = replace(config, dtype=precision.name)
        base, tokenizer = load_model(config.model, config.dtype, accelerator.device)
        world = source.world.prompt_world
        known = cache(chosen.rules) if rules and world == "service" else None  # games have no rules to show
        settings = {"world": world, "rules": known}
        shown = config.make_prompts(tokenizer, **{**settings, **(prompts or {})})
        if adapter is None:
            model = add_adapter(base, config.lora_rank, config.lora_alpha, seed_of(config.seed, "adapter"))
        else:
            model = load_adapter(base, adapter, trainable=True)
        run = cls(config, folder, source, chosen, model, shown, accelerator)
        check(run)
        if run.is_main:
            hold(folder)
            start_run(config, folder)
        run.say(f"Run folder: {folder}")
        run.say(precision)
        accelerator.wait_for_everyone()
        return run

    @property
    def world(self) -> World:
        """What is known of the environment."""
        return self.source.world

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.prompts.tokenizer

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return bool(self.accelerator.is_main_process)

    def say(self, text: object) -> None:
        """Print a text, in the main process only."""
        if self.is_main:
            say(text)

    def progress(self, name: str, count: int, unit: str, leave: bool = True) -> tqdm[Any]:
        """Make a progress bar over this process's share; only the main process shows its own."""
        return tqdm(total=count, desc=name, unit=unit, leave=leave, dynamic_ncols=True, disable=not self.is_main)

    def seed(self, *parts: int | str) -> int:
        """Derive a seed for one purpose of the run."""
        return seed_of(self.config.seed, *parts)

    def world_model(self) -> LanguageWorldModel:
        """Make a predictor of next states from the model."""
        config = self.config
        rows = getattr(config, "batch_rows", 64)
        return LanguageWorldModel(self.model, self.tokenizer, self.prompts, config.max_new_tokens, rows)

    def adapter(self, name: str) -> Path:
        """Folder of the adapter that a stage leaves."""
        return self.folder / "adapters" / _slug(name)

    def once(self, file: str, compute: Callable[[], Any]) -> Any:
        """Return the content of a JSON file of the run; compute and write it first if it is missing or damaged.

        Args:
            file: Its path in the run's folder.
            compute: Computes the content, in every process, which can share the work; the main process writes it.
        """
        path = self.folder / file
        problem = damage(self.folder, file)
        self.accelerator.wait_for_everyone()  # all decide before one writes
        if problem:
            if path.is_file():
                warnings.warn(f"Expected {file} as it was written, actual: {problem}. It is made again.", stacklevel=2)
            content = compute()
            if self.is_main:
                write_json(path, content)
                seal(self.folder, file)
            self.accelerator.wait_for_everyone()
        return read_json(path)

    def collect(
        self, name: str, make_env: MakeEnv, agent: Agent, games: Sequence[GameName], **settings: Any
    ) -> TransitionDataset:
        """Return recorded transitions; play and save them first if they are missing.

        Several processes share the games of a language model without an explorer, whose episodes follow from seeds of
        their own. Other agents draw their actions in the order of the calls, so the main process plays all games.

        Args:
            name: Name of the data set in the run's `transitions`.
            make_env: Makes the environment.
            agent: Who plays.
            games: Which games, one episode each.
            **settings: Further arguments of `rollout.collect`.
        """
        path = self.folder / "transitions" / name
        missing = not path.is_dir()
        self.accelerator.wait_for_everyone()  # all decide before one writes
        if missing:
            seeds: list[int] | None = None
            mine = range(len(games) if self.is_main else 0)
            if isinstance(agent, LanguageModelAgent) and agent.explorer is None:
                seeds, mine = agent.episode_seeds(games), block(self.accelerator, len(games))
            own: list[Transition] = []
            if mine:
                part = slice(mine.start, mine.stop)
                settings |= {"first": mine.start, "seeds": seeds and seeds[part]}
                with self.progress(f"collect {name}", len(mine), "episode") as bar:
                    own += collect(make_env, agent, games[part], progress=bar.update, **settings)
            played = gathered(self.accelerator, [own])
            if self.is_main:
                TransitionDataset(transition for part in played for transition in part).save(path)
            self.accelerator.wait_for_everyone()
        try:
            return TransitionDataset.load(path)
        except InvalidDatasetError as error:
            raise CheckpointError(f"{error} Delete that folder. Then the same command plays again.") from error

    def keep(self, name: str, data: TransitionDataset) -> TransitionDataset:
        """Save transitions beside the recorded ones, once a run, so that other trainings can use them; return them."""
        path = self.folder / "transitions" / name
        if self.is_main and not path.is_dir():
            data.save(path)
        return data

    def train(
        self,
        name: str,
        step: Callable[[int, torch.optim.Optimizer], Mapping[str, Any]],
        *,
        steps: int,
        learning_rate: float,
        warmup: int = 0,
        decay: float = 1.0,
        checkpoint_every: int = 5,
        line: Callable[[Mapping[str, Any]], str] = lambda row: f"loss {row['loss']:.3f}",
    ) -> list[Row]:
        """Run a training loop, or go on with it; afterwards the model has the adapter that it leaves.

        Args:
            name: Name of the stage, of its metrics, checkpoints and adapter.
            step: Does one update, see `loop.train_loop`.
            steps: Number of updates.
            learning_rate: Learning rate of AdamW after the warm-up.
            warmup: Steps over which the learning rate rises linearly.
            decay: Share of the learning rate at the last step, see `schedules.linear_to`.
            checkpoint_every: Updates between checkpoints.
            line: The metrics of an update as one line.

        Returns:
            The metrics of every update.
        """
        slug, faults = _slug(name), self.config.faults

        def loop() -> list[Row]:
            metrics = train_loop(
                name,
                self.folder / "checkpoints" / slug,
                self.model,
                learning_rate,
                steps,
                step,
                line,
                checkpoint_every,
                self.accelerator.prepare,
                schedule=linear_to(decay, warmup, steps),
                log=make_log(self.accelerator, name, self.config),
                on_nan=faults.on_nan,
                on_save_error=faults.on_save_error,
                writes=self.is_main,
            )
            if self.is_main:
                save_adapter(self.model, self.adapter(name))
                self._describe(name)
                losses = {"loss of the last update": metrics[-1]["loss"]} if metrics and "loss" in metrics[-1] else {}
                self._write_card(name, f"after {name} on", {"updates": str(len(metrics)), **losses}, self.world.title)
            return metrics

        rows: list[Row] = self.once(f"metrics/{slug}.json", loop)
        problem = adapter_damage(self.adapter(name))
        self.accelerator.wait_for_everyone()
        if problem:
            warnings.warn(
                f"Expected the adapter {slug} as it was saved, actual: {problem}. It is made again from the last "
                "checkpoint.",
                stacklevel=2,
            )
            rows = loop()
            self.accelerator.wait_for_everyone()
        load_adapter_weights(self.model, self.adapter(name))
        return rows

    def _describe(self, name: str) -> None:
        """Write beside an adapter how it was trained: its prompts for `load_world_model`, or how its agent plays."""
        config, prompts = self.config, self.prompts
        if config.playing:
            write_json(self.adapter(name) / AGENT_FILE, config.playing)
        if not config.predicts or config.show_policy:  # rules come from the environment
            return
        settings = WorldModelSettings(
            model=config.model.split("/")[-1] if Path(config.model).is_dir() else config.model,
            world=prompts.world,
            max_new_tokens=config.max_new_tokens,
            prompt_style=config.prompt_style,
            history=config.history,
            max_prompt_tokens=config.max_prompt_tokens,
            max_state_characters=config.max_state_characters,
            empty_thought=prompts.empty_thought,
            json_schema=prompts.json_schema,
        )
        write_json(self.adapter(name) / WORLD_MODEL_FILE, asdict(settings))

    def _write_card(self, name: str, did: str, results: Mapping[str, Any], data_version: str) -> None:
        config = self.config
        title = f"{config.model.rsplit('/', 1)[-1]} {did} {self.world.title}"
        again = f"rwml-gym train {config.command} --config config.yaml --run-dir {self.folder.name}"
        where = config.push_to_hub
        write_card(self.adapter(name), config.model, title, config, results, data_version, again, where)

    def publish(self, name: str, did: str, results: Mapping[str, Any], data_version: str) -> None:
        """Write the model card of an adapter with its results, and upload it if asked, once a run.

        Args:
            name: Name of the stage that left it.
            did: What the model does now, such as `plays`; the environment's title follows.
            results: Results in the card, by name.
            data_version: Version of the data.
        """
        if not self.is_main:
            return
        self._write_card(name, did, results, data_version)
        done, repository = self.folder / "published.json", self.config.push_to_hub
        if not done.is_file():
            write_json(done, {"url": None if repository is None else push_adapter(self.adapter(name), repository)})


def _check_agreement(accelerator: Accelerator, precision: Precision) -> None:
    found = gathered(accelerator, [precision])
    if len({each.name for each in found}) > 1:
        raise ConfigMismatchError(
            f"Expected the same data type in all processes, actual: {'; '.join(sorted({str(p) for p in found}))}. Set "
            "--dtype float32, or --dtype bfloat16."
        )


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_")
