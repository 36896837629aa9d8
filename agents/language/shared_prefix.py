"""Attention over a prompt that several completions share: its keys and values are computed and stored once.

A GRPO group is one prompt and G completions. Repeating the prompt G times costs G forward and backward passes over
it and G copies of its keys and values. Here the prompt runs once (`encode_prompts`), and the G completions attend to
one copy. The scores against the shared keys and against a completion's own keys are computed separately and normalised
in one softmax, so the result equals plain attention. It is differentiable, so one function serves sampling and the
gradient. The idea comes from Hydragen (arXiv 2402.05099) and Prefix Grouper (arXiv 2506.05433).

It works with any `transformers` model that uses the attention interface (Llama, Qwen, Mistral, SmolLM …).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

__all__ = ["ATTENTION", "SharedPrefix", "cache_argument", "encode_prompts", "rest_logits"]

ATTENTION = "rwml_shared_prefix"


@dataclass
class SharedPrefix:
    """Keys and values of P left-padded prompts, each shared by the same number of rows.

    Attributes:
        keys: One tensor per layer, (P, key-value heads, L, head size).
        values: Same shapes as `keys`.
        mask: (P, L) bool, false on padding.
        lengths: (P,) numbers of prompt tokens.
        last_logits: (P, vocabulary) logits after the last prompt token.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor
    lengths: Tensor
    last_logits: Tensor

    def select(self, prompts: Tensor) -> SharedPrefix:
        """Return the prefix of the prompts with these (n,) indices."""
        return SharedPrefix(
            [k[prompts] for k in self.keys],
            [v[prompts] for v in self.values],
            self.mask[prompts],
            self.lengths[prompts],
            self.last_logits[prompts],
        )

    @classmethod
    def join(cls, prefixes: Sequence[SharedPrefix]) -> SharedPrefix:
        """Return several prefixes as one, padded on the left; gradients flow through to each of them."""
        width = max(prefix.mask.shape[1] for prefix in prefixes)
        layers = range(len(prefixes[0].keys))

        def padded(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat([functional.pad(t, (0, 0, width - t.shape[2], 0)) for t in tensors])

        return cls(
            [padded([prefix.keys[i] for prefix in prefixes]) for i in layers],
            [padded([prefix.values[i] for prefix in prefixes]) for i in layers],
            torch.cat([functional.pad(p.mask, (width - p.mask.shape[1], 0)) for p in prefixes]),
            torch.cat([prefix.lengths for prefix in prefixes]),
            torch.cat([prefix.last_logits for prefix in prefixes]),
        )

    def detach(self) -> SharedPrefix:
        """Return the same numbers without their graph."""
        return SharedPrefix(
            [k.detach() for k in self.keys],
            [v.detach() for v in self.values],
            self.mask,
            self.lengths,
            self.last_logits.detach(),
        )

    def entrance(self) -> SharedPrefix:
        """Return the same numbers as leaves of a new graph, so that several passes can end their gradients there."""
        copy = self.detach()
        for tensor in (*copy.keys, *copy.values, copy.last_logits):
            tensor.requires_grad_()
        return copy

    def backward(self, entrance: SharedPrefix) -> None:
        """Run the prompts' own backward pass with the gradients that other passes left in their `entrance`."""
        outputs = (*self.keys, *self.values, self.last_logits)
        leaves = (*entrance.keys, *entrance.values, entrance.last_logits)
        # Without a counting first token, no gradient reaches the logits.
        pairs = [(output, leaf.grad) for output, leaf in zip(outputs, leaves, strict=True) if leaf.grad is not None]
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    shared_prefix: SharedPrefix | None = None,
    joined_mask: Tensor | None = None,
    query_positions: Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of R = P·G rows to their own keys and those of their prompt, (R, T, heads, head size).

    Without `shared_prefix` this is PyTorch's attention, as `transformers` calls it except for grouped heads with a mask
    on a CPU: there PyTorch's kernel takes the groups as they are, which `transformers` does not use.

    Args:
        module: The attention layer; `layer_idx` selects its keys in the prefix.
        query: (R, heads, T, head size); the rows of a prompt are adjacent.
        key: (R, key-value heads, S, head size): the completions' own keys, S >= T.
        value: Same shape as `key`.
        attention_mask: (R or 1, 1, T, S) bool, true where a completion's token may attend.
        scaling: Factor of the scores; head size ** -0.5 if absent.
        dropout: Must be 0 with a prefix; sampling and updates run without dropout.
        shared_prefix: The prompts.
        joined_mask: (R or 1, 1, T, L + S), added to the scores. With it, keys and values are joined for each row,
            and there is no table of scores.
        query_positions: (R, T), the index of each query's own key, for a mask that knows no windows.
        sliding_window: A query attends to this many keys, its own included; to all if absent. `transformers` puts it
            into the masks that it makes; the masks that are made here are the same for all layers.
        **kwargs: Passed to PyTorch's attention if there is no prefix.
    """
    if shared_prefix is None:
        if sliding_window is not None and query_positions is not None and attention_mask is not None:
            keys = torch.arange(key.shape[2], device=key.device)
            attention_mask = attention_mask & (keys > query_positions[..., None] - sliding_window)[:, None]
        return _attention(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    if attention_mask is None:
        raise ValueError("Expected `attention_mask` (rows, 1, T, S) with `shared_prefix`, actual: None. Pass a mask.")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    prefix_keys, prefix_values = shared_prefix.keys[layer], shared_prefix.values[layer]
    rows, heads, length, size = query.shape
    prompts, kv_heads, prefix_length, _ = prefix_keys.shape
    group, per_kv = rows // prompts, heads // kv_heads
    scaling = size**-0.5 if scaling is None else scaling
    beyond = _beyond_window(length, prefix_length, key.shape[2], sliding_window, key.device)

    if joined_mask is not None:
        if beyond is not None:
            joined_mask = joined_mask.masked_fill(beyond, -torch.inf)
        keys = torch.cat([prefix_keys.repeat_interleave(group, 0), key], 2)
        values = torch.cat([prefix_values.repeat_interleave(group, 0), value], 2)
        return _attention(module, query, keys, values, joined_mask, scaling=scaling)

    # Own keys: (R, kv, per_kv·T, S).
    grouped = query.reshape(rows, kv_heads, per_kv * length, size)
    own = torch.matmul(grouped, key.transpose(-1, -2)).float() * scaling
    own = own.view(rows, kv_heads, per_kv, length, -1)
    own = own.masked_fill(~attention_mask[:, :, None], torch.finfo(own.dtype).min)
    # Shared keys: the rows of a prompt are the queries of one product, (P, kv, G·per_kv·T, L).
    folded = grouped.view(prompts, group, kv_heads, -1, size).transpose(1, 2).reshape(prompts, kv_heads, -1, size)
    shared = torch.matmul(folded, prefix_keys.transpose(-1, -2)).float() * scaling
    shared = shared.masked_fill(~shared_prefix.mask[:, None, None], torch.finfo(shared.dtype).min)
    shared = shared.view(prompts, kv_heads, group, per_kv * length, prefix_length).transpose(1, 2)
    shared = shared.reshape(rows, kv_heads, per_kv, length, prefix_length)

    scores = torch.cat([shared, own], dim=-1)
    if beyond is not None:
        scores = scores.masked_fill(beyond, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).to(value.dtype)
    own_weights = weights[..., prefix_length:].reshape(rows, kv_heads, per_kv * length, -1)
    shared_weights = weights[..., :prefix_length].reshape(prompts, group, kv_heads, -1, prefix_length)
    shared_weights = shared_weights.transpose(1, 2).reshape(prompts, kv_heads, -1, prefix_length)
    out_shared = torch.matmul(shared_weights, prefix_values)
    out_shared = out_shared.view(prompts, kv_heads, group, -1, size).transpose(1, 2)
    out = torch.matmul(own_weights, value) + out_shared.reshape(rows, kv_heads, per_kv * length, size)
    return out.view(rows, heads, length, size).transpose(1, 2).contiguous(), None


def _beyond_window(
    length: int, prefix_length: int, own: int, window: int | None, device: torch.device
) -> Tensor | None:
    """Return which keys of prompt and completion together lie before each query's window, (T, L + S)."""
    keys = prefix_length + own
    if window is None or keys <= window:
        return None
    queries = torch.arange(keys - length, keys, device=device)
    return torch.arange(keys, device=device) <= queries[:, None] - window


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    per_kv = query.shape[1] // key.shape[1]
    # Elsewhere PyTorch has no fast kernel for grouped heads with a mask.
    if mask is None or per_kv == 1 or query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs)
    attended = functional.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scaling, enable_gqa=True)
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, shared_prefix_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def cache_argument(model: nn.Module, cache: Cache) -> dict[str, Cache]:
    """Return the argument of a model's forward pass that holds keys and values.

    transformers 5.24 renamed `past_key_values` to `cache`.

    Args:
        model: A model of `transformers`, or of `peft` around one.
        cache: The keys and values.
    """
    while hasattr(model, "get_base_model"):
        model = cast(nn.Module, cast(Any, model).get_base_model())
    renamed = "cache" in inspect.signature(type(model).forward).parameters
    return {"cache" if renamed else "past_key_values": cache}


