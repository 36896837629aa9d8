"""The users: a script that every task can be won with, and language models, whose failures are told as such."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

pytest.importorskip("tau2")

from gymnasium.error import ResetNeeded

from rwml_gym.envs.tau2.conversation import MAX_USER_CALLS
from rwml_gym.envs.tau2.domains import load_domain, load_task
from rwml_gym.envs.tau2.env import Tau2Env
from rwml_gym.envs.tau2.package import load
from rwml_gym.envs.tau2.users import LitellmModel, ModelUser, ScriptedUser, UserModelError
from rwml_gym.errors import InvalidConfigError
from tests.helpers.tau2_stock import stock, trajectory


def assistant(content):
    return load("data_model.message").AssistantMessage(role="assistant", content=content)


# -- scripted


def scripted(domain, task_id):
    user = ScriptedUser(load_task(domain, task_id), load_domain(domain).user_tools)
    user.begin([])
    return user


def test_it_opens_with_why_it_calls_and_what_it_knows():
    task = load_task("retail", "0")
    opening = scripted("retail", "0").reply([assistant("Hi!")]).content
    instructions = task.user_scenario.instructions
    assert instructions.reason_for_call.startswith("You received your order #W2378156")
    assert opening.startswith("I received my order #W2378156")
    assert instructions.known_info.strip() == "You are Yusuf Rossi in zip code 19122."
    assert opening.endswith("I am Yusuf Rossi in zip code 19122.")
    assert instructions.task_instructions not in opening


def test_it_agrees_until_goodbye():
    user = scripted("airline", "0")
    user.reply([assistant("Hi!")])
    assert user.reply([assistant("Shall I go ahead?")]).content == "Yes, please go ahead."
    assert user.reply([assistant("Thanks, GOODBYE!")]).content == "###STOP###"


@pytest.mark.parametrize(
    "text",
    [
        "Bye!",
        "bye",
        "Good bye",
        "Thanks and goodbye.",
        "Thank you, bye-bye!",
        "Your order is cancelled. Have a great day!",
        "Is there anything else? If not, goodbye!",
        "It is done; take care",
        "OK. See you soon.",
    ],
)
def test_it_ends_the_conversation_with_the_agents_farewell(text):
    user = scripted("airline", "0")
    user.reply([assistant("Hi!")])
    assert user.reply([assistant(text)]).content == "###STOP###"


@pytest.mark.parametrize(
    "text",
    [
        "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.",
        "I cannot do that. You're now being transferred to a human agent.",
        "I\u2019m transferring you to a colleague.",
        "You have been transferred.",
    ],
)
def test_it_ends_the_conversation_when_it_is_transferred(text):
    user = scripted("airline", "0")
    user.reply([assistant("Hi!")])
    assert user.reply([assistant(text)]).content == "###TRANSFER###"


@pytest.mark.parametrize(
    "text",
    [
        "Before I say goodbye to your old order, shall I cancel it?",
        "I say goodbye to the old order now.",
        "Bye-laws apply, and I see you have two orders.",
        "I take care of that, shall I?",
        "And take care of your luggage.",
        "Shall I transfer you to a human agent?",
        "You are not being transferred.",
        "If you are being transferred, you will be told.",
        "Do you have a good day for the flight?",
    ],
)
def test_it_goes_on_where_nobody_leaves(text):
    user = scripted("airline", "0")
    user.reply([assistant("Hi!")])
    assert user.reply([assistant(text)]).content == "Yes, please go ahead."


@pytest.mark.parametrize("domain", ["airline", "retail", "telecom"])
def test_tasks_that_hand_over_are_won_with_the_policys_words(domain):
    sentence = re.search(r"'(YOU ARE BEING TRANSFERRED[^']*)'", load_domain(domain).policy)[1]
    env = Tau2Env(domain)
    for name in env.games.names:
        said = trajectory(domain, env.games.task_id(name), "gold")[:-1]
        if any(action.startswith("transfer_to_human_agents(") for action in said):
            env.reset(options={"game": name})
            for action in (*said, sentence):
                *_, reward, terminated, _, info = env.step(action)
            assert (reward, terminated, info["ended"]) == (1.0, True, "user_stop"), name


def test_it_uses_its_phone_when_asked_by_name():
    env = Tau2Env("telecom")
    env.reset(seed=0)
    observation, *_ = env.step("Please run toggle_airplane_mode() and check_status_bar(), then tell me.")
    assert "Airplane Mode is now ON" in observation
    assert "Status Bar" in observation
    calls = [message for message in env._conversation.messages if getattr(message, "tool_calls", None)]
    assert [call.name for call in calls[0].tool_calls] == ["toggle_airplane_mode", "check_status_bar"]


def test_a_name_without_a_call_is_only_a_word():
    env = Tau2Env("telecom")
    env.reset(seed=0)
    assert env.step("Do you know toggle_airplane_mode (see the manual)?")[0] == "user: Yes, please go ahead."


# -- a language model, in this process


class Model:
    """Answers from a list, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, messages, tools):
        self.asked.append((messages, tools))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, dict) else {"role": "assistant", "content": answer}


