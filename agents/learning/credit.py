"""Credit assignment: a group of episodes becomes GRPO groups with advantages of episodes and of single turns.

An episode's advantage is its task reward relative to its group (GRPO, arXiv 2402.03300). A turn's advantage is the gap
reward of its own prediction relative to all turns of the group. No other turn shares it, because a prediction is scored
as soon as its turn is over. `Delivery` says which tokens of the turn get it. A token of the model gets the weighted sum
of both. The world's own tokens can be targets of an auxiliary loss (`Answers`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.groups import Group
from rwml_gym.agents.learning.grpo import group_advantages
from rwml_gym.agents.learning.options import GapDelivery, GapTokens, SequenceOf, TaskTokens
from rwml_gym.agents.players.language_model import TurnRecord
from rwml_gym.agents.players.rollout import Episode
from rwml_gym.agents.players.spans import action_tokens, find_tokens, prediction_tokens
from rwml_gym.errors import InvalidConfigError

__all__ = ["Answers", "Credit", "Delivery", "credit_episodes"]

_NOTHING = 1e-9  # advantages below are rounding


@dataclass(frozen=True)
class Delivery:
    """How rewards become advantages of tokens.

    Attributes:
        task_weight: Factor of the episode's advantage.
        gap_weight: Factor of the turn's advantage.
        scale: Whether the episode's advantage is divided by the group's standard deviation, see `group_advantages`.
        gap: `mean_only` or `z_score`, see `config.policy.PolicyStageConfig`.
        gap_tokens: `prediction` or `all`, likewise.
        task_tokens: `all` or `action`, likewise.
        gap_in_failed_groups: Whether gap rewards count in a group of which no episode was won. They do count where the
            environment does not say which are.
    """

    task_weight: float = 1.0
    gap_weight: float = 0.0
    scale: bool = True
    gap: GapDelivery = "mean_only"
    gap_tokens: GapTokens = "prediction"
    task_tokens: TaskTokens = "all"
    gap_in_failed_groups: bool = False


@dataclass(frozen=True)
class Answers:
    """What an auxiliary loss learns of the world's answers.

    Attributes:
        texts: For each episode and turn the text to learn: the world's answer, or a placebo of any length.
        turns: Share of the turns that count, those whose actions have the highest entropy.
        by_failure: Whether the loss has the share of lost episodes as a factor.
    """

    texts: Sequence[Sequence[str]]
    turns: float = 1.0
    by_failure: bool = False


@dataclass(frozen=True)
class Credit:
    """What the episodes of one game give to an update.

    Attributes:
        groups: One group per prompt; without advantages only where there are answers to learn.
        signal: Whether any advantage is not 0.
        failed: Whether no episode was won; not where the environment says of none whether it is.
        task_square: Sum of the squared advantages of task success over the model's tokens.
        gap_square: The same of the gap reward.
    """

    groups: list[Group] = field(default_factory=list)
    signal: bool = False
    failed: bool = False
    task_square: float = 0.0
    gap_square: float = 0.0


def credit_episodes(
    episodes: Sequence[Episode],
    prompts: Prompts,
    sequence: SequenceOf = "episode",
    delivery: Delivery | None = None,
    answers: Answers | None = None,
) -> Credit:
    """Return the groups for an update from G episodes of one game.

    Args:
        episodes: The episodes. Failed ones are ignored, and fewer than two others give nothing.
        prompts: The prompts that the agent played with.
        sequence: `episode`: one sequence per episode, with the observations masked out, and several whenever a turn's
            prompt does not extend the previous one. `turn`: one sequence per turn, as with a history window.
        delivery: How rewards become advantages; task success alone if absent.
        answers: What to learn of the world's answers; nothing if absent.

    Raises:
        InvalidConfigError: Answers are weighed by failure, and the environment does not say which episodes are won.
    """
    delivery = delivery or Delivery()
    usable = [i for i, episode in enumerate(episodes) if episode.error is None and episode.rewards]
    if len(usable) < 2:
        return Credit()
    played = [episodes[i] for i in usable]
    judged = any(episode.judged for episode in played)
    failed = judged and not any(episode.won for episode in played)
    tasks, gaps = _advantages(played, delivery, failed)
    signal = max(np.abs(tasks).max(), max(np.abs(gap).max() for gap in gaps)) > _NOTHING
    if not signal and answers is None:
        return Credit(failed=failed)
    taught: list[Sequence[str | None]] = [[None] * len(episode.written) for episode in played]
    factor = 1.0
    if answers is not None:
        if answers.by_failure and not judged:
            raise InvalidConfigError(
                'Expected info["won"] with observation_loss.by_failure, actual: the environment does not say which '
                "episodes are won. Set by_failure to false."
            )
        if answers.by_failure:
            factor = sum(not episode.won for episode in played) / len(played)
        taught = _taught(played, [answers.texts[i] for i in usable], answers.turns)
    by_prompt: dict[tuple[int, ...], list[_Row]] = {}
    task_square = gap_square = 0.0
    for episode, task, gap, texts in zip(played, tasks, gaps, taught, strict=True):
        for row in _rows(episode, prompts, sequence, float(task), gap, texts, delivery):
            task_square += float(np.square(row.task).sum())
            gap_square += float(np.square(row.gap).sum())
            if not signal:
                row.mask = [0] * len(row.mask)
            by_prompt.setdefault(tuple(row.prompt), []).append(row)
    groups = [_group(prompt, rows, answers is not None, factor) for prompt, rows in by_prompt.items()]
    return Credit(groups, bool(signal), failed, task_square, gap_square)


def _advantages(played: Sequence[Episode], delivery: Delivery, failed: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the advantage of each episode, and those of its turns."""
    rewards = np.array([[sum(episode.rewards) for episode in played]])
    tasks = delivery.task_weight * group_advantages(rewards, delivery.scale)[0]
    turns = [len(episode.rewards) for episode in played]
    silent = failed and not delivery.gap_in_failed_groups
    if silent or not delivery.gap_weight or not all(episode.gap_rewards for episode in played):
        return tasks, [np.zeros(count) for count in turns]
    gaps = np.concatenate([np.array(episode.gap_rewards) for episode in played])
    flat = delivery.gap_weight * group_advantages(gaps[None], delivery.gap == "z_score")[0]
    return tasks, np.split(flat, np.cumsum(turns)[:-1])


