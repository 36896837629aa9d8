"""Real official games, unpacked from archives beside the repository; without them the tests that ask are skipped."""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest

ARCHIVES = Path(__file__).resolve().parents[3] / "shared" / "data"


@cache
def official_data() -> Path:
    """A folder with the splits ``valid_seen`` (140 games) and ``valid_train`` (200), in the older ``put`` grammar."""
    archives = sorted(ARCHIVES.glob("alfworld-*.tar.xz"))
    if not archives:
        pytest.skip(f"no official games: {ARCHIVES} has no alfworld-*.tar.xz")
    folder = Path(tempfile.mkdtemp(prefix="rwml-gym-games-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder
