"""Runs the Python blocks of README.md and docs/ in an empty folder, so that what they write does not stay."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _empty_folder_for_blocks(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.path.suffix == ".md":
        monkeypatch.chdir(tmp_path)
