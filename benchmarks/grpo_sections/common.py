"""What the sections share: models without an end of text, a clock for parts of a step, the memory of a process."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from rwml_gym.agents.language.models import load_model

MODEL = "SmolLM2-135M-Instruct"
RANK, ALPHA = 16, 32

# A special token that the model has not seen in text: with it as the end, whatever is written has its full length.
NEVER = "<empty_output>"

P = ParamSpec("P")
T = TypeVar("T")


def load_endless(dtype: str, stock: bool = False, name: str = MODEL) -> tuple[PreTrainedModel, Any]:
    """The model and its tokenizer, with an end of text that never comes: the same work whatever is sampled.

    Args:
        dtype: See `load_model`.
        stock: Whether with transformers' own attention, `sdpa`, in place of ours.
        name: Of the model, see `load_model`.
    """
    model, tokenizer = load_model(name, dtype)
    if stock:
        model.set_attn_implementation("sdpa")
    tokenizer.eos_token = NEVER
    assert model.generation_config is not None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def fill_adapter(model: nn.Module, scale: float = 0.002) -> None:
    """Makes a fresh adapter say something, the same for every model; it would add nothing."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))


def where(model: nn.Module) -> str:
    """The device and precision a model computes in."""
    parameter = next(model.parameters())
    if parameter.device.type == "cuda":
        device = torch.cuda.get_device_name()
    else:
        device = f"CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    return f"{str(parameter.dtype).removeprefix('torch.')}, {device}"


def resident() -> float:
    """Memory of this process in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Clock:
    """Seconds by part; what is timed inside another part does not count for that one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what happens in the context for this part."""
        _wait()
        self._inner.append(0.0)
        began = time.perf_counter()
        try:
            yield
        finally:
            _wait()
            taken = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + taken - self._inner.pop()
            if self._inner:
                self._inner[-1] += taken

    def timed(self, name: str, work: Callable[P, T]) -> Callable[P, T]:
        """The same function, with its calls counted for this part."""

        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.part(name):
                return work(*args, **kwargs)

        return wrapper

    def take(self) -> dict[str, float]:
        """The seconds so far, with their sum as `all`; counting starts anew."""
        taken, self.seconds = self.seconds, {}
        return {**taken, "all": sum(taken.values())}


def _wait() -> None:
    """Until a GPU has done what it was told to; without one nothing is to be waited for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_peak() -> float | None:
    """The most memory of the GPU that tensors have had, in MB."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None


def line(cells: list[Any], widths: list[int]) -> None:
    """Prints one line of a table, the first column to the left."""
    first, *rest = (str(cell) for cell in cells)
    print(first.ljust(widths[0]) + "".join(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True)), flush=True)
