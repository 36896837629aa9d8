"""A training of seven steps on the tiny model, to be killed, starved and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from rwml_gym.agents.language.models import add_adapter, add_reference, load_model
from rwml_gym.agents.learning.loop import train_loop
from rwml_gym.agents.learning.sft import sft_update
from tests.conftest import policy_weights

STEPS = 7


class KilledError(Exception):
    """Stands for whatever ends a process."""


def train(
    model_folder: Path,
    folder: Path,
    *,
    kill_at: int | None = None,
    kill: Callable[[], None] | None = None,
    every: int = 2,
    frozen: bool = False,
    change: Callable[[int, Any, dict[str, float]], dict[str, float]] = lambda number, model, row: row,
    **options: Any,
) -> tuple[Any, list[dict[str, Any]], list[int]]:
    """A few SFT steps whose batches follow from the step's number; what was run, and the result.

    `change` sees the model after each update and may change its metrics; `options` are the loop's.
    """
    model = add_adapter(load_model(str(model_folder), "float32", "cpu")[0], rank=4, alpha=8, seed=1)
    if frozen:
        add_reference(model)
    accelerator = Accelerator(cpu=True)
    ran: list[int] = []

    def step(number: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        if number == kill_at and kill is not None:
            kill()
        ran.append(number)
        generator = torch.Generator().manual_seed(number)
        prompts = torch.randint(5, 300, (3, 6), generator=generator).tolist()
        targets = torch.randint(5, 300, (3, 4), generator=generator).tolist()
        return change(number, model, sft_update(model, optimizer, prompts, targets, accelerator))

    metrics = train_loop(
        "test",
        folder,
        model,
        1e-2,
        STEPS,
        step,
        lambda row: f"{row['loss']:.3f}",
        every,
        accelerator.prepare,
        **options,
    )
    return model, metrics, ran


def without_seconds(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert all(row["seconds"] >= 0 for row in metrics)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in metrics]


def raise_killed() -> None:
    raise KilledError


Result = tuple[dict[str, torch.Tensor], list[dict[str, Any]]]


def train_whole(model_folder: Path, folder: Path) -> Result:
    """Weights and metrics of a training that nothing interrupts."""
    model, metrics, ran = train(model_folder, folder)
    assert ran == list(range(STEPS))
    return policy_weights(model), without_seconds(metrics)


def assert_same(model: Any, metrics: list[dict[str, Any]], expected: Result) -> None:
    """Weights and metrics are those, to the bit."""
    actual = policy_weights(model)
    assert actual.keys() == expected[0].keys()
    assert all(torch.equal(actual[name], weight) for name, weight in expected[0].items())
    assert without_seconds(metrics) == expected[1]
