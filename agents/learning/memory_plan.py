"""An estimate of the memory that a training run needs, in bytes, and advice that lowers it.

The formula counts what autograd keeps of a Llama-like model with a LoRA adapter on every linear layer (Llama, Qwen,
Mistral, SmolLM …), and what else is in memory at the peak; `benchmarks/memory.py` compares it with real processes.
"""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from dataclasses import dataclass

import psutil
import torch
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedConfig, PreTrainedModel

from rwml_gym.agents.language.adapters.kinds import mergeable_layers
from rwml_gym.errors import InvalidConfigError

__all__ = ["MemoryPlan", "MemoryWarning", "available_memory", "plan", "release_memory"]

_GB = 1e9
_FLOAT = 4  # bytes; norms, scores, losses and the adapter are float32 for every dtype of the model
_LOGITS = 3  # copies at the peak: logits, their log-softmax, the gradient
_GROWING = 2  # room that is half as large again, and what was smaller before; 1.6 to 2 were measured
_CUDA = 1.1
# Much of what glibc takes for a training pass is holes between blocks; either of the settings reduces them.
_GLIBC, _GLIBC_TUNED = 1.7, 1.15
_TUNED = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


class MemoryWarning(UserWarning):
    """Warns that a run will probably not fit into memory."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a run needs, by purpose.

    Attributes:
        weights: The model's weights, already loaded.
        adapter: The adapter's weights, already loaded, its gradient and AdamW's two moments.
        sampling: Peak of sampling: keys and values, the adapter merged into a copy of the weights, logits.
        activations: What one training pass keeps for its gradient, including the allocator's waste.
        kept: The same of the prompts that are kept from sampling to update.
        logits: Logits of the tokens that count in that pass.
        loaded: Part of the total that is taken before the run begins.
        device: Device of the model.
        lines: The arithmetic, one line per purpose.
    """

    weights: int
    adapter: int
    sampling: int
    activations: int
    logits: int
    kept: int
    loaded: int
    device: torch.device
    lines: tuple[str, ...]

    @property
    def total(self) -> int:
        """Peak of the run, in which sampling and training alternate."""
        return self.weights + self.adapter + self.kept + max(self.sampling, self.activations + self.logits)

    def fits(self, available: int | None = None) -> bool:
        """Return whether the rest of the run fits.

        Args:
            available: Free bytes after the model is loaded; those of its device if absent.
        """
        available = available_memory(self.device) if available is None else available
        return self.total - self.loaded <= available

    def check(self, available: int | None = None) -> bool:
        """Return whether the rest of the run fits, and warn if it does not.

        Args:
            available: Free bytes after the model is loaded; those of its device if absent.
        """
        available = available_memory(self.device) if available is None else available
        if self.fits(available):
            return True
        lower = ["a lower micro_tokens (fewer tokens in a pass)", "shorter prompts or episodes"]
        if self.kept:
            lower.append("no kept prompts (stage.keep_prompts)")
        if self.sampling > self.activations + self.logits:
            lower = ["fewer rows at a time (batch_rows, episode.slots)", "shorter completions"]
        elif _overhead(self.device) == _GLIBC:
            lower.append("MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 in the environment")
        warnings.warn(
            f"Expected a run that fits into memory, actual: {_gb(self.total)}, {_gb(self.total - self.loaded)} more "
            f"than now; {_gb(available)} are free. Use {', '.join(lower)}, bfloat16 or a smaller model.\n{self}",
            MemoryWarning,
            stacklevel=2,
        )
        return False

    def __str__(self) -> str:
        return "\n".join(self.lines)


