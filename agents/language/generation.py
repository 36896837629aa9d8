"""Sampling many completions a prompt: the prompt runs once, the adapter is merged, finished rows leave the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from rwml_gym.agents.language.drawing import Completion, Stop, Writer
from rwml_gym.agents.language.models import merged
from rwml_gym.agents.language.shared_prefix import SharedPrefix, encode_prompts

__all__ = ["Completion", "end_tokens", "sample"]

# Rows are regrouped when this share of them has finished; regrouping copies their keys and values.
_COMPACT_AT = 0.25


def sample(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    n: int = 1,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    stop: Sequence[Stop] = (),
    seed: int = 0,
    batch_rows: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[list[Completion]]:
    """Samples `n` completions of every prompt.

    The random number behind a token depends on the seed, the prompt's index, the completion's index and the token's
    position only (for a given `n` and `max_new_tokens`): regrouping and `batch_rows` do not change the numbers.

    Args:
        model: A model of `load_model`, with or without adapter; an adapter is merged for the time being.
        tokenizer: Its tokenizer.
        prompts: P token lists, none empty.
        n: Completions a prompt.
        max_new_tokens: Longest completion, in tokens.
        temperature: 0 takes the likeliest token.
        stop: A completion ends as soon as its text contains one of these strings, or matches one of these patterns.
        seed: Seed of the sampling.
        batch_rows: How many completions are written at a time.
        progress: Called with the number of prompts that were completed since the last call.

    Returns:
        P lists of `n` completions.
    """
    generator = torch.Generator().manual_seed(seed)
    results: list[list[Completion]] = [[] for _ in prompts]
    if not prompts:
        return results
    uniforms = torch.rand((len(prompts), n, max_new_tokens), generator=generator)
    # Like lengths together: little padding, and rows that end at about the same time.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, batch_rows // n)
    with torch.inference_mode(), merged(model):
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            batch = _Batch(model, tokenizer, [prompts[i] for i in chosen], n, stop, uniforms[chosen], temperature)
            for i, completions in zip(chosen, batch.run(), strict=True):
                results[i] = completions
            if progress is not None:
                progress(len(chosen))
    return results


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that end what a model writes."""
    eos = model.generation_config.eos_token_id  # type: ignore[union-attr]
    return set(eos if isinstance(eos, list) else [eos]) | {tokenizer.eos_token_id}


class _Batch:
    """P prompts with n completions each, until all of them have ended.

    The rows that are still in the model form a rectangle, prompts by slots, as the attention to shared keys needs:
    `rows` holds each slot's number in 0 … P·n - 1, `prompts` the prompts still there.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Sequence[int]],
        n: int,
        stop: Sequence[Stop],
        uniforms: Tensor,
        temperature: float,
    ) -> None:
        self.model, self.n, self.max_new_tokens = model, n, uniforms.shape[-1]
        draws = uniforms.reshape(-1, self.max_new_tokens)
        self.writer = Writer(tokenizer, end_tokens(model, tokenizer), draws, temperature, stop)
        self.prefix: SharedPrefix = encode_prompts(model, prompts, tokenizer.pad_token_id or 0)
        self.cache = DynamicCache()
        self.rows = torch.arange(len(prompts) * n).view(len(prompts), n)

    def run(self) -> list[list[Completion]]:
        logits = self.prefix.last_logits.repeat_interleave(self.n, 0)
        for step in range(self.max_new_tokens):
            tokens = self.writer.append(logits, self.rows.flatten().tolist())
            if step + 1 == self.max_new_tokens or not self.writer.alive(self.rows.flatten().tolist()):
                break
            tokens = self._compact(tokens)
            logits = self._forward(tokens, step)
        done = [self.writer.completion(row) for row in range(len(self.writer.rows))]
        return [done[i : i + self.n] for i in range(0, len(done), self.n)]

    def _compact(self, tokens: Tensor) -> Tensor:
        """Drops rows that have ended, if enough of them have; what is left stays a rectangle."""
        alive = torch.tensor([not row.ended for row in self.writer.rows])[self.rows]
        slots = int(alive.sum(1).max())
        prompts = alive.any(1).nonzero().flatten()
        if len(prompts) * slots > (1 - _COMPACT_AT) * self.rows.numel():
            return tokens
        # Per prompt: the living first, then as many others as fill the rectangle.
        keep = torch.argsort((~alive[prompts]).long(), dim=1, stable=True)[:, :slots]
        index = (prompts[:, None] * self.rows.shape[1] + keep).flatten()
        self.rows = self.rows.flatten()[index].view(len(prompts), slots)
        index = index.to(tokens.device)
        if self.cache.get_seq_length() > 0:
            self.cache.batch_select_indices(index)
        if len(prompts) < len(alive):
            self.prefix = self.prefix.select(prompts.to(tokens.device))
        return tokens[index]

    def _forward(self, tokens: Tensor, step: int) -> Tensor:
        device = self.prefix.mask.device
        count = self.rows.numel()
        positions = self.prefix.lengths.repeat_interleave(self.rows.shape[1])[:, None] + step
        out = self.model(
            input_ids=tokens,
            attention_mask=torch.ones((count, 1, 1, step + 1), dtype=torch.bool, device=device),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            shared_prefix=self.prefix,
        )
        return out.logits[:, -1]
