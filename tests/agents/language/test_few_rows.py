"""The other order of a linear layer's product: the same numbers, gradients, names and weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rwml_gym.agents.language.few_rows import FewRowsLinear, OutputLinear, for_few_rows
from rwml_gym.agents.language.models import load_model


@pytest.mark.parametrize("kind", [FewRowsLinear, OutputLinear])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1,), (8,), (4, 1), (4, 16), (65,), (2, 3, 5), (0,), (0, 4)])
def test_values_and_gradients_are_those_of_a_linear_layer(kind, bias, shape):
    torch.manual_seed(0)
    plain = nn.Linear(24, 10, bias)
    other = kind(24, 10, bias)
    other.load_state_dict(plain.state_dict())
    x = torch.randn(*shape, 24)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, actual = plain(one), other(two)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected)
    (expected**2).sum().backward()
    (actual**2).sum().backward()
    torch.testing.assert_close(two.grad, one.grad)
    torch.testing.assert_close(other.weight.grad, plain.weight.grad)
    if kind is FewRowsLinear:
        assert actual.is_contiguous()  # attention views it as heads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_an_output_layer_makes_no_copy_of_its_weights_for_each_row(dtype, bias):
    layer = OutputLinear(24, 1000, bias, dtype=dtype).requires_grad_(False)  # torch's copies only frozen weights
    hidden = torch.randn(8, 5, 24, dtype=dtype)
    with torch.profiler.profile(profile_memory=True) as found:
        logits = layer(hidden[:, -1:])
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in found.events())
    assert allocated < 4 * logits.numel() * logits.element_size()  # a copy of the weights alone takes 24 times as much
    torch.testing.assert_close(logits[:, 0], nn.functional.linear(hidden[:, -1], layer.weight, layer.bias))


def test_only_plain_layers_are_changed_and_others_than_the_output_in_float32_only(tiny_folder):
    model, _ = load_model(str(tiny_folder), "float32", "cpu")
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Linear)}
    assert kinds == {FewRowsLinear, OutputLinear}
    assert type(model.get_output_embeddings()) is OutputLinear
    low, _ = load_model(str(tiny_folder), "bfloat16", "cpu")
    assert {type(module) for module in low.modules() if isinstance(module, nn.Linear)} == {nn.Linear, OutputLinear}
    assert type(low.get_output_embeddings()) is OutputLinear
    assert list(model.state_dict()) == list(low.state_dict())

    class Own(nn.Linear):
        pass

    model.model.layers[0].mlp.gate_proj = Own(32, 48, bias=False)
    for_few_rows(model)
    assert type(model.model.layers[0].mlp.gate_proj) is Own
