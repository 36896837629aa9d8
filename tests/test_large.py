"""The script of `docs/large.md`, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT


@pytest.mark.slow
def test_the_script_for_trl_trains_in_two_processes(tiny_folder, tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("alfworld")
    blocks = re.findall(r"```python notest\n(.*?)```", (ROOT / "docs" / "large.md").read_text("utf-8"), re.DOTALL)
    (script,) = [block for block in blocks if "GRPOTrainer" in block]
    (tmp_path / "train_trl.py").write_text(script, "utf-8")
    config = ROOT / "configs" / "accelerate" / "cpu_2.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    done = subprocess.run(
        [*launch, "train_trl.py", str(tiny_folder), "cpu", "1"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "trl" / "adapter_model.safetensors").is_file()
