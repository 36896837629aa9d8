"""The documentation builds as a site without a warning, and asks nothing of other hosts."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("material", "mkdocs", "mkdocstrings")),
    reason='needs `pip install "rwml-gym[docs]"`',
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_site_has_pages_and_the_interface(site):
    for page in ("index.html", "idea.html", "measurements.html", "changelog.html"):
        assert (site / page).is_file()
    wrappers = (site / "api" / "wrappers.html").read_text("utf-8")
    assert 'id="rwml_gym.wrappers.world_model_reward.WorldModelRewardWrapper"' in wrappers
    assert "&gt;&gt;&gt; " in re.sub(r"<[^>]*>", "", wrappers), "the examples of docstrings are code"


def test_the_site_needs_no_other_host(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"?(https?:[^\" >]+)", page.read_text("utf-8")
        )
        assert not loaded, page.name
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?https?:|@import", sheet.read_text("utf-8")), sheet.name


@pytest.mark.parametrize("link", ["gone.md", "index.md#gone", "/index.md"])
def test_a_dead_link_is_an_error(tmp_path, monkeypatch, link):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n[dead]({link})\n", "utf-8")
    config = load_config(
        str(ROOT / "mkdocs.yml"),
        docs_dir=str(tmp_path / "docs"),
        site_dir=str(tmp_path / "site"),
        nav=[{"Start": "index.md"}],
        hooks=[],
        plugins=[],
    )
    with pytest.raises(Abort, match="strict mode"):
        build(config)
