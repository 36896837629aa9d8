"""The page is one file, holds what the runs hold, and says what is wrong before any work."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rwml_gym.agents.cli import main as cli
from rwml_gym.agents.reports.page.document import write_page
from rwml_gym.agents.traces.folder import EPISODES, HEADER, TraceWriter
from rwml_gym.agents.traces.records import EpisodeRecord
from rwml_gym.errors import InvalidConfigError, StorageError
from tests.helpers.traces import HOSTILE, header, make_trace


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def parts_of(page: Path) -> dict[str, dict[str, Any]]:
    stored = re.findall(r'<script type="text/plain" id="(part-\d+-\d+)">([\w+/=]*)</script>', page.read_text("utf-8"))
    return {name: json.loads(gzip.decompress(base64.b64decode(part))) for name, part in stored}


def texts_of(page: Path) -> str:
    return "\n".join(text for part in parts_of(page).values() for text in part["texts"])


def test_the_page_loads_nothing_and_runs_only_its_own_script(tmp_path):
    write_page([make_trace(tmp_path / "run", texts=HOSTILE, games=10)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", text)
    assert "@import" not in text
    assert "url(" not in text
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe" not in policy[1]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    for kind, content in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy[1]


def test_hostile_texts_stay_in_their_element(tmp_path):
    folder = make_trace(tmp_path / "run", texts=HOSTILE, games=10)
    write_page([folder], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "window.hurt" not in re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert text.count("<script") == text.count("</script>")
    shown = texts_of(tmp_path / "page.html")
    for hostile in HOSTILE:
        assert hostile in shown


def test_results_have_the_intervals_of_their_kind(tmp_path):
    write_page([make_trace(tmp_path / "a"), make_trace(tmp_path / "b", seed=3, trials=2)], tmp_path / "page.html")
    once, twice = data_of(tmp_path / "page.html")["evaluations"]
    assert once["results"]["interval"] == "Wilson"
    assert not once["pass"]
    assert twice["results"]["interval"] == "bootstrap over games"
    assert [found["k"] for found in twice["pass"]] == [1, 2]
    assert twice["pass"][0]["value"][0] == pytest.approx(twice["results"]["success"][0])
    assert twice["pass"][1]["value"][0] <= twice["pass"][0]["value"][0]
    assert dict(once["facts"])["panel"] == "sha256:0123456789abcdef"
    (difference,) = data_of(tmp_path / "page.html")["differences"]
    assert difference["value"][0] == pytest.approx(twice["results"]["success"][0] - once["results"]["success"][0])


def test_steps_come_back_as_they_were(tmp_path):
    folder = make_trace(tmp_path / "run", prompt_lines=4)
    write_page([folder], tmp_path / "page.html")
    (part,) = parts_of(tmp_path / "page.html").values()
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text("utf-8").splitlines()]
    text = part["texts"].__getitem__
    found = [
        (e["number"], s["n"], text(s["o"]), text(s["a"]), text(s["p"]), text(s["s"]), "\n".join(map(text, s["m"])))
        for e in part["episodes"]
        for s in e["steps"]
    ]
    names = ("episode", "step", "observation", "action", "prediction", "next_observation", "shown")
    assert found == [tuple(line[name] for name in names) for line in lines]


def test_an_interrupted_evaluation_is_shown_as_far_as_it_is(tmp_path):
    folder = make_trace(tmp_path / "run", games=20, finished=7)
    with (folder / EPISODES).open("a") as file:
        file.write('{"episode": 7, "ga')
    write_page([folder], tmp_path / "page.html")
    (run,) = data_of(tmp_path / "page.html")["evaluations"]
    assert (run["finished"], run["expected"]) == (7, 20)


def test_an_evaluation_without_an_episode_is_shown(tmp_path):
    TraceWriter(tmp_path / "run", {"agent": "random"}).close()
    write_page([tmp_path / "run"], tmp_path / "page.html")
    (run,) = data_of(tmp_path / "page.html")["evaluations"]
    assert run["results"] is None
    assert run["expected"] is None


def test_failed_checks_of_tau2_are_named(tmp_path):
    writer = TraceWriter(tmp_path / "run", header(env="tau2", domain="retail", gap=None))
    parts = {"DB": 0.0, "ACTION": 0.0, "COMMUNICATE": 1.0}
    writer.end(EpisodeRecord(0, "retail/1", 0, False, 0.0, 0, score_parts=parts, counted=["DB", "COMMUNICATE"]))
    writer.close()
    write_page([tmp_path / "run"], tmp_path / "page.html")
    (run,) = data_of(tmp_path / "page.html")["evaluations"]
    checks = run["episodes"][0]["checks"]
    assert [c["name"] for c in checks if c["counted"] and not c["value"]] == ["DB"]
    assert "fatal" not in run["episodes"][0]


def test_texts_are_left_out_before_the_page_is_too_large(tmp_path):
    folder = make_trace(tmp_path / "run", games=40, steps=20, prompt_lines=30)
    assert write_page([folder], tmp_path / "whole.html") == []
    whole = (tmp_path / "whole.html").read_text("utf-8")
    stored = sum(map(len, re.findall(r'<script type="text/plain".*?</script>', whole)))
    data = len(re.findall(r'id="data">(.*?)</script>', whole)[0])
    (note,) = write_page([folder], tmp_path / "small.html", most_bytes=1_000_000 + data + int(0.9 * stored))
    assert "prompts are left out" in note
    assert "steps.jsonl" in note
    assert data_of(tmp_path / "small.html")["notes"] == [note]
    assert not any(
        "m" in s for p in parts_of(tmp_path / "small.html").values() for e in p["episodes"] for s in e["steps"]
    )
    assert (tmp_path / "small.html").stat().st_size < (tmp_path / "whole.html").stat().st_size


def test_the_same_runs_give_the_same_page(tmp_path):
    folder = make_trace(tmp_path / "run")
    for name in ("a.html", "b.html"):
        write_page([folder], tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    folders = [make_trace(tmp_path / name / "run") for name in ("one", "two")]
    write_page(folders, tmp_path / "page.html")
    assert [run["label"] for run in data_of(tmp_path / "page.html")["evaluations"]] == ["one/run", "two/run"]


def test_what_is_wrong_with_the_folders_is_said(tmp_path):
    folder = make_trace(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "page.html"
    for runs, said in (
        ([], "at least one RUN"),
        ([folder, tmp_path / "empty" / ".." / "run"], "every RUN once"),
        ([tmp_path / "empty"], "has neither"),
        ([tmp_path / "nowhere"], "no such folder"),
        ([folder / HEADER], "is a file"),
    ):
        with pytest.raises(InvalidConfigError, match=said):
            write_page(runs, out)
    assert not out.exists()


def test_damaged_files_are_named(tmp_path):
    folder = make_trace(tmp_path / "run")
    (folder / HEADER).write_text("{")
    with pytest.raises(StorageError, match="Expected the folder of an evaluation"):
        write_page([folder], tmp_path / "page.html")
    training = tmp_path / "training"
    training.mkdir()
    (training / "config.json").write_text("[]")
    with pytest.raises(StorageError, match="Expected a mapping"):
        write_page([training], tmp_path / "page.html")


def test_an_out_that_cannot_be_written_is_said_before_any_work(tmp_path, monkeypatch):
    folder = make_trace(tmp_path / "run")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("rwml_gym.agents.reports.page.document.steps_of", None)  # the first work
    with pytest.raises(InvalidConfigError, match="is a folder"):
        write_page([folder], tmp_path)
    with pytest.raises(StorageError, match="Choose another --out"):
        write_page([folder], tmp_path / "file" / "page.html")


def test_the_command(tmp_path, capsys, monkeypatch):
    folder = make_trace(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(folder), "--out", "page.html"]) == 0
    assert re.fullmatch(r"page\.html \(\d+\.\d MB\)\n", capsys.readouterr().out)
    assert cli.main(["report"]) == 2
    assert "Expected at least one RUN" in capsys.readouterr().err


def test_an_evaluation_is_shown_without_torch(tmp_path):
    program = (
        "import sys; from rwml_gym.agents.cli.main import main; status = main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules); sys.exit(status)"
    )
    words = ["report", str(make_trace(tmp_path / "run")), "--out", str(tmp_path / "page.html")]
    subprocess.run([sys.executable, "-c", program, *words], check=True, env={**os.environ})
