"""The imitation start of a policy: won episodes of the expert, or recorded ones, learnt before any reward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from rwml_gym.agents.config.policy import ImitationConfig, PolicyConfig
from rwml_gym.agents.language.instructions import describe_task
from rwml_gym.agents.learning.distributed import share
from rwml_gym.agents.learning.sft import Demonstration, demonstrations, sft_update
from rwml_gym.agents.players.baselines import ExpertAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.runs.run import Run
from rwml_gym.agents.runs.worlds import choose_games, games_of
from rwml_gym.agents.seeding import in_epochs
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Transition, TransitionDataset

__all__ = ["first_info", "imitate", "imitation_step"]


def imitate(run: Run) -> None:
    """Train a run's model on demonstrations, or go on with what is left of it."""
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
        return first_info(run)
    with run.games.make_env() as env:
        games = games_of(env)
        named = [] if games is None else [game for game in games.names if game.partition("/")[0] == domain]
    return run.games.info(named[0] if named else domain)


def first_info(run: Run) -> dict[str, Any]:
    """Return the info with which the first training game begins."""
    game = run.games.train[0]
    with run.games.make_env() as env:
        return env.reset(options={"game": game})[1] if isinstance(game, str) else env.reset(seed=game)[1]
