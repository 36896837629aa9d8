"""The two orders of a linear layer's product on a CPU: x·Wᵀ, as torch computes it, and W·xᵀ (`language.few_rows`).

    python benchmarks/few_rows.py [--repeats 15] [--only prompts]

For the layers of SmolLM2-135M and numbers of rows, in float32: milliseconds, minima in turns, and their ratio. Then the
output layer with a cross-entropy and its gradient, as in the update. Last, the output layer at the last token of each
of 24 and 96 prompts, in both data types: torch's layer copies frozen weights for each prompt, ours does not
(`--only prompts` times this alone; 96 copies take 5 GB in bfloat16 and 11 GB in float32, which is left out).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from rwml_gym.agents.language.few_rows import FewRowsLinear, OutputLinear

LAYERS = {"query, output": (576, 576), "gate, up": (576, 1536), "down": (1536, 576), "output layer": (576, 49_152)}
COPIES = 20  # layers of a kind in turns, so that no weight stays in the caches


def seconds(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the least time of each way, measured in turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", choices=["prompts"])
    options = parser.parse_args()
    if options.only is None:
        orders(options.repeats)
    prompts(min(options.repeats, 5))


def orders(repeats: int) -> None:
    """Print both orders, by layer and rows, and the output layer with its gradient."""
    print(f"float32, {torch.get_num_threads()} threads; milliseconds a layer")
    print(f"{'layer':<16}{'rows':>6}{'x W^T':>10}{'W x^T':>10}{'ratio':>8}")
    for name, (inputs, outputs) in LAYERS.items():
        last = name == "output layer"
        layers = [nn.Linear(inputs, outputs, bias=False) for _ in range(1 if last else COPIES)]
        for rows in (8, 16, 32, 64, 184):
            x = torch.randn(rows, inputs)

            def run(kind: type[nn.Linear], layers: list[nn.Linear] = layers, x: torch.Tensor = x) -> None:
                with torch.inference_mode():
                    for layer in layers:
                        kind.forward(layer, x)

            other = OutputLinear if last else FewRowsLinear
            found = seconds({"plain": lambda: run(nn.Linear), "other": lambda: run(other)}, repeats)  # noqa: B023
            show(name, rows, found, len(layers))
    layer = layers[0].requires_grad_(False)
    for rows in (32, 184):
        x, targets = torch.randn(rows, inputs, requires_grad=True), torch.randint(0, outputs, (rows,))

        def learn(kind: type[nn.Linear], x: torch.Tensor = x, targets: torch.Tensor = targets) -> None:
            nn.functional.cross_entropy(kind.forward(layer, x), targets).backward()

        found = seconds({"plain": lambda: learn(nn.Linear), "other": lambda: learn(OutputLinear)}, repeats)
        show("its gradient", rows, found, 1)


def prompts(repeats: int) -> None:
    """Print what the output layer takes at the last token of prompts."""
    inputs, outputs = LAYERS["output layer"]
    print(f"{'last of prompts':<16}{'rows':>6}{'torch':>10}{'ours':>10}{'ratio':>8}")
    for dtype, counts in ((torch.float32, (24,)), (torch.bfloat16, (24, 96))):
        layer = nn.Linear(inputs, outputs, bias=False, dtype=dtype).requires_grad_(False)
        for count in counts:
            last = torch.randn(count, 250, inputs, dtype=dtype)[:, -1:]

            def read(kind: type[nn.Linear], layer: nn.Linear = layer, last: torch.Tensor = last) -> None:
                with torch.inference_mode():
                    kind.forward(layer, last)

            found = seconds({"plain": lambda: read(nn.Linear), "other": lambda: read(OutputLinear)}, repeats)
            show(str(dtype).removeprefix("torch."), count, found, 1)


def show(name: str, rows: int, found: dict[str, float], count: int) -> None:
    """Print a row."""
    plain, other = (found[way] / count * 1e3 for way in ("plain", "other"))
    print(f"{name:<16}{rows:>6}{plain:>10.3f}{other:>10.3f}{plain / other:>7.2f} x", flush=True)


if __name__ == "__main__":
    main()
