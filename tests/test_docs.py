"""The pages name files and sections that exist; their Python blocks are run by pytest-markdown-docs."""

from __future__ import annotations

import re

import pytest

from tests.helpers.paths import ROOT

TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FOLDERS = ("", "docs", "configs/accelerate")
# Made of docstrings, or about no commands.
WITHOUT = {ROOT / "SECURITY.md", *(ROOT / "docs" / "api").glob("*.md")}


def blocks(text: str) -> list[tuple[str, str]]:
    """What follows the fence of each code block, such as `python notest`, and its text."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        if file.startswith("http"):
            continue
        target = page.parent / file if file else page
        assert target.is_file(), link
        assert not anchor or anchor in _anchors(target.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_named_files_exist(page):
    for path in re.findall(r"(?<![\w/.])[\w-]+(?:/[\w.-]+)+\.(?:py|ya?ml|md)\b", page.read_text("utf-8")):
        if not path.startswith("runs/"):
            assert any((ROOT / folder / path).is_file() for folder in FOLDERS), path


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITHOUT], ids=lambda page: page.name)
def test_every_page_has_an_example_that_is_tested(page):
    """pytest-markdown-docs runs Python, `test_docs_commands.py` reads shell commands."""
    assert {"python", "python continuation", "sh"} & {language for language, _ in blocks(page.read_text("utf-8"))}


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 170


def test_every_page_is_in_the_navigation():
    listed = re.findall(
        r"[ :]([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2], re.MULTILINE
    )
    assert len(listed) == len(set(listed))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert set(listed) == pages | {"changelog.md"}  # made of CHANGELOG.md when the site is built


def test_the_table_of_presets_has_all_of_each_command():
    pytest.importorskip("torch")
    from rwml_gym.agents.config.policy import POLICY_PRESETS
    from rwml_gym.agents.config.sft import SFT_PRESETS
    from rwml_gym.agents.config.world_model import PRESETS

    lines = (ROOT / "docs" / "training.md").read_text("utf-8").splitlines()
    start = lines.index("| preset | `train rwml` | `train policy` | `train sft` | |") + 2
    said: list[set[str]] = [set(), set(), set()]
    for line in lines[start : lines.index("", start)]:
        names, *marks = line.split("|")[1:5]
        for known, mark in zip(said, marks, strict=True):
            known.update(re.findall(r"`([^`]+)`", names) if mark.strip() else [])
    assert said == [set(PRESETS), set(POLICY_PRESETS), set(SFT_PRESETS)]
