"""Inspect itself, with its own mock model, on real games."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import gymnasium as gym
import pytest

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.errors import InvalidConfigError

inspect_ai: Any = pytest.importorskip("inspect_ai", reason="needs the extra inspect")
from inspect_ai.model import ModelOutput, ModelUsage, get_model  # noqa: E402

from rwml_gym.agents.integrations.inspect_tasks import alfworld, tau2, text_environment  # noqa: E402


def evaluate(task: Any, outputs: Any, tmp_path: Any, **settings: Any) -> Any:
    """One evaluation with the mock model, one sample after the other."""
    model = get_model("mockllm/model", custom_outputs=outputs)
    (log,) = inspect_ai.eval(
        task,
        model=model,
        log_dir=str(tmp_path),
        display="none",
        max_samples=1,
        **settings,
    )
    return log


def expert(env: gym.Env, games: list[str]) -> list[str]:
    """The expert's actions in these games, one after the other."""
    actions = []
    for game in games:
        _, info = env.reset(options={"game": game})
        over = False
        while not over:
            actions.append(info["expert_action"])
            _, _, terminated, truncated, info = env.step(actions[-1])
            over = terminated or truncated
    return actions


def counted(output: ModelOutput) -> ModelOutput:
    """With a usage, without which the mock model would load a tokenizer from the network."""
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


def says(texts: list[str]) -> list[ModelOutput]:
    return [counted(ModelOutput.from_content("mockllm/model", text)) for text in texts]


def metrics(log: Any) -> dict[str, float]:
    return {score.name: score.metrics["mean"].value for score in log.results.scores}


def test_the_expert_s_words_win_in_alfworld(tmp_path):
    task = alfworld(games=2)
    games = [sample.id for sample in task.dataset]
    env = gym.make("rwml_gym/ALFWorld-v0", split="generated_held_out", expert=True)
    log = evaluate(task, says(expert(env, games)), tmp_path)
    assert log.status == "success", log.error
    assert metrics(log)["won"] == metrics(log)["reward"] == 1.0
    assert metrics(log)["invalid_share"] == 0.0
    assert {sample.id for sample in log.samples} == set(games)
    for sample in log.samples:
        assert sample.input == sample.messages[1].text
        assert sample.scores["success"].metadata["game"] == sample.id


def test_epochs_play_the_same_game_again_and_failures_count(tmp_path):
    # With too few steps nothing is won; two epochs of one game begin alike.
    log = evaluate(alfworld(games=1, max_steps=2), says(["look", "fly away"] * 2), tmp_path, epochs=2)
    assert log.status == "success", log.error
    assert metrics(log)["won"] == 0.0
    assert metrics(log)["steps"] == 2.0
    assert metrics(log)["invalid_share"] == 0.5
    a, b = (sample.messages[1].text for sample in log.samples)
    assert a == b


def test_a_limit_of_inspect_ends_an_episode_that_is_scored_as_lost(tmp_path):
    log = evaluate(alfworld(games=1), says(["look"] * 30), tmp_path, message_limit=6)
    assert log.status == "success", log.error
    assert log.samples[0].limit.type == "message"
    assert metrics(log)["won"] == 0.0
    assert metrics(log)["steps"] == 2.0


def test_tau2_is_played_with_native_calls(tmp_path):
    pytest.importorskip("tau2")
    call = ModelOutput.for_tool_call
    seen = []

    def model(messages, tools, choice, config):
        seen.append((list(messages), list(tools)))
        turn = sum(message.role == "assistant" for message in messages)
        if turn == 0:
            return counted(call("mockllm/model", "get_users", {}))
        if turn == 1:
            return says(["How can I help you?"])[0]
        return counted(call("mockllm/model", "done", {}))

    log = evaluate(tau2(domain="mock", split="base", games=1), model, tmp_path)
    assert log.status == "success", log.error
    roles = [message.role for message in log.samples[0].messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert "user_1" in log.samples[0].messages[3].text
    tools = {tool.name: tool for tool in seen[0][1]}
    assert {"get_users", "done", "create_task"} <= tools.keys()
    assert "user_id" in tools["create_task"].parameters.properties
    assert {"won", "reward", "db", "action", "communicate"} <= metrics(log).keys()


@pytest.mark.parametrize("domain", ["airline", "retail", "telecom"])
def test_the_schemas_of_all_tools_are_inspect_s(domain):
    pytest.importorskip("tau2")
    from rwml_gym.agents.integrations.inspect_tasks import _tool

    env = gym.make("rwml_gym/Tau2-v0", domain=domain, split="test", disable_env_checker=True)
    _, info = env.reset(seed=0)
    for schema in info["tools"]:
        tool = _tool(schema["function"])
        assert set(tool.parameters.properties) == set(schema["function"]["parameters"].get("properties", {}))
        assert "$ref" not in tool.model_dump_json()


def test_any_text_environment_is_a_task(tmp_path):
    task = text_environment(EnvConfig("toy"), games=1)
    env = gym.make("rwml_gym/ToyHouse-v0", split="held_out", expert=True)
    log = evaluate(task, says(expert(env, [task.dataset[0].id])), tmp_path)
    assert metrics(log)["won"] == 1.0


def test_bad_input_is_an_error_before_anything_is_played():
    with pytest.raises(InvalidConfigError, match="nowhere"):
        alfworld(split="nowhere")


NAMED = """
import inspect_ai
from inspect_ai.model import ModelOutput, ModelUsage, get_model
def look(*_):
    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return ModelOutput.from_content("mockllm/model", "look").model_copy(update={"usage": usage})
model = get_model("mockllm/model", custom_outputs=look)
arguments = {"games": 1, "max_steps": 2, "split": "generated"}
(log,) = inspect_ai.eval("rwml_gym/alfworld", model=model, task_args=arguments, log_dir="logs", display="none")
print(log.status, log.eval.task, log.eval.metadata)
"""


def test_inspect_finds_the_task_by_its_name(tmp_path):
    """As `inspect eval rwml_gym/alfworld` does, in another folder than the source tree, whose metadata hide others."""
    if not entry_points(group="inspect_ai", name="rwml_gym"):
        pytest.skip("needs the package to be installed again: pip install -e .")
    done = subprocess.run(
        [sys.executable, "-c", NAMED], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("success rwml_gym/alfworld {'data_version'")
    assert list(tmp_path.glob("logs/*.eval"))
