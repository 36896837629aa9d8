"""Diverging steps, full disks, damaged checkpoints and kills at any moment: a run says so, and loses little."""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from rwml_gym.agents.language.models import add_adapter, load_adapter, load_model
from rwml_gym.agents.learning import checkpoint
from rwml_gym.agents.learning.checkpoint import load_adapter_weights, save_adapter
from rwml_gym.agents.learning.loop import train_loop
from rwml_gym.agents.learning.schedules import warmup_linear
from rwml_gym.errors import CheckpointError, InvalidConfigError, ModelNotFoundError, TrainingDivergedError
from rwml_gym.files import read_json
from rwml_gym.hashes import seal
from tests.conftest import policy_weights
from tests.helpers.paths import ROOT
from tests.helpers.small_training import (
    STEPS,
    KilledError,
    Result,
    assert_same,
    raise_killed,
    train,
    train_whole,
    without_seconds,
)

FILES = ("adapter.safetensors", "optimizer.safetensors", "metrics.json")
NAMES = ("loss", "grad_norm")
VALUES = (math.nan, math.inf, -math.inf)


@pytest.fixture(scope="module")
def uninterrupted(tiny_folder, tmp_path_factory) -> Result:
    return train_whole(tiny_folder, tmp_path_factory.mktemp("uninterrupted"))


def _diverges(at: set[int], name: str = "loss", value: float = math.nan):
    """What a step does that diverges: its update has spoilt the weights by the time its metrics tell."""

    def change(number, model, row):
        if number not in at:
            return row
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.fill_(math.nan)
        return {**row, name: value}

    return change


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Steps that diverge


@pytest.mark.long
@pytest.mark.parametrize(("name", "value"), [(n, v) for n in NAMES for v in VALUES])
def test_a_step_that_diverges_stops_the_run_and_reaches_no_checkpoint(
    tiny_folder, tmp_path, uninterrupted, name, value
):
    with pytest.raises(TrainingDivergedError) as caught:
        train(tiny_folder, tmp_path, change=_diverges({5}, name, value))
    for part in (f"step 6: {name} {value}", str(tmp_path / "step-000004"), "lower learning rate", "another seed"):
        assert part in str(caught.value)
    assert _names(tmp_path) == ["step-000002", "step-000004"]
    assert all(w.isfinite().all() for w in load_file(tmp_path / "step-000004" / "adapter.safetensors").values())
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == [4, 5, 6]
    assert_same(model, metrics, uninterrupted)


def test_before_the_first_checkpoint_there_is_none_to_name(tiny_folder, tmp_path):
    with pytest.raises(TrainingDivergedError, match="no checkpoint yet"):
        train(tiny_folder, tmp_path / "new", change=_diverges({0}))
    assert not (tmp_path / "new").exists()


def test_a_skipped_step_leaves_weights_and_optimizer_as_they_were(tiny_folder, tmp_path):
    model, metrics, _ = train(tiny_folder, tmp_path, every=1, change=_diverges({STEPS - 1}), on_nan="skip")
    before, after = tmp_path / f"step-{STEPS - 1:06d}", tmp_path / f"step-{STEPS:06d}"
    for file in FILES[:2]:
        assert (before / file).read_bytes() == (after / file).read_bytes()
    assert all(weight.isfinite().all() for weight in policy_weights(model).values())
    assert [row.get("skipped", False) for row in metrics] == [*[False] * (STEPS - 1), True]
    assert math.isnan(read_json(after / "metrics.json")[-1]["loss"])


def test_skipping_goes_on_and_is_the_same_after_a_restart(tiny_folder, tmp_path):
    options = {"change": _diverges({0, 3, 4}, "grad_norm", math.inf), "on_nan": "skip"}
    model, metrics, _ = train(tiny_folder, tmp_path / "whole", **options)
    assert [row["step"] for row in metrics if row.get("skipped")] == [1, 4, 5]
    assert all(math.isfinite(row["loss"]) for row in metrics)
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path / "killed", kill_at=5, kill=raise_killed, **options)
    again = train(tiny_folder, tmp_path / "killed", **options)
    assert_same(again[0], again[1], (policy_weights(model), without_seconds(metrics)))


