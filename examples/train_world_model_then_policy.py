"""The paper's two stages (arXiv 2602.05842): learn what actions do, then learn to succeed from there.

    python examples/train_world_model_then_policy.py [--run-dir runs/two-stages] [--preset demo] [--compare]

Stage 1 trains a LoRA adapter on the embedding-gap reward alone, without any task reward; stage 2 trains it on with GRPO
on success. `--compare` also runs stage 2 without stage 1, which is what the method has to beat. Killed and started
again with the same options, it goes on where it was.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rwml_gym.agents.config.policy import policy_preset
from rwml_gym.agents.config.world_model import preset
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.reports.policy import Evaluation


def main() -> None:
    """Runs both stages and prints what each comes to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo", help="of both stages: demo or smoke")
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="packaged name, folder or hub id")
    parser.add_argument("--run-dir", default="runs/two-stages", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="also train the policy without stage 1")
    args = parser.parse_args()

    # Stage 1: collect by playing, calibrate, drop what is too easy, GRPO on the gap reward.
    world_model = replace(preset(args.preset), model=args.model, baseline=False, seed=args.seed)
    run_world_model(world_model, args.run_dir / "world-model")

    # Stage 2: GRPO on success. Both stages see a transcript, so what was learnt about it is of use.
    policy = replace(policy_preset(args.preset), model=args.model, seed=args.seed)
    starts: dict[str, str | None] = {"after-world-model": str(args.run_dir / "world-model" / "adapters" / "rwml")}
    if args.compare:
        starts["from-scratch"] = None
    results: dict[str, list[Evaluation]] = {}
    for name, adapter in starts.items():
        print(f"\nStage 2, {name}")
        results[name] = run_policy(replace(policy, adapter=adapter), args.run_dir / name)
    print()
    for name, evaluations in results.items():
        for evaluation in evaluations:
            print(f"{name:<18} after {evaluation.step:>3} updates  {evaluation}")


if __name__ == "__main__":
    main()
