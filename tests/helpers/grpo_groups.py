"""Groups of made-up completions for the tests of GRPO, and their rows padded to one length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rwml_gym.agents.learning.groups import Group

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
