"""The data type that a model computes in, and why: bfloat16 where the device has instructions for it.

An AVX-512 processor without bfloat16 instructions emulates them, slower than float32, so it counts as one without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rwml_gym.errors import InvalidConfigError

__all__ = ["Precision", "bfloat16_instructions", "choose_precision", "default_device"]

DtypeName = Literal["float32", "bfloat16"]

# Names in `torch.cpu.get_capabilities`; the last two are those of ARM processors.
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


@dataclass(frozen=True)
class Precision:
    """A data type and the reason for it.

    Attributes:
        name: `float32` or `bfloat16`.
        reason: Why, as the second half of a sentence.
    """

    name: DtypeName
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The data type in torch."""
        return torch.bfloat16 if self.name == "bfloat16" else torch.float32

    def __str__(self) -> str:
        adapter = "; LoRA weights and optimizer in float32" if self.name == "bfloat16" else ""
        return f"The model computes in {self.name}{adapter}: {self.reason}."


def choose_precision(dtype: str, device: str | torch.device | None = None) -> Precision:
    """Choose the data type of a model on a device.

    Args:
        dtype: `float32`, `bfloat16`, or `auto`: bfloat16 where the device has instructions for it, else float32.
        device: The device; `default_device()` if absent.

    Raises:
        InvalidConfigError: If `dtype` is none of the three.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise InvalidConfigError(f"Expected `dtype` 'auto', 'float32' or 'bfloat16', actual: {dtype!r}.")
    if dtype == "float32":
        return Precision("float32", "the configuration says so")
    kind = default_device().type if device is None else torch.device(device).type
    has, found = _found(kind)
    if dtype == "auto":
        return Precision("bfloat16", f"{found}; --dtype float32 changes it") if has else Precision("float32", found)
    return Precision(
        "bfloat16", "the configuration says so" + ("" if has else f", although it is slow here, as {found}")
    )


def default_device() -> torch.device:
    """Return the device of a model that names none: a GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bfloat16_instructions() -> list[str] | None:
    """Ask torch which bfloat16 instructions this CPU has that its library of matrix products uses.

    Returns:
        Their names; `None` if this version of torch cannot say.
    """
    ask = getattr(torch.cpu, "get_capabilities", None)  # newer than the oldest torch that is supported
    if ask is None:
        return None
    if not torch.backends.mkldnn.is_available():
        return []  # without oneDNN, torch multiplies bfloat16 in plain loops
    found: Mapping[str, Any] = ask()
    return [name for name in _INSTRUCTIONS if found.get(name, False)]


def _found(kind: str) -> tuple[bool, str]:
    """Return whether a kind of device has bfloat16 instructions, and what torch says of it."""
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return True, "this GPU has bfloat16 instructions"
        return False, "this GPU has no bfloat16 instructions"
    found = bfloat16_instructions() if kind == "cpu" else None
    if found is None:
        return False, f"torch {torch.__version__} cannot say whether this device ({kind}) has bfloat16 instructions"
    if not found:
        return False, "torch finds no bfloat16 instructions on this CPU"
    return True, f"this CPU has bfloat16 instructions ({', '.join(found)})"
