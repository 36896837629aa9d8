"""Where data came from: the distribution that holds a package, and a hash of what its files contain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["distribution_of", "files_hash"]


def files_hash(files: Iterable[Path], root: Path) -> str:
    """Return a short hash of the names below a folder and of the contents of files, in any order."""
    digest = hashlib.sha256()
    for file in sorted(files):
        inner = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(root).as_posix()} {inner}\n".encode())
    return digest.hexdigest()[:12]


def distribution_of(package: Path, names: Iterable[str]) -> metadata.Distribution | None:
    """Return the installed distribution that a package was imported from, also where it is installed as editable.

    Another distribution of the same import name may be installed beside it, and another folder may be imported first.

    Args:
        package: The folder of the package.
        names: The distributions that may hold it.
    """
    for name in names:
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        source = json.loads(found.read_text("direct_url.json") or "{}")
        if source.get("dir_info", {}).get("editable"):
            if package.resolve().is_relative_to(Path(unquote(urlsplit(source["url"]).path)).resolve()):
                return found
        elif Path(str(found.locate_file(package.name))).resolve() == package.resolve():
            return found
    return None
