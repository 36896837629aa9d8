"""A plain LoRA layer as one function of autograd, with PEFT's numbers.

PEFT computes the layer as three products, a scaling and a sum, each of which writes and keeps a tensor as large as the
layer's output. Here the adapter's product is added in place, and the backward pass adds both gradients of the input in
one tensor. Only layers that are exactly a product plus a scaled product are computed so; for others PEFT's own forward
runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["fast_lora"]


class _LoraFunction(torch.autograd.Function):
    """x Wᵀ + b + s x Aᵀ Bᵀ for a frozen W and b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        inner = flat @ down.t()
        out = nn.functional.linear(flat, weight, bias).addmm_(inner, up.t(), alpha=scaling)
        ctx.save_for_backward(flat, weight, down, up, inner)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, down, up, inner = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        through = (gradient @ up).mul_(ctx.scaling)
        of_input = of_down = of_up = None
        if ctx.needs_input_grad[0]:
            of_input = (gradient @ weight).addmm_(through, down).view(ctx.shape)
        if ctx.needs_input_grad[3]:
            of_down = through.t() @ flat
        if ctx.needs_input_grad[4]:
            of_up = (gradient.t() @ inner).mul_(ctx.scaling)
        return of_input, None, None, of_down, of_up, None


@contextmanager
def fast_lora(model: nn.Module) -> Iterator[None]:
    """Compute the model's plain LoRA layers as one function each inside the context, on a CPU in single precision.

    Args:
        model: Any model; layers that are not plain, as they are at the beginning of the context, stay PEFT's.
    """
    changed = []
    # A checkpointed layer runs again in the backward pass, after this context.
    checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    for layer in () if checkpointed else model.modules():
        if isinstance(layer, LoraLinear) and (parts := _plain(layer)) is not None:
            layer.forward = _forward(*parts)  # type: ignore[method-assign]
            changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward


def _forward(base: nn.Linear, down: nn.Linear, up: nn.Linear, scaling: float) -> Any:
    def forward(x: Tensor) -> Tensor:
        out: Tensor = _LoraFunction.apply(x, base.weight, base.bias, down.weight, up.weight, scaling)
        return out

    return forward


def _plain(layer: LoraLinear) -> tuple[nn.Linear, nn.Linear, nn.Linear, float] | None:
    """Return base layer, A, B and scaling of a layer that is nothing but these; `None` for all others."""
    base = layer.get_base_layer()
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if type(base) is not nn.Linear or layer.disable_adapters or layer.merged or len(active) != 1:
        return None
    (name,) = active
    down, up = layer.lora_A[name], layer.lora_B[name]
    if type(down) is not nn.Linear or type(up) is not nn.Linear:
        return None
    dropout = layer.lora_dropout[name]
    frozen = not any(parameter.requires_grad for parameter in base.parameters())
    parts = (base, down, up)
    single = all(p.dtype == torch.float32 and p.device.type == "cpu" for part in parts for p in part.parameters())
    hooked = any(map(_hooked, (layer, *parts)))
    without_dropout = isinstance(dropout, nn.Identity) or not dropout.training or dropout.p == 0
    if name in layer.lora_variant or layer.lora_bias[name] or hooked or not (frozen and single and without_dropout):
        return None
    return base, down, up, float(layer.scaling[name])


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
