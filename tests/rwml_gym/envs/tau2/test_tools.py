from __future__ import annotations

import contextlib
import io
import json
import pickle
from copy import deepcopy
from importlib import import_module
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.envs.tau2.actions import ToolRequest, parse_action
from rwml_gym.envs.tau2.tools import ToolSpec, UnfitArgumentsError, specs_of

TASKS = {"airline": "get_tasks", "retail": "get_tasks", "telecom": "get_tasks_full", "mock": "get_tasks"}
ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "number": {"type": "integer"}},
    "required": ["street"],
}
SPEC = ToolSpec(
    "move",
    "Move somewhere.",
    {
        "type": "object",
        "$defs": {
            "Address": ADDRESS,
            "Strict": {**ADDRESS, "additionalProperties": False},
            "Speed": {"type": "string", "enum": ["slow", "fast"]},
        },
        "properties": {
            "name": {"type": "string"},
            "rooms": {"type": "integer"},
            "weight": {"type": "number"},
            "lift": {"type": "boolean"},
            "speed": {"$ref": "#/$defs/Speed"},
            "places": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "object"}]}},
            "home": {"$ref": "#/$defs/Strict"},
            "note": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "port": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "anything": {},
        },
        "required": ["name"],
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def problem_of(spec, arguments):
    """The error message for the agent; None if the arguments fit."""
    try:
        spec.convert(arguments)
    except UnfitArgumentsError as error:
        return str(error)
    return None


def same(left, right):
    """Equal, and of equal types: 1, 1.0 and True are equal in Python, but tau2 hashes them differently."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@pytest.fixture(scope="module")
def worlds():
    """Each domain's toolkits, the agent's and the user's, and its tasks."""
    pytest.importorskip("tau2")
    found = {}
    with contextlib.redirect_stderr(io.StringIO()):
        for domain, get_tasks in TASKS.items():
            module = import_module(f"tau2.domains.{domain}.environment")
            environment = module.get_environment()
            found[domain] = environment.tools, environment.user_tools, getattr(module, get_tasks)()
    return found


@pytest.mark.long
@pytest.mark.parametrize("domain", TASKS)
def test_every_gold_action_is_accepted_and_left_as_it_is(worlds, domain):
    tools, user_tools, tasks = worlds[domain]
    specs = {"assistant": specs_of(tools), "user": specs_of(user_tools) if user_tools else {}}
    checked = 0
    for task in tasks:
        criteria = task.evaluation_criteria
        for action in (criteria and criteria.actions) or []:
            before = deepcopy(action.arguments)
            assert same(specs[action.requestor][action.name].convert(action.arguments), action.arguments)
            assert action.arguments == before
            request = ToolRequest(action.name, action.arguments)
            written = ", ".join(f"{key}={value!r}" for key, value in action.arguments.items())
            assert parse_action(f"{action.name}({written})", specs[action.requestor]) == request
            assert parse_action(json.dumps(vars(request)), specs[action.requestor]) == request
            checked += 1
    assert checked > 6


@pytest.mark.parametrize("domain", TASKS)
def test_schemas_are_those_of_tau2(worlds, domain):
    for toolkit in filter(None, worlds[domain][:2]):
        specs = specs_of(toolkit)
        tools = toolkit.get_tools()
        assert list(specs) == list(tools)
        for name, spec in specs.items():
            assert json.loads(json.dumps(spec.schema)) == spec.schema == tools[name].openai_schema
            assert spec.order == tuple(tools[name].__signature__.parameters)
            assert set(spec.required) <= set(spec.order)


@pytest.mark.parametrize("value", [True, 1.0, "1", 3])
def test_a_choice_is_of_its_own_type(value):
    spec = ToolSpec("pick", "Pick.", {"properties": {"row": {"enum": [1, 2]}}})
    assert spec.convert({"row": 1}) == {"row": 1}
    assert "should be one of 1, 2" in problem_of(spec, {"row": value})


@pytest.mark.parametrize(
    ("value", "kept"), [(2, 2), (2.0, 2.0), (True, True), ("2", "2"), ([3, "4"], [3, "4"]), (None, None)]
)
def test_of_alternatives_the_one_that_takes_a_value_as_it_is_comes_first(value, kept):
    kinds = [{"type": kind} for kind in ("number", "integer", "boolean", "string", "array", "null")]
    spec = ToolSpec("set", "Set.", {"properties": {"to": {"anyOf": kinds}}, "required": ["to"]})
    assert same(spec.convert({"to": value}), {"to": kept})


@pytest.mark.long
@given(st.data())
def test_what_tau2_reads_is_accepted(worlds, data):
    """What pydantic makes of the arguments is the measure; enumerations and numbers with blanks or `_` are left out."""
    domain = data.draw(st.sampled_from(sorted(worlds)))
    toolkit = data.draw(st.sampled_from([kit for kit in worlds[domain][:2] if kit]))
    name = data.draw(st.sampled_from(sorted(specs_of(toolkit))))
    spec = specs_of(toolkit)[name]
    arguments = {key: data.draw(JSON | st.text(max_size=5)) for key in spec.order}
    try:
        toolkit.get_tools()[name].params.model_validate(arguments)
    except ValueError:
        return
    problem = problem_of(spec, arguments)
    # Any object passes tau2's schema; the model that the tool makes of it may not.
    assert problem is None or "lacks" in problem or "apn_settings" in problem or "_" in str(arguments.values())


