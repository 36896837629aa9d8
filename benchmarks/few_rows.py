"""The two orders of a linear layer's product on a CPU: x·Wᵀ, as torch computes it, and W·xᵀ (`language.few_rows`).

    python benchmarks/few_rows.py [--repeats 15]

For the layers of SmolLM2-135M and numbers of rows, in float32: milliseconds, minima in turns, and their ratio. Last,
the output layer with a cross-entropy and its gradient, as in the update.
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
    options = parser.parse_args()
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
            found = seconds({"plain": lambda: run(nn.Linear), "other": lambda: run(other)}, options.repeats)  # noqa: B023
            show(name, rows, found, len(layers))
    layer = layers[0].requires_grad_(False)
    for rows in (32, 184):
        x, targets = torch.randn(rows, inputs, requires_grad=True), torch.randint(0, outputs, (rows,))

        def learn(kind: type[nn.Linear], x: torch.Tensor = x, targets: torch.Tensor = targets) -> None:
            nn.functional.cross_entropy(kind.forward(layer, x), targets).backward()

        found = seconds({"plain": lambda: learn(nn.Linear), "other": lambda: learn(OutputLinear)}, options.repeats)
        show("its gradient", rows, found, 1)


def show(name: str, rows: int, found: dict[str, float], count: int) -> None:
    """Print a row."""
    plain, other = (found[way] / count * 1e3 for way in ("plain", "other"))
    print(f"{name:<16}{rows:>6}{plain:>10.3f}{other:>10.3f}{plain / other:>7.2f} x", flush=True)


if __name__ == "__main__":
    main()
