"""Ctrl-C, SIGTERM and a full disk: what is finished is kept, and the same command goes on."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from rwml_gym.storage.lock import WriteLock
from rwml_gym.transitions import TransitionDataset
from tests.helpers.command_line import run, said
from tests.helpers.processes import unmeasured

WORDS = ["record", "--env", "toy", "--games", 60, "--max-steps", 12, "--seed", 3]
PROGRAM = [sys.executable, "-m", "rwml_gym.agents.cli.main"]
# Play slowly enough for a signal to arrive in the middle.
SLOW = """
import sys, time
from rwml_gym.agents.cli.main import main
from rwml_gym.envs.toy import ToyHouseEnv
act = ToyHouseEnv._act
ToyHouseEnv._act = lambda self, action: (time.sleep(0.005), act(self, action))[1]
sys.exit(main(sys.argv[1:]))
"""


def start(*words, code=SLOW, **arguments):
    # A shell that started the tests in the background has them ignore Ctrl-C, and so would their children.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **arguments)


def wait_for(path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < deadline, f"{path} did not grow"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "data"
    assert run(*WORDS, "--out", out) == 0
    return TransitionDataset.load(out)


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_recording_is_kept_and_goes_on(tmp_path, capsys, whole, number, status):
    out, journal = tmp_path / "data", tmp_path / ".data.rwml-record.journal"
    process = start(*WORDS, "--out", out)
    wait_for(journal, 6)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert "Interrupted. The games played to their end are kept, and the same command plays the others." in errors
    kept = TransitionDataset.load(out)
    assert 5 <= len(kept.games) < 60
    assert f"{len(kept.games)} of 60 games are in {out}." in printed
    assert kept == TransitionDataset([t for t in whole if t.game in kept.games])
    assert run(*WORDS, "--out", out) == 0
    assert TransitionDataset.load(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert run(*WORDS, "--out", out) == 2  # now it is a finished one
    assert "--overwrite" in said(capsys)


def test_two_recordings_do_not_write_to_one_folder(tmp_path, capsys):
    with WriteLock(tmp_path / ".data.rwml-record.lock", tmp_path / "data", ""):
        assert run("record", "--env", "toy", "--games", 1, "--out", tmp_path / "data") == 2
    assert "another one does. Wait until it ends, or choose another --out." in said(capsys)
    assert run("record", "--env", "toy", "--games", 1, "--out", tmp_path / "data") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.long
def test_a_killed_recording_goes_on(tmp_path, whole):
    out, journal = tmp_path / "data", tmp_path / ".data.rwml-record.journal"
    process = start(*WORDS, "--out", out)
    wait_for(journal, 4)
    process.kill()
    process.communicate()
    assert not out.exists()
    with journal.open("ab") as file:
        file.write(b"half a li")
    assert run(*WORDS, "--out", out) == 0
    assert TransitionDataset.load(out) == whole


@pytest.mark.long
def test_a_journal_of_another_recording_is_not_mixed_in(tmp_path, capsys, whole):
    out = tmp_path / "data"
    process = start(*WORDS, "--out", out)
    wait_for(tmp_path / ".data.rwml-record.journal", 3)
    process.kill()
    process.communicate()
    other = [*WORDS[:-1], 4, "--out", out]
    assert run(*other) == 2
    assert "Repeat the command that began it" in said(capsys)
    assert run(*other, "--overwrite") == 0
    assert TransitionDataset.load(out).games != whole.games


@pytest.mark.long
def test_a_full_disk_is_told_and_loses_nothing(tmp_path, whole):
    out = tmp_path / "data"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))  # noqa: E731
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    process = start(*WORDS, "--out", out, code=ignore + SLOW, preexec_fn=limit, env=unmeasured())
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert "make room, and repeat the command" in errors
    assert run(*WORDS, "--out", out) == 0
    assert TransitionDataset.load(out) == whole


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_evaluation_shows_what_was_played(tmp_path, number, status):
    folder = tmp_path / "run"
    process = start("evaluate", "--env", "toy", "--agent", "random", "--episodes", 64, "--run-dir", folder)
    wait_for(folder / "episodes.jsonl", 3)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert "With --run-dir, finished episodes are kept" in errors
    found = re.search(r"(\d+) episodes of 64, unfinished", printed)
    assert found is not None
    assert 0 < int(found[1]) < 64
    assert os.linesep in printed


def test_files_of_somebody_else_beside_the_recording_stay(tmp_path):
    for name in ("data.lock", "data.journal"):
        (tmp_path / name).write_text("mine")
    assert run("record", "--env", "toy", "--games", 2, "--out", tmp_path / "data") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.journal", "data.lock"]
    for name in ("data.lock", "data.journal"):
        assert (tmp_path / name).read_text() == "mine"
