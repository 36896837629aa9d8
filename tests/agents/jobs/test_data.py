"""Whether prompts have room for what is never cut: said before a run, and of single transitions with a count."""

from __future__ import annotations

import re

import pytest

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.jobs.data import check_prompts, fitting
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.runs.worlds import Source
from rwml_gym.errors import PromptTooLongError
from rwml_gym.transitions import Transition, TransitionDataset, Turn


def _data(*actions: str) -> TransitionDataset:
    return TransitionDataset(
        Transition((Turn("", "You are in the kitchen. " * 20),), action, "It is.", task="Find it.")
        for action in actions
    )


def test_transitions_without_room_are_left_out_with_a_count(tiny):
    said: list[str] = []
    data = _data("look", "take " * 80, "go", "x" * 300)
    kept = fitting(data, Prompts(tiny[1], max_tokens=150), said.append)
    assert [t.action for t in kept] == ["look", "go"]
    (line,) = said
    assert line.startswith("Left out: 2 of 4 transitions")
    assert "150 tokens" in line
    said.clear()
    assert fitting(data, Prompts(tiny[1], max_tokens=2_000), said.append) == data
    assert said == []


def test_where_none_has_room_it_is_an_error_that_says_how_much_it_takes(tiny):
    with pytest.raises(PromptTooLongError, match=r"take \d+"):
        fitting(_data("x" * 300), Prompts(tiny[1], max_tokens=150), lambda text: None)
    assert len(fitting(TransitionDataset([]), Prompts(tiny[1], max_tokens=150), lambda text: None)) == 0


def test_before_a_run_task_and_instruction_are_tried(tiny):
    games = Source(EnvConfig("toy")).prepare(0, 3, 2, 5)
    check_prompts(Prompts(tiny[1], max_tokens=200), games, False, predicts=True)
    with pytest.raises(PromptTooLongError):
        check_prompts(Prompts(tiny[1], max_tokens=60), games, False)


def test_rules_need_room_where_they_are_shown(tiny):
    pytest.importorskip("tau2")
    games = Source(EnvConfig("tau2", domain="mock", split="base")).prepare(0, 3, 2, 5)

    def prompts(limit: int, shown: bool = True) -> Prompts:
        return Prompts(tiny[1], max_tokens=limit, world="service", rules=games.rules if shown else None)

    with pytest.raises(PromptTooLongError) as caught:
        check_prompts(prompts(300), games, True)
    needed = int(re.search(r"take (\d+)", str(caught.value))[1])
    check_prompts(prompts(needed + 20), games, True)
    with pytest.raises(PromptTooLongError):  # of the prediction, whose rules are these
        check_prompts(prompts(300), games, False, predicts=True)
    check_prompts(prompts(300, shown=False), games, False, predicts=True)
