"""The player that calls random tools with what it has heard and read."""

from __future__ import annotations

import pytest

from rwml_gym.agents.players.random_caller import RandomCallerAgent


def tool(name, required=True, **parameters):
    schema = {"type": "object", "properties": parameters, "required": list(parameters) if required else []}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def text(description=""):
    return {"type": "string", "description": description}


def calls(said, *tools, seed=0, steps=60, **settings):
    agent = RandomCallerAgent(seed, **{"speak": 0, "guess": 0, "leave": 0, **settings})
    messages = [{"role": "user", "content": content} for content in said]
    return [agent.act([""], [{"tools": tools, "messages": messages}])[0] for _ in range(steps)]


@pytest.mark.parametrize(
    ("said", "parameter", "schema", "values"),
    [
        ("You are Mia Li, and angry.", "last_name", text("such as 'Doe'"), {"Li"}),
        ("my zip code is 91148.", "zip", text(), {"91148"}),
        ("mia.li@example.com, please", "email", text(), {"mia.li@example.com"}),
        ("It is #W2378156!", "order_id", text("such as '#W0000000'."), {"#W2378156"}),
        ("mia_li_3668", "user_id", text("such as 'sara_doe_496'."), {"mia_li_3668"}),
        ('{"orders": ["#W1", "#W2"]}', "order_id", text(), {"#W1", "#W2"}),
        ('{"payment_methods": {"paypal_1": {"source": "paypal"}}}', "payment_method_id", text(), {"paypal_1"}),
        ('[{"line_id": "L1"}, {"line_id": "L2"}]', "line_id", text(), {"L1", "L2"}),
        ("", "reason", text("either 'no longer needed' or 'by mistake'"), {"no longer needed", "by mistake"}),
        ("", "cabin", {"type": "string", "enum": ["economy", "business"]}, {"economy", "business"}),
        ("", "roam", {"type": "boolean"}, {True, False}),
        ("", "gb", {"anyOf": [{"type": "number"}, {"type": "null"}]}, {1, 2, 3}),
    ],
)
def test_values_come_from_the_conversation_or_the_schema(said, parameter, schema, values):
    assert set(calls([said], tool("f", **{parameter: schema}))) == {f"f({parameter}={value!r})" for value in values}


def test_lists_and_objects_are_filled_member_by_member():
    flight = {"type": "object", "properties": {"flight_id": text()}, "required": ["flight_id"]}
    schema = {"type": "array", "items": {"$ref": "#/$defs/Flight"}}
    function = tool("book", flights=schema)
    function["function"]["parameters"]["$defs"] = {"Flight": flight}
    one = "{'flight_id': 'HAT1'}"
    expected = {f"book(flights=[{one}])", f"book(flights=[{one}, {one}])"}
    assert set(calls(['{"flight_id": "HAT1"}'], function)) == expected


def test_tools_whose_arguments_are_unknown_are_left_alone_but_for_a_guess():
    tools = (tool("known"), tool("unknown", order_id=text("such as '#W0000000'")))
    assert set(calls([""], *tools)) == {"known()"}
    guessed = calls([""], *tools, guess=1)
    assert "unknown(order_id='#W0000000')" in guessed
    assert set(calls([""], *tools[1:])) == {"unknown(order_id='#W0000000')"}


def test_it_speaks_and_leaves():
    assert all("(" not in said for said in calls([""], tool("f"), speak=1))
    said = calls([""], tool("f"), leave=1)
    assert said[:4] == ["f()"] * 4
    assert "goodbye" in said[4]
    assert all("(" not in said for said in calls([""]))  # no tools


def test_a_slot_that_starts_again_forgets_and_others_do_not():
    agent = RandomCallerAgent(speak=0, guess=0, leave=0)
    infos = [
        {"tools": [tool("f", order_id=text())], "messages": [{"role": "tool", "content": f'{{"order_id": "{name}"}}'}]}
        for name in "ab"
    ]
    assert agent.act(["", ""], infos) == ["f(order_id='a')", "f(order_id='b')"]
    agent.reset([True, False])
    silent = [{**info, "messages": []} for info in infos]
    assert agent.act(["", ""], silent) == ["f(order_id='unknown')", "f(order_id='b')"]


def test_the_seed_decides():
    tools = [tool(name) for name in "abcdef"]
    assert calls([""], *tools, seed=1) == calls([""], *tools, seed=1) != calls([""], *tools, seed=2)


@pytest.mark.long
def test_about_half_of_its_calls_succeed_on_retail():
    pytest.importorskip("tau2")
    import gymnasium

    import rwml_gym  # noqa: F401  registers the id
    from rwml_gym.agents.players.rollout import collect
    from rwml_gym.diagnostics.perturbations.text import failed

    env = gymnasium.make("rwml_gym/Tau2-v0", domain="retail", split="train", max_episode_steps=30)
    played = collect(lambda: env, RandomCallerAgent(), env.unwrapped.games.names[:30], slots=1)
    asked = [transition for transition in played if transition.role == "tool"]
    share = sum(not failed(transition) for transition in asked) / len(asked)
    assert 0.4 < share < 0.7
    assert not any(transition.invalid_action for transition in played)
    assert {transition.role for transition in played} == {"tool", "user"}
