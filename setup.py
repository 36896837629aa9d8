"""Make the relative links of README.md absolute in the package's description; pyproject.toml holds all else.

A package page shows the description outside the repository, where a relative link leads nowhere.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
# A link or an image in Markdown whose target is neither an address nor an anchor of the page.
RELATIVE = re.compile(r"(?P<before>(?P<image>!?)\[[^\]]*\]\()(?!\w+:|#)(?P<target>[^)\s]+)")


def description(readme: str, repository: str, version: str) -> str:
    """Return the text of a page with its relative links at a release of the repository."""

    def absolute(match: re.Match[str]) -> str:
        kind = "raw" if match["image"] else "blob"
        return f"{match['before']}{repository}/{kind}/v{version}/{match['target']}"

    return RELATIVE.sub(absolute, readme)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    setup(
        long_description=description(
            (ROOT / "README.md").read_text("utf-8"), project["urls"]["Repository"], project["version"]
        ),
        long_description_content_type="text/markdown",
    )
