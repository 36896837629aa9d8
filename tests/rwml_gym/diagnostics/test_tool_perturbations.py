"""Labelled pairs of tool results, and the thresholds that follow from them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rouge_score")

from rwml_gym.diagnostics.calibration import Calibration, NoPairsError, calibrate, calibrate_by_role
from rwml_gym.diagnostics.text_perturbations import Pool, failed, json_result
from rwml_gym.diagnostics.tool_perturbations import TOOL_RESULTS
from rwml_gym.reward.distances import DEFAULT_ROUGE_THRESHOLD
from rwml_gym.reward.gap import GapReward
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


@pytest.mark.parametrize("name", ["keys reordered", "indented", "numbers rounded"])
def test_the_same_data_in_other_words(name):
    transition = result(order(3))
    _, data = json_result(perturbed(name, transition))
    assert data == order(3)


def test_empty_fields_may_be_left_out():
    _, data = json_result(perturbed("empty fields left out", result(order(3))))
    assert data == {name: value for name, value in order(3).items() if value is not None}


def test_python_and_errors_in_other_words():
    assert "None" in perturbed("as Python writes it", result(order(3)))
    assert perturbed("reworded", result("Error: Order not found")) == "tool: Error: Order does not exist"


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


def test_an_id_is_changed_wherever_it_stands():
    texts = [perturbed("other id", result(order(4)), seed) for seed in range(20)]
    assert all(text.count("7004") in (0, 2) for text in texts)


def test_records_and_errors_are_exchanged():
    transition = result(order(4))
    assert json_result(perturbed("field left out", transition))[1].keys() < order(4).keys()
    assert transition.next_state.startswith(perturbed("cut off", transition))
    assert perturbed("error instead", transition).startswith("tool: Error: Order #W")
    assert perturbed("other record", transition) != transition.next_state
    error = result("Error: Order #W0 not found")
    assert perturbed("other error", error, 1) != error.next_state
    assert failed(error)
    assert not failed(transition)


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
