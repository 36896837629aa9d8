"""One side of the world-model step, in a process that does nothing else; prints what it measured as JSON.

`benchmarks/grpo_speed.py` starts it once for each side. Both sides play the same random games to get the same prompts,
write completions of the same length and let all groups into the update.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from accelerate import Accelerator
from common import ALPHA, RANK, Clock, device_peak, load_endless, peak, resident, where
from peft import LoraConfig
from random_models import add_options, chosen_model
from transformers import PreTrainedModel

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.language.models import add_adapter
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.world_model import LanguageWorldModel, score_attempts
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import group_advantages, update
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition

PROMPT_TOKENS = 250
LEARNING_RATE = 1e-5


class _EndlessPrompts(Prompts):
    """Prompts whose predictions go on to the limit."""

    @property
    def prediction_stop(self) -> tuple[()]:
        """Nothing ends a prediction."""
        return ()


ENVS = {
    "alfworld": ("rwml_gym/ALFWorld-v0", "generated_held_out"),
    "toy": ("rwml_gym/ToyHouse-v0", "held_out"),
}


def choose(prompts: Prompts, number: int, env_name: str = "alfworld") -> list[Transition]:
    """Transitions of random play whose prompts have about `PROMPT_TOKENS` tokens, each of another game."""
    env_id, split = ENVS[env_name]
    with gym.make(env_id, split=split, max_episode_steps=20) as env:
        names = list(env.unwrapped.games.names[: 2 * number])  # type: ignore[attr-defined]
        data = collect(lambda: gym.make(env.spec), RandomAgent(0), names)  # type: ignore[arg-type]
    by_game: dict[str, list[Transition]] = {}
    for transition in data:
        by_game.setdefault(transition.game, []).append(transition)

    def off(transition: Transition) -> int:
        return abs(len(_prompt(prompts, transition)) - PROMPT_TOKENS)

    return sorted((min(found, key=off) for found in by_game.values()), key=off)[:number]


def _prompt(prompts: Prompts, transition: Transition) -> list[int]:
    return prompts.ask(transition)


def ties(group: int) -> np.ndarray:
    """Added to a group's rewards: no two are equal, so no group is left out of an update."""
    return np.arange(group) / (100 * group)


def run_ours(
    options: argparse.Namespace,
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Prompts,
    data: Sequence[Transition],
    gap: GapReward,
) -> dict[str, Any]:
    """Steps as `grpo_step` makes them."""
    policy = add_adapter(model, RANK, ALPHA)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], LEARNING_RATE)
    config = GRPOConfig(
        beta=options.beta, loss_type="dapo", learning_rate=LEARNING_RATE, micro_tokens=options.micro_tokens
    )
    accelerator = Accelerator(cpu=model.device.type == "cpu")
    rows = max(64, options.prompts * options.group)  # all at once, as TRL samples them
    world_model = LanguageWorldModel(policy, tokenizer, prompts, options.tokens, rows)
    clock, steps, lengths = Clock(), [], set()
    before = resident()
    for repeat in range(options.repeats):
        with clock.part("generation"):
            attempts = world_model.attempts(data, options.group, seed=repeat)
        with clock.part("reward"):
            rewards = score_attempts(prompts, data, attempts, gap).rewards + ties(options.group)
        with clock.part("update"):
            groups = [
                Group(_prompt(prompts, t), [c.tokens for c in row], advantage.tolist(), [c.logprobs for c in row])
                for t, row, advantage in zip(data, attempts, group_advantages(rewards), strict=True)
            ]
            update(policy, optimizer, groups, config, accelerator, options.tokens)
        steps.append(clock.take())
        lengths |= {len(c.tokens) for row in attempts for c in row}
    return {"before": before, "steps": steps, "lengths": sorted(lengths)}


def run_trl(
    options: argparse.Namespace,
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Prompts,
    data: Sequence[Transition],
    gap: GapReward,
) -> dict[str, Any]:
    """Steps of TRL's trainer; a step is what lies between its begin and its end."""
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the libraries, to each other
    clock, steps = Clock(), []
    lengths: set[int] = set()
    ids = [_prompt(prompts, t) for t in data]
    texts = [str(tokenizer.decode(prompt)) for prompt in ids]
    if tokenizer(text=texts)["input_ids"] != ids:
        raise SystemExit("TRL would read other prompts")

    def reward(completions: list[str], completion_ids: list[list[int]], number: list[int], **_: Any) -> list[float]:
        lengths.update(map(len, completion_ids))
        gaps = gap(
            [prompts.read_prediction(text) for text in completions],
            [data[i].next_state for i in number],
            [data[i].role for i in number],
        )
        return (gaps.rewards + np.tile(ties(options.group), len(number) // options.group)).tolist()

    class Times(TrainerCallback):
        """Notes what each step takes; what is no part of its own is the update's."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.take()
            self.step = clock.part("update")
            self.step.__enter__()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.step.__exit__(None, None, None)
            steps.append(clock.take())

    reward_func: Any = clock.timed("reward", reward)
    rows = options.prompts * options.group
    with_vllm = options.side == "trl-vllm"
    vllm: dict[str, Any] = {}
    if with_vllm:
        vllm = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3}
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = trl.GRPOTrainer(
            model=model,
            reward_funcs=reward_func,
            train_dataset=Dataset.from_list([{"prompt": text, "number": i} for i, text in enumerate(texts)]),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
            args=trl.GRPOConfig(
                output_dir=folder,
                max_steps=options.repeats,
                per_device_train_batch_size=options.trl_rows,
                gradient_accumulation_steps=rows // options.trl_rows,
                num_generations=options.group,
                max_completion_length=options.tokens,
                gradient_checkpointing=options.side == "trl",
                **vllm,
                beta=options.beta,
                loss_type="dapo",
                learning_rate=LEARNING_RATE,
                bf16=options.dtype == "bfloat16",
                use_cpu=model.device.type == "cpu",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
            callbacks=[Times()],
        )
        trainer.remove_callback(PrinterCallback)
        writer = trainer.vllm_generation if with_vllm else trainer.model
        writer.generate = clock.timed("generation", writer.generate)
        before = resident()
        trainer.train()
    return {"before": before, "steps": steps, "lengths": sorted(lengths), "version": trl.__version__}


def main() -> None:
    """Measures the side that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=("ours", "trl", "trl-plain", "trl-vllm"), required=True)
    parser.add_argument("--dtype", default="float32")
    add_options(parser)
    parser.add_argument("--env", choices=ENVS, default="alfworld")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--beta", type=float, default=0.0)
    for name in ("repeats", "prompts", "group", "tokens", "trl-rows", "micro-tokens"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    model, tokenizer = load_endless(options.dtype, options.side != "ours", chosen_model(options))
    prompts = _EndlessPrompts(tokenizer)
    data = choose(prompts, options.prompts, options.env)
    gap = GapReward(options.encoder)
    gap(["warm"], ["up"])  # loads the encoder
    place = where(model)
    run = run_ours if options.side == "ours" else run_trl
    result = run(options, model, tokenizer, prompts, data, gap)
    if result["lengths"] != [options.tokens]:
        raise SystemExit(f"Expected completions of {options.tokens} tokens, actual lengths {result['lengths']}")
    ids = [_prompt(prompts, t) for t in data]
    print(
        json.dumps(
            {
                **result,
                "peak": peak(),
                "device_peak": device_peak(),
                "where": place,
                "prompts": [len(prompt) for prompt in ids],
                "digest": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
            }
        )
    )


if __name__ == "__main__":
    main()
