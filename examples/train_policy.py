"""Policy GRPO on ALFWorld as a script to be read from top to bottom: play groups of equal games, learn from success.

    python examples/train_policy.py [--games 12] [--imitation-steps 30] [--steps 8] [--output policy]

A short imitation start (a 135 M-parameter model hardly ever wins without one), then GRPO on whole episodes. The same
job with checkpoints, restarts, evaluation and a report: `rwml-gym train policy`.
"""

from __future__ import annotations

import argparse
import random
from functools import partial

import gymnasium as gym
import torch
from accelerate import Accelerator

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.credit import credit_episodes
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.agents.learning.sft import demonstrations, sft_update
from rwml_gym.agents.players.baselines import ExpertAgent
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import EpisodeSpec, collect, roll_out
from rwml_gym.statistics import wilson_interval

ACTION_TOKENS = 14


def main() -> None:
    """Runs the job and prints how often the policy succeeds, before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="packaged name, folder or hub id")
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--max-steps", type=int, default=10, help="of an episode")
    parser.add_argument("--imitation-games", type=int, default=64)
    parser.add_argument("--imitation-steps", type=int, default=30)
    parser.add_argument("--steps", type=int, default=8, help="of GRPO")
    parser.add_argument("--groups", type=int, default=6, help="games a GRPO step")
    parser.add_argument("--group-size", type=int, default=8, help="episodes a game")
    parser.add_argument("--repeats", type=int, default=4, help="episodes a game when success is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="policy", help="folder for the adapter")
    args = parser.parse_args()
    rng = random.Random(args.seed)

    # The policy: a frozen model with a trainable LoRA adapter. An episode is one text (history=0): each turn costs its
    # new tokens only. It writes one of the admissible actions, token by token.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    base, tokenizer = load_model(args.model, device=accelerator.device)
    model = add_adapter(base, seed=args.seed)
    prompts = Prompts(tokenizer, history=0, max_tokens=2048)
    agent = LanguageModelAgent(
        model, tokenizer, prompts, seed=args.seed, action_tokens=ACTION_TOKENS, decoding="constrained"
    )
    make_env = partial(
        gym.make, "rwml_gym/ALFWorld-v0", task_types=["pick_and_place_simple"], max_episode_steps=args.max_steps
    )
    games = [args.seed * 1000 + i for i in range(args.games)]

    def evaluate(name: str) -> None:
        jobs = [EpisodeSpec(game, seed=repeat) for game in games for repeat in range(args.repeats)]
        agent.sessions.clear()
        wins = sum(played.won for played in roll_out(make_env, agent, jobs, slots=32))
        low, high = wilson_interval(wins, len(jobs))
        print(f"{name:<12} success {wins / len(jobs):.3f} [{low:.3f}, {high:.3f}] of {len(jobs)}", flush=True)

    # 1. Imitation: what an expert wrote on other games, the world's words masked out.
    others = list(range(10**6, 10**6 + args.imitation_games))
    recorded = collect(partial(make_env, expert=True), ExpertAgent(), others, history=args.max_steps)
    shown = demonstrations(type(recorded)(step for step in recorded if step.won), prompts)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4, weight_decay=0.0)
    optimizer = accelerator.prepare(optimizer)
    for number in range(args.imitation_steps):
        batch = rng.sample(shown, min(8, len(shown)))
        stats = sft_update(
            model,
            optimizer,
            [d.prompt for d in batch],
            [d.target for d in batch],
            accelerator,
            masks=[d.mask for d in batch],
        )
        print(f"imitation {number + 1:>3}  loss {stats['loss']:.3f}", flush=True)
    evaluate("imitation")

    # 2. GRPO: episodes of a game differ in their sampling only; what they earn beyond their group's mean is what each
    # of their tokens is worth.
    config = GRPOConfig(loss_type="grpo", beta=0.0, learning_rate=4e-4)  # counts long and short episodes alike
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-4, weight_decay=0.0)
    optimizer = accelerator.prepare(optimizer)
    for number in range(args.steps):
        chosen = rng.sample(games, min(args.groups, len(games)))
        jobs = [EpisodeSpec(game, seed=rng.getrandbits(60)) for game in chosen for _ in range(args.group_size)]
        agent.sessions.clear()  # the weights have changed
        played = roll_out(make_env, agent, jobs, slots=32)
        groups = [
            group
            for start in range(0, len(played), args.group_size)
            for group in credit_episodes(played[start : start + args.group_size], prompts).groups
        ]
        stats = update(model, optimizer, groups, config, accelerator, ACTION_TOKENS)
        print(
            f"step {number + 1:>3}  success {sum(p.won for p in played) / len(played):.3f}  groups with signal "
            f"{len(groups)} of {len(chosen)}  mismatch {stats['sampling_mismatch']:.4f}",
            flush=True,
        )
    evaluate("GRPO")
    model.save_pretrained(args.output, selected_adapters=["default"])
    print(f"Adapter (PEFT) in {args.output}")


if __name__ == "__main__":
    main()
