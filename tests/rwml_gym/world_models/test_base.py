from __future__ import annotations

import numpy as np
import pytest

from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Transition, Turn
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges, WorldModel
from rwml_gym.world_models.by_name import WORLD_MODELS, make_world_model

HISTORY = (Turn("", "You are in the hall."), Turn("look", "You see nothing."))


def made(*pairs: tuple[str, str]) -> list[Transition]:
    return [Transition(HISTORY, action, outcome) for action, outcome in pairs]


def test_nothing_changes_predicts_the_last_observation():
    assert NothingChanges().predict([HISTORY, HISTORY[:1]], ["look", "wait"]) == [
        "You see nothing.",
        "You are in the hall.",
    ]


def test_most_frequent_outcome_backs_off_from_action_to_type_to_all():
    model = MostFrequentOutcome(
        made(("go north", "A."), ("go south", "B."), ("go south", "B."), ("look", "C."), ("look", "C."), ("look", "C."))
    )
    actions = ["go north", " go north ", "go west", "sing"]
    assert model.predict([HISTORY] * 4, actions, ["task"] * 4) == ["A.", "A.", "B.", "C."]


def test_ties_go_to_what_was_seen_first():
    assert MostFrequentOutcome(made(("a", "1"), ("a", "2"))).predict([HISTORY], ["a"]) == ["1"]
    assert MostFrequentOutcome(made(("a", "2"), ("a", "1"))).predict([HISTORY], ["a"]) == ["2"]


def test_no_batch_is_no_prediction():
    assert NothingChanges().predict([], []) == []


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidConfigError, match="at least one transition"):
        MostFrequentOutcome([])
    with pytest.raises(InvalidConfigError, match=r"as many histories as actions \(2\), actual: 1"):
        NothingChanges().predict([HISTORY], ["a", "b"])


def test_world_models_by_name():
    assert isinstance(make_world_model("nothing-changes"), NothingChanges)
    model = MostFrequentOutcome(made(("a", "b")))
    assert isinstance(model, WorldModel)
    assert make_world_model(model) is model


@pytest.mark.parametrize("bad", ["oracle", None, NothingChanges, 3])
def test_anything_else_is_refused(bad):
    with pytest.raises(InvalidConfigError, match="Expected a world model"):
        make_world_model(bad)


def test_what_it_is_shown_counts_on():
    model = MostFrequentOutcome()
    assert model.predict([HISTORY], ["look"]) == [None]
    model.learn([HISTORY] * 3, ["look", "look", "take mug 1"], ["a", "b", "c"])
    model.learn([HISTORY], ["look"], ["b"])
    assert model.predict([HISTORY] * 3, ["look", "take apple 2", "wait"]) == ["b", "c", "b"]


def test_what_lies_too_far_back_is_forgotten():
    model = MostFrequentOutcome(made(("a", "1"), ("a", "1"), ("b", "2")), capacity=3)
    model.learn([HISTORY] * 2, ["b", "a"], ["3", "4"])
    assert model.predict([HISTORY] * 2, ["a", "c"]) == ["4", "2"]
    assert set(model._states) == {"2", "3", "4"}


@pytest.mark.parametrize("capacity", [0, "5", 2.5])
def test_what_is_no_number_of_transitions_is_no_capacity(capacity):
    with pytest.raises(InvalidConfigError, match=rf"`capacity` to be a whole number.*actual: {capacity!r}"):
        MostFrequentOutcome(capacity=capacity)


def test_worlds_of_numbers():
    model = MostFrequentOutcome()
    model.learn([HISTORY] * 3, [1, 0, 1], [np.zeros(2), np.ones(2), np.zeros(2)])
    assert model.predict([HISTORY] * 2, [1, 0])[1].tolist() == [1, 1]
    assert model.predict([HISTORY], [np.int64(1)])[0].tolist() == [0, 0]


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(WORLD_MODELS))
def test_every_name_makes_a_world_model(name):
    pytest.importorskip("torch")
    model = make_world_model(name, "hashing")
    assert isinstance(model, WorldModel)
    assert len(model.predict([HISTORY] * 2, ["look", "wait"])) == 2
