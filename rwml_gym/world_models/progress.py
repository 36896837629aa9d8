"""What imagined turns are worth for a task, by their words alone: which of several actions promises most.

The world's own rule is not asked, and nothing is learnt. A model that imagines what does not happen is believed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from rwml_gym.transitions import Turn
from rwml_gym.world_models.env import MOVES, TREATMENTS, confirmed, task_is_done, task_words

__all__ = ["NO_CHANGE", "Outlook"]

NO_CHANGE = -1.0
"""Value of a turn in which nothing changes."""
_UNKNOWN_COMMAND = "Nothing happens."
_TO_A_PLACE = re.compile(r"\b(?:in|into|on|onto|under|with)\b")
_OBJECT = re.compile(r"you .*?\bthe (.+?) (?:from|to|down|in|into|on|onto|using|with)\b", re.IGNORECASE)
_PUTS = ("put", "move", "drop", "place")
_TAKES = ("take", "pick")
_NAMED = 0.5  # of a step of the task: what it is worth to see what is needed next
_TRIED = 0.5  # of a step: what it costs that an action was played before


@dataclass(frozen=True)
class _Goal:
    """What a task asks for, in its words: `count` things, treated so, are to be at a place (or under a lamp)."""

    thing: frozenset[str]
    place: frozenset[str]
    treatments: frozenset[str]
    count: int

    @property
    def steps(self) -> int:
        """Number of deeds: each thing is taken and put there, and treated as the task says."""
        return 2 * self.count + len(self.treatments)


@lru_cache(maxsize=256)
def _goal(task: str) -> _Goal:
    """Read a task: its thing stands before the first word such as `in`, its place behind the last one."""
    parts = _TO_A_PLACE.split(task.lower())
    first = frozenset(task_words(parts[0]))
    place = frozenset(task_words(parts[-1])) if len(parts) > 1 else frozenset()
    return _Goal(first - TREATMENTS, place, first & TREATMENTS, 2 if re.search(r"\btwo\b", task.lower()) else 1)


@dataclass
class _Deeds:
    """What has been done, as far as the answers confirm it."""

    goal: _Goal
    held: str | None = None
    placed: set[str] = field(default_factory=set)
    treated: set[str] = field(default_factory=set)

    def take_note(self, turn: Turn) -> None:
        """Read one more turn."""
        action, sentence = str(turn.action), confirmed(turn)
        words = task_words(sentence)
        if action.startswith(MOVES) or not self.goal.thing or not self.goal.thing <= words:
            return
        match = _OBJECT.match(sentence)
        name = match[1].lower() if match else sentence
        if treated := words & self.goal.treatments:
            self.treated |= treated
        elif action.startswith(_PUTS):
            self.held = None
            if self.goal.place <= words and self._is_treated:
                self.placed.add(name)
        elif action.startswith(_TAKES):
            self.held = name
            self.placed.discard(name)

    @property
    def share(self) -> float:
        """Share of the task's deeds that are done; a thing that was taken and put elsewhere is not."""
        goal, placed = self.goal, min(len(self.placed), self.goal.count)
        holding = self.held is not None and placed < goal.count
        return (2 * placed + holding + len(self.treated)) / goal.steps

    @property
    def needed(self) -> frozenset[str]:
        """Words of what is to be found next: the thing, then its place; nothing while it is to be treated."""
        if self.held is None:
            return self.goal.thing
        return self.goal.place if self._is_treated else frozenset()

    @property
    def _is_treated(self) -> bool:
        return self.treated >= self.goal.treatments


class Outlook:
    """Values of imagined turns after the real turns of an episode.

    The task is read as a number of deeds: a thing is taken, treated (`heat`, `cool`, `clean`) if the task says so, and
    put at its place, all twice for two things. A deed counts when an answer such as "You pick up the mug 1 from the
    desk 1." confirms it. The value of an imagined turn is

    - 1 if it solves the task: the model says so, or `task_is_done` recognises it in the answers;
    - `NO_CHANGE`, -1, if the answer is empty, "Nothing happens.", or the one before it again;
    - otherwise the share of the task's deeds that the imagined turns add (less than 0 if they undo one), or half a deed
      if they add none and the answer newly names what is to be found next.

    `cost` says what is to be subtracted for an action that was played before: half a deed for each time since the task
    was further than ever. It holds for all values, because a model that is wrong once says the same again.

    Only words of the task, of actions and of answers are read; nothing of them is evaluated.

    Args:
        task: The task.
        turns: The real turns of the episode so far, at least the first observation.

    Example:
        >>> outlook = Outlook("Put the mug into the bedroom.", [Turn("", "You are in the kitchen.")])
        >>> outlook.value([Turn("take mug", "You pick up the mug from the kitchen.")])
        0.5
        >>> outlook.value([Turn("look", "You are in the kitchen.")])
        -1.0
    """

    def __init__(self, task: str, turns: Sequence[Turn]) -> None:
        self._task, self._turns, self._goal = task, list(turns), _goal(task)
        deeds = _Deeds(self._goal)
        self._tried: Counter[str] = Counter()
        furthest = 0.0
        for turn in turns[1:]:
            deeds.take_note(turn)
            self._tried[str(turn.action)] += 1
            if deeds.share > furthest:
                self._tried.clear()
                furthest = deeds.share
        self._deeds = deeds

    def value(self, imagined: Sequence[Turn], won: bool | None = None) -> float:
        """Return the value of the last of some imagined turns.

        Args:
            imagined: At least one imagined turn, which follow the real ones.
            won: Whether the task is solved after them, where the model says it.
        """
        path = [*self._turns, *imagined]
        if task_is_done(self._task, path) if won is None else won:
            return 1.0
        answer, before = str(path[-1].observation).strip(), str(path[-2].observation).strip()
        if answer in ("", _UNKNOWN_COMMAND, before):
            return NO_CHANGE
        deeds = _Deeds(self._goal, self._deeds.held, set(self._deeds.placed), set(self._deeds.treated))
        needed = self._deeds.needed
        for turn in imagined:
            deeds.take_note(turn)
        value = deeds.share - self._deeds.share
        if not value and needed and needed <= task_words(answer) and not needed <= task_words(before):
            value += _NAMED / self._goal.steps
        return value

    def cost(self, action: str) -> float:
        """Return what playing an action costs because it was played before."""
        return _TRIED / self._goal.steps * self._tried[action]
