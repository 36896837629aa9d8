"""Attention over a prompt that several completions share: its keys and values are computed and stored once.

A GRPO group is one prompt and G completions. Repeating the prompt G times costs G forward and backward passes over
it and G copies of its keys and values. Here the prompt runs once (`encode_prompts`), and the G completions attend to
the one copy: the scores against the shared keys and against a completion's own keys are computed apart and normalised
in one softmax, so the result is that of plain attention. It is differentiable, hence the same function serves sampling
and the gradient. The idea is that of Hydragen (arXiv 2402.05099).

Any `transformers` model that goes through the attention interface can use it (Llama, Qwen, Mistral, SmolLM …).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

__all__ = ["ATTENTION", "SharedPrefix", "completion_logits", "encode_prompts", "rest_logits"]

ATTENTION = "rwml_shared_prefix"


@dataclass
class SharedPrefix:
    """Keys and values of P left-padded prompts, each shared by the same number of rows.

    Attributes:
        keys: One tensor a layer, (P, key-value heads, L, head size).
        values: As `keys`.
        mask: (P, L) bool, false on padding.
        lengths: (P,) number of prompt tokens.
        last_logits: (P, vocabulary) logits after the last prompt token.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor
    lengths: Tensor
    last_logits: Tensor

    def select(self, prompts: Tensor) -> SharedPrefix:
        """The prefix of the prompts with these indices, (n,) long."""
        return SharedPrefix(
            [k[prompts] for k in self.keys],
            [v[prompts] for v in self.values],
            self.mask[prompts],
            self.lengths[prompts],
            self.last_logits[prompts],
        )


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prefix: SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of R = P·G rows to their own keys and to those of the prompt they share.

    Without `shared_prefix` this is PyTorch's scaled dot product attention as `transformers` calls it.

    Args:
        module: The attention layer; `layer_idx` says which keys of the prefix are its own.
        query: (R, heads, T, head size); rows of a prompt are adjacent.
        key: (R, key-value heads, S, head size): the completions' own keys, S >= T.
        value: As `key`.
        attention_mask: (R or 1, 1, T, S) bool, true where a completion's token may look.
        scaling: Factor on the scores; head size ** -0.5 if absent.
        dropout: Must be 0 here; sampling and updates run without dropout.
        shared_prefix: The prompts.
        **kwargs: Passed on to PyTorch's attention if there is no prefix.

    Returns:
        (R, T, heads, head size), and no weights.
    """
    if shared_prefix is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if attention_mask is None:
        raise ValueError("Expected a mask (rows, 1, T, S) with `shared_prefix`, actual None")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    prefix_keys, prefix_values = shared_prefix.keys[layer], shared_prefix.values[layer]
    rows, heads, length, size = query.shape
    prompts, kv_heads, prefix_length, _ = prefix_keys.shape
    group, per_kv = rows // prompts, heads // kv_heads
    scaling = size**-0.5 if scaling is None else scaling

    # Own keys: (R, kv, per_kv·T, S).
    grouped = query.reshape(rows, kv_heads, per_kv * length, size)
    own = torch.matmul(grouped, key.transpose(-1, -2)).float() * scaling
    own = own.view(rows, kv_heads, per_kv, length, -1)
    own = own.masked_fill(~attention_mask[:, :, None], torch.finfo(own.dtype).min)
    # Shared keys: all rows of a prompt are queries of one product, (P, kv, G·per_kv·T, L).
    folded = grouped.view(prompts, group, kv_heads, -1, size).transpose(1, 2).reshape(prompts, kv_heads, -1, size)
    shared = torch.matmul(folded, prefix_keys.transpose(-1, -2)).float() * scaling
    shared = shared.masked_fill(~shared_prefix.mask[:, None, None], torch.finfo(shared.dtype).min)
    shared = shared.view(prompts, kv_heads, group, per_kv * length, prefix_length).transpose(1, 2)
    shared = shared.reshape(rows, kv_heads, per_kv, length, prefix_length)

    weights = torch.cat([shared, own], dim=-1).softmax(-1).to(value.dtype)
    own_weights = weights[..., prefix_length:].reshape(rows, kv_heads, per_kv * length, -1)
    shared_weights = weights[..., :prefix_length].reshape(prompts, group, kv_heads, -1, prefix_length)
    shared_weights = shared_weights.transpose(1, 2).reshape(prompts, kv_heads, -1, prefix_length)
    out_shared = torch.matmul(shared_weights, prefix_values)
    out_shared = out_shared.view(prompts, kv_heads, group, -1, size).transpose(1, 2)
    out = torch.matmul(own_weights, value) + out_shared.reshape(rows, kv_heads, per_kv * length, size)
    return out.view(rows, heads, length, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, shared_prefix_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def encode_prompts(model: nn.Module, prompts: Sequence[Sequence[int]], pad_id: int) -> SharedPrefix:
    """Runs each prompt once and keeps its keys and values (with gradients, unless they are switched off).

    Args:
        model: A causal language model loaded with `attn_implementation=ATTENTION`.
        prompts: P token lists, none empty.
        pad_id: Token id for the padding on the left; it is masked.

    Returns:
        The prefix, on the model's device.
    """
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = True
    ids, mask = ids.to(device), mask.to(device)
    cache = DynamicCache()
    out = model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return SharedPrefix(
        [cast(Tensor, cast(DynamicLayer, layer).keys) for layer in cache.layers],
        [cast(Tensor, cast(DynamicLayer, layer).values) for layer in cache.layers],
        mask,
        mask.sum(-1),
        out.logits[:, -1],
    )


def completion_logits(model: nn.Module, prefix: SharedPrefix, completions: Tensor) -> Tensor:
    """Logits that predict every token of G completions a prompt, the prompt not run again.

    Args:
        model: The model that made `prefix`.
        prefix: P prompts.
        completions: (P·G, T) token ids, right-padded, rows of a prompt adjacent.

    Returns:
        (P·G, T, vocabulary) logits; position t predicts token t.
    """
    first = prefix.last_logits.repeat_interleave(len(completions) // len(prefix.mask), 0)[:, None]
    if completions.shape[1] == 1:
        return first
    return torch.cat([first, rest_logits(model, prefix, completions)], dim=1)


def rest_logits(model: nn.Module, prefix: SharedPrefix, completions: Tensor) -> Tensor:
    """As `completion_logits`, without those of the first token, which are `prefix.last_logits`: T of at least 2."""
    rows, length = completions.shape
    group = rows // len(prefix.mask)
    steps = torch.arange(length - 1, device=completions.device)
    causal = (steps[:, None] >= steps[None, :]).view(1, 1, length - 1, length - 1)
    return model(
        input_ids=completions[:, :-1],
        attention_mask=causal.expand(rows, -1, -1, -1),
        position_ids=prefix.lengths.repeat_interleave(group)[:, None] + steps,
        use_cache=False,
        shared_prefix=prefix,
    ).logits
