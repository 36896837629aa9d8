"""The page in headless Chromium: no console error, texts are not run, filters and comparison work, and it is quick."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rwml_gym.agents.reports.page.document import MOST_BYTES, write_page
from tests.helpers.chromium import MISSING, choose, chromium, is_installed, opened, until
from tests.helpers.traces import HOSTILE, make_trace

pytest.importorskip("selenium")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not is_installed(), reason=MISSING)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def count(browser: Any) -> int:
    return int(browser.execute_script("return document.getElementById('count').textContent").split()[0])


def episodes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text("utf-8").splitlines()]


def test_hostile_texts_are_shown_and_not_run(browser, tmp_path):
    line = "word " * 200_000  # 1 MB
    folder = make_trace(tmp_path / "run", games=len(HOSTILE) + 1, texts=[*HOSTILE, line], prompt_lines=2)
    write_page([folder], tmp_path / "page.html")
    opened(browser, tmp_path / "page.html")
    seen = ""
    for _ in range(len(HOSTILE) + 1):
        before = browser.execute_script("return document.querySelector('#episode h3').textContent")
        browser.execute_script("document.querySelectorAll('#episode details').forEach((one) => { one.open = true; })")
        seen += browser.execute_script("return document.getElementById('episode').textContent")
        buttons = "[...document.querySelectorAll('.buttons button')].at(-1)"
        if browser.execute_script(f"return {buttons}.disabled"):
            break
        browser.execute_script(f"{buttons}.click()")
        until(browser, f"return document.querySelector('#episode h3').textContent !== {json.dumps(before)}")
    for text in HOSTILE[:5]:
        assert text in seen
    for escape in ("\\ud800", "\\u202e", "\\u2067", "\\u0000", "\\u001b", "\\u2028", "\\u200b"):
        assert escape in seen
    assert "🧪 and עברית" in seen
    assert "Show all 1,000," in seen
    assert browser.execute_script("return window.hurt === undefined && document.images.length === 0")
    assert browser.get_log("browser") == []


def test_filters_and_comparison(browser, tmp_path):
    first, second = make_trace(tmp_path / "first", games=30), make_trace(tmp_path / "second", games=30, seed=1)
    write_page([first, second], tmp_path / "page.html")
    opened(browser, tmp_path / "page.html")
    rows = [*episodes(first), *episodes(second)]
    assert count(browser) == 60
    # Failed episodes come first.
    signs = browser.execute_script("return [...document.querySelectorAll('.row')].map((row) => row.textContent[0])")
    assert signs == ["✗"] * len(signs)
    choose(browser, "Outcome", "won")
    assert count(browser) == sum(row["won"] for row in rows)
    choose(browser, "Task type", "look_at_obj_in_light")
    assert count(browser) == sum(row["won"] and row["task_type"] == "look_at_obj_in_light" for row in rows)
    choose(browser, "Outcome", "")
    choose(browser, "Task type", "*")
    choose(browser, "Run", "1")
    assert count(browser) == 30
    choose(browser, "Run", "")
    steps = [json.loads(line) for f in (first, second) for line in (f / "steps.jsonl").read_text("utf-8").splitlines()]
    worst: dict[tuple[int, int], float] = {}
    run = -1
    for step in steps:
        run += step["episode"] == 0 and step["step"] == 1
        worst[run, step["episode"]] = max(worst.get((run, step["episode"]), 0.0), step["gap"])
    choose(browser, "Worst gap at least", "0.7")
    assert count(browser) == sum(gap >= 0.7 for gap in worst.values())
    choose(browser, "Worst gap at least", "9")
    assert count(browser) == 0
    choose(browser, "Worst gap at least", "")
    # The keyboard chooses an episode.
    box = browser.find_element("id", "episodes")
    chosen = "return document.querySelector('.row[aria-selected=true]').id"
    browser.execute_script("arguments[0].focus()", box)
    box.send_keys("\ue010")  # End
    assert browser.execute_script(chosen) == "row-59"
    box.send_keys("\ue013")  # Up
    assert browser.execute_script(chosen) == "row-58"
    # Two runs on one game.
    until(browser, "return document.querySelector('.first-difference')")
    game = episodes(first)[4]["game"]
    choose(browser, "Game", game)

    def actions(place: int) -> list[str]:
        lines = (json.loads(line) for line in ((first, second)[place] / "steps.jsonl").read_text("utf-8").splitlines())
        return [line["action"] for line in lines if line["game"] == game]

    ours, theirs = actions(0), actions(1)
    differs = next(n for n, (a, b) in enumerate(zip(ours, theirs, strict=False), 1) if a != b)
    until(
        browser,
        f"return document.querySelector('.first-difference')?.textContent === 'First difference: step {differs}' && "
        f"document.querySelector('.aligned .action').textContent === {json.dumps(ours[0])}",
    )
    assert browser.get_log("browser") == []


def test_of_five_hundred_episodes_only_those_in_view_are_drawn(browser, tmp_path):
    """So that the list stays fluid; `benchmarks/page.py` measures how fluid."""
    folder = make_trace(tmp_path / "run", games=500, steps=30, prompt_lines=40)
    write_page([folder], tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < MOST_BYTES
    opened(browser, tmp_path / "page.html")
    drawn = "return document.querySelectorAll('.row').length"
    assert 5 < browser.execute_script(drawn) < 60
    scroll = "const box = document.getElementById('episodes'); box.scrollTop = arguments[0]; const done = arguments[1];"
    for place in range(0, 40, 8):
        browser.execute_async_script(
            f"{scroll} requestAnimationFrame(() => requestAnimationFrame(() => done()))", place * 700
        )
        assert 5 < browser.execute_script(drawn) < 60
    choose(browser, "Outcome", "won")
    assert count(browser) < 500
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0, 0.5, 1], ["0", "0.5", "1"]),
        ([0.5512, 0.5513, 0.5514], ["0.5512", "0.5513", "0.5514"]),
        ([-0.00012, -0.00011], ["\u22121.2e-4", "\u22121.1e-4"]),
        ([2, 2], ["2", "2"]),
    ],
)
def test_labels_of_an_axis_tell_its_ticks_apart(browser, tmp_path, values, shown):
    write_page([make_trace(tmp_path / "run", games=2)], tmp_path / "page.html")
    opened(browser, tmp_path / "page.html")
    assert browser.execute_script(f"return labels({values}).map((one) => one[1])") == shown
