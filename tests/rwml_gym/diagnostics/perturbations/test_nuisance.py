"""Arbitrary parts in transitions: a state shows the same wherever it occurs, and all else stays."""

from __future__ import annotations

import pytest

from rwml_gym.diagnostics.perturbations.nuisance import arbitrary, plain
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Transition, Turn

STATES = [f"You are in room {number}. There is a mug {number}." for number in range(6)]


def episode(game: str, number: int = 0, window: int = 3) -> list[Transition]:
    turns = [Turn("go" if n else "", state) for n, state in enumerate(STATES)]
    return [
        Transition(
            tuple(turns[max(0, n + 1 - window) : n + 1]), "go", STATES[n + 1], "t", game=game, episode=number, step=n
        )
        for n in range(len(STATES) - 1)
    ]


def test_a_state_shows_the_same_in_every_history_and_as_what_follows():
    shown = arbitrary(episode("a"), 0.5, seed=1)
    by_number: dict[int, set[str]] = {}
    for t in shown:
        for age, turn in enumerate(reversed(t.history)):
            by_number.setdefault(t.step - age, set()).add(turn.observation)
        by_number.setdefault(t.step + 1, set()).add(t.next_state)
    assert [len(by_number[number]) for number in range(len(STATES))] == [1] * len(STATES)
    assert all("~" in next(iter(texts)) for texts in by_number.values())


def test_the_window_does_not_matter():
    long, short = (arbitrary(episode("a", window=window), 0.5, seed=1) for window in (4, 1))
    assert [t.next_state for t in long] == [t.next_state for t in short]
    assert [t.state for t in long] == [t.state for t in short]


def test_other_games_episodes_and_seeds_have_other_parts():
    found = [
        arbitrary(episode(*of), 0.5, seed)[0].next_state
        for *of, seed in (("a", 0, 1), ("b", 0, 1), ("a", 1, 1), ("a", 0, 2))
    ]
    assert len(set(found)) == 4


def test_it_can_be_undone_and_leaves_actions_and_tasks():
    rows = episode("a")
    shown = arbitrary(rows, 0.6, seed=1)
    assert plain(shown) == rows
    assert [(t.action, t.task, [turn.action for turn in t.history]) for t in shown] == [
        (t.action, t.task, [turn.action for turn in t.history]) for t in rows
    ]


def test_without_a_share_nothing_changes():
    rows = [Transition((Turn("", "~a"),), "go", "~b")]
    assert arbitrary(rows, 0.0, seed=1) == rows
    with pytest.raises(InvalidConfigError, match="below 1"):
        arbitrary(rows, 1.0, seed=1)