@pytest.mark.parametrize(
    ("arguments", "converted"),
    [
        ({"rooms": 2}, {"rooms": 2}),
        ({"rooms": 2.0}, {"rooms": 2}),
        ({"rooms": -0.0}, {"rooms": 0}),
        ({"rooms": "2"}, {"rooms": 2}),
        ({"rooms": " -2.00 "}, {"rooms": -2}),
        ({"rooms": True}, {"rooms": 1}),
        ({"rooms": None}, {"rooms": None}),
        ({"weight": 2}, {"weight": 2.0}),
        ({"weight": 2.5}, {"weight": 2.5}),
        ({"lift": False}, {"lift": False}),
        ({"lift": 1}, {"lift": True}),
        ({"lift": 0.0}, {"lift": False}),
        ({"lift": "Yes"}, {"lift": True}),
        ({"speed": "fast"}, {"speed": "fast"}),
        ({"places": []}, {"places": []}),
        (
            {"places": [{"street": "Elm", "number": "3", "more": 1.0}, {"street": "Oak", "number": 4.0}]},
            {"places": [{"street": "Elm", "number": 3, "more": 1.0}, {"street": "Oak", "number": 4}]},
        ),
        ({"home": {"street": "Elm"}}, {"home": {"street": "Elm"}}),
        ({"note": "3"}, {"note": "3"}),
        ({"note": 3.0}, {"note": 3}),
        ({"note": None}, {"note": None}),
        ({"port": "80"}, {"port": 80}),
        ({"port": None}, {"port": None}),
        ({"anything": {"a": [1, 1.0, True]}}, {"anything": {"a": [1, 1.0, True]}}),
    ],
)
def test_arguments_are_converted_to_the_schema(arguments, converted):
    before = deepcopy(arguments)
    assert same(SPEC.convert({"name": "x", **arguments}), {"name": "x", **converted})
    assert same(arguments, before)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": 3}, "'name' should be a string, not 3"),
        ({"name": None}, "'name' should be a string, not null"),
        ({"name": ["x"]}, "'name' should be a string, not a list"),
        ({"rooms": 2.5}, "'rooms' should be an integer, not 2.5"),
        ({"rooms": "two"}, "'rooms' should be an integer, not 'two'"),
        ({"rooms": {}}, "'rooms' should be an integer, not an object"),
        ({"rooms": float("nan")}, "'rooms' should be an integer, not nan"),
        ({"rooms": float("inf")}, "'rooms' should be an integer, not inf"),
        ({"rooms": 1e300}, "'rooms' should be an integer, not 1e+300"),
        ({"rooms": "9" * 5000}, f"'rooms' should be an integer, not '{'9' * 59}…"),
        ({"rooms": ""}, "'rooms' should be an integer, not ''"),
        ({"weight": "2.5"}, "'weight' should be a number, not '2.5'"),
        ({"weight": float("nan")}, "'weight' should be a number, not nan"),
        ({"weight": float("-inf")}, "'weight' should be a number, not -inf"),
        ({"lift": 2}, "'lift' should be true or false, not 2"),
        ({"speed": "Fast"}, "'speed' should be one of 'slow', 'fast', not 'Fast'"),
        ({"speed": True}, "'speed' should be one of 'slow', 'fast', not true"),
        ({"places": {}}, "'places' should be a list, not an object"),
        ({"places": [{"street": "Elm"}, "Oak"]}, "'places'[1] should be an object, not 'Oak'"),
        ({"places": [{"number": 3}]}, "'places'[0] lacks 'street'"),
        ({"places": [{"street": 3}]}, "'places'[0]['street'] should be a string, not 3"),
        ({"home": {"street": "Elm", "town": "X"}}, "'home' has unexpected 'town'"),
        ({"note": []}, "'note' should be a string or an integer, not a list"),
        ({"name": "x" * 999, "rooms": "x" * 999}, f"'rooms' should be an integer, not '{'x' * 59}…"),
    ],
)
def test_what_is_refused(arguments, problem):
    assert problem_of(SPEC, {"name": "x", **arguments}) == f"Error: move: {problem}."


def test_names_are_checked():
    parameters = ", ".join(SPEC.order)
    assert problem_of(SPEC, {}) == f"Error: move: missing 'name'; parameters: {parameters}."
    assert problem_of(SPEC, {"name": "x", "requestor": "user"}) == (
        f"Error: move: unexpected 'requestor'; parameters: {parameters}."
    )
    assert problem_of(SPEC, {"nom": "x"}) == f"Error: move: missing 'name', unexpected 'nom'; parameters: {parameters}."
    assert problem_of(ToolSpec("stay", "", {"properties": {}}), {"a": 1}) == (
        "Error: stay: unexpected 'a'; parameters: none."
    )


def test_messages_are_short():
    message = problem_of(SPEC, {f"{'x' * 500}{i}": i for i in range(5000)})
    assert message is not None
    assert len(message) < 1200


@pytest.mark.long
@given(st.dictionaries(st.sampled_from([*SPEC.order, "else"]), JSON))
def test_anything_is_accepted_or_refused(arguments):
    before = deepcopy(arguments)
    message = problem_of(SPEC, arguments)
    assert message is None or message.startswith("Error: move: ")
    assert repr(arguments) == repr(before)


def test_tools_are_described_once_a_class():
    class Toolkit:
        described = 0

        def get_tools(self):
            Toolkit.described += 1
            return {"move": SimpleNamespace(openai_schema=SPEC.schema)}

    first, second = specs_of(Toolkit()), specs_of(Toolkit())
    assert first == second == {"move": SPEC}
    assert Toolkit.described == 1
    first.clear()
    assert specs_of(Toolkit()) == second


def test_a_description_can_be_pickled():
    assert pickle.loads(pickle.dumps(SPEC)) == SPEC
