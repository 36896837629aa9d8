from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rwml_gym.encoders.cached import make_encoder
from rwml_gym.encoders.numbers import SpaceEncoder
from rwml_gym.errors import InvalidConfigError, InvalidObservationError

MIXED = spaces.Dict(
    {
        "where": spaces.Discrete(3),
        "what": spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]),
        "how": spaces.Box(-1, 1, (2, 2)),
    }
)


def distance(encoder, one, other):
    a, b = (row.astype(np.float64) for row in encoder.rows([one, other]))
    return 1 - a @ b


@given(arrays(np.float32, 4, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_any_numbers_are_unit_vectors(numbers):
    (row,) = SpaceEncoder(spaces.Box(-np.inf, np.inf, (4,))).rows([numbers])
    assert row.dtype == np.float32
    assert np.linalg.norm(row.astype(np.float64)) == pytest.approx(1, abs=1e-6)


def test_bounds_set_the_unit_and_large_ones_do_not():
    small, large = SpaceEncoder(spaces.Box(0, 4, (1,))), SpaceEncoder(spaces.Box(-3.4e38, 3.4e38, (1,)))
    assert distance(small, [2], [2.2]) == pytest.approx(distance(large, [0], [np.expm1(0.1)]), rel=1e-3)
    assert distance(large, [1e3], [1e6]) > 1e-3


def test_length_counts_and_the_origin_has_a_direction():
    encoder = SpaceEncoder(spaces.Box(-1, 1, (2,)))
    assert distance(encoder, [0.1, 0.1], [0.9, 0.9]) > 0.1
    assert distance(encoder, [0, 0], [0, 0]) == pytest.approx(0, abs=1e-9)
    near, far = np.array([0.3, 0.2]), np.array([0.32, 0.19])
    assert distance(encoder, near, far) == pytest.approx(((near - far) ** 2).sum() / 2 / (1 + near @ near), rel=0.1)


def test_the_unit_may_be_given():
    space = spaces.Box(-100, 100, (2,))
    fine = SpaceEncoder(space, scale=[0.1, 1.0])
    assert distance(fine, [0, 0], [0.1, 0]) == pytest.approx(distance(fine, [0, 0], [0, 1.0]))
    assert distance(fine, [0, 0], [0.1, 0]) > 100 * distance(SpaceEncoder(space), [0, 0], [0.1, 0])


def test_parts_lie_side_by_side():
    encoder = SpaceEncoder(MIXED)
    MIXED.seed(0)
    states = [MIXED.sample() for _ in range(20)]
    rows = encoder.rows(states)
    assert {row.shape for row in rows} == {(3 + 2 + 5 + 4 + 1,)}
    assert distance(encoder, states[0], states[0]) == pytest.approx(0, abs=1e-6)
    other = {**states[0], "where": (int(states[0]["where"]) + 1) % 3}
    assert distance(encoder, states[0], other) > 0.05


def test_texts_within_go_through_the_text_encoder():
    space = spaces.Dict({"mission": spaces.Text(50, charset="abc "), "where": spaces.Discrete(2)})
    encoder = SpaceEncoder(space, text_encoder=make_encoder("hashing"))
    state = {"mission": "a b c", "where": 0}
    assert distance(encoder, state, {**state, "mission": "c c c"}) > 0.1
    with pytest.raises(InvalidConfigError, match="Expected a numeric space, actual: Text"):
        SpaceEncoder(space)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Box(-1, 1, (2,)), [0.0]),
        (spaces.Box(-1, 1, (2,)), ["a", "b"]),
        (spaces.Box(-1, 1, (2,)), [0.0, np.inf]),
        (spaces.Discrete(3), 3),
        (spaces.Discrete(3), "1"),
        (MIXED, {"where": 1}),
        (MIXED, 3),
    ],
)
def test_what_is_not_in_the_space_is_named(space, value):
    with pytest.raises(InvalidObservationError, match="Expected an observation in"):
        SpaceEncoder(space).rows([value])
