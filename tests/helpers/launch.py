"""Starts the command line in two processes on this CPU, as a user does: by `accelerate launch`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT

__all__ = ["launch"]

CONFIG = ROOT / "configs" / "accelerate" / "cpu_2.yaml"


def launch(
    job: str, config: Path, folder: Path, module: str = "rwml_gym.agents.cli.main"
) -> subprocess.CompletedProcess[str]:
    """Run `rwml-gym train JOB` in two processes. Where they wait for each other for ever, it fails after minutes."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG), "-m", module),
            *("train", job, "--config", str(config), "--run-dir", str(folder)),
        ],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
