"""Generation that keeps the keys and values of each episode from turn to turn.

A turn's prompt is the episode so far and a few new tokens, and only the new tokens run. A prompt that several episodes
share runs once. Rows of unequal length have no padding between their tokens. The slot number identifies an episode.
The cached part is found by comparing token ids, so a prompt need not extend the previous one: the common beginning is
reused, and the rest runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.logprobs import head_at
from rwml_gym.agents.language.models import merged
from rwml_gym.agents.language.ragged_cache import RaggedCache
from rwml_gym.agents.language.sampling import Choices, Completion, Stop, Writer, end_tokens, uniforms
from rwml_gym.agents.language.shared_prefix import cache_argument, rest_logits

__all__ = ["Request", "Sessions"]

# Token limit per row and forward pass over prompts; it bounds the memory of a pass.
_CHUNK = 256
# A copy of fewer keys and values than this does not pay off.
_WORTH_COPYING = 16
# Finished rows leave the batch when they are at least this share of it.
_COMPACT_AT = 0.5


@dataclass(frozen=True)
class Request:
    """A request for one completion.

    Attributes:
        slot: Number of the episode.
        prompt: All tokens of the episode so far.
        seed: Seed of the sampling; the completion depends on it and the prompt, not on the rest of the batch.
        choices: The permitted completions; any text if absent.
    """

    slot: int
    prompt: Sequence[int]
    seed: int = 0
    choices: Choices | None = None


class Sessions:
    """Generates for many episodes in one batch and keeps the keys and values of each.

    Args:
        model: A model of `language.models.load_model`, with or without adapter. Call `clear` after its weights change.
        tokenizer: The model's tokenizer.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.run_tokens = 0  # number of tokens that ran through the model, without padding
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._cache = RaggedCache()
        self._slots: list[int | None] = []
        self._read: list[list[int]] = []

    def forget(self, slots: Sequence[int]) -> None:
        """Release the rows of these slots; a new episode with the same beginning still reuses them."""
        for row, slot in enumerate(self._slots):
            if slot in slots:
                self._slots[row] = None

    def generate(
        self, requests: Sequence[Request], *, max_new_tokens: int, temperature: float = 1.0, stop: Sequence[Stop] = ()
    ) -> list[Completion]:
        """Return one completion per request, in the order of the requests.

        Args:
            requests: Requests of different slots.
            max_new_tokens: Token limit of a completion.
            temperature: Sampling temperature; 0 is greedy.
            stop: See `language.sampling.sample`.
        """
        if not requests:
            return []
        with torch.inference_mode(), merged(self.model):
            logits = self._read_prompts(requests)
            draws = torch.stack([uniforms(request.seed, max_new_tokens) for request in requests])
            choices = [request.choices for request in requests]
            eos = end_tokens(self.model, self.tokenizer)
            writer = Writer(self.tokenizer, eos, draws, temperature, stop, choices)
            self._write(writer, [request.slot for request in requests], logits, max_new_tokens)
        return [writer.completion(i) for i in range(len(requests))]

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """Return the log-probability of each continuation of each request; only the prompts stay in the cache.

        Args:
            requests: Requests of different slots; `seed` and `choices` are ignored.
            options: The continuations of each request, as non-empty token lists.
        """
        if not requests:
            return []
        with torch.inference_mode(), merged(self.model):
            logits = self._read_prompts(requests).float().log_softmax(-1)
            return [self._score(self._row(request.slot), logits[i], options[i]) for i, request in enumerate(requests)]

    def _score(self, row: int, first: Tensor, options: Sequence[Sequence[int]]) -> list[float]:
        device = first.device
        width = max(map(len, options))
        tokens = torch.tensor([[*option, *[0] * (width - len(option))] for option in options], device=device)
        counts = torch.tensor([[i < len(option) for i in range(width)] for option in options], device=device)
        logprobs = first[tokens[:, :1]]
        if width > 1:
            rest = rest_logits(self.model, self._cache.prefix(row, len(self._read[row])), tokens).float()
            logprobs = torch.cat([logprobs, rest.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]], 1)
        return (logprobs * counts).sum(1).tolist()

    # Reading

    def _read_prompts(self, requests: Sequence[Request]) -> Tensor:
        """Run the new part of each prompt; return the logits after its last token, (n, vocabulary)."""
        known = {slot for slot in self._slots if slot is not None}
        fresh = [request for request in requests if request.slot not in known]
        for request in fresh:
            self._begin(request)
        if len(fresh) > 1:
            self._read_shared(fresh)
        rows = [self._row(request.slot) for request in requests]
        for row, request in zip(rows, requests, strict=True):
            # The last token always runs, because its logits are needed.
            kept = min(_common(self._read[row], request.prompt), len(request.prompt) - 1)
            del self._read[row][kept:]
        news = [request.prompt[len(self._read[row]) :] for row, request in zip(rows, requests, strict=True)]
        return self._run(rows, [list(new) for new in news])

    def _begin(self, request: Request) -> None:
        """Assign a row to a new episode and reuse the longest beginning of its prompt that is cached."""
        common = [_common(read, request.prompt) for read in self._read]
        free = [row for row, slot in enumerate(self._slots) if slot is None]
        # Prefer the free row with the longest common beginning, because it may make a copy unnecessary.
        row = max(free, key=lambda r: common[r]) if free else len(self._slots)
        if row == len(self._slots):
            self._slots.append(None)
            self._read.append([])
            self._cache.ensure(rows=len(self._slots))
            common.append(0)
        source = max(range(len(common)), key=lambda r: common[r])
        if common[source] >= common[row] + _WORTH_COPYING:
            self._cache.copy(source, [row], common[source])
            self._read[row] = self._read[source][: common[source]]
        else:
            del self._read[row][common[row] :]
        self._slots[row] = request.slot

    def _read_shared(self, fresh: Sequence[Request]) -> None:
        """Run the common beginning of new episodes once, and every prompt that several of them share once."""
        everyone = fresh[0].prompt[: min(_common(fresh[0].prompt, request.prompt) for request in fresh)]
        same: dict[tuple[int, ...], list[int]] = {}
        for request in fresh:
            same.setdefault(tuple(request.prompt), []).append(self._row(request.slot))
        self._read_once([(list(everyone), [row for rows in same.values() for row in rows])])
        self._read_once([(list(prompt), rows) for prompt, rows in same.items() if len(rows) > 1])

    def _read_once(self, shared: Sequence[tuple[list[int], list[int]]]) -> None:
        """Run each text in one of the rows that begin with it and copy the result to its other rows."""
        shared = [
            (text, rows)
            for text, rows in shared
            if len(text) - 1 >= min(len(self._read[row]) for row in rows) + _WORTH_COPYING
        ]
        if not shared:
            return
        leaders = [max(rows, key=lambda row: len(self._read[row])) for _, rows in shared]
        missing = [text[len(self._read[row]) : -1] for (text, _), row in zip(shared, leaders, strict=True)]
        busy = [i for i, tokens in enumerate(missing) if tokens]
        if busy:
            self._run([leaders[i] for i in busy], [missing[i] for i in busy], logits=False)
        for (text, rows), leader in zip(shared, leaders, strict=True):
            behind = [row for row in rows if len(self._read[row]) < len(text) - 1]
            self._cache.copy(leader, behind, len(text) - 1)
            for row in behind:
                self._read[row] = list(text[:-1])

    def _run(self, rows: Sequence[int], texts: Sequence[list[int]], logits: bool = True) -> Tensor:
        """Append a text to each row; return the logits after each last token, (n, vocabulary)."""
        last: list[Tensor | None] = [None] * len(rows)
        done = [0] * len(rows)
        while pending := [i for i in range(len(rows)) if done[i] < len(texts[i])]:
            # Similar lengths run together, because one long prompt would pad all short answers.
            shortest = min(len(texts[i]) - done[i] for i in pending)
            chosen = [i for i in pending if len(texts[i]) - done[i] <= max(2 * shortest, 32)]
            chosen.sort(key=lambda i: rows[i])  # all rows in order are a view of the cache, not a copy
            parts = [texts[i][done[i] : done[i] + _CHUNK] for i in chosen]
            ends = [logits and done[i] + len(part) == len(texts[i]) for i, part in zip(chosen, parts, strict=True)]
            out = self._forward([rows[i] for i in chosen], parts, ends)
            for i, part, end in zip(chosen, parts, ends, strict=True):
                done[i] += len(part)
                if end:
                    last[i], out = out[0], out[1:]
        return torch.stack([row for row in last if row is not None]) if logits else torch.empty(0)

    def _forward(self, rows: Sequence[int], texts: Sequence[Sequence[int]], ends: Sequence[bool]) -> Tensor:
        """Run one pass over a part of each text; return the logits at the wanted ends, (n, vocabulary)."""
        device = next(self.model.parameters()).device
        width = max(map(len, texts))
        tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
        wanted = torch.zeros(tokens.shape, dtype=torch.bool)
        for i, text in enumerate(texts):
            wanted[i, len(text) - 1] = ends[i]
        lengths = torch.tensor([len(self._read[row]) for row in rows], device=device)
        with head_at(self.model, wanted.to(device)):
            out = self._call(rows, lengths, tokens)
        for row, text in zip(rows, texts, strict=True):
            self._read[row] += text
            self.run_tokens += len(text)
        return out

    def _call(self, rows: Sequence[int], lengths: Tensor, tokens: Tensor) -> Tensor:
        positions = lengths[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        seen = self._cache.open(rows, positions)
        keys = torch.arange(seen, device=tokens.device)
        return self.model(
            input_ids=tokens,
            attention_mask=(keys <= positions[..., None])[:, None],  # causal within each row
            position_ids=positions,
            query_positions=positions,
            **cache_argument(self.model, self._cache),
            use_cache=True,
        ).logits

    # Writing

    def _write(self, writer: Writer, slots: Sequence[int], logits: Tensor, max_new_tokens: int) -> None:
        order = self._to_the_front(slots, range(len(slots)))
        logits = logits[order]
        for step in range(max_new_tokens):
            tokens = writer.append(logits, order)
            alive = writer.alive(order)
            if not alive or step + 1 == max_new_tokens:
                return
            if len(alive) <= (1 - _COMPACT_AT) * len(order):
                tokens = tokens[[order.index(i) for i in alive]]
                moved = self._to_the_front(slots, alive)
                tokens = tokens[[alive.index(i) for i in moved]]
                order = moved
            device = tokens.device
            lengths = torch.tensor([len(self._read[row]) for row in range(len(order))], device=device)
            logits = self._call(range(len(order)), lengths, tokens)[:, -1]
            for row, (i, token) in enumerate(zip(order, tokens.flatten().tolist(), strict=True)):
                if not writer.rows[i].ended:
                    self._read[row].append(token)
                    self.run_tokens += 1

    def _to_the_front(self, slots: Sequence[int], chosen: Sequence[int]) -> list[int]:
        """Move the rows of the chosen slots to the front, where they are a view; return them in row order."""
        rows = {self._row(slots[i]): i for i in chosen}
        places = [row for row in range(len(rows)) if row not in rows]
        for place, row in zip(places, sorted(row for row in rows if row >= len(rows)), strict=True):
            self._cache.swap(place, row, len(self._read[place]), len(self._read[row]))
            self._slots[place], self._slots[row] = self._slots[row], self._slots[place]
            self._read[place], self._read[row] = self._read[row], self._read[place]
            rows[place] = rows.pop(row)
        return [rows[row] for row in range(len(rows))]

    def _row(self, slot: int) -> int:
        return self._slots.index(slot)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common beginning of two token lists."""
    length = min(len(a), len(b))
    if list(a[:length]) == list(b[:length]):
        return length
    return next(i for i in range(length) if a[i] != b[i])
