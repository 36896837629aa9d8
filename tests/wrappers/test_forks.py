"""Environments that use torch run in forked processes, although torch has run in the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
from functools import partial

import gymnasium, torch
import rwml_gym
from rwml_gym.vector.env import TextVectorEnv
from rwml_gym.wrappers import EmbedText, WorldModelRewardWrapper

torch.set_num_threads(4)  # threads that a forked process would wait for

def embed():
    return EmbedText(gymnasium.make("rwml_gym/ToyHouse-v0"))

def reward(predictor):
    return WorldModelRewardWrapper(gymnasium.make("rwml_gym/ToyHouse-v0"), predictor=predictor)

def steps(envs):
    envs.reset(seed=0)
    return [str(envs.step(["look"] * 2)) for _ in range(70)]

if __name__ == "__main__":
    for make in (embed, partial(reward, "nothing-changes"), partial(reward, "learned")):
        with make() as env:  # torch computes in this process
            env.reset(seed=0)
            for _ in range(70):
                env.step("look")
        torch.ones(2000, 2000) @ torch.ones(2000, 2000)
        expected = steps(gymnasium.vector.SyncVectorEnv([make] * 2))
        forked = [gymnasium.vector.AsyncVectorEnv([make] * 2, context="fork")]
        if make is not embed:
            forked.append(TextVectorEnv([make] * 2, workers=2, context="fork"))
        for envs in forked:
            assert steps(envs) == expected
            envs.close()
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_forked_environments_do_not_hang(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with (tmp_path / "output").open("w+") as output:
        script = subprocess.Popen(
            [sys.executable, "script.py"], cwd=tmp_path, stdout=output, stderr=output, start_new_session=True
        )
        try:
            assert script.wait(timeout=200) == 0, (tmp_path / "output").read_text()[-2000:]
        finally:
            if script.returncode is None:  # it hangs, and so may its children
                os.killpg(script.pid, signal.SIGKILL)