def test_skipping_gives_up_on_a_model_that_stays_broken(tiny_folder, tmp_path):
    with pytest.raises(TrainingDivergedError, match="step 6: loss nan, after 4 steps in a row that were skipped"):
        train(tiny_folder, tmp_path, change=_diverges(set(range(1, STEPS))), on_nan="skip")
    assert _names(tmp_path) == ["step-000002", "step-000004"]
    # What was skipped before a restart counts.
    with pytest.raises(TrainingDivergedError, match="step 6: loss nan, after 4 steps"):
        train(tiny_folder, tmp_path, change=_diverges(set(range(1, STEPS))), on_nan="skip")


# Checkpoints that cannot be written

_FULL = """
import resource, signal, sys
from pathlib import Path
from rwml_gym.errors import CheckpointError
from tests.helpers.small_training import train

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
try:
    train(Path(sys.argv[1]), Path(sys.argv[2]), kill_at=3, kill=limit)
except CheckpointError as error:
    print("caught:", error)
"""


def _program(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", program, *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.mark.long
def test_a_limit_of_the_file_system_stops_the_run_and_leaves_the_last_checkpoint(tiny_folder, tmp_path, uninterrupted):
    done = subprocess.run(
        _program(_FULL, tiny_folder, tmp_path), cwd=ROOT, env=_environment(), capture_output=True, text=True, check=True
    )
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("caught:")]
    for part in (str(tmp_path / "step-000004"), "File too large", "bytes", "same command continues"):
        assert part in said
    assert _names(tmp_path) == ["step-000002"]
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == [2, 3, 4, 5, 6]
    assert_same(model, metrics, uninterrupted)


def _failing(monkeypatch, writer: str, error: Exception, calls: set[int]) -> None:
    """Lets some calls of what writes files fail, after half of the file is there."""
    write, count = getattr(checkpoint, writer), iter(range(10_000))

    def fails(*arguments):
        if next(count) not in calls:
            return write(*arguments)
        path = next(a for a in arguments if isinstance(a, Path))
        path.write_bytes(b"{")
        raise error

    monkeypatch.setattr(checkpoint, writer, fails)


ERRORS = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EROFS, "Read-only file system"),
    PermissionError(errno.EACCES, "Permission denied"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.long
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("writer", "call"), [("save_file", 2), ("save_file", 3), ("write_json", 1)])
def test_whatever_cannot_be_written_is_one_error(
    tiny_folder, tmp_path, uninterrupted, monkeypatch, error, writer, call
):
    with monkeypatch.context() as patch:
        _failing(patch, writer, error, {call})
        with pytest.raises(CheckpointError) as caught:
            train(tiny_folder, tmp_path)
    for part in (str(tmp_path / "step-000004"), str(error), "are free", "continues"):
        assert part in str(caught.value)
    assert _names(tmp_path) == ["step-000002"]
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == [2, 3, 4, 5, 6]
    assert_same(model, metrics, uninterrupted)


def test_a_run_that_goes_on_warns_and_saves_at_the_next_checkpoint(tiny_folder, tmp_path, uninterrupted, monkeypatch):
    _failing(monkeypatch, "write_json", ERRORS[0], {0, 2})
    with pytest.warns(UserWarning, match="No space left on device.* next checkpoint") as warned:
        model, metrics, _ = train(tiny_folder, tmp_path, on_save_error="go_on")
    assert len(warned) == 2
    assert _names(tmp_path) == ["step-000004", "step-000007"]
    assert_same(model, metrics, uninterrupted)


def test_the_last_checkpoint_must_be_written(tiny_folder, tmp_path, monkeypatch):
    _failing(monkeypatch, "write_json", ERRORS[0], {3})
    with pytest.raises(CheckpointError, match="step-000007"):
        train(tiny_folder, tmp_path, on_save_error="go_on")
    assert _names(tmp_path) == ["step-000004", "step-000006"]


def test_a_folder_that_cannot_be_made_is_one_error(tiny_folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file/run/step-000002.*Not a directory"):
        train(tiny_folder, tmp_path / "file" / "run")


def test_an_adapter_that_cannot_be_saved_is_one_error_and_leaves_the_last_one(adapted, tmp_path, monkeypatch):
    model, _ = adapted
    save_adapter(model, tmp_path / "adapter")
    before = {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}

    def full(*arguments, **options):
        raise ERRORS[3]

    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_adapter(model, tmp_path / "adapter")
    assert _names(tmp_path) == ["adapter"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()} == before


# Checkpoints that are damaged


@pytest.mark.long
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("left", [0.0, 0.3, 0.95, None])
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(tiny_folder, tmp_path, uninterrupted, file, left):
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path, kill_at=5, kill=raise_killed)
    path = tmp_path / "step-000004" / file
    content = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(content[: int(left * len(content))])
    damaged = {p.name for p in path.parent.iterdir()}
    seen: set[str] = set()
    with pytest.warns(UserWarning, match="goes on from step-000002") as caught:
        model, metrics, ran = train(
            tiny_folder,
            tmp_path,
            change=lambda number, model, row: seen.update(p.name for p in path.parent.iterdir()) or row,
            every=99,
        )
    (warning,) = [str(w.message) for w in caught if w.category is UserWarning]
    assert f"{str(path.parent)!r} is damaged" in warning
    assert file in warning
    assert seen == damaged  # nothing is deleted unasked
    assert ran == [2, 3, 4, 5, 6]
    assert_same(model, metrics, uninterrupted)


