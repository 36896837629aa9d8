"""Log-probabilities of completions for the update, with logits computed only for the tokens that count.

Two methods give the same numbers. Completions of one prompt run over its keys and values (`shared_prefix`), after the
prompt has run once. A completion that is alone with its prompt runs with it as one plain causal row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rwml_gym.agents.language.models import mixed_precision
from rwml_gym.agents.language.shared_prefix import SharedPrefix, encode_prompts, rest_logits

__all__ = ["completion_logprobs", "head_at"]

Allowed = Sequence[Sequence[Sequence[int] | None]]


def completion_logprobs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Tensor,
    mask: Tensor | None = None,
    allowed: Allowed | None = None,
    pad_id: int = 0,
    prefix: SharedPrefix | None = None,
    targets: Tensor | None = None,
    temperatures: Tensor | None = None,
) -> Tensor:
    """Return the log-probabilities of G completions per prompt, (P·G, T) float32.

    Args:
        model: A model of `language.models.load_model`.
        prompts: P token lists.
        completions: (P·G, T) token ids, right-padded; the rows of a prompt are adjacent.
        mask: (P·G, T), 1 on the tokens to compute; the others get 0 and no logits. All tokens if absent.
        allowed: For each row and token the ids it was chosen from, `None` for the whole vocabulary. The
            log-probability is normalised over these ids. The whole vocabulary if absent.
        pad_id: Any token id, because padding is masked.
        prefix: The prompts, already run by the model as it is; then they do not run again.
        targets: (P·G, T) ids whose log-probabilities are wanted, after the same tokens; the completions if absent.
        temperatures: (P·G, T) temperature of each token's distribution; 1 if absent.
    """
    targets = completions if targets is None else targets
    wanted = torch.ones_like(completions, dtype=torch.bool) if mask is None else mask.bool()
    values = torch.zeros(completions.shape, device=completions.device)
    for positions, logits in _logits(model, prompts, completions, wanted, pad_id, prefix):
        if temperatures is not None:
            logits = logits / temperatures[positions][:, None]
        if allowed is not None:
            logits = logits.masked_fill(~_allowed(allowed, positions.cpu(), logits), -torch.inf)
        found = -F.cross_entropy(logits.float(), targets[positions], reduction="none")
        values = values.masked_scatter(positions, found)
    return values


def _logits(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Tensor,
    wanted: Tensor,
    pad_id: int,
    prefix: SharedPrefix | None,
) -> list[tuple[Tensor, Tensor]]:
    """Return parts of the wanted tokens, (R, T) bool, with their logits, row by row, (N, vocabulary).

    The parts stay apart because logits are the largest tensors of a pass, and joining them would copy them.
    """
    with mixed_precision(model):
        if prefix is None and len(prompts) < len(completions):
            prefix = encode_prompts(model, prompts, pad_id)
        if prefix is not None:
            return _over_shared_prompts(model, prefix, completions, wanted)
        return [(wanted, _as_plain_rows(model, prompts, completions, wanted, pad_id))]


def _over_shared_prompts(
    model: nn.Module, prefix: SharedPrefix, completions: Tensor, wanted: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Return the first tokens, which the prompts predict, and the rest."""
    first = torch.zeros_like(wanted)
    first[:, 0] = wanted[:, 0]
    parts = [(first, prefix.last_logits.repeat_interleave(len(completions) // len(prefix.mask), 0)[wanted[:, 0]])]
    if completions.shape[1] > 1:
        with head_at(model, wanted[:, 1:]):
            parts.append((wanted & ~first, rest_logits(model, prefix, completions)))
    return parts


def _as_plain_rows(
    model: nn.Module, prompts: Sequence[Sequence[int]], completions: Tensor, wanted: Tensor, pad_id: int
) -> Tensor:
    """Return the logits of the wanted tokens; padding is on the right, where no token attends to it."""
    length = completions.shape[1]
    ids = torch.full((len(prompts), max(map(len, prompts)) + length), pad_id, device=completions.device)
    predicting = torch.zeros(ids.shape, dtype=torch.bool, device=completions.device)
    for row, prompt in enumerate(prompts):
        end = len(prompt)
        ids[row, :end] = torch.tensor(prompt, device=completions.device)
        ids[row, end : end + length] = completions[row]
        predicting[row, end - 1 : end + length - 1] = wanted[row]
    with head_at(model, predicting[:, :-1]):
        return model(input_ids=ids[:, :-1], use_cache=False).logits


def _allowed(allowed: Allowed, wanted: Tensor, logits: Tensor) -> Tensor:
    """Return which ids each wanted token was chosen from, (N, vocabulary) bool."""
    table = torch.ones(logits.shape, dtype=torch.bool)
    for number, (row, token) in enumerate(wanted.nonzero().tolist()):
        if (ids := allowed[row][token]) is not None:
            table[number] = False
            table[number, list(ids)] = True
    return table.to(logits.device)


@contextmanager
def head_at(model: nn.Module, positions: Tensor) -> Iterator[None]:
    """Restrict the model's logits inside the context to these positions, row by row: (N, vocabulary).

    Args:
        model: A causal language model of `transformers`, with or without adapter.
        positions: (R, T) bool over the tokens of the next call; N of them are true.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(lambda module, inputs: (inputs[0][positions],))
    try:
        yield
    finally:
        handle.remove()
