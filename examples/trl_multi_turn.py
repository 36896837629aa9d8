"""Policy learning in TRL: its `GRPOTrainer` on whole ALFWorld episodes, through `rollout_func`.

    python examples/trl_multi_turn.py [--model Qwen/Qwen2.5-0.5B-Instruct] [--steps 200] [--use-vllm]

A completion is an episode: what the model wrote counts, what the world answered is masked out. Two rewards go in, the
task's, and, for predictions that the model writes behind its actions, the world model's. All that touches TRL's
experimental interface is in `rwml_gym.agents.integrations.trl`, which a contract test holds to TRL's trainer.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import torch
from trl import GRPOConfig, GRPOTrainer

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.integrations.trl import EnvironmentRollout, make_dataset, task_reward, world_model_reward
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.wrappers import WorldModelRewardWrapper


def main() -> None:
    """Trains and saves the adapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="packaged name, folder or hub id")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--max-steps", type=int, default=10, help="of an episode")
    parser.add_argument("--action-tokens", type=int, default=32, help="of an action and its prediction")
    parser.add_argument("--episode-tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--groups", type=int, default=2, help="games a step")
    parser.add_argument("--group-size", type=int, default=4, help="episodes a game")
    parser.add_argument("--world-model-weight", type=float, default=0.3)
    parser.add_argument("--use-vllm", action="store_true")
    parser.add_argument("--output", default="trl-policy", help="folder for the adapter")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    def make_env() -> gym.Env:
        env = gym.make("rwml_gym/ALFWorld-v0", task_types=["pick_and_place_simple"], max_episode_steps=args.max_steps)
        # The one line; the trainer weighs the two rewards itself.
        return WorldModelRewardWrapper(env, encoder=args.encoder, mode="report")

    model, tokenizer = load_model(args.model, device="cuda" if torch.cuda.is_available() else "cpu")
    policy = add_adapter(model, seed=args.seed)
    prompts = Prompts(tokenizer, history=0, max_tokens=args.episode_tokens, predictions=True)
    rollout = EnvironmentRollout(
        make_env, prompts, max_turns=args.max_steps, action_tokens=args.action_tokens, seed=args.seed
    )
    trainer = GRPOTrainer(
        model=policy,
        processing_class=tokenizer,
        train_dataset=make_dataset(list(range(args.seed, args.seed + args.games))),
        rollout_func=rollout,
        reward_funcs=[task_reward, world_model_reward],
        args=GRPOConfig(
            output_dir=args.output,
            max_steps=args.steps,
            per_device_train_batch_size=args.groups * args.group_size,
            num_generations=args.group_size,
            max_completion_length=args.episode_tokens,
            reward_weights=[1.0, args.world_model_weight],
            learning_rate=1e-4,
            beta=0.0,
            logging_steps=1,
            use_vllm=args.use_vllm,
            generation_kwargs=rollout.generation_kwargs if args.use_vllm else None,
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
            task, world = (row[f"rewards/{name}/mean"] for name in ("task_reward", "world_model_reward"))
            print(f"step {row['step']:>3}  task reward {task:.3f}  world-model reward {world:.3f}")
    rollout.close()
    policy.save_pretrained(args.output)
    print(f"Adapter (PEFT) in {args.output}")


if __name__ == "__main__":
    main()
