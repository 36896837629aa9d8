"""What imagined turns are worth: deeds that the answers confirm, names of what is needed next, and nothing else."""

from __future__ import annotations

import pytest

from rwml_gym.transitions import Turn
from rwml_gym.world_models.progress import NO_CHANGE, Outlook

START = Turn("", "You are in the middle of a room. Looking quickly around you, you see a desk 1, and a fridge 1.")
TAKE = Turn("take mug 1 from shelf 1", "You pick up the mug 1 from the shelf 1.")
TAKE_TWO = Turn("take mug 2 from shelf 1", "You pick up the mug 2 from the shelf 1.")
COOL = Turn("cool mug 1 with fridge 1", "You cool the mug 1 using the fridge 1.")
PUT = Turn("move mug 1 to desk 1", "You move the mug 1 to the desk 1.")
AWAY = Turn("move mug 1 to shelf 1", "You move the mug 1 to the shelf 1.")
AT_DESK = Turn("go to desk 1", "You arrive at desk 1. On the desk 1, you see nothing.")
AT_SHELF = Turn("go to shelf 1", "You arrive at shelf 1. On the shelf 1, you see a mug 1.")
PEN = Turn("take pen 1 from desk 1", "You pick up the pen 1 from the desk 1.")


@pytest.mark.parametrize(
    ("task", "before", "imagined", "value"),
    [
        ("put some mug on desk", [], TAKE, 1 / 2),
        ("put some mug on desk", [TAKE], PUT, 1.0),
        ("put some mug on desk", [TAKE], AWAY, -1 / 2),
        ("put some mug on desk", [], PEN, 0.0),
        ("put some mug on desk", [], AT_SHELF, 1 / 4),
        ("put some mug on desk", [], AT_DESK, 0.0),  # before the mug is found, the desk is not needed
        ("put some mug on desk", [TAKE], AT_DESK, 1 / 4),
        ("put some mug on desk", [TAKE, AT_DESK], AT_DESK, NO_CHANGE),
        ("put a cool mug in desk", [TAKE], COOL, 1 / 3),
        ("put a cool mug in desk", [TAKE], AT_DESK, 0.0),
        ("put a cool mug in desk", [TAKE], PUT, -1 / 3),
        ("put a cool mug in desk", [TAKE, COOL], AT_DESK, 1 / 6),
        ("put a cool mug in desk", [TAKE, COOL], PUT, 1.0),
        ("put two mug in desk", [TAKE], PUT, 1 / 4),
        ("put two mug in desk", [TAKE, PUT], TAKE_TWO, 1 / 4),
        (
            "put two mug in desk",
            [TAKE, PUT],
            Turn("take mug 1 from desk 1", "You pick up the mug 1 from the desk 1."),
            -1 / 4,
        ),
        ("put some mug on desk", [], Turn("dance", "Nothing happens."), NO_CHANGE),
        ("put some mug on desk", [], Turn("look", ""), NO_CHANGE),
        ("put some mug on desk", [], Turn("look", START.observation), NO_CHANGE),
        ("", [], Turn("look", "You see a mug."), 0.0),
    ],
)
def test_a_turn_is_worth_the_deeds_that_it_adds(task, before, imagined, value):
    assert Outlook(task, [START, *before]).value([imagined]) == pytest.approx(value)


def test_later_turns_are_compared_with_the_real_ones():
    outlook = Outlook("put a cool mug in desk", [START, TAKE])
    fridge = Turn("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed.")
    assert outlook.value([fridge]) == 0.0
    assert outlook.value([fridge, COOL]) == pytest.approx(1 / 3)


def test_whoever_knows_it_says_whether_the_task_is_solved():
    outlook = Outlook("put some mug on desk", [START, TAKE])
    assert outlook.value([PUT], won=False) == pytest.approx(1 / 2)
    assert outlook.value([AT_DESK], won=True) == 1.0


def test_an_action_costs_more_each_time_until_the_task_is_further_than_ever():
    task = "put some mug on desk"
    assert Outlook(task, [START]).cost("go to desk 1") == 0.0
    assert Outlook(task, [START, AT_DESK, AT_SHELF, AT_DESK]).cost("go to desk 1") == 0.5
    assert Outlook(task, [START, AT_DESK, TAKE]).cost("go to desk 1") == 0.0
    # Put away and taken again: no further than before.
    assert Outlook(task, [START, TAKE, AWAY, TAKE]).cost(AWAY.action) == 0.25
