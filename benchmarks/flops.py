"""Floating-point operations that a decoder's work needs, and the rate at which a device multiplies matrices.

    python benchmarks/flops.py [--dtype bfloat16] [--seconds 2]

Counted are the products of matrices: linear layers, attention scores and their use, the output layer, a LoRA adapter on
the linear layers; a multiplication and an addition are two operations. Norms, activations and softmax are left out:
together they are below 1 % for models of usual width. The counts are those of the best known way to do the work, so a
slower way to do it has a lower share of the rate, not a higher count: the prompt of a group runs once, a token attends
to the tokens before it and no others, and frozen weights have no gradient.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

__all__ = ["Decoder", "Groups", "matmul_rate"]

Groups = Sequence[tuple[int, Sequence[int]]]
"""The tokens of each prompt, with the tokens of each of its completions."""


@dataclass(frozen=True)
class Decoder:
    """The sizes of a Llama-like decoder (Llama, Qwen, Mistral, SmolLM).

    Attributes:
        layers: Number of layers.
        hidden: Width of the residual stream.
        queries: Heads times head size.
        keys: Key-value heads times head size.
        intermediate: Width of the gated feed-forward part, which has three matrices.
        vocabulary: Number of tokens that the output layer tells apart.
        rank: LoRA r on every linear layer but the output layer; 0 without an adapter.
    """

    layers: int
    hidden: int
    queries: int
    keys: int
    intermediate: int
    vocabulary: int
    rank: int = 0

    @classmethod
    def of(cls, config: PreTrainedConfig, rank: int = 0) -> Decoder:
        """Take the sizes from a configuration of `transformers`.

        Args:
            config: The model's configuration.
            rank: LoRA r; 0 without an adapter.
        """
        config = config.get_text_config()
        heads = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            heads * size,
            kv_heads * size,
            config.intermediate_size,
            config.vocab_size,
            rank,
        )

    @property
    def _matrices(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's matrices."""
        attention = [(self.hidden, self.queries), *[(self.hidden, self.keys)] * 2, (self.queries, self.hidden)]
        return [*attention, *[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]

    def parts(self, tokens: float, pairs: float, logits: float) -> dict[str, float]:
        """Count the operations of a forward pass by part: `linear`, `adapter`, `attention` and `head`.

        Args:
            tokens: Tokens that run through the layers.
            pairs: Pairs of a token and one it attends to, itself included.
            logits: Tokens that the output layer is computed for.
        """
        return {
            "linear": 2.0 * self.layers * tokens * sum(i * o for i, o in self._matrices),
            "adapter": 2.0 * self.layers * tokens * self.rank * sum(i + o for i, o in self._matrices),
            "attention": 4.0 * self.layers * pairs * self.queries,
            "head": 2.0 * logits * self.hidden * self.vocabulary,
        }

    def forward(self, tokens: float, pairs: float, logits: float) -> float:
        """Count the operations of a forward pass; the arguments are those of `parts`."""
        return sum(self.parts(tokens, pairs, logits).values())

    def sampling(self, groups: Groups) -> float:
        """Count the operations of writing completions, with the adapter merged into the weights.

        A prompt runs once, a completion's last token does not run, and every written token needs logits; a prompt's
        first logits serve all of its completions.
        """
        parts = self.parts(*_work(groups))
        return sum(parts.values()) - parts["adapter"]

    def update(self, groups: Groups) -> float:
        """Count the operations of the forward and backward pass that train the adapter on completions.

        Gradients run through the prompt too, which completions attend to. A frozen matrix costs as much backward as
        forward, an adapter's and a product of attention twice as much.
        """
        parts = self.parts(*_work(groups))
        return 2 * (parts["linear"] + parts["head"]) + 3 * (parts["attention"] + parts["adapter"])


def _work(groups: Groups) -> tuple[int, int, int]:
    """Tokens, pairs and logits of prompts that run once and completions whose last token does not run."""
    tokens = sum(prompt + sum(length - 1 for length in lengths) for prompt, lengths in groups)
    pairs = sum(
        _causal(prompt) + sum(_causal(prompt + length - 1) - _causal(prompt) for length in lengths)
        for prompt, lengths in groups
    )
    logits = sum(1 + sum(length - 1 for length in lengths) for _, lengths in groups)
    return tokens, pairs, logits


def _causal(tokens: int) -> int:
    """Pairs of a text in which each token attends to itself and those before it."""
    return tokens * (tokens + 1) // 2


def matmul_rate(
    device: str | torch.device, dtype: torch.dtype, seconds: float = 2.0, sizes: Sequence[int] | None = None
) -> float:
    """Measure the rate of square matrix products on a device, in operations a second.

    Args:
        device: The device.
        dtype: Data type of the matrices.
        seconds: Time to measure for, after a first product of each size.
        sizes: Edges of the matrices; the fastest one counts. 2048, 4096 and 8192 on a GPU, 512 and 1024 on a CPU if
            absent.
    """
    device = torch.device(device)
    sizes = sizes or ((2048, 4096, 8192) if device.type == "cuda" else (512, 1024))
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        products = 1
        torch.matmul(a, b)
        until = time.perf_counter() + seconds / len(sizes)
        while time.perf_counter() < until:
            _wait(device)
            began = time.perf_counter()
            for _ in range(products):
                torch.matmul(a, b)
            _wait(device)
            taken = time.perf_counter() - began
            best = max(best, 2.0 * size**3 * products / taken)
            if taken < 0.02:  # too short to be measured exactly
                products *= 2
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Print the rate of matrix products on this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--seconds", type=float, default=2.0, help="time to measure each for")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    for dtype in options.dtype:
        rate = matmul_rate(device, getattr(torch, dtype), options.seconds)
        print(f"{name}, {dtype}: {rate / 1e12:.3f} TFLOP/s")


if __name__ == "__main__":
    main()
