"""The table of known problems is what the data show, and tasks that need a judge get one or are left out."""

from __future__ import annotations

import json

import gymnasium
import pytest

pytest.importorskip("tau2")

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.evaluation.table import table_text
from rwml_gym.envs.tau2 import domains
from rwml_gym.envs.tau2.conversation import Conversation
from rwml_gym.envs.tau2.domains import load_domain, load_task, splits, task_ids
from rwml_gym.envs.tau2.env import Tau2Env
from rwml_gym.envs.tau2.package import data_version
from rwml_gym.envs.tau2.tasks import Tasks, known_problem
from rwml_gym.envs.tau2.users import UserModelError
from rwml_gym.errors import InvalidConfigError

NOW = "2024-05-15T15:00:00"
"""The time in airline's policy."""


def problems(domain, word, user="scripted"):
    """The tasks whose known problem has a word."""
    return {task for task in task_ids(domain) if word in known_problem(domain, task, user)}


def gold(domain, task_id):
    return load_task(domain, task_id).evaluation_criteria.actions or []


def run(domain, task_id, actions):
    """The hash after some actions, and those that raised."""
    task = load_task(domain, task_id)
    conversation = Conversation(task, load_domain(domain).make("gold"), None, max_errors=0)
    conversation.begin()
    raised = []
    for action in actions:
        try:
            conversation.world.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
        except Exception:
            raised.append(action)
    return conversation.world, raised


def writes(domain, action):
    return load_domain(domain).make().tools.tool_type(action.name).value == "write"


def with_pairs_reversed(action):
    changed = action.model_copy(deep=True)
    for name in ("item_ids", "new_item_ids"):
        changed.arguments[name] = action.arguments[name][::-1]
    return changed


def test_the_table_is_of_the_installed_release():
    assert problems("retail", "") == set(task_ids("retail"))
    assert problems("retail", "error"), f"the table knows nothing of {data_version()}: find the problems again"


@pytest.mark.long
def test_items_get_the_variant_of_the_last_one():
    found = set()
    for task_id in task_ids("retail"):
        actions = gold("retail", task_id)
        for number, action in enumerate(actions):
            if action.name == "modify_pending_order_items" and len(action.arguments["item_ids"]) > 1:
                world, _ = run("retail", task_id, actions)
                order = world.tools.db.orders[action.arguments["order_id"]]
                bought = [item for item in order.items if item.item_id in action.arguments["new_item_ids"]]
                assert len({item.price for item in bought}) == 1
                changed = [*actions[:number], with_pairs_reversed(action), *actions[number + 1 :]]
                assert run("retail", task_id, changed)[0].get_db_hash() != world.get_db_hash()
                found.add(task_id)
    assert problems("retail", "variant of the last") == found


@pytest.mark.parametrize("domain", ["airline", "retail", "telecom"])
def test_expected_calls_that_raise(domain):
    found = set()
    for task_id in splits(domain)["base"]:
        if domain == "telecom":  # its database does not count
            break
        raised = run(domain, task_id, gold(domain, task_id))[1]
        found |= {task_id} if any(writes(domain, action) for action in raised) else set()
    assert problems(domain, "raises an error") == found


def test_calls_whose_order_counts_and_should_not():
    for task_id in problems("airline", "order of calls"):
        actions = [action for action in gold("airline", task_id) if writes("airline", action)]
        world, raised = run("airline", task_id, actions)
        other, others = run("airline", task_id, [*actions[:-2], actions[-1], actions[-2]])
        assert not raised
        assert not others
        assert world.get_db_hash() != other.get_db_hash()


def test_what_is_expected_breaks_the_policy_of_airline():
    """Its rules for cancelling, which the tools do not check."""
    found = set()
    for task_id in task_ids("airline"):
        world = load_domain("airline").make()
        for action in gold("airline", task_id):
            if action.name == "cancel_reservation":
                reservation = world.tools.get_reservation_details(action.arguments["reservation_id"])
                status = [
                    world.tools.db.flights[flight.flight_number].dates[flight.date].status
                    for flight in reservation.flights
                ]
                allowed = (
                    reservation.cabin == "business"
                    or reservation.insurance == "yes"
                    or "cancelled" in status
                    or reservation.created_at >= NOW.replace("-15T", "-14T")
                )
                if not allowed or {"landed", "flying"} & set(status):
                    found.add(task_id)
            world.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
    assert problems("airline", "breaks the policy") == found == {"7", "9", "37"}


