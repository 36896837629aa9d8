"""Progress of an evaluation on the terminal: episodes, success so far, tokens a second, time left."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from tqdm import tqdm

from rwml_gym.agents.evaluation.run import Evaluation
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord
from rwml_gym.agents.traces.scores import success_interval

__all__ = ["Progress"]


class Progress:
    """A bar on the standard error that counts finished episodes; it is told of steps and episodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began, self._tokens = perf_counter(), 0
        self._episodes: list[EpisodeRecord] = []
        self._bar: tqdm[Any] | None = None
        self._header: Mapping[str, Any] = {}

    @property
    def so_far(self) -> Evaluation | None:
        """What is finished by now; `None` if nothing is."""
        episodes = sorted(self._episodes, key=lambda episode: episode.episode)
        return Evaluation(self._header, episodes) if episodes else None

    def begin(self, header: Mapping[str, Any], total: int, done: Mapping[int, EpisodeRecord]) -> None:
        """Show the bar.

        Args:
            header: Who plays what.
            total: Number of episodes.
            done: Those that were finished before.
        """
        self._header, self._episodes = header, list(done.values())
        self._began = perf_counter()
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=len(done),
            unit="episode",
            desc=str(header["agent"]),
            mininterval=0.2 if on_terminal else 10.0,
            dynamic_ncols=True,
        )

    def __call__(self, record: StepRecord | EpisodeRecord) -> None:
        """Take note of a step or an episode."""
        with self._lock:
            if isinstance(record, StepRecord):
                self._tokens += record.prompt_tokens + record.completion_tokens
                return
            self._episodes.append(record)
            if self._bar is None:
                return
            if self._bar.update():
                self._bar.set_postfix_str(self._said(), refresh=False)

    def close(self) -> None:
        """Remove the bar's line end."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._said(), refresh=False)
            self._bar.close()

    def _said(self) -> str:
        if not self._episodes:
            return ""
        middle, low, high = success_interval(self._episodes)
        speed = self._tokens / max(perf_counter() - self._began, 1e-9)
        tokens = f", {speed:,.0f} tokens/s" if self._tokens else ""
        return f"success {middle:.3f} [{low:.3f}, {high:.3f}]{tokens}"
