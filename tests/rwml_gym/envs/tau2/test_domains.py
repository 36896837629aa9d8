"""Worlds share what they read and never see each other's writes, whichever tool is called."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tau2")

from rwml_gym.envs.tau2 import domains
from rwml_gym.envs.tau2.database import SharedTable, changes
from rwml_gym.envs.tau2.domains import DOMAINS, load_domain, load_task, splits
from rwml_gym.envs.tau2.package import load
from rwml_gym.envs.tau2.tasks import Tasks
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from tests.helpers.tau2_stock import argument_values, functional, stock_world


def state(world):
    return world.get_db_hash(), world.get_user_db_hash()


def gold_calls(domain):
    """Calls that succeed: the gold actions of every task of the domain, from its own start."""
    for task_id in splits(domain)["base"]:
        yield load_task(domain, task_id)


def play_gold(world, task):
    start = task.initial_state
    if start is not None:
        world.set_state(start.initialization_data, start.initialization_actions, [])
    names = set()
    for action in task.evaluation_criteria.actions or []:
        call = load("data_model.message").ToolCall(
            name=action.name, arguments=action.arguments, requestor=action.requestor
        )
        if not world.get_response(call).error:
            names.add(action.name)
    return names


@pytest.mark.long
@pytest.mark.parametrize("domain", DOMAINS)
def test_no_tool_of_a_domain_writes_into_another_world(domain):
    """Gold actions, which succeed, and every tool with arguments of other calls; the next world is as the first was."""
    make = load_domain(domain).make
    before = state(make())
    bystander = make()
    succeeded: set[str] = set()
    for task in gold_calls(domain):
        succeeded |= play_gold(make(), task)
    rng = random.Random(0)
    values = argument_values(domain)
    world = make()
    called = set()
    for kit, requestor in ((world.tools, "assistant"), (world.user_tools, "user")):
        if kit is None:
            continue
        specs = {**load_domain(domain).tools, **load_domain(domain).user_tools}
        for name in kit.tools:
            spec = specs[name]
            for _ in range(30):
                arguments = {key: rng.choice(values.get(key) or ODD.get(key, ["x", 1])) for key in spec.order}
                call = load("data_model.message").ToolCall(name=name, arguments=arguments, requestor=requestor)
                succeeded |= set() if world.get_response(call).error else {name}
            called.add(name)
    writers = {name for name in called if is_write(domain, name)}
    assert writers <= succeeded
    assert state(make()) == state(bystander) == before == state(stock_world(domain))


ODD = {"apn_settings": [{"apn_name": "internet", "mms_apn": "mms"}]}
"""Arguments that no gold action has."""


def is_write(domain, name):
    world = load_domain(domain).make()
    kit = world.tools if world.tools.has_tool(name) else world.user_tools
    return kit.tool_type(name).value == "write"


@pytest.mark.long
@pytest.mark.parametrize("domain", ["airline", "retail"])
def test_equal_changes_mean_equal_hashes(domain):
    make = load_domain(domain).make
    seen: dict[str, set[str]] = {}
    for task in list(gold_calls(domain))[:25]:
        world = make()
        play_gold(world, task)
        seen.setdefault(world.get_db_hash(), set()).add(json.dumps(changes(world.tools.db), sort_keys=True))
    assert all(len(found) == 1 for found in seen.values())
    assert len({found for group in seen.values() for found in group}) == len(seen)


def test_a_row_is_copied_when_it_is_reached():
    database = load_domain("airline").make().tools.db
    users = database.users
    assert isinstance(users, SharedTable)
    key = next(iter(users))
    assert users[key] is not users.base[key]
    assert users[key] is users[key]
    users[key].name.first_name = "Changed"
    assert users.base[key].name.first_name != "Changed"
    assert list(changes(database)["users"]) == [key]
    users.pop(key)
    assert changes(database)["users"] == {key: None}
    assert users.get(key) is None
    assert users.pop(key, "gone") == "gone"
    with pytest.raises(KeyError):
        users.pop(key)
    other = next(iter(users))
    del users[other]
    assert other not in users
    assert other in users.base


def test_a_row_that_is_only_read_is_no_change():
    database = load_domain("retail").make().tools.db
    for key in list(database.orders)[:20]:
        assert database.orders[key] == database.orders.base[key]
    assert not any(changes(database).values())


def test_a_new_bill_has_the_same_id_every_time():
    """tau2 draws it at random, which no seed reaches."""
    ids = []
    for _ in range(2):
        world = load_domain("telecom").make()
        known = {bill.bill_id for bill in world.tools.db.bills}
        for customer in world.tools.db.customers:
            world.tools._apply_one_time_charge(customer.customer_id, 5.0, "test")
        ids.append([bill.bill_id for bill in world.tools.db.bills if bill.bill_id not in known])
        owned = {bill for customer in world.tools.db.customers for bill in customer.bill_ids}
        assert owned.issuperset(ids[-1])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0]) > 0


def test_a_broken_vpn_is_broken_in_its_own_world_only():
    """In tau2 all worlds share one default, which breaking the VPN changes for good."""
    broken, whole = (load_domain("telecom").make() for _ in range(2))
    broken.user_tools.break_vpn()
    whole.user_tools.connect_vpn()
    assert broken.user_tools.device.vpn_details.server_performance.value == "poor"
    assert whole.user_tools.device.vpn_details.server_performance.value == "excellent"


def test_splits_are_tau2s():
    sizes = {
        name: {split: len(ids) for split, ids in splits(name).items()} for name in ("airline", "retail", "telecom")
    }
    assert sizes == {
        "airline": {"train": 30, "test": 20, "base": 50},
        "retail": {"train": 74, "test": 40, "base": 114},
        "telecom": {"small": 20, "train": 74, "test": 40, "full": 2285, "base": 114},
    }
    for name in ("airline", "retail", "telecom"):
        assert not set(splits(name)["train"]) & set(splits(name)["test"])


def test_names_say_nothing_of_what_is_broken():
    tasks = Tasks("telecom", "base")
    assert len(tasks.names) == 114
    assert all(name.removeprefix("telecom/base/").isdecimal() for name in tasks.names)
    assert [tasks.task_id(name) for name in tasks.names] == list(splits("telecom")["base"])
    assert Tasks("retail", "base").task_id("retail/base/84") == "84"


def test_what_does_not_exist_says_what_does():
    with pytest.raises(InvalidConfigError, match="to be one of airline"):
        load_domain("bank")
    with pytest.raises(InvalidConfigError, match="train, test, base"):
        Tasks("retail", "dev")
    with pytest.raises(InvalidConfigError, match="telecom, telecom-workflow, mock"):
        load_domain("retail", solo=True)
    with pytest.raises(GameNotFoundError, match="retail/test/"):
        Tasks("retail", "test").task_id("retail/test/none")
    with pytest.raises(GameNotFoundError, match="such as '0'"):
        load_task("airline", "none")


@pytest.mark.long
@given(st.sampled_from(DOMAINS), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_two_worlds_told_the_same_stay_the_same(domain, rng):
    worlds = [load_domain(domain).make() for _ in range(2)]
    values = argument_values(domain)
    message = load("data_model.message")
    for _ in range(10):
        spec = rng.choice(list(load_domain(domain).tools.values()))
        arguments = {name: rng.choice(values.get(name) or ["x"]) for name in spec.order}
        answers = [world.get_response(message.ToolCall(name=spec.name, arguments=arguments)) for world in worlds]
        assert answers[0].content == answers[1].content, functional(spec.name, arguments)
    assert state(worlds[0]) == state(worlds[1])


def test_a_domain_is_loaded_once():
    assert load_domain("mock") is load_domain("mock")
    assert domains.load_task("retail", "0") is load_task("retail", "0")
