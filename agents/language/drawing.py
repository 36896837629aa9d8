"""Drawing tokens from logits: seeded row by row, stopped by texts, if wanted among given sequences only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rwml_gym.errors import InvalidConfigError

__all__ = ["Choices", "Completion", "Stop", "Writer", "uniforms"]

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
