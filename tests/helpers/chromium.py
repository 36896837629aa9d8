"""Debian's headless Chromium, driven by selenium."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
MISSING = f"needs {CHROMIUM}: apt-get install chromium chromium-driver"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def is_installed() -> bool:
    return CHROMIUM.exists() and DRIVER.exists()


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Start a browser with a new profile in a folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(120)
    driver.set_window_size(1300, 900)
    try:
        yield driver
    finally:
        driver.quit()


def until(browser: Any, script: str) -> Any:
    """Wait until a script returns something true, and return that."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(script))


def opened(browser: Any, page: Path) -> None:
    """Open a report, and wait for its first view."""
    browser.get(page.as_uri())
    until(browser, "return document.documentElement.dataset.ready && document.querySelector('#episode .step')")


def choose(browser: Any, label: str, value: str) -> None:
    """Set the filter with a label."""
    browser.execute_script(
        """const input = [...document.querySelectorAll('label')]
             .find((one) => one.firstChild.textContent === arguments[0])
             .querySelector('select, input');
           input.value = arguments[1];
           input.dispatchEvent(new Event(input.tagName === 'SELECT' ? 'change' : 'input'));""",
        label,
        value,
    )
