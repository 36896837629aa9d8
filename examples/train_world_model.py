"""The job of `make demo` as a script to be read from top to bottom: RWML stage 1 (arXiv 2602.05842) on ALFWorld.

    python examples/train_world_model.py [--games 48] [--sft-steps 40] [--grpo-steps 24] [--output world-model]

Collect transitions by playing, calibrate the reward's threshold, warm up with next-state SFT (the paper does not; a
135 M-parameter model needs it), train with GRPO on the embedding-gap reward, compare on held-out games. The settings
are this script's own. The job with checkpoints, the filter and a full report: `rwml-gym train rwml`.
"""

from __future__ import annotations

import argparse
import random

import gymnasium as gym
import torch
from accelerate import Accelerator
from tqdm import trange

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.language.models import add_adapter, add_reference, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import group_advantages, has_signal, update
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.agents.learning.sft import sft_update
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.reports.evaluate import Prediction, evaluate_predictions, paired_difference
from rwml_gym.diagnostics.calibration import calibrate
from rwml_gym.reward.gap import GapReward
from rwml_gym.statistics import bootstrap_interval
from rwml_gym.transitions import TransitionDataset


def main() -> None:
    """Runs the job and prints its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="packaged name, folder or hub id")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--games", type=int, default=48)
    parser.add_argument("--held-out-games", type=int, default=40)
    parser.add_argument("--max-steps", type=int, default=15, help="of an episode")
    parser.add_argument("--sft-steps", type=int, default=40)
    parser.add_argument("--grpo-steps", type=int, default=24)
    parser.add_argument("--groups", type=int, default=8, help="prompts a GRPO step")
    parser.add_argument("--group-size", type=int, default=8, help="predictions a prompt")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--calibration-pairs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="world-model", help="folder for the adapter")
    args = parser.parse_args()
    rng = random.Random(args.seed)

    # The model: frozen, with a trainable LoRA adapter. It is both the agent that plays and the world model.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    base, tokenizer = load_model(args.model, device=accelerator.device)
    model = add_adapter(base, seed=args.seed)
    prompts = Prompts(tokenizer, history=4, max_tokens=384)
    world_model = LanguageWorldModel(model, tokenizer, prompts, args.max_new_tokens)

    # 1. Interaction learning: the model plays (temperature 1.0), mixed with random admissible actions. Training and
    # held-out games come from disjoint seeds.
    def play(split: str, games: int) -> TransitionDataset:
        agent = LanguageModelAgent(model, tokenizer, prompts, random_share=0.7, seed=args.seed)
        seeds = list(range(args.seed, args.seed + games))
        return collect(
            lambda: gym.make("rwml_gym/ALFWorld-v0", split=split, max_episode_steps=args.max_steps), agent, seeds
        )

    train, held_out = play("generated", args.games), play("generated_held_out", args.held_out_games)
    print(f"{len(train)} training transitions, {len(held_out)} held out")

    # 2. The reward: 1 if the prediction lies closer than τ_d to what happened, else 0. τ_d is calibrated.
    calibration = calibrate(train, args.encoder, pairs_per_perturbation=args.calibration_pairs)
    print(calibration.table())
    gap = GapReward(args.encoder, calibration.threshold)

    def evaluate(name: str) -> list[Prediction]:
        predictions = world_model.predict(
            [t.history for t in held_out], [t.action for t in held_out], [t.task for t in held_out]
        )
        result = evaluate_predictions(held_out, predictions, gap)
        mean, low, high = bootstrap_interval([p.reward for p in result], [p.game for p in result])
        print(f"{name:<10} held-out reward at τ_d {mean:.3f} [{low:.3f}, {high:.3f}]")
        return result

    base_result = evaluate("base")

    # 3. Warm start: next-state SFT on a third of the transitions.
    data = rng.sample(list(train), len(train))
    sft_data, grpo_data = data[: len(data) // 3], data[len(data) // 3 :]
    optimizer = accelerator.prepare(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4))
    for _ in trange(args.sft_steps, desc="SFT"):
        batch = rng.sample(sft_data, min(8, len(sft_data)))
        sft_update(
            model,
            optimizer,
            [prompts.ask(t) for t in batch],
            [prompts.target(t.next_state)[: args.max_new_tokens] for t in batch],
            accelerator,
        )
    warm_result = evaluate("warm start")

    # 4. GRPO: groups of predictions of one transition; only groups with a reward difference have a gradient.
    config = GRPOConfig(loss_type="dapo", beta=0.01, learning_rate=1e-4)
    add_reference(model)  # KL is measured to the warm start
    optimizer = accelerator.prepare(
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.learning_rate)
    )
    for step in (bar := trange(args.grpo_steps, desc="GRPO")):
        batch = rng.sample(grpo_data, min(args.groups, len(grpo_data)))
        attempts = world_model.attempts(batch, args.group_size, seed=rng.getrandbits(62))
        gaps = gap(
            [prompts.read_prediction(c.text) for row in attempts for c in row],
            [t.next_state for t in batch for _ in range(args.group_size)],
        )
        rewards = gaps.rewards.reshape(len(batch), args.group_size)
        advantages = group_advantages(rewards)
        groups = [
            Group(
                prompts.ask(t),
                [c.tokens for c in row],
                a.tolist(),
                [c.logprobs for c in row],
            )
            for t, row, a, signal in zip(batch, attempts, advantages, has_signal(rewards), strict=True)
            if signal
        ]
        stats = update(model, optimizer, groups, config, accelerator, args.max_new_tokens)
        bar.write(
            f"step {step + 1:>3}  reward {rewards.mean():.3f}  groups with signal {len(groups)} of {len(batch)}  "
            f"KL {stats['kl']:.4f}"
        )
    rwml_result = evaluate("RWML")

    # 5. What was learnt: the same held-out transitions, before and after.
    for name, other in (("base", base_result), ("warm start", warm_result)):
        mean, low, high = paired_difference(rwml_result, other)
        print(f"RWML - {name}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    model.save_pretrained(args.output, selected_adapters=["default"])
    print(f"Adapter (PEFT) in {args.output}")


if __name__ == "__main__":
    main()
