"""Imports run one way, `agents → wrappers → rwml_gym`, and in no circle; imports inside functions count too."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# Folder -> import name; `agents` and `wrappers` sit at the top of the repository.
TREES = {
    **{"rwml_gym": "rwml_gym", "wrappers": "rwml_gym.wrappers", "agents": "rwml_gym.agents"},
    "configs/accelerate": "rwml_gym.agents.config.accelerate",
}
# Each folder of `agents` may import those before it.
LAYERS = (
    *("traces", "language/adapters", "language", "players", "learning", "config", "claims", "reports", "reports/page"),
    *("runs", "jobs", "jobs/world_models", "evaluation", "jobs/claims", "integrations", "cli"),
)
MAX_FILES = 14


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in TREES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys()


GRAPH = {name: imports(path) for name, path in MODULES.items()}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of a graph, its first node repeated at its end; empty if there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def folder(module: str) -> str:
    return str(MODULES[module].parent.relative_to(ROOT))


def folder_graph() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {}
    for module, imported in GRAPH.items():
        # An `__init__` only hands on what is in its folder.
        if MODULES[module].name == "__init__.py":
            continue
        others = {folder(name) for name in imported if MODULES[name].name != "__init__.py"}
        graph.setdefault(folder(module), set()).update(others - {folder(module)})
    return graph


def test_the_graph_is_complete():
    """The test would hold nothing if it saw nothing."""
    assert len(MODULES) > 100
    assert "rwml_gym.errors" in GRAPH["rwml_gym.reward.gap"]
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]


@pytest.mark.parametrize(("tree", "forbidden"), [("rwml_gym", ("wrappers", "agents")), ("wrappers", ("agents",))])
def test_imports_run_one_way(tree, forbidden):
    wrong = {
        (module, name)
        for module, imported in GRAPH.items()
        if MODULES[module].relative_to(ROOT).parts[0] == tree
        for name in imported
        if MODULES[name].relative_to(ROOT).parts[0] in forbidden
    }
    assert not wrong


def test_the_folders_of_agents_are_layers():
    places = {f"agents/{name}": place for place, name in enumerate(LAYERS)}
    graph = folder_graph()
    assert {name for name in graph if name.startswith("agents/")} == places.keys()
    wrong = {
        (name, other)
        for name, place in places.items()
        for other in graph[name]
        if other in places and places[other] > place
    }
    assert not wrong


def test_no_circle_of_files():
    assert not circle(GRAPH)


def test_no_circle_of_folders():
    assert not circle(folder_graph())


@pytest.mark.parametrize("tree", ["examples", "benchmarks", "tests", "agents", "wrappers", "rwml_gym"])
def test_every_module_that_is_imported_is_there(tree):
    """mypy takes a missing one for untyped, because it does not follow the editable install."""
    missing = set()
    for path in (ROOT / tree).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            missing |= {(path.name, n) for n in names if n.split(".")[0] == "rwml_gym" and n not in MODULES}
    assert not missing


def test_folders_stay_small():
    counts: dict[Path, int] = {}
    for path in MODULES.values():
        counts[path.parent] = counts.get(path.parent, 0) + 1
    assert not {str(path): count for path, count in counts.items() if count > MAX_FILES}


def test_every_folder_of_modules_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == packages
