"""verifiers itself on real games, with a local server that speaks OpenAI's protocol in the place of a model."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import gymnasium as gym
import pytest

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.errors import InvalidConfigError

vf: Any = pytest.importorskip("verifiers.v1", reason="needs the extra verifiers")

from rwml_gym_verifiers import load_environment  # noqa: E402

pytestmark = pytest.mark.long


class Model:
    """An endpoint whose answers a function of the request gives; it keeps the requests."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.requests: list[dict[str, Any]] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                requests.append(request)
                message = {"role": "assistant", "content": None, **answer(request)}
                reason = "tool_calls" if message.get("tool_calls") else "stop"
                body = {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 0,
                    "model": request["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def play(self, env: Any, episodes: int = 1) -> list[Any]:
        """Episodes of the first task."""
        url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        ctx = vf.ModelContext(model="local", client=vf.EvalClientConfig(base_url=url, api_key_var="NONE"))

        async def run() -> list[Any]:
            task = next(iter(env.taskset))
            async with env.serving():
                return [await env.run_slot(slot, ctx) for slot in env.slots(task, episodes)]

        try:
            return asyncio.run(run())
        finally:
            self.server.shutdown()
            self.server.server_close()


def turn(request: dict[str, Any]) -> int:
    return sum(message["role"] == "assistant" for message in request["messages"])


def expert(env_id: str, game: str, **arguments: Any) -> list[str]:
    env = gym.make(env_id, expert=True, **arguments)
    _, info = env.reset(options={"game": game})
    actions, over = [], False
    while not over:
        actions.append(info["expert_action"])
        _, _, terminated, truncated, info = env.step(actions[-1])
        over = terminated or truncated
    return actions


@pytest.mark.parametrize(
    ("name", "env_id", "split"),
    [("toy", "rwml_gym/ToyHouse-v0", "train"), ("alfworld", "rwml_gym/ALFWorld-v0", "generated")],
)
def test_the_expert_s_words_win(name, env_id, split):
    env = load_environment(env=name, split=split, games=2)
    game = next(iter(env.taskset)).data.game
    actions = expert(env_id, game, split=split)
    model = Model(lambda request: {"content": actions[turn(request)]})
    (episode,) = model.play(env)
    assert episode.ok, episode.errors
    (trace,) = episode.traces
    assert trace.reward == 1.0
    assert trace.metrics["won"] == 1.0
    assert trace.metrics["steps"] == len(actions) == len(model.requests)
    assert [message["role"] for message in model.requests[-1]["messages"][:3]] == ["system", "user", "assistant"]


def test_a_lost_episode_has_no_reward_and_ends_at_its_budget():
    env = load_environment(env="toy", games=1, max_steps=3)
    episodes = Model(lambda request: {"content": "fly"}).play(env, episodes=2)
    for episode in episodes:
        (trace,) = episode.traces
        assert trace.reward == 0.0
        assert (trace.metrics["steps"], trace.metrics["invalid_actions"]) == (3.0, 3.0)


def test_tau2_is_played_with_native_calls():
    pytest.importorskip("tau2")
    calls = [("get_users", "{}"), ("get_users", "{broken"), ("done", "{}")]

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        name, arguments = calls[turn(request)]
        function = {"name": name, "arguments": arguments}
        return {"tool_calls": [{"id": f"call-{turn(request)}", "type": "function", "function": function}]}

    model = Model(answer)
    (episode,) = model.play(load_environment(env="tau2", domain="mock", split="base", games=1))
    assert episode.ok, episode.errors
    (trace,) = episode.traces
    names = {tool["function"]["name"] for tool in model.requests[0]["tools"]}
    assert {"get_users", "done"} <= names
    answers = [message["content"] for message in model.requests[-1]["messages"] if message["role"] == "tool"]
    assert "user_1" in answers[0]
    assert answers[1].startswith("Error")
    assert {"db", "action", "won"} <= trace.metrics.keys()
    assert trace.metrics["invalid_actions"] == 1.0


def test_the_command_line_s_names_lead_here():
    config = vf.resolve_env_config({"taskset": {"id": "rwml-gym-verifiers", "env": "toy", "games": 1}})
    env = vf.load_environment(config)
    assert type(env).__name__ == "TextEnvironment"
    assert [task.key for task in env.taskset] == [task.data.game for task in env.taskset]
    assert config.agent_harnesses()["agent"].id == "rwml-gym-verifiers"


def test_bad_input_is_an_error_before_anything_starts():
    with pytest.raises(InvalidConfigError, match="nowhere"):
        load_environment(env="toy", split="nowhere")
    with pytest.raises(InvalidConfigError, match="games"):
        load_environment(env="toy", games=0)