def _taught(played: Sequence[Episode], texts: Sequence[Sequence[str]], share: float) -> list[Sequence[str | None]]:
    """Return the texts to learn, `None` for turns whose actions were more certain than those of the wanted share."""
    entropies = [
        [_entropy(turn) if turn.completion is not None else -np.inf for turn in episode.written] for episode in played
    ]
    written = [entropy for row in entropies for entropy in row if np.isfinite(entropy)]
    least = float(np.quantile(written, 1 - share)) if written else 0.0
    return [
        [text if entropy >= least else None for text, entropy in zip(row, found, strict=True)]
        for row, found in zip(texts, entropies, strict=True)
    ]


def _entropy(turn: TurnRecord) -> float:
    """Return the mean -log p of the sampled tokens, an unbiased estimate of the entropy of a token, in nats."""
    assert turn.completion is not None
    return -float(np.mean(turn.completion.logprobs)) if turn.completion.logprobs else 0.0


class _Row:
    """A prompt and its continuation, in which the model's tokens and the environment's alternate."""

    def __init__(self, prompt: list[int]) -> None:
        self.prompt = prompt
        self.tokens: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.task: list[float] = []
        self.gap: list[float] = []
        self.targets: list[int] = []
        self.allowed: list[list[int] | None] = []

    def model(self, written: TurnRecord, task: Sequence[float], gap: Sequence[float]) -> None:
        """Append a turn of the model, with the advantages of its tokens."""
        completion = written.completion
        assert completion is not None
        count = len(completion.tokens)
        self.tokens += completion.tokens
        self.mask += [1] * count
        self.logprobs += completion.logprobs
        self.task += task
        self.gap += gap
        self.targets += [-1] * count
        self.allowed += [ids or None for ids in completion.allowed] if completion.allowed else [None] * count

    def world(self, tokens: Sequence[int], targets: Sequence[int]) -> None:
        """Append what the world answered; a target of -1 is not learnt."""
        count = len(tokens)
        self.tokens += tokens
        self.mask += [0] * count
        self.logprobs += [0.0] * count
        self.task += [0.0] * count
        self.gap += [0.0] * count
        self.targets += targets
        self.allowed += [None] * count


