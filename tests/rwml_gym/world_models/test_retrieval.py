from __future__ import annotations

import numpy as np
import pytest

from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Transition, Turn
from rwml_gym.world_models.base import OnlineWorldModel
from rwml_gym.world_models.retrieval import RetrievalWorldModel


def turn(observation):
    return [Turn("", observation)]


def made(*triples):
    return [Transition(tuple(turn(state)), action, outcome) for state, action, outcome in triples]


def model(*triples, **arguments):
    return RetrievalWorldModel(made(*triples), "hashing", **arguments)


def test_the_nearest_by_state_and_action():
    known = model(
        ("You are in the kitchen.", "open fridge", "The fridge is empty."),
        ("You are in the kitchen.", "look", "You are in the kitchen."),
        ("You are in the bedroom.", "look", "You are in the bedroom."),
    )
    asked = [turn("You are in the bedroom now."), turn("You are in a kitchen."), turn("The kitchen.")]
    assert known.predict(asked, ["look", "look", "open the fridge"]) == [
        "You are in the bedroom.",
        "You are in the kitchen.",
        "The fridge is empty.",
    ]


def test_of_one_state_and_action_the_last_outcome_counts():
    known = model(("a room", "look", "one"), ("a room", "look", "two"))
    assert known.predict([turn("a room")], ["look"]) == ["two"]
    assert len(known) == 1


def test_it_starts_with_nothing_and_learns():
    known = RetrievalWorldModel(encoder="hashing")
    assert isinstance(known, OnlineWorldModel)
    assert known.predict([turn("a")], ["b"]) == [None]
    known.learn([turn("a")], ["b"], ["c"])
    assert known.predict([turn("x"), turn("a")], ["y", "b"]) == ["c", "c"]
    assert known.predict([], []) == []


@pytest.mark.parametrize("capacity", [1, 3, 20])
def test_the_oldest_goes_first_and_memory_is_bounded(capacity):
    known = RetrievalWorldModel(encoder="hashing", capacity=capacity)
    rng = np.random.default_rng(0)
    remembered: dict[str, str] = {}
    for number in range(100):
        batch = [f"room {n}" for n in rng.integers(30, size=3)]
        known.learn([turn(room) for room in batch], ["look"] * 3, [f"{room} {number}" for room in batch])
        for room in batch:
            remembered.pop(room, None)  # what is seen again is the most recent
            if len(remembered) == capacity:
                del remembered[next(iter(remembered))]
            remembered[room] = f"{room} {number}"
        assert len(known) == len(remembered) <= capacity
        rooms = list(remembered)
        assert known.predict([turn(room) for room in rooms], ["look"] * len(rooms)) == list(remembered.values())
        assert len(known._rows) <= max(capacity, 16)


def test_alone_and_among_others_it_says_the_same():
    rng = np.random.default_rng(0)
    rooms = [f"room {a} with {b} and {c}" for a, b, c in rng.integers(50, size=(60, 3))]
    known = model(*((room, "look", room.upper()) for room in rooms[:30]))
    asked = [turn(room) for room in rooms[30:]]
    together = known.predict(asked, ["look"] * 30)
    assert together == [known.predict([one], ["look"])[0] for one in asked]


def test_a_blank_observation_is_one_like_any_other():
    known = RetrievalWorldModel(encoder="hashing")
    known.learn([turn("")], ["wait"], ["Silence."])
    known.learn([turn("a room")], ["wait"], ["A room."])
    assert known.predict([turn(""), turn("the room")], ["wait"] * 2) == ["Silence.", "A room."]


def test_in_a_house_it_knows_what_it_has_seen():
    house, known = ToyHouseEnv(), RetrievalWorldModel(encoder="hashing")
    right = []
    for _ in range(2):
        observation, _ = house.reset(options={"game": "house-1"})
        for action in ("look", "go to bedroom", "go to kitchen", "fly"):
            (prediction,) = known.predict([turn(observation)], [action])
            outcome, *_ = house.step(action)
            right.append(prediction == outcome)
            known.learn([turn(observation)], [action], [outcome])
            observation = outcome
    assert all(right[4:])


def test_bad_input_is_named():
    for capacity in (0, "5", 2.5):
        with pytest.raises(InvalidConfigError, match=f"`capacity` to be a whole number.*actual: {capacity!r}"):
            RetrievalWorldModel(encoder="hashing", capacity=capacity)
    with pytest.raises(InvalidConfigError, match="as many histories as actions"):
        model(("a", "b", "c")).predict([turn("a")], ["b", "c"])
