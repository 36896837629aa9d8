"""Updates as each of several processes makes them, and one process with all their shares: for `test_distributed`.

Run by `accelerate launch`, it makes all the cases in one go, and writes what each process ends with.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from rwml_gym.agents.language.models import add_adapter, add_reference, load_model
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import update
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.agents.learning.sft import sft_update
from tests.conftest import policy_weights, randomise
from tests.helpers.grpo_groups import LONGEST, LOSS_TYPES, make_groups, random_tensor

SHARES = {"even": (2, 2), "uneven": (3, 1), "none for one": (4, 0), "none at all": (0, 0)}


@dataclass(frozen=True)
class Case:
    """What is updated: by `update` if there is a configuration, else by `sft_update`."""

    share: str
    config: GRPOConfig | None
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW


CASES = {
    **{
        f"{loss_type}, beta {beta}, {share}": Case(share, GRPOConfig(loss_type=loss_type, beta=beta, micro_tokens=60))
        for loss_type in LOSS_TYPES
        for beta in (0.0, 0.1)
        for share in SHARES
    },
    "two iterations": Case("uneven", GRPOConfig(iterations=2)),
    # AdamW would make up for a gradient of the wrong length.
    "gradient descent": Case("uneven", GRPOConfig(), torch.optim.SGD),
    **{f"sft, {share}": Case(share, None) for share in SHARES},
}


def all_groups() -> list[Group]:
    """Four groups of unlike sizes; the largest mismatch with sampling is in the last one."""
    groups = make_groups()
    last = Group([40, 41, 42, 43], [[60, 61, 62, 63, 64, 65], [70, 71]], [0.8, -0.8])
    return [
        replace(g, logprobs=[(random_tensor(len(c), seed=i) - 3 - 30 * (g is last)).tolist() for c in g.completions])
        for i, g in enumerate([*groups, last])
    ]


def share_of(groups: Sequence[Any], share: str, processes: int, index: int) -> list[Any]:
    """What one process hands over; everything if it is the only one."""
    first, second = SHARES[share]
    if processes == 1:
        return list(groups[: first + second])
    return list(groups[:first] if index == 0 else groups[first : first + second])


def run(case: Case, folder: str, accelerator: Accelerator) -> dict[str, Any]:
    """Two updates with AdamW: the policy's weights after them, and what each of them returned."""
    model = randomise(add_adapter(load_model(folder, "float32", "cpu")[0], rank=4, alpha=8, seed=3))
    add_reference(model)
    randomise(model, seed=6)  # away from the reference, so that the KL term has a gradient
    optimizer = case.optimizer([p for p in model.parameters() if p.requires_grad], lr=1e-3)  # type: ignore[call-arg]
    groups = share_of(all_groups(), case.share, accelerator.num_processes, accelerator.process_index)
    metrics = []
    for _ in range(2):
        if case.config is not None:
            metrics.append(update(model, optimizer, groups, case.config, accelerator, LONGEST))
        else:
            prompts, targets = [g.prompt for g in groups], [g.completions[0] for g in groups]
            metrics.append(sft_update(model, optimizer, prompts, targets, accelerator))
    return {"weights": policy_weights(model), "metrics": metrics}


def main(folder: str, out: str) -> None:
    """Runs all cases as one of the processes."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    results = {name: run(case, folder, accelerator) for name, case in CASES.items()}
    torch.save(results, Path(out) / f"{accelerator.process_index}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
