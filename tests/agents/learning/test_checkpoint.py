"""Training that is killed and started again ends where it would have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rwml_gym.agents.language.models import add_adapter, add_reference, load_model, reference
from rwml_gym.agents.learning.checkpoint import load_adapter_weights, save_adapter
from rwml_gym.agents.learning.loop import train_loop
from rwml_gym.files import read_json, write_json
from tests.conftest import policy_weights, randomise
from tests.helpers.paths import ROOT
from tests.helpers.small_training import (
    STEPS,
    KilledError,
    Result,
    assert_same,
    raise_killed,
    train,
    train_whole,
)


@pytest.fixture(scope="module")
def uninterrupted(tiny_folder, tmp_path_factory) -> Result:
    return train_whole(tiny_folder, tmp_path_factory.mktemp("uninterrupted"))


def test_metrics_have_a_row_a_step(uninterrupted):
    _, metrics = uninterrupted
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    assert all({"loss", "grad_norm"} <= row.keys() for row in metrics)


@pytest.mark.long
@pytest.mark.parametrize("kill_at", range(STEPS))
def test_killed_anywhere_and_restarted_it_ends_the_same(tiny_folder, tmp_path, uninterrupted, kill_at):
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path, kill_at=kill_at, kill=raise_killed)
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == list(range(kill_at - kill_at % 2, STEPS))
    assert_same(model, metrics, uninterrupted)


def test_killed_again_and_again_it_ends_the_same(tiny_folder, tmp_path, uninterrupted):
    for kill_at in (1, 2, 5, 6):
        with pytest.raises(KilledError):
            train(tiny_folder, tmp_path, kill_at=kill_at, kill=raise_killed, every=1)
    model, metrics, ran = train(tiny_folder, tmp_path, every=1)
    assert ran == [6]
    assert_same(model, metrics, uninterrupted)


def test_with_a_frozen_reference_the_policy_is_what_is_restored(tiny_folder, tmp_path, uninterrupted):
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path, kill_at=5, kill=raise_killed, frozen=True)
    model, metrics, _ = train(tiny_folder, tmp_path, frozen=True)
    assert_same(model, metrics, uninterrupted)


@pytest.mark.long
def test_a_killed_process_goes_on_in_a_new_one(tiny_folder, tmp_path, uninterrupted):
    root = ROOT
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.helpers.small_training import train; "
        "train(Path(sys.argv[1]), Path(sys.argv[2]), kill_at=5, kill=lambda: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_folder), str(tmp_path)],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == [4, 5, 6]
    assert_same(model, metrics, uninterrupted)


def test_a_finished_loop_runs_nothing_again(tiny_folder, tmp_path, uninterrupted):
    train(tiny_folder, tmp_path)
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == []
    assert_same(model, metrics, uninterrupted)


def test_only_the_newest_two_checkpoints_stay(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000006", "step-000007"]
    assert {p.suffix for p in (tmp_path / "step-000007").iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("name", [".step-000006.partial", "step-000006.partial", "step-6", ".metrics.json.partial"])
def test_half_written_checkpoints_are_ignored(tiny_folder, tmp_path, uninterrupted, name):
    with pytest.raises(KilledError):
        train(tiny_folder, tmp_path, kill_at=5, kill=raise_killed)
    (tmp_path / name).mkdir()
    (tmp_path / name / "metrics.json").write_text('[{"step": 1', encoding="utf-8")
    (tmp_path / name / "adapter.safetensors").write_bytes(b"\0" * 7)
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == [4, 5, 6]
    assert_same(model, metrics, uninterrupted)


@pytest.mark.parametrize(("file", "first"), [("save_file", 2), ("write_json", 4)])
def test_killed_while_a_checkpoint_is_written(tiny_folder, tmp_path, uninterrupted, monkeypatch, file, first):
    from rwml_gym.agents.learning import checkpoint

    write = getattr(checkpoint, file)
    calls: list[int] = []

    def half(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, file, half)
        with pytest.raises(KilledError):
            train(tiny_folder, tmp_path)
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran[0] == first
    assert_same(model, metrics, uninterrupted)


def test_killed_between_a_checkpoint_and_the_removal_of_the_last(tiny_folder, tmp_path, uninterrupted, monkeypatch):
    from rwml_gym.agents.learning import checkpoint

    remove = checkpoint.shutil.rmtree

    def killed(path, *args, **kwargs):
        if Path(path).name == "step-000002":
            (Path(path) / "adapter.safetensors").unlink()  # the removal was half done
            raise KilledError
        remove(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KilledError):
            train(tiny_folder, tmp_path)
    assert {"step-000002", "step-000006"} <= {p.name for p in tmp_path.iterdir()}
    model, metrics, ran = train(tiny_folder, tmp_path)
    assert ran == [6]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000006", "step-000007"]
    assert_same(model, metrics, uninterrupted)


def test_no_steps_leave_the_model(tiny_folder, tmp_path):
    model = add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4, seed=1)
    before = policy_weights(model)
    assert train_loop("none", tmp_path, model, 1e-2, 0, pytest.fail, str, 1) == []
    assert all(torch.equal(p, before[n]) for n, p in policy_weights(model).items())


# Files


def test_json_is_complete_or_not_there(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"τ_d": [1, None, "…"]})
    assert read_json(path) == {"τ_d": [1, None, "…"]}
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert read_json(path) == {"τ_d": [1, None, "…"]}
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["τ_d"][2] == "…"


def test_the_weights_of_an_adapter_go_into_another(adapted, tiny_folder, tmp_path):
    save_adapter(adapted[0], tmp_path / "adapter")
    other = add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], rank=4, alpha=8, seed=9)
    randomise(other, seed=4)
    add_reference(other)
    with reference(other):
        frozen = policy_weights(other)
    load_adapter_weights(other, tmp_path / "adapter")
    expected = policy_weights(adapted[0])
    assert all(torch.equal(p, expected[n]) for n, p in policy_weights(other).items())
    with reference(other):
        assert all(torch.equal(p, frozen[n]) for n, p in policy_weights(other).items())
    assert len(load_file(tmp_path / "adapter" / "adapter_model.safetensors")) == len(expected)


def test_a_half_saved_adapter_leaves_the_last_one(adapted, tmp_path, monkeypatch):
    model, _ = adapted
    save_adapter(model, tmp_path / "adapter")
    before = load_file(tmp_path / "adapter" / "adapter_model.safetensors")

    def killed(*args, **kwargs):
        raise KilledError

    monkeypatch.setattr(type(model), "save_pretrained", killed)
    with pytest.raises(KilledError):
        save_adapter(model, tmp_path / "adapter")
    after = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
