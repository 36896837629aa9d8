"""What the site needs beyond pages: the sources under their import names, and the changelog as a page."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

# Folder -> place in the package, as in pyproject.toml's `package-dir`.
FOLDERS = {"rwml_gym": "rwml_gym", "wrappers": "rwml_gym/wrappers", "agents": "rwml_gym/agents"}

# An example in a docstring, up to an empty line or the end of the docstring. Markdown would take `>>>` for quotations.
DOCTEST = re.compile(r'^( *)>>> .*\n(?:(?! *""")\1.*\S.*\n)*', re.MULTILINE)

_sources: list[tempfile.TemporaryDirectory[str]] = []


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay the sources out as they are installed, for griffe, which reads them there."""
    _sources.append(tempfile.TemporaryDirectory(prefix="rwml-gym-docs-"))
    root, target = Path(config.config_file_path).parent, Path(_sources[-1].name)
    for folder, place in FOLDERS.items():
        shutil.copytree(root / folder, target / place, ignore=shutil.ignore_patterns("__pycache__"))
    for path in target.rglob("*.py"):
        text = DOCTEST.sub(r"\1```pycon\n\g<0>\1```\n", path.read_text("utf-8"))
        path.write_text(text.replace("::\n\n", ":\n\n"), "utf-8")  # before a block of code
    handlers: dict[str, Any] = config.plugins["mkdocstrings"].config.handlers
    handlers["python"]["paths"] = [str(target)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog; its links start at the root of the repository."""
    text = (Path(config.config_file_path).parent / "CHANGELOG.md").read_text("utf-8")
    files.append(File.generated(config, "changelog.md", content=text.replace("](docs/", "](")))
    return files


def on_shutdown() -> None:
    """Remove the copies of the sources."""
    for folder in _sources:
        folder.cleanup()
    _sources.clear()
