"""Adapters of every kind: what is sampled is what the adapter says, and the reference is what it was when taken."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from peft import (
    AdaLoraConfig,
    AdaptionPromptConfig,
    BOFTConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import Tensor, nn

from rwml_gym.agents.language.models import add_reference, load_adapter, load_model, merged, reference
from rwml_gym.agents.language.sampling import sample
from rwml_gym.agents.learning.checkpoint import save_adapter
from rwml_gym.errors import InvalidConfigError
from tests.conftest import write_model

# PEFT and transformers warn of tied and unusual layers, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

IDS = torch.tensor([[9, 40, 77, 12, 200, 3, 3]])
SOME = ["q_proj", "v_proj", "down_proj"]
KINDS: dict[str, PeftConfig] = {
    "LoRA": LoraConfig(r=4, target_modules="all-linear"),
    "rank-stabilised LoRA": LoraConfig(r=4, target_modules="all-linear", use_rslora=True),
    "DoRA": LoraConfig(r=4, target_modules="all-linear", use_dora=True),
    "lora_bias": LoraConfig(r=4, target_modules="all-linear", lora_bias=True),
    "bias of the base": LoraConfig(r=4, target_modules="all-linear", bias="all"),
    "PiSSA": LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa"),
    "saved head": LoraConfig(r=4, target_modules=SOME, modules_to_save=["lm_head"]),
    "saved embedding": LoraConfig(r=4, target_modules=SOME, modules_to_save=["embed_tokens"]),
    "saved norm": LoraConfig(r=4, target_modules=SOME, modules_to_save=["norm"]),
    "trained tokens": LoraConfig(r=4, target_modules=SOME, trainable_token_indices=[3, 9, 40]),
    "LoRA on the head": LoraConfig(r=4, target_modules=[*SOME, "lm_head"]),
    "LoRA on embedding and head": LoraConfig(r=4, target_modules=[*SOME, "embed_tokens", "lm_head"]),
    "DoRA on the embedding": LoraConfig(r=4, target_modules=[*SOME, "embed_tokens"], use_dora=True),
    "LoRA on parameters": LoraConfig(r=4, target_parameters=["mlp.down_proj.weight"]),
    "AdaLoRA": AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=SOME),
    "IA³": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LoHa": LoHaConfig(r=4, target_modules=SOME),
    "LoKr": LoKrConfig(r=4, target_modules=SOME),
    "norms": LNTuningConfig(target_modules=["input_layernorm", "norm"]),
    "OFT": OFTConfig(oft_block_size=8, target_modules=SOME),
    "only tokens": TrainableTokensConfig(token_indices=[3, 9, 40], target_modules=["embed_tokens"]),
    "VeRA": VeraConfig(r=8, target_modules=["q_proj", "o_proj"]),
}
UNFIT: dict[str, PeftConfig] = {
    "PROMPT_TUNING": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "PREFIX_TUNING": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "P_TUNING": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "ADAPTION_PROMPT": AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_layers=1, adapter_len=3),
    "BOFT": BOFTConfig(boft_block_size=8, target_modules=SOME),
    "activated LoRA": LoraConfig(r=4, target_modules=SOME, task_type="CAUSAL_LM", alora_invocation_tokens=[9]),
}
MOVES_THE_BASE = ("bias of the base", "PiSSA")


@pytest.fixture(scope="module", params=["tied", "untied", "with biases"])
def folder(request, tmp_path_factory):
    """A model whose head is its embedding, one with a head of its own, and one whose linear layers have biases."""
    architecture = "Qwen2" if request.param == "with biases" else "Llama"
    return write_model(tmp_path_factory.mktemp("kinds"), architecture, tie_word_embeddings=request.param == "tied")


def _base(folder, dtype: str = "float32"):
    return load_model(str(folder), dtype, "cpu")[0]


def _adapted(base, config: PeftConfig, seed: int = 1) -> PeftModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _move(get_peft_model(base, copy.deepcopy(config)).eval(), seed)


def _move(model: PeftModel, seed: int) -> PeftModel:
    """Takes a random step with everything that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def _logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits.float()


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters(remove_duplicate=False)}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_merged_says_what_the_adapter_says(folder, kind):
    base = _base(folder)
    without = _logits(base)
    model = _adapted(base, KINDS[kind])
    expected, before = _logits(model), _state(model)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert (expected - without).abs().max() > 0.1
    with merged(model):
        torch.testing.assert_close(_logits(model), expected, atol=3e-5, rtol=1e-5)
    assert torch.equal(_logits(model), expected)
    assert all(torch.equal(value, before[name]) for name, value in _state(model).items())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sampled_has_the_adapters_probabilities(folder, kind):
    base, tokenizer = load_model(str(folder), "float32", "cpu")
    model = _adapted(base, KINDS[kind])
    prompt = IDS[0, :4].tolist()
    ((completion,),) = sample(model, tokenizer, [prompt], max_new_tokens=6, seed=1)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *completion.tokens]])).logits[0]
    expected = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "IA³", "LoHa", "LoKr"])
