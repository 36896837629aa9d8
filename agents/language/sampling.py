"""Sampling completions: tokens drawn from logits, and many completions of a prompt that runs once.

Tokens are seeded row by row, stopped by texts, and, if wanted, chosen among given sequences only. The adapter is merged
for the time being, and finished rows leave the batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from rwml_gym.agents.language.models import merged
from rwml_gym.agents.language.shared_prefix import SharedPrefix, encode_prompts
from rwml_gym.errors import InvalidConfigError

__all__ = ["Choices", "Completion", "Stop", "Writer", "end_tokens", "sample", "uniforms"]

# Rows are regrouped when this share of them has finished; regrouping copies their keys and values.
_COMPACT_AT = 0.25

Stop = str | re.Pattern[str]


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        tokens: Token ids, the ones that ended it included.
        logprobs: Log-probability of each token under the distribution it was drawn from (natural logarithm).
        text: The tokens as text, up to the stop string, special tokens left out.
        finished: Whether it came to an end by itself (not by the token limit).
        allowed: For each token the ids it was chosen from; `None` where nothing was forbidden.
    """

    tokens: list[int]
    logprobs: list[float]
    text: str
    finished: bool
    allowed: list[list[int]] | None = None


class Choices:
    """Token sequences one of which is to be written; no other can be.

    Args:
        sequences: Token lists, none empty. One that another begins with can still be chosen if both end alike, as
            commands do that end with a new line.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        self._root: dict[int, dict] = {}
        for sequence in sequences:
            if not sequence:
                raise InvalidConfigError("Expected sequences of one token or more to choose from, actual an empty one.")
            node = self._root
            for token in sequence:
                node = node.setdefault(int(token), {})
        if not self._root:
            raise InvalidConfigError("Expected at least one sequence to choose from, actual none.")

    def after(self, tokens: Sequence[int]) -> list[int]:
        """Which tokens may follow; none where a sequence is complete."""
        node = self._root
        for token in tokens:
            node = node[int(token)]
        return sorted(node)


def uniforms(seed: int, count: int) -> Tensor:
    """The random numbers behind `count` tokens, (count,) float32: they follow from the seed and nothing else."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(seed)).random(count, dtype=np.float32))


@dataclass
class _Row:
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    allowed: list[list[int]] = field(default_factory=list)
    ended: bool = False


class Writer:
    """What R rows have written so far.

    Args:
        tokenizer: Of the model.
        eos: Ids that end a row.
        draws: (R, longest) uniform numbers, one a token.
        temperature: 0 takes the likeliest token.
        stop: A row ends as soon as its text holds one of these strings, or matches one of these patterns.
        choices: What each row may write, `None` for anything.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        eos: set[int],
        draws: Tensor,
        temperature: float = 1.0,
        stop: Sequence[Stop] = (),
        choices: Sequence[Choices | None] | None = None,
    ) -> None:
        self.tokenizer, self.eos, self.draws, self.temperature = tokenizer, eos, draws, temperature
        self.strings = tuple(s for s in stop if isinstance(s, str))
        self.patterns = tuple(s for s in stop if not isinstance(s, str))
        # A stop string that was just completed lies within this many last tokens: each holds a byte of it or more.
        self.tail = max((len(s.encode()) for s in self.strings), default=0) + 1
        self.rows = [_Row() for _ in range(len(draws))]
        self.choices = choices if choices is not None and any(choices) else [None] * len(draws)

    def alive(self, rows: Iterable[int]) -> list[int]:
        """Those of the rows that go on."""
        return [row for row in rows if not self.rows[row].ended]

    def append(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Draws the next token of each row; one that has ended gets a token only to fill its place.

        Args:
            logits: (len(rows), vocabulary).
            rows: Numbers in 0 … R - 1.

        Returns:
            (len(rows), 1) token ids, where the logits are.
        """
        logits = logits.float()
        allowed = {i: self._allowed(row) for i, row in enumerate(rows)} if any(self.choices) else {}
        forbidden = [i for i, ids in allowed.items() if ids]
        if forbidden:
            mask = torch.zeros((len(forbidden), logits.shape[-1]), dtype=torch.bool)
            for position, i in enumerate(forbidden):
                mask[position, allowed[i]] = True
            logits = logits.clone()
            logits[forbidden] = logits[forbidden].masked_fill(~mask.to(logits.device), -torch.inf)
        logprobs, tokens = self._draw(logits, rows)
        chosen, ids = logprobs.gather(-1, tokens).flatten().tolist(), tokens.flatten().tolist()
        living = [i for i, row in enumerate(rows) if not self.rows[row].ended]
        for i in living:
            state = self.rows[rows[i]]
            state.tokens.append(ids[i])
            state.logprobs.append(chosen[i])
            if i in allowed:
                state.allowed.append(allowed[i] or [])
        self._end([rows[i] for i in living])
        return tokens

    def _draw(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        if self.temperature <= 0:
            return torch.log_softmax(logits, -1), logits.argmax(-1, keepdim=True)
        logprobs = torch.log_softmax(logits / self.temperature, -1)
        cumulative = logprobs.exp().cumsum(-1)
        draws = torch.stack(
            [self.draws[row, min(len(self.rows[row].tokens), self.draws.shape[1] - 1)] for row in rows]
        ).to(logits.device)
        targets = draws[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, targets, right=True).clamp(max=logits.shape[-1] - 1)
        return logprobs, tokens

    def _allowed(self, row: int) -> list[int] | None:
        choices = self.choices[row]
        return None if choices is None or self.rows[row].ended else choices.after(self.rows[row].tokens)

    def _end(self, rows: Sequence[int]) -> None:
        """Marks the rows whose last token ended them."""
        # As the text is decoded: the name of a special token is no place for a stop string.
        reach = None if self.patterns else -self.tail
        tails = self.tokenizer.batch_decode([self.rows[row].tokens[reach:] for row in rows], skip_special_tokens=True)
        for row, tail in zip(rows, tails, strict=True):
            state, choices = self.rows[row], self.choices[row]
            state.ended = (
                state.tokens[-1] in self.eos
                or any(s in tail for s in self.strings)
                or any(p.search(tail) for p in self.patterns)
                or (choices is not None and not choices.after(state.tokens))
            )

    def completion(self, row: int) -> Completion:
        """What a row has written."""
        state = self.rows[row]
        text = str(self.tokenizer.decode(state.tokens, skip_special_tokens=True))
        ends = [at for at in (text.find(s) for s in self.strings) if at >= 0]
        ends += [match.end() for match in (p.search(text) for p in self.patterns) if match]
        text = text[: min(ends)] if ends else text
        allowed = state.allowed if self.choices[row] is not None else None
        return Completion(state.tokens, state.logprobs, text, state.ended, allowed)


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
