"""A language model that judges whether a prediction matches the next state: the reward that RWML's paper warns of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import without_adapter
from rwml_gym.agents.language.prompts import special_tokens, without_special_tokens
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward, Gaps, Measure, RewardShape
from rwml_gym.reward.views import ViewName
from rwml_gym.text import is_blank, replace_surrogates

__all__ = ["JUDGE_THRESHOLD", "OWN", "JudgeReward", "JudgedGap", "JudgedMeasure", "judge_of"]

JUDGE_THRESHOLD = 0.5
"""Of the binary reward: "Yes" must be likelier than "No"."""

OWN = "base"
"""Names the model that is trained, without its adapter, as its own judge."""

_QUESTION = (
    "First text: {truth}\n\nSecond text: {prediction}\n\n"
    "Do both texts say that the same happened? Answer with one word, Yes or No."
)
_ANSWERS = ("Yes", "No")


class JudgeReward:
    """Rewards a prediction if a language model answers that it says the same as the next state.

    Do not train on this reward. The paper found that an LLM judge gets hacked (arXiv 2602.05842), and this class
    demonstrates it: docs/hacking.md lists what flattery, instructions and templates earn. Call it like
    `reward.gap.GapReward`.

    The distance is `1 - P(Yes)`, where `P(Yes)` is the probability of "Yes" among "Yes" and "No" as the next token.
    Missing and blank texts get reward 0 and distance 1 without a forward pass. Special tokens inside the compared
    texts are neutralised by a space. Instructions in plain words remain in the texts.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        threshold: float = JUDGE_THRESHOLD,
        shape: RewardShape = "binary",
        max_characters: int = 800,
        batch_rows: int = 16,
    ) -> None:
        """Store the model and the settings.

        Args:
            model: A model of `language.models.load_model`.
            tokenizer: The model's tokenizer; without a chat template the question is plain text.
            threshold: The binary reward is 1 for distances strictly below it, in `(0, 1]`. At 0.5 "Yes" must be
                likelier than "No".
            shape: `"binary"`, or `"continuous"` for `P(Yes)`.
            max_characters: Number of characters that are compared; the rest of a text is ignored.
            batch_rows: Number of questions per forward pass.
        """
        if not 0 < threshold <= 1:
            raise InvalidConfigError(f"Expected `threshold` in (0, 1], actual: {threshold}.")
        if shape not in ("binary", "continuous"):
            raise InvalidConfigError(f"Expected `shape` to be 'binary' or 'continuous', actual: {shape!r}.")
        if min(max_characters, batch_rows) < 1:
            raise InvalidConfigError(
                f"Expected `max_characters` and `batch_rows` of at least 1, actual: {max_characters} and {batch_rows}."
            )
        self.model, self.tokenizer = model, tokenizer
        self.threshold, self.shape = threshold, shape
        self.max_characters, self.batch_rows = max_characters, batch_rows
        self._special = special_tokens(tokenizer)
        # If "Yes" consists of several tokens, the first one decides.
        self._answers = [tokenizer.encode(answer, add_special_tokens=False)[0] for answer in _ANSWERS]

    def __call__(
        self, predictions: Sequence[str | None], next_states: Sequence[str], roles: Sequence[str] | None = None
    ) -> Gaps:
        """Return the distances and rewards of `n` predictions.

        Args:
            predictions: `n` predicted next states; `None` for a missing prediction.
            next_states: `n` realised next states.
            roles: `n` message roles, removed from the beginning of texts that start with them; all `""` if absent.
        """
        roles = [""] * len(predictions) if roles is None else roles
        if not len(predictions) == len(next_states) == len(roles):
            raise InvalidConfigError(
                f"Expected as many next states and roles as predictions ({len(predictions)}), "
                f"actual: {len(next_states)} and {len(roles)}."
            )
        distances = np.ones(len(predictions))
        rewards = np.zeros(len(predictions))
        pairs: dict[tuple[str, str], list[int]] = {}
        for i, (prediction, state, role) in enumerate(zip(predictions, next_states, roles, strict=True)):
            if prediction is not None and not is_blank(prediction) and not is_blank(state):
                pairs.setdefault((self._shown(prediction, role), self._shown(state, role)), []).append(i)
        for (_, places), chance in zip(pairs.items(), self._chances(list(pairs)), strict=True):
            distances[places] = 1.0 - chance
            rewards[places] = chance if self.shape == "continuous" else float(1.0 - chance < self.threshold)
        return Gaps(distances=distances, rewards=rewards)

    def _chances(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return P(Yes) for each pair of a prediction and a next state."""
        prompts = [self._prompt(prediction, truth) for prediction, truth in pairs]
        chances = np.zeros(len(pairs))
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # so that little is padded
        for start in range(0, len(order), self.batch_rows):
            chosen = order[start : start + self.batch_rows]
            device = next(self.model.parameters()).device
            answers = torch.tensor(self._answers * len(chosen), device=device)[:, None]
            with torch.inference_mode():
                said = completion_logprobs(
                    self.model, [prompts[i] for i in chosen], answers, pad_id=self.tokenizer.pad_token_id or 0
                )
            yes, no = said.view(len(chosen), 2).double().cpu().numpy().T
            chances[chosen] = 1 / (1 + np.exp(no - yes))
        return chances

    def _prompt(self, prediction: str, truth: str) -> list[int]:
        text = _QUESTION.format(truth=truth, prediction=prediction)
        if getattr(self.tokenizer, "chat_template", None):
            message = [{"role": "user", "content": text}]
            text = str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        else:
            text += "\n"
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _shown(self, text: str, role: str) -> str:
        """Return the text that the judge reads: special tokens are neutralised, surrogates become U+FFFD."""
        text = text.removeprefix(f"{role}: ") if role else text
        text = replace_surrogates(text)[: self.max_characters]
        return without_special_tokens(text, self._special)


@dataclass(frozen=True)
class JudgedMeasure(Measure):
    """How a judge measures; its distances have the range of exact match.

    Attributes:
        judge: The judge's name.
    """

    judge: str = ""

    def described(self, encoder: str) -> str:
        """Describe it in words: the judge, and what it pays."""
        return f"P(No) of the judge {self.judge}, {self.pays}"


class JudgedGap(GapReward):
    """The reward of a judge where a `GapReward` is expected: the same call, thresholds, shapes and views.

    Attributes:
        judge: Who judges.
    """

    def __init__(
        self,
        judge: JudgeReward,
        name: str,
        threshold: float = JUDGE_THRESHOLD,
        shape: RewardShape = "binary",
        view: ViewName = "raw",
    ) -> None:
        """Store the judge.

        Args:
            judge: Who judges; if its model has an adapter, that is switched off meanwhile.
            name: The judge's name.
            threshold: The binary reward is 1 for distances strictly below it, in `(0, 1]`.
            shape: `"binary"`, `"continuous"` or `"stepped"`.
            view: What of both texts is judged, see `Measure`.
        """
        super().__init__("hashing", threshold, shape, gap="exact", view=view)
        self._default = JudgedMeasure("exact", threshold, shape, view, judge=name)
        self.judge = judge

    def __call__(
        self, predictions: Sequence[str | None], next_states: Sequence[str], roles: Sequence[str] | None = None
    ) -> Gaps:
        """Return distances and rewards of `n` predictions, see `JudgeReward`."""
        named = [""] * len(predictions) if roles is None else roles
        shown = [
            [text if text is None else self.viewed(text, role) for text, role in zip(texts, named, strict=False)]
            for texts in (predictions, next_states)
        ]
        model = self.judge.model
        off: AbstractContextManager[None] = without_adapter(model) if isinstance(model, PeftModel) else nullcontext()
        with off:
            distances = self.judge(shown[0], [text or "" for text in shown[1]]).distances
        return Gaps(distances, np.array([self.measure().reward(distance) for distance in distances]))


def judge_of(gap: GapReward) -> JudgeReward | None:
    """Return the judge of a reward; `None` if it has none."""
    return gap.judge if isinstance(gap, JudgedGap) else None
