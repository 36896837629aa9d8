"""GRPO on τ²-bench with the scripted user: task reward for the conversation, gap reward for every turn's prediction.

    python examples/train_tau2.py [--domain airline] [--tasks 8] [--steps 4] [--run-dir runs/tau2-policy]

The agent writes a message or a tool call and, in the same breath, what it expects to be told. Small models hardly ever
solve a task, so that the gap reward of each turn is what they learn from at first; the table at the end stands beside
those who do nothing (`rwml-gym baselines tau2`). Needs no endpoint and no GPU; with one, take a larger `--model`.
"""

from __future__ import annotations

import argparse

from rwml_gym.agents.config.policy import (
    EpisodeConfig,
    EvaluationConfig,
    ImitationConfig,
    PolicyConfig,
    PolicyStageConfig,
)
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.jobs.reference import reference_scores, success
from rwml_gym.agents.learning.options import GRPOConfig


def main() -> None:
    """Trains and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="packaged name, folder or hub id")
    parser.add_argument("--prompt-style", default="transcript", choices=["transcript", "chat"])
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--domain", default="airline", help="airline, retail, telecom or telecom-workflow")
    parser.add_argument("--tasks", type=int, default=8, help="of the train split")
    parser.add_argument("--held-out", type=int, default=8, help="tasks of the test split")
    parser.add_argument("--max-steps", type=int, default=6, help="turns of the agent")
    parser.add_argument("--steps", type=int, default=4, help="of GRPO")
    parser.add_argument("--groups", type=int, default=2, help="tasks a GRPO step")
    parser.add_argument("--group-size", type=int, default=4, help="conversations a task")
    parser.add_argument("--transitions", help="folder of recorded conversations to imitate first")
    parser.add_argument("--imitation-steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", default="runs/tau2-policy")
    args = parser.parse_args()

    config = PolicyConfig(
        env="tau2",
        domain=args.domain,
        model=args.model,
        prompt_style=args.prompt_style,
        max_prompt_tokens=2048,
        max_state_characters=400,
        episode=EpisodeConfig(max_steps=args.max_steps, action_tokens=96, predictions=True, slots=16),
        imitation=ImitationConfig(steps=args.imitation_steps if args.transitions else 0, transitions=args.transitions),
        stage=PolicyStageConfig(
            steps=args.steps,
            games=args.tasks,
            groups=args.groups,
            group_size=args.group_size,
            world_model_weight=0.5,
            encoder=args.encoder,
            checkpoint_every=1,
        ),
        grpo=GRPOConfig(beta=0.01),
        evaluation=EvaluationConfig(games=args.held_out),
        seed=args.seed,
    )
    run_policy(config, args.run_dir)
    print(f"\nWhat is won without serving anyone, {args.domain} test:")
    for name, episodes in reference_scores(config, "test").items():
        print(f"  {name:<9} {success(episodes)}")


if __name__ == "__main__":
    main()
