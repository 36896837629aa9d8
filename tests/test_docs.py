"""The pages name files and sections that exist; their Python blocks are run by pytest-markdown-docs."""

from __future__ import annotations

import re

import pytest

from tests.helpers.paths import ROOT

TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("", "docs", "configs/accelerate")


def _anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        if file.startswith("http"):
            continue
        target = page.parent / file if file else page
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    for path in re.findall(r"(?<![\w/.])[\w-]+(?:/[\w.-]+)+\.(?:py|ya?ml|md)\b", page.read_text("utf-8")):
        if not path.startswith("runs/"):
            assert any((ROOT / folder / path).is_file() for folder in FOLDERS), path


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 170
