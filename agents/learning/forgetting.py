"""Forgetting: how far a model has moved away from the one it was, on what it was not trained for.

Two measures in nats a token. The loss on general text: Python's own documentation, which every installation has. And
the KL divergence from the base model to the tuned one on the base model's own answers to task prompts, which predicts
forgetting better than the change of the weights does (RL's Razor, arXiv 2509.04259). Beside them the share of weights
that changed, as RWML's paper has it (arXiv 2602.05842).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.logprobs import head_at
from rwml_gym.agents.language.models import mixed_precision
from rwml_gym.agents.language.sampling import Stop, sample

__all__ = ["Forgetting", "Probe", "forgetting", "make_probe"]

_PIECE = 192  # tokens of a piece of text
_CHANGED = 1e-3  # relative change from which a weight counts as changed, as in RWML's paper


@dataclass(frozen=True)
class Probe:
    """What a model is asked, for all models of a comparison alike.

    Attributes:
        texts: Token ids of pieces of general text.
        prompts: Token ids of task prompts.
        answers: The base model's greedy answers to them.
    """

    texts: list[list[int]]
    prompts: list[list[int]]
    answers: list[list[int]]


@dataclass(frozen=True)
class Forgetting:
    """How far a model has moved.

    Attributes:
        text_loss: Mean negative log-likelihood of general text, in nats a token.
        kl: Mean KL divergence from the base model to this one, over the whole vocabulary, on the base model's answers,
            in nats a token.
        weight_change: Share of the weights w of the adapted layers, ŵ with the adapter, with
            |ŵ - w| > 0.001 · max(|w|, |ŵ|); quantised layers are left out.
    """

    text_loss: float
    kl: float
    weight_change: float = 0.0


def make_probe(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    pieces: int,
    stop: Sequence[Stop] = (),
    max_new_tokens: int = 32,
) -> Probe:
    """Make a probe; the base model is the one without its adapter.

    Args:
        model: A PEFT model.
        tokenizer: Its tokenizer.
        prompts: Task prompts.
        pieces: Number of pieces of general text, each the beginning of a topic of Python's documentation.
        stop: Where an answer ends.
        max_new_tokens: Token limit of an answer.
    """
    found = [tokenizer.encode(topics[name], add_special_tokens=False)[:_PIECE] for name in sorted(topics)]
    long = [tokens for tokens in found if len(tokens) == _PIECE]
    texts = [long[i * len(long) // pieces] for i in range(min(pieces, len(long)))]
    asked = [list(prompt) for prompt in prompts]
    with model.disable_adapter():  # type: ignore[operator]
        rows = sample(model, tokenizer, asked, 1, max_new_tokens=max_new_tokens, temperature=0.0, stop=stop)
    return Probe(texts, asked, [completion.tokens for (completion,) in rows])


@torch.inference_mode()
def forgetting(model: nn.Module, probe: Probe) -> Forgetting:
    """Measure a model beside the one without its adapter.

    Args:
        model: A PEFT model with its adapter as it is.
        probe: What to ask.
    """
    losses = [-_logprobs(model, [], text)[range(len(text) - 1), text[1:]] for text in probe.texts]
    text_loss = float(torch.cat(losses).mean()) if losses else 0.0
    total, count = 0.0, 0
    for prompt, answer in zip(probe.prompts, probe.answers, strict=True):
        tuned = _logprobs(model, prompt, answer)
        with model.disable_adapter():  # type: ignore[operator]
            base = _logprobs(model, prompt, answer)
        total += float((base.exp() * (base - tuned)).sum())
        count += len(base)
    return Forgetting(text_loss, total / max(count, 1), _weight_change(model))


def _weight_change(model: nn.Module) -> float:
    changed, count = 0, 0
    for module in model.modules():
        if not isinstance(module, LoraLayer):
            continue
        layer = cast(Any, module)
        weight = layer.get_base_layer().weight
        if not weight.is_floating_point():
            continue  # quantised: its numbers are no weights
        delta = sum(layer.get_delta_weight(name).to(weight.dtype) for name in layer.active_adapters)
        size = torch.maximum(weight.abs(), (weight + delta).abs())
        changed += int((delta.abs() > _CHANGED * size).sum())
        count += weight.numel()
    return changed / max(count, 1)


def _logprobs(model: nn.Module, prompt: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """Return the log-probabilities of all next tokens, (n, vocabulary): n tokens after a prompt, n - 1 without one."""
    ids = torch.tensor([[*prompt, *tokens]], device=next(model.parameters()).device)[:, :-1]
    wanted = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    wanted[:, max(len(prompt) - 1, 0) :] = True
    with mixed_precision(model), head_at(model, wanted):
        return model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
