"""LoRA layers as one function of autograd: PEFT's numbers, and PEFT's own forward where a layer is not plain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from rwml_gym.agents.language.fast_lora import fast_lora


def _model(**options) -> nn.Module:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(12, 20), nn.SiLU(), nn.Linear(20, 6, bias=False)).requires_grad_(False)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=6, target_modules=["0", "2"], **options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    return model


def _results(model: nn.Module) -> list[torch.Tensor]:
    x = torch.randn((3, 5, 12), generator=torch.Generator().manual_seed(1)).requires_grad_()
    trainable = [p for p in model.parameters() if p.requires_grad]
    out = model(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *trainable])]


def _replaced(model: nn.Module) -> int:
    return sum(isinstance(m, LoraLinear) and "forward" in vars(m) for m in model.modules())


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_dropout": 0.3}])
def test_output_and_gradients_are_those_of_peft(options):
    model = _model(**options).eval()
    expected = _results(model)
    with fast_lora(model):
        assert _replaced(model) == 2
        actual = _results(model)
    assert _replaced(model) == 0
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def _no_change(model) -> None: ...


def _two_adapters(model) -> None:
    model.add_adapter("second", LoraConfig(r=2, target_modules=["0", "2"]))
    model.base_model.set_adapter(["default", "second"])


def _hook(model) -> None:
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"use_dora": True}, _no_change),
        ({"lora_dropout": 0.3}, lambda model: model.train()),
        ({}, lambda model: model.merge_adapter()),
        ({}, lambda model: model.base_model.disable_adapter_layers()),
        ({}, lambda model: model.double()),
        ({}, lambda model: model.requires_grad_(True)),
        ({}, _two_adapters),
        ({}, _hook),
    ],
)
def test_layers_that_are_not_plain_keep_the_forward_of_peft(options: dict, change: Callable[[nn.Module], object]):
    model = _model(**options)
    model.eval()
    change(model)
    with fast_lora(model):
        assert _replaced(model) == 0


def test_layers_are_as_before_after_an_error():
    model = _model()
    with pytest.raises(ValueError, match="inside"), fast_lora(model):
        raise ValueError("inside")
    assert _replaced(model) == 0