def _flipped(path: Path, rng: random.Random) -> None:
    """Flips one bit of a file, as a disk may."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def interrupted(tiny_folder, tmp_path_factory) -> Path:
    """Checkpoints after steps 2 and 4 of a training that was killed after 5."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KilledError):
        train(tiny_folder, folder, kill_at=5, kill=raise_killed)
    return folder


def _restored(tiny_folder, folder: Path) -> tuple[dict, dict, list]:
    """What a loop starts from: weights, optimizer and metrics."""
    model = add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4, alpha=8, seed=1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    metrics = checkpoint.restore(folder, model, optimizer, parameters)
    state = {(i, key): v for i, p in enumerate(parameters) for key, v in optimizer.state[p].items()}
    return policy_weights(model), state, metrics


def _equal(one: tuple[dict, dict, list], other: tuple[dict, dict, list]) -> bool:
    tensors = all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(one[:2], other[:2], strict=True)
    )
    return tensors and one[2] == other[2]


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_no_flipped_bit_is_taken_for_data(tiny_folder, tmp_path, interrupted, part):
    """Any single bit of any file: what is loaded is what was written, now or at the checkpoint before."""
    rng = random.Random(part)
    newest = _restored(tiny_folder, interrupted)
    shutil.copytree(interrupted / "step-000002", tmp_path / "only" / "step-000002")
    before = _restored(tiny_folder, tmp_path / "only")
    names = [path.name for path in sorted((interrupted / "step-000004").iterdir())]
    assert {*FILES} < {*names}
    outcomes = []
    for number in range(30):
        folder = tmp_path / str(number)
        shutil.copytree(interrupted, folder)
        _flipped(folder / "step-000004" / names[number % len(names)], rng)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = _restored(tiny_folder, folder)
        warned = any("is damaged" in str(w.message) for w in caught)
        assert _equal(found, before if warned else newest)
        outcomes.append(warned)
    assert sum(outcomes) >= 22  # a flip in the white space of the hashes changes nothing


@pytest.mark.parametrize("content", ["null", "[1, 2, 3, 4]", "{}", "3", '"four"', "[]", "[null, null, null, null]", ""])
def test_metrics_that_are_none_are_damage(tiny_folder, tmp_path, interrupted, content):
    shutil.copytree(interrupted, tmp_path / "run")
    path = tmp_path / "run" / "step-000004" / "metrics.json"
    path.write_text(content)
    with pytest.warns(UserWarning, match=r"content of metrics\.json"):
        assert len(_restored(tiny_folder, tmp_path / "run")[2]) == 2
    seal(path.parent, path.name)  # as if it had been written so
    with pytest.raises(CheckpointError, match=r"metrics"):
        _restored(tiny_folder, tmp_path / "run")


@pytest.mark.parametrize("content", [None, "null", "[1]", "{", '{"adapter.safetensors": 3}'])
def test_without_hashes_nothing_is_believed(tiny_folder, tmp_path, interrupted, content):
    shutil.copytree(interrupted, tmp_path / "run")
    path = tmp_path / "run" / "step-000004" / "hashes.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.warns(UserWarning, match="goes on from step-000002"):
        assert len(_restored(tiny_folder, tmp_path / "run")[2]) == 2


@pytest.mark.long
@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_flipped_bit_of_a_saved_adapter_is_noticed(tiny_folder, tmp_path, file):
    model = add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4, alpha=8, seed=1)
    save_adapter(model, tmp_path / "adapter")
    whole = (tmp_path / "adapter" / file).read_bytes()
    rng = random.Random(0)
    for _ in range(20):
        (tmp_path / "adapter" / file).write_bytes(whole)
        _flipped(tmp_path / "adapter" / file, rng)
        with pytest.raises(CheckpointError, match=rf"content of {file}"):
            load_adapter_weights(model, tmp_path / "adapter")
        with pytest.raises(ModelNotFoundError, match=rf"content of {file}"):
            load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], tmp_path / "adapter")


