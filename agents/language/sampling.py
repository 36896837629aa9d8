"""Sampling: tokens drawn from logits, and many completions of a prompt that runs once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedTokenizerBase

from rwml_gym.agents.language.models import merged, mixed_precision
from rwml_gym.agents.language.shared_prefix import SharedPrefix, cache_argument, encode_prompts
from rwml_gym.errors import InvalidConfigError, TrainingDivergedError

__all__ = [
    "Choices",
    "Completion",
    "Stop",
    "Writer",
    "cut_at_stop",
    "draw",
    "end_tokens",
    "run_prompts",
    "sample",
    "uniforms",
]

# Rows are regrouped when this share of them has finished, because regrouping copies keys and values.
_COMPACT_AT = 0.25
# Probabilities of this many tokens are added up before it is known which of them is drawn; a vocabulary that is not
# divisible is filled up.
_BLOCK, _SMALLEST_BLOCK = 256, 16

Stop = str | re.Pattern[str]
"""Where a text ends: before a string, or after the match of a pattern."""


@dataclass(frozen=True)
class Completion:
    """A sampled completion of a prompt.

    Attributes:
        tokens: Token ids, including those that ended it.
        logprobs: Log-probability of each token under the distribution it was drawn from (natural logarithm).
        text: The decoded tokens up to the stop text, without special tokens.
        finished: Whether the completion ended before the token limit.
        allowed: For each token the ids it was chosen from, `None` for the whole vocabulary; `None` if there were no
            choices.
    """

    tokens: list[int]
    logprobs: list[float]
    text: str
    finished: bool
    allowed: list[list[int] | None] | None = None


class Choices:
    """The only token sequences that a row can produce, or begin with.

    Args:
        sequences: Non-empty token lists. A sequence that is the beginning of another needs an end token of its own,
            such as the line break after a command; otherwise only the longer one can be chosen.
        then_free: Whether any text follows a sequence, up to a stop. Otherwise the row ends with it.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], then_free: bool = False) -> None:
        self.then_free = then_free
        self._root: dict[int, dict] = {}
        for sequence in sequences:
            if not sequence:
                raise InvalidConfigError("Expected sequences of at least 1 token, actual: an empty one. Remove it.")
            node = self._root
            for token in sequence:
                node = node.setdefault(int(token), {})
        if not self._root:
            raise InvalidConfigError("Expected at least one sequence to choose from, actual: none.")

    def after(self, tokens: Sequence[int]) -> list[int] | None:
        """Return the tokens that may follow these: none after a complete sequence, or `None`, any token."""
        node = self._root
        for token in tokens:
            if not node:  # in the free text
                break
            node = node[int(token)]
        return None if self.then_free and not node else sorted(node)


def uniforms(seed: int, count: int) -> Tensor:
    """Return the random numbers of `count` tokens, (count,) float32; they depend on the seed only."""
    return torch.from_numpy(np.random.Generator(np.random.Philox(seed)).random(count, dtype=np.float32))


@dataclass
class _Row:
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    allowed: list[list[int] | None] = field(default_factory=list)
    ended: bool = False


