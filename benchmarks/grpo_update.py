"""One GRPO update, the prompt of a group computed once against the prompt repeated for every completion.

    python benchmarks/grpo_update.py [--repeats 3]

4 prompts of 8 completions, 250 + 24 tokens, SmolLM2-135M-Instruct, LoRA r = 16, float32: the same loss (`dapo`, β = 0)
by both ways, in turn, in one process; medians, their ratio, and how far the gradients differ. Both ways run one group
at a time, which is what fits the repeated way into memory.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.learning.grpo import policy_loss
from rwml_gym.agents.learning.options import GRPOConfig

PROMPTS, GROUP, PROMPT_TOKENS, COMPLETION_TOKENS = 4, 8, 250, 24


def repeated_logprobs(model: nn.Module, prompts: list[list[int]], completions: Tensor) -> Tensor:
    """What `completion_logprobs` computes, with every prompt repeated for each of its completions."""
    rows = torch.tensor(prompts).repeat_interleave(len(completions) // len(prompts), 0)
    length = completions.shape[1]
    logits = model(input_ids=torch.cat([rows, completions], 1), logits_to_keep=length + 1, use_cache=False).logits
    return -F.cross_entropy(logits[:, :-1].float().flatten(0, 1), completions.flatten(), reduction="none").view_as(
        completions
    )


def gradient(
    model: nn.Module, logprobs: Callable[..., Tensor], prompts: list[list[int]], completions: Tensor, advantages: Tensor
) -> tuple[float, float, Tensor]:
    """Loss, seconds and gradient of one update's backward pass, group by group."""
    model.zero_grad()
    config = GRPOConfig(loss_type="dapo", beta=0.0)
    total = 0.0
    began = time.perf_counter()
    for i in range(len(prompts)):
        rows = slice(i * GROUP, (i + 1) * GROUP)
        current = logprobs(model, prompts[i : i + 1], completions[rows])
        loss, _ = policy_loss(
            current,
            current.detach(),
            advantages[rows, None],
            torch.ones_like(current),
            config,
            tokens=completions.numel(),
        )
        loss.backward()
        total += float(loss.detach())
    seconds = time.perf_counter() - began
    return total, seconds, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    base, _ = load_model("SmolLM2-135M-Instruct", "float32", "cpu")
    model = add_adapter(base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # a fresh adapter has no gradient on A
            nn.init.normal_(parameter, std=0.02)
    prompts = torch.randint(10, 40_000, (PROMPTS, PROMPT_TOKENS)).tolist()
    completions = torch.randint(10, 40_000, (PROMPTS * GROUP, COMPLETION_TOKENS))
    advantages = torch.randn(PROMPTS * GROUP)
    ways = {"prompt once": completion_logprobs, "prompt repeated": repeated_logprobs}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gradients: dict[str, Tensor] = {}
    print(f"{PROMPTS} prompts x {GROUP} completions, {PROMPT_TOKENS} + {COMPLETION_TOKENS} tokens, float32, CPU")
    for turn in range(repeats + 1):
        for name, logprobs in ways.items():
            loss, taken, gradients[name] = gradient(model, logprobs, prompts, completions, advantages)
            gc.collect()
            if turn:  # the first turn warms up
                seconds[name].append(taken)
            print(f"  {'warm-up' if not turn else f'turn {turn}':<8} {name:<16} loss {loss:+.6f}  {taken:6.2f} s")
    once, repeated = (statistics.median(seconds[name]) for name in ways)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    difference = (gradients["prompt once"] - gradients["prompt repeated"]).norm() / gradients["prompt repeated"].norm()
    print(f"median: {once:.2f} s against {repeated:.2f} s, {statistics.median(ratios):.1f} times faster")
    print(f"gradient: relative difference {float(difference):.1e}")


if __name__ == "__main__":
    main()
