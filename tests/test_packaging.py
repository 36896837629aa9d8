"""What is installed can be imported, and importing it stays light."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "datasets", "peft", "alfworld", "textworld", "sentence_transformers", "matplotlib"}

# These need an extra; the rest of the package must do without.
NEEDS = {
    "rwml_gym.agents.integrations.inspect_tasks": "inspect_ai",
    "rwml_gym.agents.integrations.verifiers_env": "verifiers",
    "rwml_gym.agents.integrations.sb3": "sb3_contrib",
    "rwml_gym.agents": "peft",
    "rwml_gym.envs.alfworld": "alfworld",
}


def _modules() -> list[str]:
    package = importlib.import_module("rwml_gym")
    names = ["rwml_gym", *(m.name for m in pkgutil.walk_packages(package.__path__, "rwml_gym."))]
    for child in ("wrappers", "agents"):  # at the top of the tree, so that walking `rwml_gym` does not find them
        inner = importlib.import_module(f"rwml_gym.{child}")
        names += [inner.__name__, *(m.name for m in pkgutil.walk_packages(inner.__path__, f"{inner.__name__}."))]
    return sorted(set(names))


def _python(program: str, *, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "rwml_gym",
        "rwml_gym.wrappers",
        "rwml_gym.agents.cli.main",
        "rwml_gym.agents.language.prompts",
        "rwml_gym.reward.gap",
    ],
)
def test_importing_is_light(tmp_path, name):
    loaded = _python(f"import sys, {name}; print('\\n'.join(sys.modules))", cwd=tmp_path).split()
    assert name in loaded
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("name", _modules())
def test_every_public_name_is_there(name):
    for prefix, library in NEEDS.items():
        if name.startswith(prefix) and importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")
    module = importlib.import_module(name)
    assert module.__doc__
    public = getattr(module, "__all__", [])
    assert len(public) == len(set(public))
    for attribute in public:
        assert getattr(module, attribute) is not None


def test_importing_registers_the_environment(tmp_path):
    program = "import gymnasium, rwml_gym; print(gymnasium.spec('rwml_gym/ALFWorld-v0').max_episode_steps)"
    assert _python(program, cwd=tmp_path).strip() == "50"