def call(name, **arguments):
    return {
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": name, "arguments": json.dumps(arguments)}}],
    }


def model_env(*answers, domain="telecom", **arguments):
    model = Model(*answers)
    return Tau2Env(domain, user="model", user_model=model, **arguments), model


def test_a_model_speaks_for_the_user():
    env, model = model_env("My phone is broken.", call("check_status_bar"), "It says no service.", "###STOP###")
    observation, _ = env.reset(seed=0)
    assert observation == "user: My phone is broken."
    assert env.step("What does it show?")[0] == "user: It says no service."
    *_, terminated, truncated, info = env.step("Bye")
    assert (terminated, truncated, info["ended"]) == (True, False, "user_stop")
    messages, tools = model.asked[2]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "tool"]
    assert {tool["function"]["name"] for tool in tools} == set(load_domain("telecom").user_tools)


def test_it_is_prompted_as_tau2_prompts_its_own():
    env, model = model_env("Hello.")
    env.reset(options={"game": env.games.names[7]})
    task = load_task("telecom", env.games.task_id(env.games.names[7]))
    simulator = stock().user.user_simulator.UserSimulator(
        tools=load_domain("telecom").make().get_user_tools(), instructions=str(task.user_scenario)
    )
    assert model.asked[0][0][0] == {"role": "system", "content": simulator.system_prompt}


def test_a_model_that_says_nothing_is_asked_again():
    env, model = model_env("", "  ", "Hello.")
    assert env.reset(seed=0)[0] == "user: Hello."
    assert len(model.asked) == 3


def broken(arguments):
    return {"tool_calls": [{"id": "1", "function": {"name": "check_status_bar", "arguments": arguments}}]}


@pytest.mark.parametrize(
    "answer",
    [
        broken('{"a": '),
        broken("[1, 2]"),
        broken('{"a": NaN}'),
        broken({"a": float("inf")}),
        {"tool_calls": [{"function": {"arguments": "{}"}}]},
        {"tool_calls": ["check_status_bar"]},
        {"tool_calls": "check_status_bar"},
        {"content": [{"type": "text", "text": "Hello."}]},
        {"content": "<think>Hm.</think>"},
        {"content": 7},
        {},
    ],
)
def test_an_answer_that_cannot_be_read_is_asked_for_again(answer):
    env, model = model_env(answer, "Hello.")
    assert env.reset(seed=0)[0] == "user: Hello."
    assert len(model.asked) == 2
    assert model.asked[0] == model.asked[1]


def test_thoughts_of_the_user_are_its_own():
    env, model = model_env(
        "<think>They should cancel. ###STOP###</think>Hello.",
        "The template opened it. ###TRANSFER###\n</think>\n\nYes.",
        {**call("check_status_bar"), "content": "<think>Look.</think>"},
        "No service. <think>Or ###STOP###?",
    )
    assert env.reset(seed=0)[0] == "user: Hello."
    assert env.step("Shall I?")[0] == "user: Yes."
    observation, _, terminated, _, info = env.step("What do you see?")
    assert (observation, terminated, info["ended"]) == ("user: No service.", False, "")
    assert not any("think" in json.dumps(message) for message in model.asked[-1][0])


def test_what_is_no_text_does_not_reach_the_observation():
    env, _ = model_env("\x1b[2JHel\ud800lo\r\n\x07😀\ud83d\ude00", call("check_app_status", app_name="\ud800"), "Done.")
    assert env.reset(seed=0)[0] == "user: \ufffd[2JHel\ufffdlo\n\ufffd😀😀"
    assert env.step("Check the app.")[0] == "user: Done."
    json.dumps([message.model_dump() for message in env._conversation.messages], default=str).encode()


def test_a_model_that_only_calls_tools_is_stopped():
    class Caller:
        asked = 0

        def __call__(self, messages, tools):
            self.asked += bool(tools)
            return call("check_status_bar") if len(messages) > 2 else {"content": "Hello."}

    caller = Caller()
    env = Tau2Env("telecom", user="model", user_model=caller)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step("What do you see?")
    assert (reward, terminated, truncated, info["ended"]) == (0.0, True, False, "max_steps")
    assert caller.asked == MAX_USER_CALLS + 2
    many = {"tool_calls": call("check_status_bar")["tool_calls"] * (MAX_USER_CALLS + 1)}
    env, _ = model_env("Hello.", many)
    env.reset(seed=0)
    assert env.step("What do you see?")[4]["ended"] == "max_steps"


def test_a_user_whose_calls_fail_too_often_ends_the_conversation():
    env, model = model_env("Hello.", *[call("no_such_tool")] * 5, max_errors=3)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step("What do you see?")
    assert (reward, terminated, info["ended"]) == (0.0, True, "too_many_errors")
    assert len(model.asked) == 1 + 3


def test_a_call_of_the_user_has_the_types_of_the_schema():
    settings = {"apn_name": "internet", "reset_at_reboot": "yes", "mms_port": "80"}
    env, _ = model_env("Hello.", call("set_apn_settings", apn_settings=settings), "Done.")
    env.reset(seed=0)
    env.step("Set it.")
    (called,) = [message for message in env._conversation.messages if getattr(message, "tool_calls", None)]
    assert called.tool_calls[0].arguments["apn_settings"] == {**settings, "reset_at_reboot": True, "mms_port": 80}


