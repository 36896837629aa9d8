"""A model behind a server: failures that pass are tried again, others are outcomes, and money has an end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("litellm")

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.replay import replay
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.evaluation.table import table_text
from rwml_gym.agents.players.endpoint import BudgetSpentError, EndpointRefusedError
from rwml_gym.agents.traces.folder import EPISODES, read_trace
from rwml_gym.errors import InvalidConfigError, StorageError
from tests.helpers.chat_server import chat_server

pytestmark = pytest.mark.long

LOOK = {"content": "Thought: I do not know.\nAction: look"}


def config(address, **changes):
    arguments = json.dumps({"api_base": address, "api_key": "not-a-secret"})
    values = {"env": "toy", "agent": "litellm:openai/m", "episodes": 6, "max_steps": 5, "concurrency": 4}
    return EvaluateConfig(**{**values, "agent_arguments": arguments, **changes})


def test_a_failing_server_ends_with_a_complete_table(tmp_path):
    """Every 7th call is refused, every 20th hangs, one answer is no JSON."""

    def reply(number, body):
        if number % 20 == 0:
            return None
        return 429 if number % 7 == 0 else "{no JSON" if number == 3 else LOOK

    with chat_server(reply) as (address, requests):
        result = evaluate(config(address, timeout=2.0), tmp_path)
        assert len(requests) > 6 * 5
    assert [e.error for e in result.episodes] == [None] * 6
    assert [e.steps for e in result.episodes] == [5] * 6
    assert all((e.prompt_tokens, e.completion_tokens) == (500, 50) for e in result.episodes)
    assert len((tmp_path / EPISODES).read_text().splitlines()) == 6
    assert "6 episodes." in table_text(result.header, result.episodes)
    assert "not-a-secret" not in (tmp_path / "run.json").read_text()


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_name_ends_the_evaluation_and_leaves_no_score(tmp_path, status):
    works = []
    with chat_server(lambda number, body: LOOK if works else status) as (address, requests):
        with pytest.raises(EndpointRefusedError, match="Check its name, the key, and the address"):
            evaluate(config(address, concurrency=1), tmp_path)
        assert len(requests) == 1  # nothing is tried again
        assert read_trace(tmp_path).episodes == []
        works.append(True)
        episodes = evaluate(config(address, concurrency=1), tmp_path).episodes
    assert [e.error for e in episodes] == [None] * 6


def test_a_prompt_that_is_refused_is_the_outcome_of_its_episode():
    with chat_server(lambda number, body: 400) as (address, requests):
        episodes = evaluate(config(address)).episodes
    assert len(requests) == 6  # nothing is tried again
    assert {(e.failed, e.won, e.steps) for e in episodes} == {("agent", False, 0)}
    assert all("BadRequestError" in str(e.error) for e in episodes)


def test_what_unfinished_episodes_cost_is_spent(tmp_path):
    prices = (1000.0, 1000.0)  # a call costs 0.11 dollars, an episode 0.55
    with chat_server(lambda number, body: LOOK) as (address, requests):
        poor = config(address, max_cost=0.5, prices=prices, concurrency=1)
        for _ in range(2):
            with pytest.raises(BudgetSpentError, match=r"0\.5500 are spent"):
                evaluate(poor, tmp_path)
        assert len(requests) == 5
        for damage in ("{", "[]", "{}"):
            (tmp_path / "spent.json").write_text(damage)
            with pytest.raises(StorageError, match=r"spent\.json.*Remove the file"):
                evaluate(poor, tmp_path)


def test_the_prices_of_a_known_model_count_at_every_address():
    import litellm

    each = litellm.model_cost["gpt-4.1-mini"]
    call = 100 * each["input_cost_per_token"] + 10 * each["output_cost_per_token"]
    with chat_server(lambda number, body: LOOK) as (address, requests):
        known = config(address, agent="litellm:openai/gpt-4.1-mini", max_cost=2.5 * call, concurrency=1)
        with pytest.raises(BudgetSpentError):
            evaluate(known)
        assert len(requests) == 3


def test_episodes_that_were_played_side_by_side_are_replayed_one_by_one(tmp_path):
    """Also of an evaluation that was stopped, whose unfinished episodes are left out."""

    def reply(number, body):
        if number > 22:
            raise ConnectionAbortedError
        return {"content": "Action: look" if number % 2 else "Action: help"}

    with chat_server(reply) as (address, _), pytest.raises(BudgetSpentError):
        evaluate(config(address, concurrency=3, max_cost=2.0, prices=(1000.0, 1000.0)), tmp_path)
    trace = read_trace(tmp_path)
    found = replay(trace)
    assert found.deviations == []
    assert (found.episodes, found.steps) == (len(trace.episodes), 5 * len(trace.episodes))
    header = {key: value for key, value in trace.header.items() if key != "env"}
    with pytest.raises(StorageError, match="no key 'env'"):
        replay(replace(trace, header=header))


def test_the_whole_conversation_is_sent_with_the_tools(tmp_path):
    pytest.importorskip("tau2")
    call = {"id": "c9", "type": "function", "function": {"name": "get_users", "arguments": "{}"}}

    def reply(number, body):
        asked = body["messages"][-1]["role"] == "user" and len(body["messages"]) == 2
        return {"content": None, "tool_calls": [call]} if asked else {"content": "Goodbye"}

    with chat_server(reply) as (address, requests):
        evaluate(config(address, env="tau2", domain="mock", episodes=1, max_steps=None), tmp_path)
    first, second = requests
    assert [tool["function"]["name"] for tool in first["tools"]][-1] == "done"
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "tool"]
    assert second["messages"][3]["tool_call_id"] == "c9"
    steps = list(read_trace(tmp_path).steps())
    assert json.loads(str(steps[0].written))["tool_calls"][0]["function"]["name"] == "get_users"


def test_several_calls_in_one_answer_are_played_one_after_the_other(tmp_path):
    pytest.importorskip("tau2")
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "get_users", "arguments": "{}"}} for n in range(2)
    ]

    def reply(number, body):
        return {"content": None, "tool_calls": calls} if number == 1 else {"content": "Goodbye"}

    with chat_server(reply) as (address, requests):
        evaluate(config(address, env="tau2", domain="mock", episodes=1, max_steps=None), tmp_path)
    assert [m.get("tool_call_id") for m in requests[1]["messages"]][-2:] == ["c0", "c1"]
    assert [step.prompt_tokens for step in read_trace(tmp_path).steps()] == [100, 0, 100]


def test_the_money_has_an_end_and_the_same_command_goes_on(tmp_path):
    prices = (1000.0, 1000.0)  # a call costs 0.11 dollars
    with chat_server(lambda number, body: LOOK) as (address, _):
        poor = config(address, max_cost=1.0, prices=prices, concurrency=1)
        with pytest.raises(BudgetSpentError, match=r"1\.1000 are spent. Raise --max-cost"):
            evaluate(poor, tmp_path)
        assert len(read_trace(tmp_path).episodes) == 2
        with pytest.raises(BudgetSpentError):  # what was spent before counts
            evaluate(poor, tmp_path)
        episodes = evaluate(config(address, max_cost=10.0, prices=prices, concurrency=1), tmp_path).episodes
    assert len(episodes) == 6
    assert sum(e.cost for e in episodes) == pytest.approx(0.11 * 30)


def test_a_limit_needs_prices():
    with pytest.raises(InvalidConfigError, match=r"known prices for --max-cost.*--prices"):
        evaluate(config("http://127.0.0.1:9/v1", max_cost=1.0))


def test_a_key_does_not_go_in_plain_text():
    with pytest.raises(InvalidConfigError, match="https"):
        evaluate(config("http://203.0.113.5/v1"))


def test_many_are_asked_side_by_side():
    """Each answer waits until four requests are open, which one after the other never are."""
    import threading

    barrier = threading.Barrier(4)

    def reply(number, body):
        barrier.wait(20)
        return LOOK

    with chat_server(reply) as (address, _):
        episodes = evaluate(config(address, episodes=4, max_steps=2)).episodes
    assert [(e.error, e.steps) for e in episodes] == [(None, 2)] * 4


def test_a_model_is_served_as_the_user(monkeypatch, tmp_path):
    """The user's model has tau2's own prompt, and the table says who was served."""
    pytest.importorskip("tau2")
    with chat_server(lambda number, body: {"content": "###STOP###"}) as (address, requests):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        values = {"env": "tau2", "domain": "retail", "agent": "no-op", "episodes": 2}
        result = evaluate(EvaluateConfig(user="model:openai/m", **values), tmp_path)
    assert [(e.error, e.ended) for e in result.episodes] == [(None, "user_stop")] * 2
    assert "<scenario>" in requests[0]["messages"][0]["content"]
    assert "user model:openai/m" in table_text(result.header, result.episodes)


def test_the_trace_of_a_model_as_user_cannot_be_replayed(monkeypatch, tmp_path):
    pytest.importorskip("tau2")
    with chat_server(lambda number, body: {"content": "###STOP###"}) as (address, _):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        evaluate(EvaluateConfig(env="tau2", agent="no-op", episodes=1, user="model:openai/m"), tmp_path)
    with pytest.raises(InvalidConfigError, match=r"one with a model as user. Evaluate with --user scripted"):
        replay(read_trace(tmp_path))
