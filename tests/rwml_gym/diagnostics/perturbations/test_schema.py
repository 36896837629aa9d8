"""Labelled pairs of schemas: the view makes right ones equal and wrong ones different."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rouge_score")

from rwml_gym.diagnostics.audit import audit
from rwml_gym.diagnostics.audit_report import audit_table
from rwml_gym.diagnostics.calibration import calibrate, calibrate_by_role
from rwml_gym.diagnostics.perturbations.by_role import perturbations_for
from rwml_gym.diagnostics.perturbations.schema import SCHEMAS
from rwml_gym.diagnostics.perturbations.text import TEXT, Pool
from rwml_gym.diagnostics.perturbations.tool import TOOL_RESULTS
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.views import in_view, schema_view
from rwml_gym.transitions import Transition, Turn

HISTORY = (Turn("", "user: My order is late."),)


def result(data: object, game: str = "g", role: str = "tool", action: str = "get_order(id='x')") -> Transition:
    text = data if isinstance(data, str) else json.dumps(data)
    return Transition(HISTORY, action, f"{role}: {text}", game=game, role=role)


def record(n: int) -> dict[str, object]:
    return {
        "id": f"#W{n}",
        "status": "pending",
        "items": [{"price": 9.5 + n, "name": "x"}] * (n % 3 + 1),
        "payments": {f"card_{1000 + n}": {"amount": n}},
        **{f"field{'abcdefghij'[n % 10]}": True},
    }


ROWS = [
    row
    for n in range(20)
    for row in (
        result(record(n), f"g{n}"),
        result(f"Error: Order #W{n} not found", f"g{n}"),
        result([{"city": "x"}], f"g{n}", action="list_flights()"),
        result("Yes, please.", f"g{n}", role="user"),
    )
]
TOOLS = in_view([t for t in ROWS if t.role == "tool"], "schema")
RULES = {**SCHEMAS.same, **SCHEMAS.different}


def made(name: str, transition: Transition, seed: int) -> str:
    return RULES[name](transition, Pool(TOOLS), np.random.default_rng(seed)).removeprefix("tool: ")


@pytest.mark.long
@given(st.sampled_from(TOOLS), st.integers(0, 1000))
def test_right_ones_are_equal_in_the_view_and_wrong_ones_are_not(transition, seed):
    state = transition.next_state.removeprefix("tool: ")
    for name in ("values for types", "keys reordered"):
        assert schema_view(made(name, transition, seed)) == state
    for name in SCHEMAS.different:
        text = made(name, transition, seed)
        assert text in (state, transition.next_state) or schema_view(text) != state, name


def test_every_rule_applies_to_some_result():
    for name in RULES:
        assert any(made(name, t, seed) != t.next_state.removeprefix("tool: ") for t in TOOLS for seed in range(3)), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "key left out",
            {
                '{"type": "object", "properties": {"b": {"type": "null"}}}',
                '{"type": "object", "properties": {"a": {"type": "integer"}}}',
            },
        ),
        ("list for one, or one for a list", None),
        ("wrong type", None),
    ],
)
def test_one_thing_is_wrong(name, expected):
    (transition,) = in_view([result({"a": 1, "b": None})], "schema")
    texts = {schema_view(made(name, transition, seed)) for seed in range(20)}
    if expected is not None:
        assert texts == expected
    wrong = [json.loads(text) for text in texts]
    if name == "wrong type":
        assert all(len(of["properties"]) == 2 for of in wrong)
        assert not any(of["properties"]["a"]["type"] == "number" for of in wrong), "a whole number is a number"
    if name.startswith("list"):
        assert wrong == [{"type": "array", "items": json.loads(transition.next_state.removeprefix("tool: "))}]


@pytest.mark.parametrize(
    "text", ["", "?", "4.0", "[]", "{}", '"a"', '{"anyOf": 3}', '{"type": "object", "properties": {"a": 1}}', "冷蔵庫"]
)
@pytest.mark.parametrize("name", RULES)
def test_rules_take_any_text(name, text):
    for state in (text, f"tool: {text}"):
        transition = Transition(HISTORY, "get()", state, role="tool")
        assert isinstance(RULES[name](transition, Pool([transition]), np.random.default_rng(0)), str)


def test_which_rules_are_taken():
    words = [t for t in ROWS if t.role == "user"]
    assert perturbations_for(TOOLS, "schema") is SCHEMAS
    assert perturbations_for(TOOLS) is TOOL_RESULTS
    assert perturbations_for(words, "schema") is TEXT
    assert "tool: key left out" in perturbations_for([*TOOLS, *words], "schema").different


def test_schemas_are_calibrated_and_audited():
    (tool,) = [
        r for role, r in calibrate_by_role(ROWS, "hashing", {"tool": "rouge"}, view="schema").items() if role == "tool"
    ]
    assert tool.view == "schema"
    assert tool.measure["view"] == "schema"
    assert tool.precision > 0.85
    assert tool.recall >= 0.5
    assert {m.name for m in tool.perturbations} == set(RULES)
    by_name = {m.name: m for m in tool.perturbations}
    assert by_name["values for types"].median_distance == 0
    assert by_name["values for types"].stepped == 1
    assert tool.table().startswith("ROUGE-L of the schema, threshold 0.")
    found = audit(ROWS, "hashing", view="schema", reward="stepped", pairs_per_perturbation=10)
    raw = audit(ROWS, "hashing", reward="stepped", pairs_per_perturbation=10)
    assert found.measures["tool"].view == "schema"
    assert found.measures["user"].view == "raw"
    assert found.predictable > raw.predictable
    assert "ROUGE-L of the schema, reward 1 - d in steps of 0.2" in " ".join(audit_table(found).split())


def test_a_view_without_results_of_tools_is_refused_before_any_work():
    words = [t for t in ROWS if t.role == "user"]
    loads = lambda texts: pytest.fail("it encodes")  # noqa: E731
    with pytest.raises(InvalidConfigError, match="Use the view 'raw'"):
        calibrate(words, loads, view="schema")
    with pytest.raises(InvalidConfigError, match="Use the view 'raw'"):
        audit(words, loads, view="schema")
