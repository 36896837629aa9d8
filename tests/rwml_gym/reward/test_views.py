"""The schema view: JSON loses its values, everything else stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import MANY_NAMES, MAX_DEPTH, check_view, in_view, is_schema, schema_view
from rwml_gym.transitions import Transition, Turn

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
NAMES = st.text(max_size=5) | st.sampled_from(["id", "type", "items", "properties", "address1", "gift_card_123", "7"])
JSON = st.recursive(LEAVES, lambda of: st.lists(of, max_size=4) | st.dictionaries(NAMES, of, max_size=4), max_leaves=20)


def schema(data: object) -> object:
    return json.loads(schema_view(json.dumps(data)))


def obj(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def test_the_example_of_the_paper():
    assert schema_view('{"customer_id": "C1001"}') == (
        '{"type": "object", "properties": {"customer_id": {"type": "string"}}}'
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a", STRING),
        (3, INTEGER),
        (3.5, NUMBER),
        (True, {"type": "boolean"}),
        (None, {"type": "null"}),
        ({}, {"type": "object"}),
        ([], {"type": "array"}),
        ([1, 2, 3], {"type": "array", "items": INTEGER}),
        ([1, 2.5], {"type": "array", "items": NUMBER}),
        (["a", None], {"type": "array", "items": {"anyOf": [{"type": "null"}, STRING]}}),
        ([{"a": 1}, {"b": "x"}], {"type": "array", "items": obj(a=INTEGER, b=STRING)}),
        ([[], [1]], {"type": "array", "items": {"type": "array", "items": INTEGER}}),
        ([{"a": []}, {"a": [{"b": 1}]}], {"type": "array", "items": obj(a={"type": "array", "items": obj(b=INTEGER)})}),
        # Names that are values.
        ({"gift_card_7504069": {"balance": 3}}, {"type": "object", "additionalProperties": obj(balance=INTEGER)}),
        ({"2024-05-16": 1, "2024-05-17": 2.5}, {"type": "object", "additionalProperties": NUMBER}),
        ({"address1": "a", "address2": "b"}, obj(address1=STRING, address2=STRING)),
        (
            {f"Product {chr(65 + i)}": "x" for i in range(MANY_NAMES)},
            {"type": "object", "additionalProperties": STRING},
        ),
        (
            {chr(65 + i): "x" for i in range(MANY_NAMES - 1)},
            obj(**{chr(65 + i): STRING for i in range(MANY_NAMES - 1)}),
        ),
        ({"total": 2, "8310926033": "x"}, {**obj(total=INTEGER), "additionalProperties": STRING}),
    ],
)
def test_values_become_types_and_names_stay(data, expected):
    assert schema(data) == expected


@given(JSON)
def test_a_schema_is_a_schema(data):
    once = schema_view(json.dumps(data))
    assert is_schema(once)
    assert schema_view(once) == once
    assert schema_view(json.dumps(json.loads(once), indent=3)) == once


@given(st.text() | JSON.map(json.dumps) | JSON.map(repr))
def test_any_text_has_a_view_and_the_view_of_a_view_is_itself(text):
    assert schema_view(schema_view(text)) == schema_view(text)


@pytest.mark.long
@given(st.lists(JSON, min_size=1, max_size=4), st.randoms())
def test_neither_the_number_of_items_nor_their_order_shows(items, random):
    more = items * 3
    random.shuffle(more)
    assert schema(items) == schema(more)


@pytest.mark.long
@given(st.dictionaries(NAMES, JSON, max_size=5), st.randoms())
def test_neither_the_order_of_names_nor_the_layout_shows(data, random):
    pairs = list(data.items())
    random.shuffle(pairs)
    assert schema_view(json.dumps(data)) == schema_view(json.dumps(dict(pairs), indent=1, ensure_ascii=False))


@given(st.dictionaries(st.sampled_from("abcdef"), st.text(min_size=8), min_size=1))
def test_no_value_is_left(data):
    seen = schema_view(json.dumps(data))
    assert seen == schema_view(json.dumps(dict.fromkeys(data, "")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Error: Order not found",
        "{'a': 1}",
        '{"a": 1',
        '{"a": NaN}',
        "Infinity",
        '{"a": 1} and more',
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" * 100_000,
        '{"a":' * 100_000,
        '"\\"' * 50_000,
    ],
)
def test_what_is_not_json_stays_as_it_is(text):
    assert schema_view(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1, "a": "x"}', obj(a=STRING)),  # the last one counts
        ("9" * 6_000, INTEGER),
        ("1e999", NUMBER),
        ('{"\\ud800": 1}', obj(**{"\ud800": INTEGER})),
        (' \n{"a": 1}\t', obj(a=INTEGER)),
        (
            "[" + ",".join(f'{{"n{i}": {i}}}' for i in range(3)) + "]",
            {"type": "array", "items": obj(**{f"n{i}": INTEGER for i in range(3)})},
        ),
    ],
)
def test_odd_json(text, expected):
    assert json.loads(schema_view(text)) == expected


def test_deep_json_is_read_up_to_a_limit_and_its_schema_stays():
    deep = "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    seen = schema_view(deep)
    assert seen.count('"array"') == MAX_DEPTH
    nested = '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH
    assert schema_view(schema_view(nested)) == schema_view(nested) != nested


@pytest.mark.parametrize(
    "data",
    [
        {"type": "string", "value": 1},
        {"type": "strange"},
        {"type": ["string"]},
        {"type": "array", "items": 3},
        {"type": "object", "properties": ["a"]},
        {"type": "object", "properties": {"a": 1}},
        {"type": "object", "additionalProperties": True},
        {"anyOf": []},
        {"anyOf": [STRING, 1]},
    ],
)
def test_what_only_looks_like_a_schema_is_data(data):
    assert not is_schema(json.dumps(data))
    assert schema(data)["type"] == "object"


def test_a_schema_is_put_in_its_canonical_form():
    assert schema({"anyOf": [STRING]}) == STRING
    assert schema({"anyOf": [STRING, INTEGER, NUMBER]}) == {"anyOf": [NUMBER, STRING]}
    assert schema({"properties": {}, "type": "object"}) == {"type": "object"}


def row(text: str, role: str) -> Transition:
    return Transition((Turn("", '{"id": 1}'),), "get()", text, game="g", role=role)


def test_only_results_of_tools_are_viewed_and_histories_stay():
    rows = [row('tool: {"id": 1}', "tool"), row('{"id": 1}', "tool"), row('user: {"id": 1}', "user")]
    seen = in_view(rows, "schema")
    expected = schema_view('{"id": 1}')
    assert [t.next_state for t in seen] == [f"tool: {expected}", expected, 'user: {"id": 1}']
    assert {t.state for t in seen} == {'{"id": 1}'}
    assert in_view(rows, "raw") == rows
    assert in_view(seen, "schema") == seen


def test_a_view_that_would_change_nothing_is_an_error():
    with pytest.raises(InvalidConfigError, match=r"none in 1 transitions\. Use the view 'raw'"):
        check_view([row("You see a mug 1.", "")], "schema")
    with pytest.raises(InvalidConfigError, match="one of raw, schema"):
        check_view([], "xml")
    check_view([], "raw")