@pytest.mark.parametrize("domain", ["telecom", "telecom-workflow"])
def test_tickets_that_hide_what_is_asked_for(domain):
    found = {
        task_id
        for task_id in task_ids(domain)
        if any(action.name == "refuel_data" for action in gold(domain, task_id))
        and "refuel" not in load_task(domain, task_id).ticket
    }
    assert problems(domain, "ticket", user="solo") == found
    assert not problems(domain, "ticket")


def test_the_problem_is_in_info_and_its_tasks_can_be_dropped():
    env = Tau2Env("airline")
    _, info = env.reset(options={"game": "airline/base/9"})
    assert info["known_problem"] == known_problem("airline", "9") != ""
    assert env.step("Hello")[4]["known_problem"] == info["known_problem"]
    assert env.reset(options={"game": "airline/base/8"})[1]["known_problem"] == ""
    dropped = gymnasium.make("rwml_gym/Tau2-airline-v0", known_problems="drop").unwrapped.games.names
    assert set(env.games.names) - set(dropped) == {f"airline/base/{number}" for number in (7, 9, 23, 33, 37)}
    with pytest.raises(InvalidConfigError, match="keep, drop"):
        Tau2Env("airline", known_problems="ignore")


def test_evaluate_says_both_numbers():
    found = evaluate(EvaluateConfig(agent="no-op", env="tau2", domain="airline", split="base"))
    table = table_text(found.header, found.episodes)
    rows = {line[:34].strip(): line[34:].split()[:2] for line in table.splitlines()}
    assert rows["all"] == ["50", "0.380"]
    assert rows["without known problems"][0] == "45"
    assert "5 of 50 tasks have wrong data" in table
    sound = evaluate(
        EvaluateConfig(
            agent="no-op", env="tau2", domain="airline", env_arguments='{"known_problems": "drop"}', split="base"
        )
    )
    assert len(sound.episodes) == 45
    assert "known problems" not in table_text(sound.header, sound.episodes)


# -- tasks that only a language model can score


@pytest.fixture
def judged_task(monkeypatch):
    """Makes one of mock's tasks count its assertions in words, as upstream's releases do in 112 of retail."""
    raw = dict(domains._raw_tasks("mock"))
    task = json.loads(raw["create_task_1_nl_eval"])
    task["evaluation_criteria"]["reward_basis"] = ["DB", "NL_ASSERTION"]
    raw["create_task_1_nl_eval"] = json.dumps(task).encode()
    monkeypatch.setattr(domains, "_raw_tasks", lambda name: raw)
    domains._task.cache_clear()
    yield "mock/base/2"
    domains._task.cache_clear()


def judge_that_says(*answers):
    asked = []

    def judge(messages, tools):
        asked.append(messages)
        return {"role": "assistant", "content": answers[len(asked) - 1]}

    return judge, asked


def results(*met):
    return json.dumps({"results": [{"expectedOutcome": "x", "reasoning": "y", "metExpectation": held} for held in met]})


def test_they_are_left_out_with_a_count(judged_task):
    with pytest.warns(UserWarning, match="1 of 9 need one and are left out"):
        env = Tau2Env("mock")
    assert judged_task not in env.games.names
    assert (len(env.games.names), env.games.unscorable) == (8, 1)
    assert Tasks("mock", "base", judged=True).unscorable == 0


def play_judged(judge, game, **arguments):
    env = Tau2Env("mock", judge=judge, **arguments)
    env.reset(options={"game": game})
    for action in gold("mock", "create_task_1_nl_eval"):
        env.step(json.dumps({"name": action.name, "arguments": action.arguments}))
    return env.step("done()")


@pytest.mark.parametrize("held", [True, False])
def test_they_are_scored_by_a_judge(judged_task, held):
    count = len(load_task("mock", "create_task_1_nl_eval").evaluation_criteria.nl_assertions)
    wrong = ["", "no JSON", results(*[True] * (count + 1))]
    judge, asked = judge_that_says(*wrong, f"<think>{{}}</think>```json\n{results(*[True] * (count - 1), held)}\n```")
    _, reward, terminated, _, info = play_judged(judge, judged_task)
    assert (reward, terminated, info["score_parts"]["NL_ASSERTION"]) == (float(held), True, float(held))
    assert info["counted"] == ["DB", "NL_ASSERTION"]
    assert len(asked) == 4
    assert "assistant: Hi! How can I help you today?" in asked[0][1]["content"]


def test_a_judge_that_fails_is_a_failure(judged_task):
    with pytest.raises(UserModelError, match="results of the judge"):
        play_judged(judge_that_says(*[""] * 4)[0], judged_task)
    *_, terminated, truncated, info = play_judged(judge_that_says()[0], judged_task, on_user_error="truncate")
    assert (terminated, truncated, info["won"]) == (False, True, False)
    assert "IndexError" in info["user_error"]
