"""How far sampling and training are apart: a few small world-model batches in float32 and bfloat16, on the CPU.

    python benchmarks/grpo_sections/mismatch.py [--dtype float32 bfloat16] [--repeats 2] [--scale 0.002 0.02]

SmolLM2-135M-Instruct writes predictions of ALFWorld's next states; their log-probabilities are then computed as the
update computes them, without gradient. The adapter's B matrices are random with this standard deviation (`--scale`),
which stands for the length of a training.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from common import ALPHA, RANK, fill_adapter, line, where
from step import choose
from torch.nn.utils.rnn import pad_sequence

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.learning.mismatch import mismatch_sums
from rwml_gym.agents.learning.options import GRPOConfig

WRITTEN = 24
WIDTHS = [32, 12, 12, 12, 12, 10]


def measure(dtype: str, scale: float, prompts: int, group: int, repeats: int) -> None:
    """Sample `repeats` batches of one kind, compute their log-probabilities again, and print the means."""
    base, tokenizer = load_model("SmolLM2-135M-Instruct", dtype, "cpu")
    policy = add_adapter(base, RANK, ALPHA)
    fill_adapter(policy, scale)
    shown = Prompts(tokenizer, max_tokens=300)
    data = choose(shown, prompts * repeats)
    world_model = LanguageWorldModel(policy, tokenizer, shown, WRITTEN, prompts * group)
    rows, began = [], time.perf_counter()
    for repeat in range(repeats):
        chosen = data[repeat * prompts : (repeat + 1) * prompts]
        texts = [shown.ask(t) for t in chosen]
        written = [c for row in world_model.attempts(chosen, group, seed=repeat) for c in row]
        tokens, sampled, mask = (
            pad_sequence([torch.tensor(row) for row in lists], batch_first=True)
            for lists in (
                [c.tokens for c in written],
                [c.logprobs for c in written],
                [[1.0] * len(c.tokens) for c in written],
            )
        )
        with torch.no_grad():
            trained = completion_logprobs(policy, texts, tokens, mask)
        sums = mismatch_sums(trained, sampled, mask, GRPOConfig().clip)
        rows.append({name: value if name == "max" else value / float(mask.sum()) for name, value in sums.items()})
    names = ("sampling_mismatch", "max", "sampling_kl", "sampling_outside")
    difference, largest, kl, outside = ([row[name] for row in rows] for name in names)
    cells = [f"{statistics.mean(difference):.2e}", f"{max(largest):.2e}", f"{statistics.mean(kl):.2e}"]
    seconds = (time.perf_counter() - began) / repeats
    line([f"{where(policy)}, B {scale}", *cells, f"{statistics.mean(outside):.2%}", f"{seconds:.1f} s"], WIDTHS)


def main() -> None:
    """Measure every dtype at every scale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--scale", type=float, nargs="+", default=[0.002, 0.02])
    options = parser.parse_args()
    line(["", "mean |d|", "largest", "KL", "outside", "a batch"], WIDTHS)
    for dtype in options.dtype:
        for scale in options.scale:
            measure(dtype, scale, options.prompts, options.group, options.repeats)


if __name__ == "__main__":
    main()
