"""Groups of made-up completions for the tests of GRPO, and their rows padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import update

PROMPTS = [[9, 30, 41], [12, 13, 200, 77, 60, 8, 21], [50, 51, 52, 53]]
LENGTHS = [[5, 2, 7], [3, 3, 1], [6, 4, 2]]
LONGEST = 7
LOSS_TYPES = ["grpo", "dr_grpo", "dapo"]


def random_tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_groups(advantages: Sequence[Sequence[float]] = ((1.2, -0.7, -0.5), (-1.0, 1.0, 0.0), (0.3, 0.9, -1.2))):
    generator = torch.Generator().manual_seed(5)
    return [
        Group(
            prompt,
            [torch.randint(5, 300, (length,), generator=generator).tolist() for length in lengths],
            list(group),
        )
        for prompt, lengths, group in zip(PROMPTS, LENGTHS, advantages, strict=True)
    ]


def pad(rows: Sequence[Sequence[float]], value: float, left: bool = False) -> Tensor:
    width = max(map(len, rows))
    fill = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*f, *r] if left else [*r, *f] for r, f in zip(rows, fill, strict=True)])


def gradients(model: nn.Module, *arguments: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient that `grpo.update` steps along, by an optimizer that keeps it, and what the update returns.

    `arguments` are those of `update` after the optimizer.
    """
    seen: dict[str, Tensor] = {}
    names = {p: n for n, p in model.named_parameters()}

    class Keep(torch.optim.SGD):
        def step(self, closure=None):
            seen.update({names[p]: p.grad.clone() for g in self.param_groups for p in g["params"]})

    optimizer = Keep([p for p in model.parameters() if p.requires_grad], lr=0.0)
    stats = update(model, optimizer, *arguments)
    return seen, stats