def available_memory(device: str | torch.device = "cpu") -> int:
    """Return the free bytes of a device."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def release_memory() -> None:
    """Give freed memory back, to the system where the C library keeps it (glibc's), and to the GPU.

    Caches of keys and values that grow and shrink leave holes, which add up in a long training. On a GPU, PyTorch keeps
    them, and other processes lack them.
    """
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def plan(
    model: PreTrainedModel,
    rows: int,
    prompt_tokens: int,
    completion_tokens: int,
    counted_tokens: int | None = None,
    *,
    group_size: int = 1,
    micro_tokens: int | None = None,
    sampling_rows: int | None = None,
    checkpointing: bool = False,
    kept_prompts: int = 0,
    growing: bool = False,
    device: torch.device | None = None,
) -> MemoryPlan:
    """Estimate the memory for training a model, to about 30 %. All numbers must be at least 1.

    Args:
        model: Model with its adapter, on the device of the training or, without weights, on `meta`.
        rows: Completions in one update.
        prompt_tokens: Length of a prompt.
        completion_tokens: Length of a completion, including all turns of an episode.
        counted_tokens: Number of these that count in the loss, because only they need logits. All if absent.
        group_size: Completions per prompt (G).
        micro_tokens: Token limit per forward pass, see `GRPOConfig`; all rows in one pass if absent.
        sampling_rows: Completions sampled in parallel; `rows` if absent.
        checkpointing: Whether a layer's activations are computed again for its gradient.
        kept_prompts: Number of prompts whose graph is kept from sampling to update, see `sampling.run_prompts`.
        growing: Whether keys and values grow from turn to turn, as those of a policy that plays do.
        device: Device of the training; the model's if absent.
    """
    counted = completion_tokens if counted_tokens is None else counted_tokens
    for name, value in {"rows": rows, "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}.items():
        if value < 1:
            raise InvalidConfigError(f"Expected `{name}` of at least 1, actual: {value}.")
    config: PreTrainedConfig = model.config.get_text_config()
    parameter = next(model.parameters())
    size, layers, vocabulary = parameter.element_size(), config.num_hidden_layers, config.vocab_size
    per_kv = 2 * layers * _kv_width(config) * size

    trainable = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    loaded = sum(p.nbytes for p in model.parameters())
    weights, adapter = loaded - trainable, 4 * trainable
    device = device or parameter.device

    sampled = sampling_rows or rows
    keys = (sampled * completion_tokens + -(-sampled // group_size) * prompt_tokens) * per_kv
    keys *= _GROWING if growing else 1
    merged = sum(
        p.nbytes for layer in mergeable_layers(model) for p in layer.get_base_layer().parameters(recurse=False)
    )
    drawn = sampled * vocabulary * (size + _FLOAT)
    sampling = keys + merged + drawn

    # A group whose prompt is at least as long as its completions runs as one, others row by row.
    together = group_size if group_size > 1 and completion_tokens <= prompt_tokens else 1
    unit = prompt_tokens + together * completion_tokens
    units = max(1, min(rows // together, (micro_tokens or rows * unit) // unit))
    tokens, in_pass = units * unit, units * together
    per_layer = _kept(config, size, _rank(model))
    tables = 0
    if together > 1:
        heads, width = config.num_attention_heads, _kv_width(config)
        if device.type == "cpu" and heads * (completion_tokens - 1) >= width:
            tables = in_pass * 2 * width * prompt_tokens  # a copy of the prompt's keys and values for each row
        else:  # the scores against the prompt are kept twice, those of the row's own tokens once
            tables = in_pass * heads * completion_tokens * (2 * prompt_tokens + completion_tokens)
    if checkpointing:
        kept = tokens * (layers * config.hidden_size * size + per_layer) + tables * _FLOAT
        how = f"({layers} layers · {config.hidden_size} · {size} B + {per_layer:,} B)"
    else:
        kept = layers * (tokens * per_layer + tables * _FLOAT)
        how = f"{layers} layers · {per_layer:,} B"
    overhead = _overhead(device)
    activations = int(kept * overhead)
    kept_tokens = kept_prompts * prompt_tokens
    kept_graphs = int(kept_tokens * layers * per_layer * overhead)
    logits = int(in_pass * counted * vocabulary * _FLOAT * _LOGITS * overhead)
    return MemoryPlan(
        weights,
        adapter,
        sampling,
        activations,
        logits,
        kept_graphs,
        0 if parameter.is_meta else loaded,
        device,
        (
            f"weights      {_gb(weights)}: {weights // size:,} parameters of {size} B",
            f"adapter      {_gb(adapter)}: {trainable:,} B, its gradient and two moments",
            f"sampling     {_gb(sampling)}: {_gb(keys)} of keys and values, {sampled} rows of {completion_tokens} "
            f"tokens and their prompts · {per_kv:,} B{f' · {_GROWING} while they grow' if growing else ''}; "
            f"{_gb(merged)} of merged weights; {_gb(drawn)} of logits",
            f"activations  {_gb(activations)}: {tokens:,} tokens in a pass · {how}"
            f"{f' + {_gb(tables * _FLOAT)} a layer of attention' if tables else ''}, · {overhead} for the allocator",
            f"logits       {_gb(logits)}: {in_pass * counted:,} tokens that count · {vocabulary:,} · {_FLOAT} B · "
            f"{_LOGITS} copies · {overhead}",
            *(
                [f"prompts      {_gb(kept_graphs)}: {kept_tokens:,} tokens kept from sampling to update"]
                if kept_prompts
                else []
            ),
        ),
    )


def _kept(config: PreTrainedConfig, size: int, rank: int) -> int:
    """Return the bytes per token that one layer keeps for its gradient."""
    # Inputs of the projections (three, of the hidden width), queries, keys, values; the gate, its activation, the
    # other half, their product; the tensors between an adapter's matrices. The two norms keep their input in float32.
    own = 4 * config.hidden_size + 2 * _kv_width(config) + 4 * config.intermediate_size + 7 * rank
    return int(own * size + 2 * config.hidden_size * _FLOAT)


def _kv_width(config: PreTrainedConfig) -> int:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int((getattr(config, "num_key_value_heads", None) or heads) * size)


def _rank(model: PreTrainedModel) -> int:
    return max((max(m.r.values()) for m in model.modules() if isinstance(m, LoraLayer)), default=0)


def _overhead(device: torch.device) -> float:
    if device.type != "cpu":
        return _CUDA
    return _GLIBC_TUNED if any(name in os.environ for name in _TUNED) else _GLIBC


def _gb(number: float) -> str:
    return f"{number / _GB:.2f} GB"
