"""World-model learning in TRL: its `GRPOTrainer`, with the gap reward as `reward_funcs`.

    python examples/trl_world_model.py [--model Qwen/Qwen2.5-0.5B-Instruct] [--steps 200] [--use-vllm]

Random play of generated ALFWorld games is recorded, each transition becomes a prompt, and TRL does the rest: on many
GPUs under `accelerate launch`, with vLLM, with everything else its trainer can do. On a CPU this package's own job
(`rwml-gym train rwml`) takes a seventh of the time a step; `--steps 2` shows that all fits.
"""

from __future__ import annotations

import argparse
import random

import gymnasium as gym
import torch
from trl import GRPOConfig, GRPOTrainer

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.integrations.trl import prediction_dataset, prediction_reward
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import TransitionDataset
from rwml_gym.wrappers import RecordTransitions


def record(games: int, max_steps: int, seed: int) -> TransitionDataset:
    """Random play, each game once."""
    env, rng = RecordTransitions(gym.make("rwml_gym/ALFWorld-v0", max_episode_steps=max_steps)), random.Random(seed)
    for game in range(games):
        _, info = env.reset(seed=seed + game)
        ended = False
        while not ended:
            *_, terminated, truncated, info = env.step(rng.choice(info["admissible_actions"]))
            ended = terminated or truncated
    return env.dataset()


def main() -> None:
    """Records, trains, saves the adapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="packaged name, folder or hub id")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--threshold", type=float, default=0.02, help="measure it: rwml-gym calibrate")
    parser.add_argument("--games", type=int, default=40)
    parser.add_argument("--max-steps", type=int, default=15, help="of an episode")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=4, help="a step")
    parser.add_argument("--group-size", type=int, default=8, help="predictions a prompt")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--use-vllm", action="store_true")
    parser.add_argument("--output", default="trl-world-model", help="folder for the adapter")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    model, tokenizer = load_model(args.model, device="cuda" if torch.cuda.is_available() else "cpu")
    policy = add_adapter(model, seed=args.seed)
    prompts = Prompts(tokenizer, history=4, max_tokens=384)
    transitions = record(args.games, args.max_steps, args.seed)
    print(f"{len(transitions)} transitions of {len(transitions.games)} games")

    trainer = GRPOTrainer(
        model=policy,
        processing_class=tokenizer,
        train_dataset=prediction_dataset(transitions, prompts),
        # The one line.
        reward_funcs=prediction_reward(GapReward(args.encoder, args.threshold), prompts),
        args=GRPOConfig(
            output_dir=args.output,
            max_steps=args.steps,
            per_device_train_batch_size=args.prompts * args.group_size,
            num_generations=args.group_size,
            max_completion_length=args.max_new_tokens,
            learning_rate=1e-4,
            beta=0.0,
            logging_steps=1,
            use_vllm=args.use_vllm,
            generation_kwargs={"stop": list(prompts.prediction_stop)} if args.use_vllm else None,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            seed=args.seed,
        ),
    )
    trainer.train()
    for row in trainer.state.log_history:
        if "reward" in row:
            signal = 1 - row["frac_reward_zero_std"]
            print(f"step {row['step']:>3}  reward {row['reward']:.3f}  groups with signal {signal:.2f}")
    policy.save_pretrained(args.output)
    print(f"Adapter (PEFT) in {args.output}")


if __name__ == "__main__":
    main()
