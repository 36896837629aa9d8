"""Which kinds of PEFT adapters work here, and which of their layers can be merged into the base model exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from peft import PeftConfig, PeftModel
from peft.tuners.ia3 import Linear as IA3Linear
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.variants import DoraLinearVariant
from peft.tuners.lycoris_utils import LycorisLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from rwml_gym.errors import InvalidConfigError

__all__ = ["adapter_parameters", "check_kind", "check_switches_off", "mergeable_layers"]

# By PEFT's names. They work inside single layers, token by token, which caches and shared prompts rely on.
_KINDS = ("ADALORA", "IA3", "LN_TUNING", "LOHA", "LOKR", "LORA", "OFT", "TRAINABLE_TOKENS", "VERA")
# Values of `init_lora_weights` that leave the base model as it is; PiSSA, OLoRA and LoftQ move a part into the adapter.
_STARTS_BESIDE_THE_BASE = (True, False, "gaussian", "orthogonal", "eva")


def check_kind(config: PeftConfig) -> None:
    """Check that an adapter is of a kind that works inside single layers; raise `InvalidConfigError` otherwise."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    activated = getattr(config, "alora_invocation_tokens", None) is not None
    if kind not in _KINDS or activated:
        raise InvalidConfigError(
            f"Expected an adapter of one of the kinds {', '.join(_KINDS)}, actual: "
            f"{'activated LoRA (alora_invocation_tokens)' if activated else kind}, which is not known to work token by "
            "token inside single layers. Train an adapter of one of these kinds."
        )


def check_switches_off(config: PeftConfig) -> None:
    """Check that a model whose adapter is switched off is its base model; raise `InvalidConfigError` otherwise."""
    named = {name: getattr(config, name, None) for name in ("bias", "init_lora_weights", "layer_replication")}
    beside = named["init_lora_weights"] is None or named["init_lora_weights"] in _STARTS_BESIDE_THE_BASE
    if named["bias"] not in (None, "none") or not beside or named["layer_replication"]:
        raise InvalidConfigError(
            f"Expected an adapter that leaves the base model as it is, actual: {named}, so that the model without it "
            "is another one. Call `add_reference` before training, or set GRPO's beta to 0."
        )


def adapter_parameters(model: PeftModel) -> list[nn.Parameter]:
    """List the parameters of a model's adapters, and those trained with them, such as biases of the base model."""
    names = set(model.peft_config)
    return [p for name, p in model.named_parameters() if p.requires_grad or names & set(name.split("."))]


def mergeable_layers(model: nn.Module) -> Iterator[BaseTunerLayer]:
    """Find the layers that `merge` gives the same answers, as their adapter works now."""
    uses = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    for layer in model.modules():
        if not isinstance(layer, LoraLinear | LycorisLayer | IA3Linear) or layer.disable_adapters:
            continue
        weights = dict(layer.get_base_layer().named_parameters(recurse=False))
        if any(uses[id(weight)] > 1 for weight in weights.values()):
            continue  # another module would change too: the embedding, under an output layer that is tied to it
        if not all(weight.is_floating_point() for weight in weights.values()):
            continue  # quantised
        if not isinstance(layer, LoraLinear) or _merges(layer, "bias" in weights):
            yield layer


def _merges(layer: LoraLinear, has_bias: bool) -> bool:
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    variants = (layer.lora_variant.get(name) for name in names)
    known = all(variant is None or isinstance(variant, DoraLinearVariant) for variant in variants)
    return known and (has_bias or not any(layer.lora_bias[name] for name in names))
