"""Where the time of a policy step goes, and its tokens a second: on a GPU if there is one, else on the CPU.

It is `grpo_step` as `rwml-gym train policy` calls it, on pick-and-place games. The reward is the continuous gap, where
the model predicts nothing that of the prediction that nothing changes: a model that has learnt nothing earns
differently all the same, so that there is something to update on. In the toy house, which models of random weights
play, an action earns a number made of its text, for the same reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
import zlib
from collections.abc import Sequence
from typing import Any
from unittest import mock

import gymnasium as gym
import torch
from accelerate import Accelerator
from common import ALPHA, RANK, Clock, device_peak, line, where
from random_models import add_options, chosen_model

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.config.policy import EpisodeConfig, EvaluationConfig, PolicyConfig, PolicyStageConfig
from rwml_gym.agents.jobs import policy
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.wrappers import WorldModelRewardWrapper

PARTS = ("generation", "environment", "reward", "update", "rest")
TASK = "pick_and_place_simple"


class _Timed(gym.Wrapper[str, str, str, str]):
    """Counts an environment's time for one part."""

    def __init__(self, env: gym.Env[str, str], clock: Clock, name: str) -> None:
        super().__init__(env)
        self.clock, self.name = clock, name

    def reset(self, **arguments: Any) -> tuple[str, dict[str, Any]]:
        """As the environment's."""
        with self.clock.part(self.name):
            return self.env.reset(**arguments)

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        with self.clock.part(self.name):
            return self.env.step(action)


class _AnyReward(gym.Wrapper[str, str, str, str]):
    """Rewards an action by a number made of its text, from 0 to 1."""

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """As the environment's, but for the reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, zlib.crc32(action.encode()) / 2**32, terminated, truncated, info


def make_env(clock: Clock, turns: int, name: str) -> gym.Env[str, str]:
    """A game with its reward, each timed by itself."""
    if name == "toy":
        with clock.part("environment"):
            house: gym.Env[str, str] = gym.make("rwml_gym/ToyHouse-v0", split="train", max_episode_steps=turns)
        return _Timed(_AnyReward(house), clock, "environment")
    with clock.part("environment"):
        env: gym.Env[str, str] = gym.make(
            "rwml_gym/ALFWorld-v0", split="generated", task_types=[TASK], max_episode_steps=turns
        )
    timed = _Timed(env, clock, "environment")
    wrapped = WorldModelRewardWrapper(timed, shape="continuous", mode="report", predictor="nothing-changes")
    return _Timed(wrapped, clock, "reward")


def main() -> None:
    """Prints the parts of a step and the tokens a second."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="auto")
    add_options(parser)
    parser.add_argument("--env", choices=("alfworld", "toy"), default="alfworld")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of a table")
    for name in ("groups", "group", "turns", "repeats"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    predicts = options.env == "alfworld"
    config = PolicyConfig(
        env=options.env,
        task_types=(TASK,) if predicts else None,
        dtype=options.dtype,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        max_prompt_tokens=2048,
        episode=EpisodeConfig(max_steps=options.turns, predictions=predicts, action_tokens=24),
        stage=PolicyStageConfig(groups=options.groups, group_size=options.group, world_model_weight=float(predicts)),
        grpo=GRPOConfig(beta=0.0),
        evaluation=EvaluationConfig(games=0),
    )
    base, tokenizer = load_model(chosen_model(options), config.dtype)
    model = add_adapter(base, RANK, ALPHA)
    prompts = Prompts(tokenizer, history=0, max_tokens=config.max_prompt_tokens, predictions=predicts)
    agent = LanguageModelAgent(model, tokenizer, prompts, action_tokens=config.episode.action_tokens)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], config.grpo.learning_rate)
    accelerator = Accelerator(cpu=base.device.type == "cpu")
    clock = Clock()
    counts = {"written": 0, "updated": 0, "signal": 0}
    lengths: list[tuple[int, list[int]]] = []  # of the last update: a prompt's tokens and those of its completions
    counted = 0  # tokens in the loss of the last update
    write = agent.sessions.generate

    def generation(*args: Any, **kwargs: Any) -> Any:
        with clock.part("generation"):
            completions = write(*args, **kwargs)
        counts["written"] += sum(len(completion.tokens) for completion in completions)
        return completions

    def updating(model: Any, optimizer: Any, groups: Sequence[Group], *args: Any) -> dict[str, float]:
        with clock.part("update"):
            stats = update(model, optimizer, groups, *args)
        nonlocal counted
        lengths[:] = [(len(g.prompt), [len(c) for c in g.completions]) for g in groups]
        counted = sum(sum(map(sum, g.mask)) if g.mask else sum(map(len, g.completions)) for g in groups)
        counts["updated"] += sum(len(g.prompt) + sum(map(len, g.completions)) for g in groups)
        return stats

    with make_env(clock, options.turns, options.env) as env:
        games = list(env.unwrapped.games.names[: options.groups * (options.repeats + 1)])  # type: ignore[attr-defined]
    rows: list[dict[str, float]] = []
    for number in range(options.repeats + 1):
        counts = dict.fromkeys(counts, 0)
        read = agent.sessions.run_tokens
        clock.take()
        with (
            mock.patch.object(agent.sessions, "generate", generation),
            mock.patch.object(policy, "update", updating),
            clock.part("rest"),
        ):
            stats = policy.grpo_step(
                agent,
                lambda: make_env(clock, options.turns, options.env),
                games,
                config,
                accelerator,
                number,
                optimizer,
            )
        if number:  # the first one warms up
            read = agent.sessions.run_tokens - read
            rows.append({**clock.take(), **counts, "read": read, "signal": float(stats["signal_groups"])})
    middle = {key: statistics.median(row.get(key, 0.0) for row in rows) for key in (*PARTS, "all", *counts, "read")}
    if options.json:
        found = {"where": where(base), "rows": rows, "median": middle, "device_peak": device_peak()}
        print(json.dumps({**found, "last_update": lengths, "last_counted": counted}))
        return
    name = options.random or options.model
    print(f"Policy step: {options.groups} groups of {options.group} episodes of {options.turns} turns, {name}")
    print(f"{where(base)}; median of {len(rows)} steps, groups with signal {middle['signal']:g}")
    widths = [14, 11, 8, 26]
    line(["part", "seconds", "share", "tokens a second"], widths)
    speeds = {
        "generation": f"{middle['written'] / middle['generation']:,.0f} written",
        "update": f"{middle['updated'] / middle['update']:,.0f}" if middle["update"] else "",
    }
    for part in PARTS:
        line([part, f"{middle[part]:.3f}", f"{middle[part] / middle['all']:.1%}", speeds.get(part, "")], widths)
    line(["all", f"{middle['all']:.3f}", "", ""], widths)
    rolled_out = middle["all"] - middle["update"]
    print(
        f"rollout as a whole: {middle['written'] / rolled_out:,.0f} tokens written a second, "
        f"{middle['read'] / rolled_out:,.0f} tokens through the model a second"
    )


if __name__ == "__main__":
    main()
