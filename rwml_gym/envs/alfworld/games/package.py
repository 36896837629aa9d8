"""Data from the installed alfworld package, read without importing it.

``import alfworld`` creates ``~/.cache/alfworld`` and sets the environment variable ``ALFWORLD_DATA``. This package only
needs data: the PDDL domain, the text grammar, floor plans, and two modules of tables that import nothing of alfworld.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from rwml_gym.checks import missing, require
from rwml_gym.envs.provenance import distribution_of, files_hash

__all__ = ["constants", "domain", "floor_plan", "goal_library", "grammar", "require_engine", "version"]


def require_engine() -> None:
    """Raise `DependencyNotInstalled` unless alfworld and its text engine can be found; import none of them."""
    for module in ("alfworld", "textworld", "fast_downward"):
        require(module, module, "alfworld")


@cache
def version() -> str:
    """Return the version of alfworld and a hash of the data that is read from it, such as ``0.4.2 (1f2e3d4c5b6a)``."""
    require_engine()
    root = _root()
    found = distribution_of(root, ("alfworld",))
    files = [
        *(root / "data" / name for name in ("alfred.pddl", "alfred.twl2")),
        *(root / "gen" / name for name in ("constants.py", "goal_library.py")),
        *(root / "gen" / "layouts").glob("*.json"),
    ]
    return f"{'from source' if found is None else found.version} ({files_hash(files, root)})"


@cache
def domain() -> str:
    """Return the PDDL domain, which defines the actions and their effects."""
    return (_root() / "data" / "alfred.pddl").read_text(encoding="utf-8")


@cache
def grammar() -> str:
    """Return the text grammar, with ``UNKNOWN GOAL`` in place of a game's goal sentence."""
    return (_root() / "data" / "alfred.twl2").read_text(encoding="utf-8")


@cache
def constants() -> ModuleType:
    """Return ``alfworld.gen.constants``: the objects, their places, and the actions that apply to them."""
    return _load_alone("constants")


@cache
def goal_library() -> dict[str, dict[str, Any]]:
    """Return ``alfworld.gen.goal_library.gdict``: goal formula and sentence templates by task type."""
    return _load_alone("goal_library").gdict


@cache
def floor_plan(number: int) -> tuple[dict[str, list[float]], list[str]]:
    """Return one of the 120 rooms: where to stand for each large receptacle, and the types of things in it.

    Returns:
        ``{receptacle id: [x, z, rotation, horizon]}`` in metres and degrees, and the list of types.
    """
    layouts = _root() / "gen" / "layouts"
    positions = json.loads((layouts / f"FloorPlan{number}-openable.json").read_text(encoding="utf-8"))
    types = json.loads((layouts / f"FloorPlan{number}-objects.json").read_text(encoding="utf-8"))
    return positions, types


@cache
def _root() -> Path:
    spec = importlib.util.find_spec("alfworld")
    if spec is None or not spec.submodule_search_locations:
        raise missing("alfworld", "alfworld")
    return Path(spec.submodule_search_locations[0])


def _load_alone(name: str) -> ModuleType:
    """Run one module of ``alfworld.gen`` by its path, without its parent packages."""
    spec = importlib.util.spec_from_file_location(f"rwml_gym.envs.alfworld._{name}", _root() / "gen" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
