"""Learning curves are where trackers keep them, also after a restart."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rwml_gym.agents.runs import tracking
from rwml_gym.agents.runs.tracking import make_accelerator, make_log
from rwml_gym.errors import DependencyNotInstalled, InvalidConfigError
from tests.helpers.small_training import STEPS, KilledError, raise_killed, train

needs_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the extra track")


@dataclass(frozen=True)
class _Inner:
    rate: float = 0.5
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Config:
    steps: int = 3
    fast: bool = True
    inner: _Inner = field(default_factory=_Inner)


def _curves(folder: Path) -> dict[str, dict[int, set[float]]]:
    """All scalars that TensorBoard reads below a folder: tag → step → values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: dict[str, dict[int, set[float]]] = {}
    for parent in {path.parent for path in folder.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(parent)).Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                curves.setdefault(tag, {}).setdefault(event.step, set()).add(event.value)
    return curves


def _log(folder: Path, name: str = "SFT"):
    accelerator = make_accelerator(folder, "tensorboard")
    log = make_log(accelerator, name, _Config())
    assert log is not None
    return accelerator, log


@needs_tensorboard
def test_a_run_that_is_killed_and_restarted_has_one_curve(tiny_folder, tmp_path):
    accelerator, log = _log(tmp_path)
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path / "checkpoints", kill_at=5, kill=raise_killed, log=log)
    accelerator.end_training()
    assert sorted(_curves(tmp_path)["SFT/loss"]) == [1, 2, 3, 4, 5]
    accelerator, log = _log(tmp_path)
    _, metrics, ran = train(tiny_folder, tmp_path / "checkpoints", log=log)
    accelerator.end_training()
    assert ran == [4, 5, 6]
    curves = _curves(tmp_path)
    for name in ("loss", "grad_norm"):
        curve = curves[f"SFT/{name}"]
        assert sorted(curve) == list(range(1, STEPS + 1))
        for row in metrics:  # step 5 was done twice, with the same result
            assert all(value == pytest.approx(row[name]) for value in curve[row["step"]])
    assert len(curves["SFT/seconds"]) == STEPS


@needs_tensorboard
def test_loops_of_a_run_are_apart_and_only_numbers_are_tracked(tmp_path):
    accelerator, log = _log(tmp_path)
    other = make_log(accelerator, "RWML", _Config())
    log(1, {"loss": 2.5, "line": "text", "skipped": True, "rows": [1, 2], "none": None})
    other(1, {"loss": math.inf})
    other(2, {"reward": 1})
    accelerator.end_training()
    curves = _curves(tmp_path)
    assert curves["SFT/loss"] == {1: {2.5}}
    assert curves["SFT/skipped"] == {1: {1.0}}
    assert curves["RWML/loss"] == {1: {math.inf}}
    assert curves["RWML/reward"] == {2: {1.0}}
    assert curves.keys() == {f"SFT/{n}" for n in ("loss", "skipped", "step")} | {
        f"RWML/{n}" for n in ("loss", "reward", "step")
    }


@needs_tensorboard
def test_the_configuration_is_tracked_once(tmp_path):
    import yaml

    for _ in range(2):
        accelerator, log = _log(tmp_path)
        log(1, {"loss": 1.0})
        accelerator.end_training()
    (path,) = tmp_path.rglob("hparams.yml")
    assert yaml.safe_load(path.read_text()) == {"steps": 3, "fast": True, "inner.rate": 0.5, "inner.names": "None"}


@needs_tensorboard
def test_all_takes_what_is_installed(tmp_path):
    assert "tensorboard" in [str(name) for name in make_accelerator(tmp_path, "all").log_with]


def test_without_a_tracker_nothing_is_logged_or_written(tmp_path):
    accelerator = make_accelerator(tmp_path / "run")
    assert make_log(accelerator, "SFT", _Config()) is None
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    for name, install in (("wandb", "pip install wandb"), ("tensorboard", r'pip install -e ".*\[track\]"')):
        with pytest.raises(DependencyNotInstalled, match=f"{name} is not installed: {install}"):
            make_accelerator(tmp_path / "run", name)
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(DependencyNotInstalled, match=r'No tracker is installed: pip install -e ".*\[track\]"'):
        make_accelerator(tmp_path / "run", "all")
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(InvalidConfigError, match=r"among \['none', 'tensorboard'.*actual: 'excel'"):
        make_accelerator(tmp_path, "excel")
