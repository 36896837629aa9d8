"""The documentation builds as a site without a warning, and asks nothing of other hosts."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chromium import MISSING, chromium, is_installed, until
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("material", "mkdocs", "mkdocstrings")),
    reason="needs the extra docs",
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


@pytest.mark.long
def test_the_site_has_its_pages_and_needs_no_other_host(site):
    """One test, because each process that runs one of two would build the site."""
    for page in ("index.html", "idea.html", "measurements.html", "changelog.html"):
        assert (site / page).is_file()
    wrappers = (site / "api" / "wrappers.html").read_text("utf-8")
    assert 'id="rwml_gym.wrappers.world_model_reward.WorldModelRewardWrapper"' in wrappers
    assert "&gt;&gt;&gt; " in re.sub(r"<[^>]*>", "", wrappers), "the examples of docstrings are code"
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


# The least contrast of text to its background, as WCAG 2 computes it; large text needs 3 in place of 4.5.
CONTRAST = """
const numbers = (colour) => { const n = colour.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n };
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
const light = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
  const c = colour[i] / 255;
  return sum + part * (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4) }, 0);
const background = (element) => {
  if (!element) return [255, 255, 255, 1];
  const own = numbers(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own : over(own, background(element.parentElement)) };
let least = [99, ""];
for (const element of document.querySelectorAll("body *")) {
  const shown = element.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!shown || !says || element.closest(".headerlink, .md-search, svg")) continue;
  const style = getComputedStyle(element), below = background(element);
  const [a, b] = [light(over(numbers(style.color), below)), light(below)];
  const large = parseFloat(style.fontSize) >= 24;
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) * (large ? 1.5 : 1);
  if (ratio < least[0]) least = [ratio, element.outerHTML.slice(0, 200)] }
return least"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def browser(site, tmp_path_factory) -> Iterator[tuple[Any, str]]:
    """A browser, and where the site is served."""
    pytest.importorskip("selenium")
    if not is_installed():
        pytest.skip(MISSING)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def _opened(browser: tuple[Any, str], page: str, scheme: str = "light", width: int = 1280) -> Any:
    """Open a page in a scheme and a width, as on a first visit."""
    driver, place = browser
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(f"{place}/{page}")
    driver.execute_script("localStorage.clear()")
    driver.refresh()
    until(driver, "return document.readyState === 'complete' && !!document.body.dataset.mdColorScheme")
    return driver


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index.html", "idea.html", "measurements.html", "api/wrappers.html"])
def test_a_page_can_be_read(browser, page, scheme):
    driver = _opened(browser, page, scheme)
    assert (
        driver.execute_script("return document.body.dataset.mdColorScheme")
        == {"light": "default", "dark": "slate"}[scheme]
    )
    ratio, where = driver.execute_script(CONTRAST)
    assert 4.5 <= ratio < 99, where
    hosts = driver.execute_script("return performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)")
    assert set(hosts) == {browser[1]}
    assert (
        _opened(browser, page, scheme, width=360).execute_script("return document.documentElement.scrollWidth") <= 360
    )


@pytest.mark.slow
def test_a_keyboard_is_enough(browser):
    from selenium.webdriver.common.keys import Keys

    driver = _opened(browser, "index.html")
    reached = []
    for _ in range(6):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = "const e = document.activeElement; return e.title || e.ariaLabel || e.textContent.trim()"
        reached.append(driver.execute_script(focused))
        if reached[-1] == "Switch to dark mode":
            driver.switch_to.active_element.send_keys(Keys.ENTER)
            until(driver, "return document.body.dataset.mdColorScheme === 'slate'")
    wanted = iter(reached)
    assert all(
        any(word == name for name in wanted) for word in ("Skip to content", "Switch to dark mode", "Search", "Start")
    )