class Writer:
    """The tokens of R rows and the rules by which they are drawn and end.

    Args:
        tokenizer: The model's tokenizer.
        eos: Token ids that end a row.
        draws: (R, token limit) uniform random numbers, one per token.
        temperature: Sampling temperature; 0 is greedy.
        stop: A row ends as soon as its text contains one of these strings or matches one of these patterns.
        choices: The permitted sequences of each row, `None` for any text.
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
        self.stop = tuple(stop)
        # A string that was just completed lies in this many last tokens, each of which holds at least one byte of it.
        # A pattern may need the whole text.
        tail = max((len(s.encode()) for s in stop if isinstance(s, str)), default=0) + 1
        self.reach = -tail if all(isinstance(s, str) for s in stop) else None
        self.rows = [_Row() for _ in range(len(draws))]
        self.choices = choices if choices is not None and any(choices) else [None] * len(draws)

    def alive(self, rows: Iterable[int]) -> list[int]:
        """Return the rows that have not ended."""
        return [row for row in rows if not self.rows[row].ended]

    def append(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Draw the next token of each row, (len(rows), 1) ids; a row that has ended gets a filler token.

        Args:
            logits: (len(rows), vocabulary), on the device of the returned ids.
            rows: Row numbers in 0 … R - 1.

        Raises:
            TrainingDivergedError: A probability is not a number, so no token can be drawn.
        """
        living = [i for i, row in enumerate(rows) if not self.rows[row].ended]
        allowed = {i: self._allowed(rows[i]) for i in living} if any(self.choices) else {}
        ids, logprobs = [0] * len(rows), [0.0] * len(rows)
        # Few tokens are permitted where there are choices, so that part needs no pass over the vocabulary.
        permitted = {i: ids for i, ids in allowed.items() if ids}
        free = [i for i in living if i not in permitted]
        for some, of in ((free, None), (list(permitted), list(permitted.values()))):
            if some:
                own = logits if len(some) == len(rows) else logits[some]
                for i, token, logprob in zip(some, *self._draw(own, [rows[i] for i in some], of), strict=True):
                    ids[i], logprobs[i] = token, logprob
        if any(map(math.isnan, logprobs)):
            raise TrainingDivergedError(
                "Expected probabilities of the next token, actual: NaN from the language model. Its weights or its "
                "adapter's have diverged: take an earlier checkpoint, a smaller learning rate, or --dtype float32."
            )
        for i in living:
            state = self.rows[rows[i]]
            state.tokens.append(ids[i])
            state.logprobs.append(logprobs[i])
            if i in allowed:
                state.allowed.append(allowed[i])
        self._end([rows[i] for i in living])
        return torch.tensor(ids, device=logits.device)[:, None]

    def _draw(
        self, logits: Tensor, rows: Sequence[int], permitted: Sequence[Sequence[int]] | None
    ) -> tuple[list[int], list[float]]:
        """Return a token and its log-probability for each row, of the permitted ones."""
        names = None
        if permitted is not None:
            width = max(map(len, permitted))
            names = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in permitted], device=logits.device)
            real = torch.tensor([[i < len(ids) for i in range(width)] for ids in permitted], device=logits.device)
            logits = logits.gather(-1, names).float().masked_fill(~real, -torch.inf)
        if self.temperature > 0:
            places = [min(len(self.rows[row].tokens), self.draws.shape[1] - 1) for row in rows]
            draws = self.draws[list(rows), places].to(logits.device)
            logits = logits.float()
            tokens, logprobs = draw(logits if self.temperature == 1 else logits / self.temperature, draws)
        else:
            logits = logits.float()
            tokens = logits.argmax(-1)
            logprobs = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        if names is not None:
            tokens = names.gather(-1, tokens[:, None])[:, 0]
        return tokens.tolist(), logprobs.tolist()

    def _allowed(self, row: int) -> list[int] | None:
        choices = self.choices[row]
        return None if choices is None or self.rows[row].ended else choices.after(self.rows[row].tokens)

    def _end(self, rows: Sequence[int]) -> None:
        """Mark the rows whose last token ended them."""
        # Special tokens are left out, as in the final text: their names must not match a stop string.
        ends = [self.rows[row].tokens[self.reach :] for row in rows]
        tails = self.tokenizer.batch_decode(ends, skip_special_tokens=True)
        for row, tail in zip(rows, tails, strict=True):
            state, choices = self.rows[row], self.choices[row]
            state.ended = (
                state.tokens[-1] in self.eos
                or cut_at_stop(tail, self.stop) is not None
                or (choices is not None and choices.after(state.tokens) == [])
            )

    def completion(self, row: int) -> Completion:
        """Return the completion of a row."""
        state = self.rows[row]
        text = str(self.tokenizer.decode(state.tokens, skip_special_tokens=True))
        cut = cut_at_stop(text, self.stop)
        allowed = state.allowed if self.choices[row] is not None else None
        return Completion(state.tokens, state.logprobs, text if cut is None else cut, state.ended, allowed)


