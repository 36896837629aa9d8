"""Memory of one training pass: what `agents/learning/memory_plan.py` estimates beside what a process really takes.

    python benchmarks/memory.py [--large]

SmolLM2-135M-Instruct with LoRA r = 16 on the CPU, a process for each size: log-probabilities of P prompts with G
completions each, and their gradient. Measured is the process's peak (`ru_maxrss`) less what it takes with its libraries
imported; the model's weights are in both numbers. The last two sizes are one update, group by group: with prompts that
run again, and with prompts kept from sampling to update, whose graphs are there from the start. `--large` adds a size
that takes 11 GB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch

# prompts, completions each, prompt tokens, completion tokens, precision, what else
SIZES = [
    (1, 1, 128, 128, "float32", ""),
    (4, 1, 128, 128, "float32", ""),
    (4, 1, 256, 256, "float32", ""),
    (4, 1, 128, 384, "float32", "checkpointing"),
    (2, 8, 250, 24, "float32", ""),
    (4, 1, 256, 256, "bfloat16", ""),
    (4, 8, 250, 24, "float32", "by group"),
    (4, 8, 250, 24, "float32", "by group, kept prompts"),
]
LARGE = (8, 1, 256, 256, "float32", "")


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(prompts: int, group: int, prompt: int, completion: int, dtype: str, how: str) -> None:
    """Prints estimate and measurement of one size; a process can do this once."""
    from rwml_gym.agents.language.logprobs import completion_logprobs
    from rwml_gym.agents.language.models import add_adapter, load_model
    from rwml_gym.agents.language.sampling import run_prompts
    from rwml_gym.agents.learning.memory_plan import plan

    before = peak()
    model = add_adapter(load_model("SmolLM2-135M-Instruct", dtype, "cpu")[0])
    rows = prompts * group
    by_group, kept, checkpointing = "by group" in how, "kept" in how, how == "checkpointing"
    estimate = plan(
        model,
        rows,
        prompt,
        completion,
        group_size=group,
        micro_tokens=prompt + group * completion if by_group else None,
        checkpointing=checkpointing,
        kept_prompts=prompts - 1 if kept else 0,  # the pass has its own prompt
    )
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.train()
    tokens = torch.randint(5, 300, (rows, completion))
    texts = [[5] * prompt] * prompts
    if by_group:
        prefixes = run_prompts(model, texts) if kept else [None] * prompts
        for i, rows_of_group in enumerate(tokens.split(group)):
            completion_logprobs(model, texts[:1], rows_of_group, prefix=prefixes[i]).mean().backward()
    else:
        completion_logprobs(model, texts, tokens).mean().backward()
    measured = peak() - before
    # Of the adapter, the optimizer's two moments are not there; nor is anything sampled.
    expected = estimate.weights + estimate.adapter // 2 + estimate.activations + estimate.kept + estimate.logits
    name = f"{prompts} x {group} x ({prompt} + {completion}) {dtype} {how}"
    print(
        f"{name:<56}{expected / 1e9:>10.2f} GB{measured / 1e9:>10.2f} GB{expected / measured - 1:>+10.0%}", flush=True
    )


def main() -> None:
    """Measures every size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [*SIZES, LARGE]
    if options.size is not None:
        measure(*sizes[options.size])
        return
    print(f"{'prompts x completions x (tokens)':<56}{'estimated':>13}{'measured':>13}{'off by':>10}", flush=True)
    for index in range(len(sizes) if options.large else len(SIZES)):
        subprocess.run([sys.executable, __file__, "--size", str(index)], check=True)


if __name__ == "__main__":
    main()
