"""Which language models the shared prompts and the sessions compute correctly: found out before a model is used."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rwml_gym.agents.language.shared_prefix import encode_prompts, rest_logits

__all__ = ["unsupported"]

_LAYERS = {"full_attention", "sliding_attention"}
# Rounding in bfloat16 and its consequences for a mixture of experts stay below it for most tokens; wrong attention
# is above it for nearly all.
_RELATIVE_ERROR = 0.1


def unsupported(model: nn.Module) -> str | None:
    """Say what in a model's architecture cannot be computed here, `None` if it can.

    Prompts are run once for all their completions, which takes layers that keep keys and values and nothing else, and
    attention without terms of its own. What a configuration does not show is seen in the numbers: a model with weights
    runs two short prompts with and without sharing.

    Args:
        model: A causal language model of `transformers`, loaded with `attn_implementation=ATTENTION`.
    """
    config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
    if others := sorted(set(getattr(config, "layer_types", None) or ()) - _LAYERS):
        return f"layers of the kinds {', '.join(others)}"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "attention with capped scores (attn_logit_softcapping)"
    if not getattr(model, "_supports_sdpa", True):
        return "attention that PyTorch's scaled_dot_product_attention cannot compute"
    return None if next(model.parameters()).is_meta else _difference(model)


@torch.no_grad()
def _difference(model: nn.Module) -> str | None:
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    device = next(model.parameters()).device
    draws = torch.Generator().manual_seed(0)
    prompts = [torch.randint(vocabulary, (length,), generator=draws).tolist() for length in (3, 6)]
    completions = torch.randint(vocabulary, (4, 4), generator=draws).to(device)
    try:
        shared = rest_logits(model, encode_prompts(model, prompts, 0), completions).float()
    except Exception as error:  # an architecture can fail in any way
        return f"a forward pass that shares no prompts ({type(error).__name__}: {error})"
    errors: list[Tensor] = []
    for row, completion in enumerate(completions):
        text = torch.tensor(prompts[row // 2], device=device)
        plain = model(input_ids=torch.cat([text, completion])[None], use_cache=False).logits[0, len(text) : -1].float()
        errors.append((shared[row] - plain).norm(dim=-1) / plain.norm(dim=-1))
    if torch.cat(errors).median() < _RELATIVE_ERROR:
        return None
    return "attention with terms of its own: with a shared prompt, its logits differ"