def draw(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the token at which the cumulated probabilities pass a random number, and return its log-probability, too.

    The probabilities are cumulated over blocks first, and then within the one block that the number falls into, because
    one pass over a vocabulary takes a processor as long as a layer of a small model.

    Args:
        logits: (n, vocabulary) float32.
        uniforms: (n,) random numbers in [0, 1).

    Returns:
        (n,) ids and (n,) natural logarithms, NaN where the logits are no numbers.
    """
    rows, vocabulary = logits.shape
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    block = math.gcd(vocabulary, _BLOCK)
    if block < _SMALLEST_BLOCK:
        weights, block = functional.pad(weights, (0, -vocabulary % _BLOCK)), _BLOCK
    blocks = weights.view(rows, -1, block)
    sums = blocks.sum(-1)
    ends = sums.cumsum(-1)
    targets = _below(uniforms[:, None] * ends[:, -1:], ends[:, -1:])
    place = torch.searchsorted(ends, targets, right=True).clamp_(max=ends.shape[-1] - 1)
    inner = blocks[torch.arange(rows, device=logits.device), place[:, 0]].cumsum(-1)
    rest = _below(targets - (ends.gather(-1, place) - sums.gather(-1, place)), inner[:, -1:])
    tokens = place * block + torch.searchsorted(inner, rest, right=True).clamp_(max=block - 1)
    tokens = tokens.clamp_(max=vocabulary - 1)
    logprobs = logits.gather(-1, tokens) - top - ends[:, -1:].log()
    return tokens[:, 0], logprobs[:, 0]


def _below(targets: Tensor, ends: Tensor) -> Tensor:
    """Keep numbers below the end of the probabilities, behind which no token is possible, however they are rounded."""
    return torch.minimum(targets, torch.nextafter(ends, torch.zeros_like(ends)))


def cut_at_stop(text: str, stop: Sequence[Stop]) -> str | None:
    """Return the text up to its earliest stop, `None` if it contains no stop."""
    starts = [text.find(s) for s in stop if isinstance(s, str)]
    matches = [s.search(text) for s in stop if not isinstance(s, str)]
    ends = [at for at in starts if at >= 0] + [match.end() for match in matches if match]
    return text[: min(ends)] if ends else None


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
    places: Sequence[int] | None = None,
    prefixes: Sequence[SharedPrefix] | None = None,
) -> list[list[Completion]]:
    """Return P lists of `n` sampled completions, one list per prompt.

    The random number of a token depends on the seed, the prompt's index, the completion's index and the token's
    position only (for a given `n` and `max_new_tokens`). Regrouping and `batch_rows` do not change the numbers.

    Args:
        model: A model of `language.models.load_model`, with or without adapter; an adapter is merged meanwhile.
        tokenizer: The model's tokenizer.
        prompts: P non-empty token lists.
        n: Number of completions per prompt.
        max_new_tokens: Token limit of a completion.
        temperature: Sampling temperature; 0 is greedy.
        stop: A completion ends as soon as its text contains one of these strings or matches one of these patterns.
        seed: Seed of the sampling.
        batch_rows: Number of completions sampled in parallel.
        progress: Called with the number of prompts completed since the last call.
        places: Index of each prompt in the batch that these prompts are a share of, for the random numbers; 0 … P - 1
            if absent.
        prefixes: The P prompts, already run by the model as it is, see `run_prompts`; then they do not run again. The
            random numbers are the same. The logits differ by rounding, because these were computed with the adapter
            beside the weights, so a draw that falls between two tokens may fall on the other one.
    """
    generator = torch.Generator().manual_seed(seed)
    results: list[list[Completion]] = [[] for _ in prompts]
    if not prompts:
        return results
    places = range(len(prompts)) if places is None else places
    # A generator fills a tensor from its beginning, so the numbers of a place do not depend on how many places follow.
    uniforms = torch.rand((max(places) + 1, n, max_new_tokens), generator=generator)[list(places)]
    # Similar lengths share a batch: they need little padding and end at about the same time.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, batch_rows // n)
    with torch.inference_mode(), merged(model):
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            if prefixes is None:
                prefix = encode_prompts(model, [prompts[i] for i in chosen], tokenizer.pad_token_id or 0)
            else:
                prefix = SharedPrefix.join([prefixes[i].detach() for i in chosen])
            batch = _Batch(model, tokenizer, prefix, n, stop, uniforms[chosen], temperature)
            for i, completions in zip(chosen, batch.run(), strict=True):
                results[i] = completions
            if progress is not None:
                progress(len(chosen))
    return results


def run_prompts(model: nn.Module, prompts: Sequence[Sequence[int]]) -> list[SharedPrefix]:
    """Run each prompt once for both uses in an on-policy step: `sample` reads it, and the update's gradient enters it.

    The graphs take the memory of a training pass over all prompts, until the update or until they are dropped.

    Args:
        model: The policy; its adapter must not be merged and not change until the update.
        prompts: P non-empty token lists.

    Returns:
        P prefixes of one prompt each. `SharedPrefix.join` makes any of them one, so a pass of the update may hold any.
    """
    with mixed_precision(model):
        return [encode_prompts(model, [prompt], 0) for prompt in prompts]


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the token ids that end a completion of the model."""
    eos = model.generation_config.eos_token_id  # type: ignore[union-attr]
    return set(eos if isinstance(eos, list) else [eos]) | {tokenizer.eos_token_id}


class _Batch:
    """P prompts with n completions each, sampled until all of them have ended.

    `rows` holds the row numbers (0 … P·n - 1) as the rectangle, prompts by slots, that attention to shared keys needs.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prefix: SharedPrefix,
        n: int,
        stop: Sequence[Stop],
        uniforms: Tensor,
        temperature: float,
    ) -> None:
        self.model, self.n, self.max_new_tokens = model, n, uniforms.shape[-1]
        draws = uniforms.reshape(-1, self.max_new_tokens)
        self.writer = Writer(tokenizer, end_tokens(model, tokenizer), draws, temperature, stop)
        self.prefix = prefix
        self.cache = DynamicCache()
        self.rows = torch.arange(len(draws)).view(-1, n)

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
        """Drop ended rows once there are enough of them; the remaining rows stay a rectangle."""
        alive = torch.tensor([not row.ended for row in self.writer.rows])[self.rows]
        slots = int(alive.sum(1).max())
        prompts = alive.any(1).nonzero().flatten()
        if len(prompts) * slots > (1 - _COMPACT_AT) * self.rows.numel():
            return tokens
        # For each prompt, the running rows come first; ended rows fill the rectangle.
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
            **cache_argument(self.model, self.cache),
            use_cache=True,
            shared_prefix=self.prefix,
        )
        return out.logits[:, -1]
