"""Labelled pairs of tool results, and the thresholds that follow from them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rouge_score")

from rwml_gym.diagnostics.calibration import Calibration, NoPairsError, calibrate, calibrate_by_role
from rwml_gym.diagnostics.perturbations.text import Pool, failed, json_result
from rwml_gym.diagnostics.perturbations.tool import TOOL_RESULTS
from rwml_gym.reward.distances import DEFAULT_ROUGE_THRESHOLD
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.views import VIEWS
from rwml_gym.transitions import Transition, Turn

HISTORY = (Turn("", "user: My order is late."),)


def order(number: int, **changes: object) -> dict[str, object]:
    record = {
        "order_id": f"#W{1000 + number}",
        "status": ["pending", "delivered", "cancelled"][number % 3],
        "items": [{"item_id": str(7000 + number), "price": 12.5 + number, "available": number % 2 == 0}],
        "item_ids": [str(7000 + number)],
        "cancel_reason": None,
    }
    return {**record, **changes}


def result(data: object, game: str = "g", action: str = "get_order_details(order_id='x')") -> Transition:
    text = data if isinstance(data, str) else json.dumps(data)
    return Transition(HISTORY, action, f"tool: {text}", game=game, role="tool")


RESULTS = [
    transition
    for number in range(24)
    for transition in (
        result(order(number), game=f"g{number}"),
        result(f"Error: Order #W{number} not found", game=f"g{number}"),
        Transition(HISTORY, "Sure.", "user: Yes, please go ahead.", game=f"g{number}", role="user"),
    )
]


def perturbed(name: str, transition: Transition, seed: int = 0) -> str:
    rules = {**TOOL_RESULTS.same, **TOOL_RESULTS.different}
    return rules[name](transition, Pool(RESULTS), np.random.default_rng(seed))


def test_keys_are_reordered_at_every_depth():
    nested = {"item": {name: number for number, name in enumerate("abcdef")}, **{name: name for name in "uvwxyz"}}
    _, data = json_result(perturbed("keys reordered", result(nested)))
    assert data == nested
    assert list(data) != list(nested)
    assert list(data["item"]) != list(nested["item"])


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("indented", {"id": 1, "open": True}, '{\n  "id": 1,\n  "open": true\n}'),
        ("as Python writes it", {"id": "x", "open": True, "note": None}, "{'id': 'x', 'open': True, 'note': None}"),
        (
            "numbers rounded",
            {"a": 3.1416, "b": [12.0], "c": 3, "d": True},
            '{"a": 3.14, "b": [12], "c": 3, "d": true}',
        ),
        ("empty fields left out", {"a": None, "b": [], "c": [{"d": None, "e": 0}]}, '{"c": [{"e": 0}]}'),
    ],
)
def test_the_same_data_in_other_words(name, data, expected):
    assert perturbed(name, result(data)) == f"tool: {expected}"


@pytest.mark.parametrize(
    ("said", "reworded"),
    [
        ("Error: Order not found", "Error: Order does not exist"),
        ("Error: It cannot be changed", "Error: It can not be changed"),
        ("Error: The item should be different from the old one", "Error: The item must differ from the old one"),
        ("Error: The date should be later", "Error: The date has to be later"),
        ("Error: Bags must be paid", "Error: Bags has to be paid"),
        ("The line is already active", "The line has already been active"),
        ("Transfer successful", "Transfer was successful"),
        ("Successfully added 1 GB", "Added 1 GB"),
        ("Error: The name does not match", "Error: The name is not the same"),
        ("Request sent to 5", "Request was sent to 5"),
        ({"note": "not found"}, '{"note": "not found"}'),  # data is rewritten as data
    ],
)
def test_messages_are_reworded(said, reworded):
    assert perturbed("reworded", result(said)) == f"tool: {reworded}"


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("other number", {"items"}),
        ("other id", {"order_id", "items", "item_ids"}),
        ("other value", {"status"}),
        ("opposite flag", {"items"}),
    ],
)
def test_one_value_is_changed(name, changed):
    for seed in range(10):
        role, data = json_result(perturbed(name, result(order(4)), seed))
        assert role == "tool: "
        different = {key for key in order(4) if data[key] != order(4)[key]}
        assert different
        assert different <= changed


def test_a_number_becomes_another_of_its_type_and_a_flag_is_none():
    data = {"paid": 12.5, "bags": 1, "open": True}
    changed = [json_result(perturbed("other number", result(data), seed))[1] for seed in range(20)]
    assert all(type(value) is type(data[key]) for of in changed for key, value in of.items())
    assert all(of["open"] is True and (of["paid"] == 12.5) != (of["bags"] == 1) for of in changed)
    assert all(abs(of["bags"] - 1) < 30 and abs(of["paid"] - 12.5) < 1.37 * 30 for of in changed)
    for name in ("paid", "bags"):
        assert {of[name] > data[name] for of in changed if of[name] != data[name]} == {True, False}


def test_flags_are_turned_and_numbers_that_equal_them_stay():
    _, data = json_result(perturbed("opposite flag", result({"open": True, "bags": 1})))
    assert data == {"open": False, "bags": 1}
    assert type(data["bags"]) is int


def test_another_value_was_seen_under_the_same_name():
    words = {json_result(perturbed("other value", result(order(4)), seed))[1]["status"] for seed in range(20)}
    assert words == {"pending", "cancelled"}  # it was "delivered"
    items = {json_result(perturbed("other id", result(order(4)), seed))[1]["item_ids"][0] for seed in range(20)}
    assert items - {"7004"} <= {str(7000 + number) for number in range(24)}
    # without another one, its first digit changes
    assert perturbed("other id", result({"code": "A19"})) == 'tool: {"code": "A29"}'


def test_an_id_is_changed_wherever_it_stands():
    records = [json_result(perturbed("other id", result(order(4)), seed))[1] for seed in range(20)]
    assert {data["items"][0]["item_id"] == data["item_ids"][0] for data in records} == {True}
    # half of the rule's choices fall on the order's own id
    assert {(data["order_id"] == "#W1004") != (data["item_ids"] == ["7004"]) for data in records} == {True}
    assert len({data["item_ids"] == ["7004"] for data in records}) == 2
    named = perturbed("other id", result({"items": {"B1": {"code": "B1"}}}))
    assert named == 'tool: {"items": {"B2": {"code": "B2"}}}'


def test_one_full_field_is_left_out():
    left = [json_result(perturbed("field left out", result(order(4)), seed))[1] for seed in range(30)]
    missing = [order(4).keys() - data.keys() for data in left]
    assert all(len(names) == 1 for names in missing)
    assert set().union(*missing) == order(4).keys() - {"cancel_reason"}  # an empty field says nothing
    assert all(data == {name: order(4)[name] for name in data} for data in left)


def test_data_is_cut_off_half_way_and_a_message_is_not():
    text = result(order(4)).next_state
    assert perturbed("cut off", result(order(4))) == text[: len(text) // 2]
    assert perturbed("cut off", result("Done.")) == "tool: Done."


def test_words_are_shuffled():
    text = perturbed("shuffled words", result("one two three four five six"))
    assert sorted(text.split()) == sorted("tool one two three four five six".split())
    assert text != "tool one two three four five six"


def test_records_and_errors_are_exchanged():
    record, error = result(order(4)), result("Error: Order #W0 not found")
    errors = {of.next_state for of in RESULTS if of.next_state.startswith("tool: Error")}
    others = {of.next_state for of in RESULTS if of.role == "tool"}
    assert failed(error)
    assert not failed(record)
    assert perturbed("error instead", record) in errors
    assert perturbed("error instead", error) == error.next_state
    assert perturbed("other error", record) == record.next_state
    for seed in range(5):
        assert perturbed("other error", error, seed) in errors - {error.next_state}
        assert perturbed("other record", record, seed) in others - {record.next_state}


@pytest.mark.parametrize("text", ["", "?", "4.0", "[]", "{}", '"a"', "[[1], {}]", "冷蔵庫", "null"])
@pytest.mark.parametrize("name", [*TOOL_RESULTS.same, *TOOL_RESULTS.different])
def test_rules_take_any_text(name, text):
    for state in (text, f"tool: {text}"):
        assert isinstance(perturbed(name, replace(result({}), next_state=state)), str)


def test_each_role_is_calibrated_with_its_gap():
    results = calibrate_by_role(RESULTS, "hashing", {"tool": "rouge"}, precision=0.6)
    assert list(results) == ["tool", "user"]
    tool, user = results["tool"], results["user"]
    assert isinstance(tool, Calibration)
    assert tool.gap == "rouge"
    assert 0 < tool.threshold <= 1
    assert {made.name for made in tool.perturbations} == {*TOOL_RESULTS.same, *TOOL_RESULTS.different}
    assert tool.table().startswith("ROUGE-L, threshold 0.")
    assert "ROUGE counts words" in replace(tool, reached=False).advice
    assert json.loads(tool.to_json())["gap"] == "rouge"
    assert GapReward("hashing", measures={"tool": tool.measure}).measure("tool").threshold == tool.threshold
    # One sentence is no ground for a threshold.
    assert isinstance(user, NoPairsError)
    assert "at least 10 distinct states, actual: 1" in str(user)


@pytest.mark.slow
def test_the_default_threshold_is_what_retail_asks_for():
    """Where `DEFAULT_ROUGE_THRESHOLD` comes from: `pytest -m slow -s -k what_retail_asks` prints it."""
    pytest.importorskip("tau2")
    pytest.importorskip("torch")
    import gymnasium

    from rwml_gym.agents.players.random_caller import RandomCallerAgent
    from rwml_gym.agents.players.rollout import collect

    env = gymnasium.make("rwml_gym/Tau2-v0", domain="retail", split="train", max_episode_steps=30)
    played = collect(lambda: env, RandomCallerAgent(), env.unwrapped.games.names, slots=1)
    tool = [transition for transition in played if transition.role == "tool"]
    calibration = calibrate(tool, "hashing", gap="rouge", perturbations=TOOL_RESULTS)
    print(calibration.table())
    assert calibration.reached
    assert calibration.precision > 0.85
    assert calibration.threshold == pytest.approx(DEFAULT_ROUGE_THRESHOLD, abs=0.003)


def rows(layout: tuple[str, str]) -> list[Transition]:
    return [
        result(json.dumps({"kind": "order", "id": f"W{1000 + k}", "total": 10.5 + k}, separators=layout), f"g{k % 6}")
        for k in range(60)
    ]


def test_the_layout_of_results_does_not_count():
    """A rule that finds no other value does not write the text anew, which would be a false pair that says the same."""
    plain, compact = (calibrate(rows(layout), "hashing", gap="rouge") for layout in ((", ", ": "), (",", ":")))
    assert plain.precision == compact.precision == 1.0
    pairs = [[(made.name, made.pairs) for made in c.perturbations if not made.same] for c in (plain, compact)]
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize("value", [float("nan"), 1e300, "word"])
def test_a_value_without_another_stays(value):
    of = result(json.dumps({"total": value}, separators=(",", ":")))
    for name in ("other number", "other value"):
        for seed in range(5):
            assert perturbed(name, of, seed) == of.next_state


def test_every_view_is_calibrated():
    for view in VIEWS:
        found = calibrate(RESULTS, "hashing", gap="rouge", view=view)
        assert found.view == view
    assert "of the without" not in found.name


@pytest.mark.parametrize("rule", TOOL_RESULTS.same)
@pytest.mark.parametrize(
    "text", ['{"name": "Zoë Müller", "id": 3}', '{"name": "Zo\\u00eb", "id": 3}', '{"a":[1,2],"b":3}']
)
def test_a_result_that_a_rule_leaves_as_it_is_stays_as_written(rule, text):
    """Letters beyond ASCII are no difference, and neither are blanks."""
    (transition,) = [result(text)]
    rng = np.random.default_rng(0)
    perturbed = TOOL_RESULTS.same[rule](transition, Pool([transition]), rng)
    (distance,) = GapReward("hashing", gap="rouge")([perturbed], [transition.next_state], ["tool"]).distances
    if rule in ("empty fields left out", "numbers rounded", "reworded"):
        assert perturbed == transition.next_state
    if rule == "indented":
        assert distance == 0
    assert ("Zoë" in perturbed) == ("Zoë" in text) or rule == "as Python writes it"