def encode_prompts(model: nn.Module, prompts: Sequence[Sequence[int]], pad_id: int) -> SharedPrefix:
    """Run each prompt once; return its keys and values on the model's device (with gradients unless disabled).

    Args:
        model: A causal language model loaded with `attn_implementation=ATTENTION`.
        prompts: P non-empty token lists.
        pad_id: Token id for the padding on the left; it is masked.
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
        **cache_argument(model, cache),
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


def rest_logits(model: nn.Module, prefix: SharedPrefix, completions: Tensor) -> Tensor:
    """Return the logits of G completions per prompt from the second token on; the first is `prefix.last_logits`.

    Args:
        model: The model that made `prefix`. It does not run the prompts again.
        prefix: P prompts.
        completions: (P·G, T) token ids, right-padded, T of at least 2; the rows of a prompt are adjacent.

    Returns:
        (P·G, T - 1, vocabulary) logits; position t predicts token t + 1.
    """
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
        joined_mask=_joined_mask(model, prefix, causal, group),
    ).logits


def _joined_mask(model: nn.Module, prefix: SharedPrefix, causal: Tensor, group: int) -> Tensor | None:
    """Return the mask of prompts and completions together, `None` where a table of scores is smaller or faster.

    It is made once for all layers, because each layer keeps what it is given for its gradient.
    """
    keys, length = prefix.keys[0], causal.shape[-1]
    _, kv_heads, prefix_length, size = keys.shape
    heads = model.config.get_text_config().num_attention_heads  # type: ignore[union-attr, operator]
    # A copy of the prompt's keys for each row is no larger than the table, and on a CPU faster.
    copied = keys.device.type == "cpu" and heads * length >= kv_heads * size
    if not copied and length <= prefix_length:
        return None
    before = prefix.mask.repeat_interleave(group, 0)
    if len(prefix.mask) == 1:  # one mask for all rows
        before = before[:1]
    rows = len(before)
    allowed = torch.cat(
        [before[:, None, None].expand(rows, 1, length, prefix_length), causal.expand(rows, 1, length, length)], -1
    )
    return torch.zeros(allowed.shape, dtype=keys.dtype, device=keys.device).masked_fill(~allowed, -torch.inf)
