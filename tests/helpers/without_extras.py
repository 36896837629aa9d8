"""Run where only the core dependencies are installed: what works there, and how each missing extra is named.

`tests/test_distribution.py` runs it with the wheel and links to the core dependencies, `make test-wheel` in a fresh
environment.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

import gymnasium

import rwml_gym
from rwml_gym.agents.cli.main import main
from rwml_gym.encoders.cached import make_encoder
from rwml_gym.errors import DependencyNotInstalled
from rwml_gym.figures import draw
from rwml_gym.reward.rouge import rouge_distance
from rwml_gym.transitions import TransitionDataset
from rwml_gym.wrappers import WorldModelRewardWrapper


def command(*words: str) -> str:
    """Run the command line, and raise its one line of complaint as the error that it came from."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        status = main(words)
    if status:
        raise DependencyNotInstalled(errors.getvalue())
    return out.getvalue()


MISSING: list[tuple[str, Callable[[], object]]] = [
    ("alfworld", partial(gymnasium.make, "rwml_gym/ALFWorld-v0")),
    ("alfworld", partial(command, "evaluate", "--agent", "expert")),
    ("tau2", partial(gymnasium.make, "rwml_gym/Tau2-retail-v0")),
    ("tau2", partial(command, "evaluate", "--env", "tau2")),
    ("tau2", partial(rouge_distance, "a", "b")),
    ("embed", partial(make_encoder, "all-MiniLM-L6-v2")),
    ("endpoint", partial(make_encoder, "http://localhost:8000/v1#model")),
    ("train", partial(TransitionDataset.load, ".")),
    ("train", partial(command, "train", "rwml", "--preset", "smoke")),
    ("train", partial(command, "train", "policy", "--preset", "smoke")),
    ("train", partial(command, "record", "--env", "toy", "--out", "nowhere")),
    ("api", partial(command, "evaluate", "--env", "toy", "--agent", "litellm:openai/any")),
    ("report", partial(draw, 1)),
    ("inspect", partial(importlib.import_module, "rwml_gym.agents.integrations.inspect_tasks")),
    ("verifiers", partial(importlib.import_module, "rwml_gym.agents.integrations.verifiers_env")),
    ("sb3", partial(importlib.import_module, "rwml_gym.agents.integrations.sb3")),
]


def play() -> None:
    """Play the toy house with the reward of the README, which needs no extra."""
    env = WorldModelRewardWrapper(gymnasium.make("rwml_gym/ToyHouse-v0"), encoder="hashing", threshold=0.1)
    observation, _ = env.reset(seed=0)
    assert env.step(f"look <next_state>{observation}</next_state>")[1] == 1
    assert env.step("look <next_state>The lights go out.</next_state>")[1] == 0
    env.close()


def run() -> int:
    """Try everything; print what is wrong, and return how much that is."""
    play()
    for words in ("--help", "version", "envs", "accelerate-config", "check-env toy", "evaluate --env toy --episodes 2"):
        command(*words.split())
    wrong = 0
    for extra, use in MISSING:
        try:
            use()
        except DependencyNotInstalled as error:
            if f'[{extra}]"' in str(error):
                continue
            found = str(error)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        else:
            found = "no error"
        wrong += 1
        print(f"{extra}: {use}: {found.strip()}")
    print(f"rwml-gym {rwml_gym.__version__}: {len(MISSING) - wrong} of {len(MISSING)} missing extras are named")
    return wrong


if __name__ == "__main__":
    sys.exit(min(run(), 1))