def test_merging_is_pefts(folder, kind):
    model = _adapted(_base(folder), KINDS[kind])
    with merged(model):
        ours = _logits(model)
    torch.testing.assert_close(ours, _logits(model.merge_and_unload()), atol=3e-5, rtol=1e-5)


def test_plain_lora_is_all_merged(folder):
    model = _adapted(_base(folder), KINDS["LoRA"])
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    with merged(model):
        assert layers
        assert all(layer.merged_adapters == ["default"] for layer in layers)
    assert not any(layer.merged_adapters for layer in layers)


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "IA³"])
def test_merged_in_half_precision_is_rounded_once(folder, kind):
    model = _adapted(_base(folder, "bfloat16"), KINDS[kind])
    exact = _adapted(_base(folder, "bfloat16").float(), KINDS[kind])
    set_peft_model_state_dict(exact, get_peft_model_state_dict(model))
    with merged(model), merged(exact):
        for (name, half), (_, single) in zip(model.named_parameters(), exact.named_parameters(), strict=True):
            if name.endswith("base_layer.weight"):
                assert half.dtype == torch.bfloat16
                assert torch.equal(half, single.bfloat16()), name


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_what_the_adapter_was(folder, kind):
    model = _adapted(_base(folder), KINDS[kind])
    taken = _logits(model)
    add_reference(model)
    moved = _logits(_move(model, seed=2))
    assert (moved - taken).abs().max() > 0.05
    with reference(model):
        assert torch.equal(_logits(model), taken)
        with merged(model):
            torch.testing.assert_close(_logits(model), taken, atol=3e-5, rtol=1e-5)
    assert torch.equal(_logits(model), moved)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_without_a_copy_is_the_base_model_or_an_error(folder, kind):
    base = _base(folder)
    without = _logits(base)
    model = _adapted(base, KINDS[kind])
    if kind in MOVES_THE_BASE:
        with pytest.raises(InvalidConfigError, match="Call `add_reference`"), reference(model):
            pass
        return
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    with reference(model):
        assert torch.equal(_logits(model), without)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable


def test_repeated_layers_are_no_reference(tmp_path):
    model = get_peft_model(
        _base(write_model(tmp_path / "m")),
        LoraConfig(r=4, target_modules="all-linear", layer_replication=[[0, 2], [0, 2]]),
    )
    with pytest.raises(InvalidConfigError, match="layer_replication"), reference(model):
        pass


def test_the_gradient_is_that_of_the_policy_though_the_reference_spoke_between(folder):
    def gradients(speaks: bool) -> list[Tensor]:
        model = _adapted(_base(folder), KINDS["DoRA"])
        add_reference(model)
        _move(model, seed=2)
        loss = model(input_ids=IDS).logits.square().mean()
        if speaks:
            with torch.no_grad(), reference(model):
                model(input_ids=IDS)
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(gradients(True), gradients(False), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "PiSSA"])
def test_what_is_saved_is_what_is_loaded(folder, kind, tmp_path):
    model = _adapted(_base(folder), KINDS[kind])
    save_adapter(model, tmp_path / "adapter")
    loaded = load_adapter(_base(folder), tmp_path / "adapter")
    assert torch.equal(_logits(loaded), _logits(model))


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("use", [merged, reference, add_reference])
def test_other_kinds_are_refused(tmp_path, kind, use):
    model = get_peft_model(_base(write_model(tmp_path / "m")), copy.deepcopy(UNFIT[kind]))
    with pytest.raises(InvalidConfigError, match=rf"LORA.*actual: {kind}"):
        with use(model):
            pass


def test_several_adapters_merge_as_they_add_up(folder):
    model = _adapted(_base(folder), KINDS["LoRA"])
    model.add_adapter("second", LoraConfig(r=2, target_modules=SOME, init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])
    expected = _logits(model)
    assert math.isfinite(expected.abs().max())
    with merged(model):
        torch.testing.assert_close(_logits(model), expected, atol=3e-5, rtol=1e-5)
    assert torch.equal(_logits(model), expected)
