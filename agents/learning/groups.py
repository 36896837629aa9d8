"""The groups of an update, and how they are divided into forward passes.

A group whose prompt is at least as long as its completions is one row of work: prompt and completions share a pass. A
group with longer completions, such as the episodes of a game, is divided into passes over its completions. Its prompt
runs once before them, and once backward after them (`SharedPrefix.entrance`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.shared_prefix import SharedPrefix

__all__ = ["Batch", "Group", "Passes", "collate", "divide"]

# A prompt of fewer tokens runs with each completion: a pass of its own reads all weights for little.
_WORTH_SHARING = 32


@dataclass(frozen=True)
class Group:
    """One prompt and its G completions, for the update of both training stages.

    Attributes:
        prompt: Token ids.
        completions: G non-empty token lists.
        advantages: One number per completion, or one per token.
        logprobs: Log-probabilities of the tokens at sampling time, to measure the mismatch with training.
        mask: 1 on the model's own tokens, 0 on others (an environment's); all 1 if absent.
        allowed: For each completion and token the ids it was chosen from, `None` for the whole vocabulary
            (constrained decoding). The policy's probabilities are normalised over these ids.
        prefix: The prompt as it ran for sampling, with its graph (`sampling.run_prompts`). The update's first iteration
            uses it up: the gradient is that of a prompt that runs again. Later iterations and the reference run the
            prompt again.
        targets: For each completion and token the id whose probability the observation loss raises in its place, -1
            for none; only where the mask is 0. Without such a loss absent.
        target_factor: Factor of the observation loss of this group's targets.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    advantages: Sequence[float] | Sequence[Sequence[float]]
    logprobs: Sequence[Sequence[float]] | None = None
    mask: Sequence[Sequence[int]] | None = None
    allowed: Sequence[Sequence[Sequence[int] | None]] | None = None
    prefix: SharedPrefix | None = None
    targets: Sequence[Sequence[int]] | None = None
    target_factor: float = 1.0

    def rows(self) -> list[Group]:
        """Return each completion as a separate group."""
        return [self.take([i]) for i in range(len(self.completions))]

    def take(self, rows: Sequence[int]) -> Group:
        """Return the group of some of the completions, by their indices; without the kept prompt."""
        return replace(
            self,
            completions=[self.completions[i] for i in rows],
            advantages=cast(Sequence[float], [self.advantages[i] for i in rows]),
            logprobs=self.logprobs and [self.logprobs[i] for i in rows],
            mask=self.mask and [self.mask[i] for i in rows],
            allowed=self.allowed and [self.allowed[i] for i in rows],
            targets=self.targets and [self.targets[i] for i in rows],
            prefix=None,
        )

    @property
    def longest(self) -> int:
        """Number of tokens of the longest completion."""
        return max(map(len, self.completions))

    @property
    def counted(self) -> int:
        """Number of tokens that count in the loss."""
        return sum(map(sum, self.mask)) if self.mask else sum(map(len, self.completions))

    @property
    def observed(self) -> int:
        """Number of tokens that the observation loss learns."""
        return sum(target >= 0 for row in self.targets or () for target in row)


@dataclass(frozen=True)
class Passes:
    """Forward passes that belong together.

    Attributes:
        parts: The groups of each pass.
        prompt: The prompt that all passes share; `None` if every pass runs its own prompts.
        prefix: That prompt as it ran for sampling, if it was kept.
    """

    parts: list[list[Group]]
    prompt: Sequence[int] | None = None
    prefix: SharedPrefix | None = None


def divide(groups: Sequence[Group], budget: int) -> Iterator[Passes]:
    """Yield the passes over groups of any sizes.

    Args:
        groups: The groups of an update.
        budget: Token limit of a pass; at least one row or group always runs.
    """
    rest: list[Group] = []
    for group in groups:
        if group.longest <= len(group.prompt):
            rest.append(group)
        elif len(group.completions) == 1 or len(group.prompt) < _WORTH_SHARING:
            rest += group.rows()
        else:
            yield Passes([[part] for part in _row_parts(group, budget)], group.prompt, group.prefix)
    for part in _micro_batches(rest, budget):
        yield Passes([part])


def _row_parts(group: Group, budget: int) -> Iterator[Group]:
    """Yield a group in parts; the prompt counts in each, because its graph is in memory meanwhile."""
    order = sorted(range(len(group.completions)), key=lambda i: len(group.completions[i]))
    rows: list[int] = []
    for row in order:
        if rows and len(group.prompt) + (len(rows) + 1) * len(group.completions[row]) > budget:
            yield group.take(rows)
            rows = []
        rows.append(row)
    yield group.take(rows)