def test_a_single_damaged_checkpoint_starts_afresh(tiny_folder, tmp_path, uninterrupted):
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path, kill_at=3, kill=raise_killed)
    (tmp_path / "step-000002" / "metrics.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"content of metrics\.json.*Delete that folder.*from the start"):
        train(tiny_folder, tmp_path)
    shutil.rmtree(tmp_path / "step-000002")
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == list(range(STEPS))
    assert_same(model, metrics, uninterrupted)


def test_a_checkpoint_of_another_model_is_refused(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path)
    larger = add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=8, seed=1)
    with pytest.raises(CheckpointError, match="another model"):
        train_loop("larger", tmp_path, larger, 1e-2, STEPS, pytest.fail, str, 1)


# Kills

_KILLED_WRITING = """
import os, signal, sys
from pathlib import Path
from rwml_gym.agents.learning import checkpoint
from tests.helpers.small_training import train

save, calls = checkpoint.save_file, []
def half(tensors, path):
    save(tensors, path)
    calls.append(path)
    if len(calls) == 4:  # the optimizer's state of the second checkpoint
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = half
train(Path(sys.argv[1]), Path(sys.argv[2]))
"""
_SLOW = """
import sys, time
from pathlib import Path
from tests.helpers.small_training import train

def slow(number, model, row):
    print("step", flush=True)
    time.sleep(0.02)
    return row
train(Path(sys.argv[1]), Path(sys.argv[2]), every=1, change=slow)
"""


@pytest.mark.long
def test_killed_while_a_checkpoint_is_written_it_goes_on_from_the_one_before(tiny_folder, tmp_path, uninterrupted):
    done = subprocess.run(
        _program(_KILLED_WRITING, tiny_folder, tmp_path),
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert _names(tmp_path) == [".step-000004.partial", "step-000002"]
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == [2, 3, 4, 5, 6]
    assert _names(tmp_path) == ["step-000006", "step-000007"]
    assert_same(model, metrics, uninterrupted)


@pytest.mark.long
def test_killed_at_random_moments_it_ends_the_same(tiny_folder, tmp_path, uninterrupted):
    seed = random.randrange(2**32)
    print("seed", seed)  # shown if it fails
    rng = random.Random(seed)
    for _ in range(2):
        child = subprocess.Popen(
            _program(_SLOW, tiny_folder, tmp_path), cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        while "step" not in child.stdout.readline():
            assert child.poll() is None
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
    model, metrics, _ = train(tiny_folder, tmp_path, every=1)
    assert_same(model, metrics, uninterrupted)


# What the loop takes


def test_a_schedule_needs_no_state(tiny_folder, tmp_path):
    schedule = warmup_linear(2, STEPS)
    model, metrics, _ = train(tiny_folder, tmp_path / "whole", schedule=schedule)
    assert [row["learning_rate"] for row in metrics] == [1e-2 * schedule(number) for number in range(STEPS)]
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path / "killed", kill_at=5, kill=raise_killed, schedule=schedule)
    again = train(tiny_folder, tmp_path / "killed", schedule=schedule)
    assert again[2] == [4, 5, 6]
    assert_same(again[0], again[1], (policy_weights(model), without_seconds(metrics)))


def test_a_schedule_sets_the_learning_rate(tiny_folder, tmp_path):
    weights: list[dict[str, torch.Tensor]] = []

    def seen(number, model, row):
        weights.append(policy_weights(model))
        return row

    train(tiny_folder, tmp_path, change=seen, schedule=lambda number: float(number not in (2, 3)))
    still = [
        all(torch.equal(a, b) for a, b in zip(before.values(), after.values(), strict=True))
        for before, after in itertools.pairwise(weights)
    ]
    assert still == [False, True, True, False, False, False]


@pytest.mark.parametrize("option", ["on_nan", "on_save_error"])
def test_unknown_options_are_refused_before_anything_is_done(tiny_folder, tmp_path, option):
    with pytest.raises(InvalidConfigError, match=f"`{option}` 'stop' or .*'explode'"):
        train(tiny_folder, tmp_path / "new", **{option: "explode"})
    assert not (tmp_path / "new").exists()