def test_a_model_may_change_what_it_is_given():
    class Vandal(Model):
        def __call__(self, messages, tools):
            answer = super().__call__(json.loads(json.dumps(messages)), tools)
            messages[0]["content"] = "?"
            tools[0]["function"]["parameters"]["properties"] = "?"
            return answer

    for _ in range(2):
        model = Vandal("Hello.", "Yes.")
        env = Tau2Env("telecom", user="model", user_model=model)
        env.reset(seed=0)
        env.step("Hi")
        assert all(messages[0]["content"].startswith("# User") for messages, _ in model.asked)
    assert load_domain("telecom").user_tools["check_status_bar"].parameters["properties"] == {}


def test_a_model_that_hangs_is_a_failure():
    def hang(messages, tools):
        time.sleep(60)

    failures = []

    def play():
        env = Tau2Env("telecom", user="model", user_model=hang, user_timeout=0.05)
        with pytest.raises(UserModelError, match=r"no answer within 0\.05 s"):
            env.reset(seed=0)
        failures.append(1)

    play()
    thread = threading.Thread(target=play)  # where no timer can interrupt it
    thread.start()
    thread.join(30)
    assert len(failures) == 2


def test_a_key_goes_to_no_plain_address(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(InvalidConfigError, match="https"):
        LitellmModel("openai/some-model", {"api_base": "http://gpu-box:8000/v1", "api_key": "secret"})
    for address, sends in (("http://gpu-box/v1", False), ("http://127.0.0.1:1/v1", True), ("https://gpu-box/v1", True)):
        assert LitellmModel("openai/some-model", {"api_base": address}).sends_key is sends
        for name, variable in (
            ("openai/some-model", "OPENAI_BASE_URL"),
            ("gpt-4o", "OPENAI_BASE_URL"),  # litellm sends it there, too
            ("gpt-4o", "OPENAI_API_BASE"),
            ("hosted_vllm/some-model", "HOSTED_VLLM_API_BASE"),
            ("anthropic/some-model", "ANTHROPIC_BASE_URL"),
        ):
            with monkeypatch.context() as environment:
                environment.setenv(variable, address)
                assert LitellmModel(name, {}).sends_key is sends, (name, variable)
    for name in ("gpt-4o", "anthropic/some-model", "some/unknown-model"):
        assert LitellmModel(name, {}).sends_key  # the provider's own address


@pytest.mark.parametrize(
    "failure", [ConnectionError("no route"), {"content": None}, {"tool_calls": [{"function": {}}]}]
)
def test_a_failure_is_raised(failure):
    env, _ = model_env("Hello.", *[failure] * 4)
    env.reset(seed=0)
    with pytest.raises(UserModelError, match="user's model"):
        env.step("Hi")
    with pytest.raises(ResetNeeded):
        env.step("Hi")


def test_a_failure_truncates_if_asked():
    env, _ = model_env("Hello.", ConnectionError("no route"), "Hello again.", on_user_error="truncate")
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step("Hi")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert "ConnectionError: no route" in info["user_error"]
    assert env.reset(seed=0)[1]["user_error"] == ""


def test_a_failure_at_the_start_truncates_with_the_first_step():
    env, _ = model_env(ConnectionError("no route"), on_user_error="truncate")
    _, info = env.reset(seed=0)
    assert "no route" in info["user_error"]
    assert env.step("Hi")[2:4] == (False, True)
    env, _ = model_env(ConnectionError("no route"))
    with pytest.raises(UserModelError):
        env.reset(seed=0)


def test_it_hears_what_happened_before():
    task = load_task("mock", "update_task_with_message_history")
    model = Model("Yes.")
    user = ModelUser(task, {}, model)
    history = [message for message in task.initial_state.message_history if message.role != "tool"]
    user.begin([message for message in history if not message.tool_calls])
    user.reply([assistant("Anything else?")])
    assert model.asked[0][0][0]["role"] == "system"
    assert model.asked[0][0][-1] == {"role": "user", "content": "Anything else?"}


# -- a language model behind an OpenAI-compatible endpoint


class Endpoint(BaseHTTPRequestHandler):
    """Says one thing; remembers the last request."""

    request_body: ClassVar[dict] = {}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).request_body = body
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "My order is late."}}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.mark.slow
def test_a_local_endpoint_speaks_for_the_user():
    """Through litellm, whose import takes seconds."""
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        env = Tau2Env(
            "retail",
            user="model",
            user_model="openai/some-model",
            user_arguments={"api_base": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "x", "temperature": 0},
        )
        assert env.reset(seed=0)[0] == "user: My order is late."
        assert Endpoint.request_body["model"] == "some-model"
        assert Endpoint.request_body["temperature"] == 0
        assert Endpoint.request_body["messages"][-1] == {"role": "user", "content": "Hi! How can I help you today?"}
    finally:
        server.shutdown()