def _micro_batches(parts: Sequence[Group], budget: int) -> Iterator[list[Group]]:
    """Yield the groups of each pass that runs its own prompts."""
    # Similar lengths share a pass, so that little is padded; all groups of a pass have the same size.
    order = sorted(parts, key=lambda g: (len(g.completions), len(g.prompt) + g.longest))
    batch: list[Group] = []
    for part in order:
        wider = [*batch, part]
        prompts, longest = max(len(g.prompt) for g in wider), max(g.longest for g in wider)
        tokens = len(wider) * (prompts + len(part.completions) * longest)
        if batch and (tokens > budget or len(batch[0].completions) != len(part.completions)):
            yield batch
            wider = [part]
        batch = wider
    if batch:
        yield batch


@dataclass(frozen=True)
class Batch:
    """Groups of equal size as tensors with one row per completion; the rows of a group are adjacent.

    Attributes:
        prompts: One token list per group.
        tokens: (R, T) token ids of the completions, right-padded.
        mask: (R, T), 1 on the tokens that count.
        advantages: (R, T).
        sampled: (R, T) log-probabilities at sampling time, if all groups have them.
        allowed: See `Group.allowed`.
        targets: (R, T) ids that the observation loss learns, -1 for none; `None` if no group has any.
        target_factors: (R,) factor of the observation loss.
    """

    prompts: list[list[int]]
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    sampled: Tensor | None
    allowed: list[Sequence[Sequence[int] | None]] | None
    targets: Tensor | None
    target_factors: Tensor

    def logprobs(
        self,
        model: nn.Module,
        prefix: SharedPrefix | None = None,
        observations: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        """Return the log-probabilities of the completions, (R, T), 0 on tokens that do not count.

        Args:
            model: The policy.
            prefix: The prompts, already run by the model as it is.
            observations: Whether those of the observation loss's `targets` are in their places.
            temperature: Temperature of the completions' distribution; that of targets is 1.
        """
        wanted, targets = self.mask, self.tokens
        tempered = None if temperature == 1 else torch.where(self.mask > 0, temperature, torch.ones_like(self.mask))
        if observations and self.targets is not None:
            learnt = self.targets >= 0
            wanted, targets = torch.maximum(wanted, learnt.to(wanted.dtype)), torch.where(learnt, self.targets, targets)
        return completion_logprobs(
            model,
            self.prompts,
            self.tokens,
            wanted,
            self.allowed,
            prefix=prefix,
            targets=targets,
            temperatures=tempered,
        )


def collate(groups: Sequence[Group], device: torch.device) -> Batch:
    """Return groups of equal size as tensors.

    Args:
        groups: The groups of one pass.
        device: Device of the tensors.
    """
    completions = [list(c) for g in groups for c in g.completions]
    advantages = [a for g in groups for a in g.advantages]
    masks = [m for g in groups for m in (g.mask if g.mask is not None else [[1] * len(c) for c in g.completions])]
    tokens = _pad(completions, torch.long, device)
    per_token = [
        list(a) if isinstance(a, Sequence) else [float(a)] * len(c)
        for a, c in zip(advantages, completions, strict=True)
    ]
    sampled = None
    if all(g.logprobs is not None for g in groups):
        sampled = _pad([p for g in groups for p in g.logprobs or ()], torch.float32, device)
    return Batch(
        [list(g.prompt) for g in groups],
        tokens,
        _pad(masks, torch.float32, device),
        _pad(per_token, torch.float32, device),
        sampled,
        _allowed(groups),
        _targets(groups, device),
        torch.tensor([g.target_factor for g in groups for _ in g.completions], device=device),
    )


def _pad(rows: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device, fill: float = 0) -> Tensor:
    padded = torch.full((len(rows), max(map(len, rows))), fill, dtype=dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row, dtype=dtype)
    return padded.to(device)


def _allowed(groups: Sequence[Group]) -> list[Sequence[Sequence[int] | None]] | None:
    if all(g.allowed is None for g in groups):
        return None
    return [row for g in groups for row in (g.allowed or [[None] * len(c) for c in g.completions])]


def _targets(groups: Sequence[Group], device: torch.device) -> Tensor | None:
    if all(g.targets is None for g in groups):
        return None
    rows = [row for g in groups for row in (g.targets or [[-1] * len(c) for c in g.completions])]
    return _pad(rows, torch.long, device, fill=-1)