def _rows(
    episode: Episode,
    prompts: Prompts,
    sequence: SequenceOf,
    task: float,
    gaps: Sequence[float] | np.ndarray,
    texts: Sequence[str | None],
    delivery: Delivery,
) -> Iterator[_Row]:
    row: _Row | None = None
    pending: tuple[str, str] | None = None  # the answer to the row's last turn, and what is to be learnt of it
    answers = episode.observations or [""] * len(episode.written)
    for turn, gap, answer, text in zip(episode.written, gaps, answers, texts, strict=True):
        if turn.completion is None or not turn.completion.tokens:  # an action that the model did not write
            continue
        before = [] if row is None else [*row.prompt, *row.tokens]
        goes_on = sequence == "episode" and row is not None and turn.prompt[: len(before)] == before
        if row is not None and goes_on:
            between = turn.prompt[len(before) :]
            row.world(between, _targets(prompts, between, pending))
        else:
            if row is not None:
                yield _ended(row, prompts, pending)
            row = _Row(turn.prompt)
        tokens = turn.completion.tokens
        row.model(
            turn,
            _on(tokens, action_tokens(prompts, tokens) if delivery.task_tokens == "action" and task else None, task),
            _on(
                tokens,
                prediction_tokens(prompts, tokens) if delivery.gap_tokens == "prediction" and gap else None,
                float(gap),
            ),
        )
        pending = None if text is None else (answer, text)
    if row is not None:
        yield _ended(row, prompts, pending)


def _on(tokens: Sequence[int], places: Collection[int] | None, advantage: float) -> list[float]:
    """Return the advantages of a turn's tokens: of those in these places, or of all."""
    return [advantage if places is None or place in places else 0.0 for place in range(len(tokens))]


def _ended(row: _Row, prompts: Prompts, pending: tuple[str, str] | None) -> _Row:
    """Append the answer to the last turn, if it is to be learnt; no later turn's prompt holds it."""
    if pending is not None:
        room = max(0, prompts.max_tokens - len(row.prompt) - len(row.tokens))
        answer = prompts.reply(pending[0], row.tokens)[:room]
        targets = _targets(prompts, answer, pending)
        used = max((place + 1 for place, target in enumerate(targets) if target >= 0), default=0)
        row.world(answer[:used], targets[:used])
    return row


def _targets(prompts: Prompts, tokens: Sequence[int], pending: tuple[str, str] | None) -> list[int]:
    """Return the token to learn at each place of an answer: its own, or those of a placebo, over and over."""
    targets = [-1] * len(tokens)
    if pending is None:
        return targets
    answer, text = pending
    places = find_tokens(prompts.tokenizer, tokens, prompts.shown(answer))
    # A tokenizer that changes texts hides where the answer stands; then the template around it is learnt, too.
    places = places or range(len(tokens))
    if text == answer:
        learnt = [tokens[place] for place in places]
    else:
        learnt = prompts.tokenizer.encode(prompts.shown(text), add_special_tokens=False)
    for number, place in enumerate(places if learnt else ()):
        targets[place] = learnt[number % len(learnt)]
    return targets


def _group(prompt: tuple[int, ...], rows: Sequence[_Row], learns: bool, factor: float) -> Group:
    return Group(
        prompt,
        [row.tokens for row in rows],
        [[task + gap for task, gap in zip(row.task, row.gap, strict=True)] for row in rows],
        [row.logprobs for row in rows],
        [row.mask for row in rows],
        [row.allowed for row in rows] if any(ids for row in rows for ids in row.allowed) else None,
        targets=[row.targets for row in rows] if learns else None,
        target_factor=factor,
    )
