"""`rwml-gym envs`: what it lists is what can be played."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from rwml_gym.agents.cli import main as cli
from rwml_gym.agents.runs.worlds import WORLDS
from rwml_gym.installed import install_command


def listed(capsys) -> str:
    assert cli.main(["envs"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_every_environment_is_listed_with_its_splits_and_games(capsys):
    out = listed(capsys)
    for name, world in WORLDS.items():
        assert f"{name:<10} {world.title} ({world.env_id})" in out
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert "--split held_out 64 games" in lines
    if importlib.util.find_spec("alfworld"):
        assert "--split generated 12,884,901,888 games, generated" in lines


def test_missing_data_and_libraries_come_with_the_command_that_helps(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "tau2" else real(name))
    out = listed(capsys)
    if importlib.util.find_spec("alfworld"):
        assert "--split valid_seen" in out
        assert "no data here: run `alfworld-download`" in out
    assert out.count(install_command("tau2")) == 2
    assert "\nNot installed:\n" in out


def test_the_sizes_are_those_that_tau2_gives():
    pytest.importorskip("tau2")
    from rwml_gym.envs.tau2.domains import DOMAINS, splits
    from rwml_gym.envs.tau2.package import split_sizes

    for domain in DOMAINS:
        assert split_sizes(domain) == {name: len(tasks) for name, tasks in splits(domain).items()}


def test_listing_imports_neither_torch_nor_a_simulator():
    program = (
        "import sys; from rwml_gym.agents.cli.main import main\nmain(['envs'])\n"
        "sys.exit(' '.join({'torch', 'transformers', 'datasets', 'alfworld', 'textworld'} & set(sys.modules) or "
        "{name for name in sys.modules if name.startswith('tau2')}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
