"""The run for a GPU, with tiny models on a CPU: every section, and those that fail or come too late."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.long


def _run(out: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--out", str(out), *arguments],
        cwd=out.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text(encoding="utf-8"))


def test_a_step_has_its_share_of_the_rate(tmp_path):
    found = _run(tmp_path / "gpu.json", "--sections", "rate", "step tiny-llama ours")
    assert found["device"].startswith("CPU")
    assert found["versions"]["torch"]
    assert found["config"]["dtype"] == "float32"
    rate, step = found["sections"].values()
    assert (rate["state"], step["state"]) == ("measured", "measured"), found
    for part in ("generation", "update"):
        operations = step[f"{part}_needed_operations"]
        share = operations / step[f"{part}_seconds"] / rate["rates"]["float32"]
        assert step[f"{part}_share_of_rate"] == pytest.approx(share)
        assert 0 < share < 1


def test_a_section_that_fails_is_recorded_and_the_rest_goes_on(tmp_path):
    sections = _run(tmp_path / "gpu.json", "--sections", "rate", "step tiny-llama ours", "--group", "0")["sections"]
    assert {name: section["state"] for name, section in sections.items()} == {
        "rate": "measured",
        "step tiny-llama ours": "failed",
    }
    assert "ZeroDivisionError" in sections["step tiny-llama ours"]["error"]


def test_sections_for_which_no_time_is_left_are_recorded(tmp_path):
    sections = _run(tmp_path / "gpu.json", "--limit", "1")["sections"]
    assert {name.split()[0] for name in sections} == {"rate", "step", "policy", "learning"}
    assert {section["state"] for section in sections.values()} == {"out of time"}


@pytest.mark.slow
def test_everything(tmp_path):
    sections = _run(tmp_path / "gpu.json", "--limit", "3000")["sections"]
    assert {section["state"] for section in sections.values()} == {"measured"}, sections
    assert {name.split()[0] for name in sections} == {"rate", "step", "policy", "learning"}
    for shape in ("tiny-llama", "tiny-qwen2"):
        ours, trl = (sections[f"step {shape} {side}"] for side in ("ours", "trl-plain"))
        assert ours["prompts_digest"] == trl["prompts_digest"]
        assert sections[f"policy {shape}"]["groups_with_signal"] > 0
    learning = sections["learning"]
    assert learning["killed"]
    assert 5 <= learning["resumed_after_step"] < 10
    assert learning["steps"] == 10
