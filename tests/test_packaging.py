"""What is installed can be imported, and importing it stays light."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

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


def _python(program: str, *, cwd: Path, path: Path | None = None, isolated: bool = False) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *(["-P"] if isolated else []), "-c", program],
        cwd=cwd,
        env=environment,
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


@pytest.mark.slow
def test_an_installed_wheel_works_without_the_source_tree(tmp_path):
    if importlib.util.find_spec("build") is None:
        pytest.skip("needs `pip install build`")
    source, target = tmp_path / "source", tmp_path / "site"
    # Of a copy, so that no build folder is left in the tree.
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes((ROOT / file).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)

    # An editable install finds the source tree before any path: its finders must not answer for the package.
    program = """
import json, sys
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "") + repr(f)]
import rwml_gym, rwml_gym.wrappers, rwml_gym.agents, rwml_gym.envs.alfworld
import rwml_gym.agents.players.baselines, rwml_gym.wrappers.world_model_reward, rwml_gym.agents.language.prompts
print(json.dumps({n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "rwml_gym"}))
"""
    empty = tmp_path / "empty"
    empty.mkdir()
    loaded = json.loads(_python(program, cwd=empty, path=target, isolated=True))
    assert {"rwml_gym", "rwml_gym.wrappers", "rwml_gym.agents", "rwml_gym.envs.alfworld"} <= loaded.keys()
    assert all(Path(file).is_relative_to(target) for file in loaded.values()), loaded
    assert (target / "rwml_gym" / "py.typed").is_file()
    assert (target / "rwml_gym" / "envs" / "alfworld" / "games" / "tables.json").is_file()
    page = target / "rwml_gym" / "agents" / "reports" / "page"
    assert {p.name for p in page.iterdir()} >= {"page.html", "page.css", "main.js"}
    # Every module of the tree is in the wheel, and of its top level only the command's entry point beside it.
    installed = {str(p.relative_to(target)) for p in target.rglob("*.py")}
    for folder, package in (("rwml_gym", "rwml_gym"), ("wrappers", "rwml_gym/wrappers"), ("agents", "rwml_gym/agents")):
        for path in (source / folder).rglob("*.py"):
            assert f"{package}/{path.relative_to(source / folder)}" in installed
    assert {name.split("/")[0] for name in installed} == {"rwml_gym", "rwml_gym_command.py", "rwml_gym_verifiers.py"}
