"""Names and numbers of texts, and the distance in which they must agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.encoders.cached import Embedded
from rwml_gym.errors import WorldModelError
from rwml_gym.reward.entities import entities, entity_distance
from rwml_gym.reward.gap import GapReward

ROOM = "You arrive at drawer 3. On the drawer 3, you see a mug 1, and a pen 2."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        ("Nothing happens.", set()),
        (ROOM, {"drawer 3", "mug 1", "pen 2"}),
        ("Order #W2378156 costs $25.99.", {"#w2378156", "25.99"}),
        ("Hi! My name is Mei Kovacs, I live in New York.", {"mei", "kovacs", "new", "york"}),
        ("Yes. Please do. Sure: Thanks\nGoodbye", set()),  # they begin a sentence
        ("the été of ana", set()),
        ("The zip is 28236, the code 28236.", {"28236"}),
        ("It has 3 bags for 12 dollars.", {"3", "12"}),
        ("You are in seat 12A.", {"12a"}),
        ("Subtotal 25.99, shipping 12.50.", {"25.99", "12.50"}),
        ("Room 4-b, desk 2.", {"4-b", "desk 2"}),
    ],
)
def test_names_and_numbers(text, expected):
    assert entities(text) == expected


@pytest.mark.parametrize(
    ("prediction", "distance"),
    [
        (ROOM, 0.01),
        ("Before you is the drawer 3 with a pen 2 and a mug 1.", 0.01),
        (ROOM.replace("mug 1", "mug 2"), (1 + 2 / 4) / 2),
        (ROOM.replace(", and a pen 2", ""), (1 + 1 / 3) / 2),
        ("Nothing happens.", 1.0),
    ],
)
def test_what_disagrees_is_far_however_near_the_words_are(prediction, distance):
    assert entity_distance(prediction, ROOM, 0.01) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        ("You are in seat 12A, at the window.", "You are in seat 12B, at the window."),
        ("Subtotal 25.99, shipping 12.50.", "Subtotal 25.50, shipping 12.99."),
    ],
)
def test_a_code_is_one_name(prediction, truth):
    assert entity_distance(prediction, truth, 0.01) >= 0.5
    assert entity_distance(truth, truth, 0.01) == 0.01


@given(st.text(), st.text(), st.floats(0, 2))
def test_the_distance_is_symmetric_and_never_below_the_gap(a, b, gap):
    distance = entity_distance(a, b, gap)
    assert distance == entity_distance(b, a, gap)
    assert gap <= distance <= 2
    assert entity_distance(a, a, gap) == gap


def test_the_reward_takes_it_as_a_gap():
    gap = GapReward("hashing", threshold=0.5, gap="entities")
    said = [ROOM, ROOM.replace("drawer 3", "drawer 4"), "", None]
    found = gap(said, [ROOM] * 4)
    assert found.rewards.tolist() == [1, 0, 0, 0]
    assert GapReward("hashing", threshold=0.5)(said, [ROOM] * 4).rewards.tolist() == [1, 1, 0, 0]
    with pytest.raises(WorldModelError, match="Expected text for the entities gap"):
        gap([Embedded(gap.encoder.encode([ROOM])[0])], [ROOM])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ('tool: {"balance": -1000.5}', 'tool: {"balance": 1000.5}'),
        ("The temperature is -5 degrees.", "The temperature is 5 degrees."),
        ("A refuel of 3/2 GB.", "A refuel of 2/3 GB."),
        ("On 3/12 at 12:05.", "On 12/3 at 12:05."),
        ("It leaves at 12:05.", "It leaves at 05:12."),
    ],
)
def test_a_sign_a_fraction_a_date_and_a_time_are_parts_of_a_number(ours, theirs):
    assert entity_distance(ours, theirs, 0.01) >= 0.5
    assert entity_distance(ours, ours, 0.01) == 0.01


def test_a_dash_between_words_is_no_sign():
    assert entities("see cabinet 4 - cabinet 3; B0-9, 3-5.") == {"cabinet 4", "cabinet 3", "b0-9", "3-5"}
