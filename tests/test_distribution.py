"""What is published: the source distribution, the wheel that is built from it, their page, and the citation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SHARED = ("docs", "examples", "benchmarks", "configs", "tests", ".github")


def _run(*words: str | Path, **environ: str) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environ},
        cwd=environ.get("PWD"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _files() -> list[str]:
    """The files of the tree, or of an unpacked source distribution."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [file for file in listed.split("\0") if file and (ROOT / file).is_file()]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution and the wheel, built once for all workers, of a copy, so that the tree stays clean."""
    pytest.importorskip("build", reason="needs the extra dev")
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    out = shared / "distributions"
    with FileLock(shared / "distributions.lock"):
        if not (out / "complete").exists():
            for file in _files():
                target = shared / "source" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((ROOT / file).read_bytes())
            _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, shared / "source")
            (out / "complete").touch()
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def site(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the wheel and the core dependencies alone: links to those of this environment."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(folder)
    names, done = [Requirement(line).name for line in PROJECT["dependencies"]], set()
    while names:
        if (name := names.pop()) in done:
            continue
        done.add(name)
        found = metadata.distribution(name)
        wanted = map(Requirement, found.requires or ())
        names += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():  # another spelling of the same name
                (folder / top).symlink_to(found.locate_file(top))
    return folder


@pytest.mark.long
def test_the_source_distribution_has_what_a_clone_has(built):
    with tarfile.open(built[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    lost = {file for file in _files() if file.startswith(SHARED)} - names
    assert not lost
    assert {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Makefile", "constraints.txt", "conftest.py"} <= names


@pytest.mark.long
def test_the_wheel_has_every_module_and_all_that_they_read(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    places = {"rwml_gym": "rwml_gym", "wrappers": "rwml_gym/wrappers", "agents": "rwml_gym/agents"}
    places["configs/accelerate"] = "rwml_gym/agents/config/accelerate"
    wanted = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for folder, package in places.items()
        for path in (ROOT / folder).rglob("*.*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted | {"rwml_gym_command.py", "rwml_gym_verifiers.py"} == names
    assert "rwml_gym/py.typed" in names


@pytest.mark.long
def test_the_page_of_the_package_is_readable(built):
    pytest.importorskip("twine", reason="needs the extra dev")
    _run(sys.executable, "-m", "twine", "check", "--strict", *built)
    with zipfile.ZipFile(built[1]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        page = archive.read(name).decode()
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert f"{PROJECT['urls']['Repository']}/blob/v{PROJECT['version']}/docs/reward.md" in links
    assert not [link for link in links if not re.match(r"https?://|#", link)]


@pytest.mark.long
def test_the_wheel_works_without_extras_and_without_the_source_tree(site, tmp_path):
    # -S leaves out this environment's packages, and with them the finders of an editable install.
    python = [sys.executable, "-S", "-P"]
    where = {"PYTHONPATH": str(site), "PWD": str(tmp_path)}
    printed = _run(*python, ROOT / "tests" / "helpers" / "without_extras.py", **where)
    assert "missing extras are named" in printed
    program = (
        "import json, sys, rwml_gym.wrappers, rwml_gym.agents.language.prompts\n"
        "print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.startswith('rwml_gym') and m.__file__]))"
    )
    loaded = json.loads(_run(*python, "-c", program, **where))
    assert loaded
    assert all(Path(file).is_relative_to(site) for file in loaded)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["license"] == PROJECT["license"]
    title = f"## {PROJECT['version']} ({citation['date-released']})"
    assert title in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if line[0] != "#"}


def test_what_make_installs_is_pinned():
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "inspect"}
    named = {Requirement(line) for lines in (PROJECT["dependencies"], *extras.values()) for line in lines}
    pinned = _pins()
    for each in named:
        name = canonicalize_name(each.name)
        if name not in ("rwml-gym", "setuptools"):  # pip freeze does not list setuptools
            assert each.specifier.contains(pinned[name]), each


def test_what_is_pinned_can_be_installed_on_every_version_of_python_3_11():
    """Debian 12 has 3.11.2. A pin that needs a later one makes pip search for long, and fail."""
    pinned, needs = _pins(), {}
    for found in metadata.distributions():
        name = canonicalize_name(found.metadata["Name"])
        if found.version == pinned.get(name):
            needs[name] = SpecifierSet(found.metadata.get("Requires-Python") or "")
    assert len(needs) > 100
    assert not [name for name, python in needs.items() if not python.contains("3.11.0")]


def test_only_what_is_published_is_named_so():
    """Until there is a release, `rwml_gym.installed.install_command` and the README say how to install."""
    told = re.compile(r"pip install [^\n]*[\"' ]rwml-gym(?!\w)|pypi\.org/project/rwml-gym")
    shown = [file for file in _files() if file.endswith((".py", ".md", ".toml", ".yml", "Makefile", "Dockerfile"))]
    named = [file for file in shown if told.search((ROOT / file).read_text("utf-8")) and file != "CHANGELOG.md"]
    assert not [file for file in named if file != "tests/test_distribution.py"]
