"""Evaluations as processes: killed at any moment they lose nothing, and without a model they import no torch."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter

import pytest

from rwml_gym.agents.traces.folder import EPISODES, STEPS, read_trace
from tests.helpers.paths import ROOT

AGENT = """
import time
def act(observation, info):
    time.sleep(0.002)
    return info["admissible_actions"][0]
"""


def command(folder, *more):
    words = ["evaluate", "--env", "toy", "--episodes", "40", "--max-steps", "8", "--run-dir", str(folder), *more]
    return [sys.executable, "-m", "rwml_gym.agents.cli.main", *words]


def content(folder):
    lines = [(folder / name).read_text(encoding="utf-8").splitlines() for name in (STEPS, EPISODES)]
    return [[{**json.loads(line), "seconds": 0} for line in each] for each in lines]


@pytest.mark.slow
def test_ten_kills_lose_no_episode_and_repeat_none(tmp_path):
    (tmp_path / "slow_agent.py").write_text(AGENT)
    agent = ("--agent", "slow_agent:act", "--concurrency", "3")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(command(whole, *agent), cwd=tmp_path, check=True, capture_output=True)
    rng, finished = random.Random(0), set()
    for _ in range(10):
        process = subprocess.Popen(
            command(cut, *agent), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        began = sum(1 for _ in (cut / EPISODES).open()) if (cut / EPISODES).exists() else 0
        wanted = began + rng.randint(0, 3)
        while process.poll() is None:
            count = sum(1 for _ in (cut / EPISODES).open()) if (cut / EPISODES).exists() else 0
            if count >= wanted and (cut / STEPS).exists():
                time.sleep(rng.random() * 0.03)
                process.kill()
        process.wait()
        now = {e.episode for e in read_trace(cut).episodes}
        assert finished <= now
        finished = now
    subprocess.run(command(cut, *agent), cwd=tmp_path, check=True, capture_output=True)
    assert content(cut) == content(whole)
    assert Counter(e["episode"] for e in content(cut)[1]) == Counter(range(40))


@pytest.mark.long
@pytest.mark.parametrize("agent", ["random", "expert", "litellm:openai/m"])
def test_without_a_local_model_no_torch_is_imported(agent):
    if agent.startswith("litellm"):
        pytest.importorskip("litellm")
    arguments = ["--agent-arguments", '{"api_base": "http://127.0.0.1:9/v1"}', "--attempts", "1"]
    words = ["evaluate", "--env", "toy", "--episodes", "1", "--agent", agent]
    words += arguments if agent.startswith("litellm") else []
    code = (
        "import sys; from rwml_gym.agents.cli.main import main\n"
        f"status = main({words!r})\n"
        "sys.exit(status or (3 if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 episodes" in done.stdout
