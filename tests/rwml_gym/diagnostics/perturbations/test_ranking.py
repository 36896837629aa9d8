"""Pairs of texts about one state, of which one must be farther from it than the other; paraphrases by template."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.diagnostics.calibration_pairs import ranked
from rwml_gym.diagnostics.perturbations.paraphrase import paraphrased
from rwml_gym.diagnostics.perturbations.ranking import RANKINGS, needed
from rwml_gym.diagnostics.perturbations.text import Pool
from rwml_gym.reward.entities import entities
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, TransitionDataset, Turn

STATE = "You arrive at desk 1. On the desk 1, you see a mug 2, a pen 1, and a cd 3."
OBJECT, ENTITY = RANKINGS.values()


def row(task: str, state: str = STATE) -> Transition:
    return Transition((Turn("", "A room."),), "go to desk 1", state, task=task, game="a")


def both(ranking, transition: Transition, seed: int = 0) -> tuple[str, str]:
    pool, rng = Pool([transition]), np.random.default_rng(seed)
    return ranking.worse(transition, pool, rng), ranking.better(transition, pool, rng)


@pytest.mark.parametrize(
    ("item", "task", "expected"),
    [
        ("a mug 2", "put a clean mug in cabinet.", True),
        ("a mug 2", "find two mugs and put them in cabinet.", True),
        ("a pen 1", "put a clean pencil in cabinet.", False),
        ("a cabinet 1", "put a clean mug in cabinet.", True),
        ("nothing", "put nothing", False),
        ("a mug 2", "", False),
    ],
)
def test_what_a_task_needs(item, task, expected):
    assert needed(item, task) == expected


def test_the_task_s_object_and_a_bystander_are_left_out():
    texts = [both(OBJECT, row("put a clean mug in cabinet."), seed) for seed in range(20)]
    assert {worse for worse, _ in texts} == {STATE.replace("a mug 2, a pen 1, and a cd 3", "a pen 1, and a cd 3")}
    assert {better for _, better in texts} == {
        STATE.replace("a mug 2, a pen 1, and a cd 3", left) for left in ("a mug 2, and a cd 3", "a mug 2, and a pen 1")
    }


@pytest.mark.parametrize("task", ["", "put a fork in the drawer.", "put a mug, a pen and a cd on the desk."])
def test_without_both_kinds_of_things_there_is_nothing_to_rank(task):
    assert STATE in both(OBJECT, row(task))


def test_one_wrong_entity_and_a_paraphrase():
    for seed in range(10):
        worse, better = both(ENTITY, row("put a mug in cabinet."), seed)
        assert worse == STATE or entities(worse) != entities(STATE)  # another thing of the same type is none
        assert entities(better) == entities(STATE)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            STATE,
            "A few steps later you stand before the desk 1. The desk 1 has these on it: a mug 2, a pen 1, and a cd 3.",
        ),
        ("On the shelf 1, you see nothing.", "The shelf 1 is bare."),
        (
            "You open the fridge 1. The fridge 1 is open. In it, you see nothing.",
            "You pull the fridge 1 open. Now the door of the fridge 1 is ajar. Inside it is empty.",
        ),
        (
            "You arrive at safe 1. The safe 1 is closed.",
            "A few steps later you stand before the safe 1. Nobody has opened the safe 1 yet.",
        ),
        ("You pick up the mug 2 from the desk 1.", "From the desk 1 the mug 2 comes into your hand."),
        ("You move the mug 2 to the desk 1.", "The desk 1 now holds the mug 2, and your hand is free."),
        ("You put the mug 2 in/on the desk 1.", "The desk 1 now holds the mug 2, and your hand is free."),
        ("You heat the mug 2 using the microwave 1.", "With the help of the microwave 1 you heat the mug 2."),
        ("You are carrying: a mug 2.", "In your hands: a mug 2."),
        ("You are not carrying anything.", "There is nothing in your hands."),
        ("Nothing happens.", "The command has no effect at all."),
        ("A sentence without a template.", "A sentence without a template."),
        (
            "You close the safe 1. A sentence without a template.",
            "You close the safe 1. A sentence without a template.",
        ),
    ],
)
def test_paraphrases(state, expected):
    assert paraphrased(state) == expected


@given(st.text() | st.from_regex(re.compile(r"You (open|close|move) the \w+ \d+( to \w+ \d+)?\."), fullmatch=True))
def test_any_text_has_a_paraphrase_that_names_the_same(text):
    assert isinstance(paraphrased(text), str)
    if paraphrased(text) != text and text.isascii():
        assert entities(paraphrased(text)) == entities(text)


def test_the_share_that_is_ranked_the_wrong_way():
    data = TransitionDataset([row("put a clean mug in cabinet.")])

    def counts_pens(texts):  # it sees the bystanders only
        return np.array([[1.0, "pen" in text, "cd" in text, "stand" in text] for text in texts])

    objects, entity = ranked(data, GapReward(counts_pens), 0.1, 0, 5)
    assert (objects.states, objects.wrong_way) == (1, 1.0)
    assert objects.worse == (0.0, 1.0)
    assert objects.better[0] > 0.1
    assert entity.wrong_way in (0.5, 1.0)
    by_entities = ranked(data, GapReward(counts_pens, gap="entities"), 0.1, 0, 5)
    assert by_entities[1].wrong_way == 0
    constant = GapReward(lambda texts: np.ones((len(texts), 2)))
    assert [each.wrong_way for each in ranked(data, constant, 0.1, 0, 5)] == [0.5, 0.5]
