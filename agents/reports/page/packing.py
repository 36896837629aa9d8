"""The steps of episodes as the page stores them: every text once, compressed, in parts that are opened when needed."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rwml_gym.agents.traces.records import StepRecord
from rwml_gym.text import finite

__all__ = ["DETAILS", "Detail", "pack"]

_MOST_CHARACTERS = 500_000  # of a part's texts, so that opening an episode does not unpack all of them


@dataclass(frozen=True)
class Detail:
    """How much of the texts a page holds.

    Attributes:
        prompts: Whether it holds what the model was shown.
        characters: The longest text.
        note: What the page says about it; empty if nothing is left out.
    """

    prompts: bool
    characters: int
    note: str


_LEFT_OUT = "The page would be too large otherwise, so the prompts are left out"
DETAILS = (
    Detail(True, 4_000_000, ""),
    Detail(False, 4_000_000, f"{_LEFT_OUT}. They are in steps.jsonl."),
    Detail(False, 4_000, f"{_LEFT_OUT}, and texts are cut after 4,000 characters. They are whole in steps.jsonl."),
    Detail(False, 1_000, f"{_LEFT_OUT}, and texts are cut after 1,000 characters. They are whole in steps.jsonl."),
    Detail(False, 200, f"{_LEFT_OUT}, and texts are cut after 200 characters. They are whole in steps.jsonl."),
)
"""From all to the least."""


def pack(
    episodes: Sequence[tuple[Mapping[str, Any], Sequence[StepRecord]]], detail: Detail, limit: float
) -> tuple[list[str], list[int]] | None:
    """Pack the steps of episodes into parts.

    A part is JSON, compressed with gzip and written in base64: `texts`, and `episodes` with their `steps`, in which
    texts are places in `texts`. A prompt is a list of lines, because the prompts of an episode share most of them.

    Args:
        episodes: What the page shows of each episode beside its steps, and its steps.
        detail: How much of the texts to keep.
        limit: The most characters of all parts together.

    Returns:
        The parts, and for each episode the number of its part; `None` if they are larger than the limit.
    """
    parts: list[str] = []
    places: list[int] = []
    part, size = _Part(detail), 0
    for facts, steps in episodes:
        if part.episodes and part.characters > _MOST_CHARACTERS:
            parts.append(part.packed())
            size += len(parts[-1])
            part = _Part(detail)
            if size > limit:
                return None
        part.add(facts, steps)
        places.append(len(parts))
    if part.episodes:
        parts.append(part.packed())
    return (parts, places) if size + len(parts[-1] if parts else "") <= limit else None


class _Part:
    """Some episodes and their texts."""

    def __init__(self, detail: Detail) -> None:
        self.episodes: list[dict[str, Any]] = []
        self.characters = 0
        self._detail = detail
        self._texts: dict[str, int] = {}

    def add(self, facts: Mapping[str, Any], steps: Sequence[StepRecord]) -> None:
        self.episodes.append({**facts, "steps": [self._step(step) for step in steps]})

    def packed(self) -> str:
        content = {"texts": list(self._texts), "episodes": self.episodes}
        # The escape of a lone surrogate, which is no UTF-8, is the one of JSON.
        text = json.dumps(finite(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = text.encode(errors="backslashreplace")
        return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode("ascii")

    def _step(self, step: StepRecord) -> dict[str, Any]:
        found: dict[str, Any] = {
            "n": step.step,
            "o": self._place(step.observation),
            "a": self._place(step.action),
            "s": self._place(step.next_observation),
            "p": None if step.prediction is None else self._place(step.prediction),
            "t": self._place(step.thought) if step.thought else None,
            "w": None if step.written is None else self._place(step.written),
            "g": step.gap,
            "gr": step.gap_reward,
            "r": step.reward,
            "i": step.invalid or None,
            "e": (step.inefficient and not step.invalid) or None,
            "role": step.message_role or None,
            "tokens": [step.prompt_tokens, step.completion_tokens] if step.completion_tokens else None,
            "sec": round(step.seconds, 2) or None,
        }
        if self._detail.prompts and step.shown is not None:
            found["m"] = [self._place(line) for line in _as_text(step.shown).split("\n")]
        return {name: value for name, value in found.items() if value is not None}

    def _place(self, text: str) -> int:
        if len(text) > self._detail.characters:
            text = f"{text[: self._detail.characters]} … [{len(text):,} characters]"
        place = self._texts.setdefault(text, len(self._texts))
        if place == len(self._texts) - 1:
            self.characters += len(text)
        return place


def _as_text(shown: str | list[dict[str, Any]]) -> str:
    """Write messages as text: each one's role in brackets, and what else it has beside its content as JSON."""
    if isinstance(shown, str):
        return shown
    blocks = []
    for message in shown:
        rest = {name: value for name, value in message.items() if name not in ("role", "content") and value}
        content = message.get("content") or ""
        lines = [f"[{message.get('role', '')}]"]
        lines += [content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)] if content else []
        lines += [json.dumps(rest, ensure_ascii=False)] if rest else []
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
