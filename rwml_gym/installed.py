"""What is installed: versions, the commit of a clone, the package's address, and how to install what is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["commit", "install_command", "repository", "version_of", "versions"]

_CLONE = Path(__file__).resolve().parents[1]


def install_command(extra: str) -> str:
    """Return the command that installs an extra, for messages.

    This is the only place that says how, beside the README. There is no release on a package index yet, so extras are
    installed from a clone: from the one that this code is in, if it is in one.
    """
    place = _CLONE if (_CLONE / "pyproject.toml").is_file() else "path/to/rwml-gym"
    return f'pip install -e "{place}[{extra}]"'


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution; `None` if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed, by name."""
    return {name: found for name in distributions if (found := version_of(name)) is not None}


def commit() -> str:
    """Return the commit of this package's clone, with a mark if files differ from it; empty outside of one."""
    if not (_CLONE / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(_CLONE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


@cache
def repository() -> str:
    """Return the address of the package's repository, which pyproject.toml holds; empty if it is not installed."""
    try:
        urls = metadata.metadata("rwml-gym").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    return next((address for label, _, address in (url.partition(", ") for url in urls) if label == "Repository"), "")
