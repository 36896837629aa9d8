"""No failure of an environment or of a worker process is a hang, and each names who failed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

import rwml_gym  # noqa: F401 (registers the id)
from rwml_gym.errors import WorkerDiedError, WorkerError, WorkerTimeoutError
from rwml_gym.vector.env import TextVectorEnv
from tests.helpers.odd_env import OddEnv, TwoPartError
from tests.helpers.processes import unmeasured
from tests.helpers.vector_walks import assert_no_process_is_left, assert_same, expected_walks, walk_and_close


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    assert_no_process_is_left()


@pytest.fixture(scope="module")
def expected():
    return expected_walks()


# --- failures


@pytest.mark.parametrize("workers", [0, 2])
def test_what_an_environment_raises_names_its_slot_and_a_reset_goes_on(expected, workers):
    envs = TextVectorEnv([OddEnv] * 5, workers=workers)
    envs.reset(seed=0)
    with pytest.raises(KeyError, match="no such thing") as caught:
        envs.step(["look", "look", "look", "raise", "look"])
    assert caught.value.__notes__ == ["Raised by the environment of slot 3."]
    with pytest.raises(ResetNeeded, match=r"Expected a successful step\(\), actual: the last one failed"):
        envs.step(["look"] * 5)
    with pytest.raises(ResetNeeded, match="Expected all slots in the reset mask"):
        envs.reset(options={"reset_mask": np.arange(5) == 3})
    assert_same(walk_and_close(envs, "NextStep"), expected["NextStep"])


def test_the_traceback_of_a_worker_comes_along():
    envs = TextVectorEnv([OddEnv] * 5, workers=2)
    envs.reset(seed=0)
    with pytest.raises(KeyError) as caught:
        envs.step(["raise", "look", "raise", "look", "raise"])
    cause = caught.value.__cause__
    assert isinstance(cause, WorkerError)
    assert (cause.worker, cause.slots) == (0, range(2))
    assert "Worker 0 (slots 0 to 1, process" in str(cause)
    assert 'raise KeyError("no such thing")' in str(cause)
    assert "Worker 1 (slots 2 to 4, process" in cause.__notes__[0]
    envs.close()


def test_what_cannot_be_unpickled_comes_as_text():
    envs = TextVectorEnv([OddEnv] * 2, workers=2)
    envs.reset(seed=0)
    with pytest.raises(WorkerError, match="TwoPartError: no mug in the kitchen") as caught:
        envs.step(["look", "raise two"])
    assert caught.value.worker == 1
    assert not isinstance(caught.value, WorkerDiedError)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        envs.call("nothing_to_pickle")
    with pytest.raises((AttributeError, pickle.PicklingError)):
        envs.call("has_wrapper_attr", lambda: None)  # refused before any worker is asked
    envs.reset(seed=0)
    envs.close()
    in_process = TextVectorEnv([OddEnv])
    in_process.reset()
    with pytest.raises(TwoPartError):
        in_process.step(["raise two"])


@pytest.mark.parametrize(("action", "fate", "exitcode"), [("kill", "killed by SIGKILL", -9), ("exit", "status 3", 3)])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_death_of_a_worker_is_an_error_that_names_it(action, fate, exitcode, context):
    envs = TextVectorEnv([OddEnv] * 4, workers=2, context=context)
    envs.reset(seed=0)
    with pytest.raises(WorkerDiedError, match=rf"Worker 1 \(slots 2 to 3, process \d+\) died \(.*{fate}\)") as caught:
        envs.step(["look", "look", action, "look"])
    assert (caught.value.worker, caught.value.slots, caught.value.exitcode) == (1, range(2, 4), exitcode)
    for call in (lambda: envs.reset(), lambda: envs.call("render")):
        with pytest.raises(WorkerDiedError, match="make another"):
            call()
    envs.close()
    assert multiprocessing.active_children() == []
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.exitcode) == (str(caught.value), exitcode)


def test_a_worker_that_died_between_calls_is_named_by_the_next():
    envs = TextVectorEnv([OddEnv] * 3, workers=3)
    processes = envs.call("process")
    os.kill(processes[0], signal.SIGKILL)
    os.kill(processes[2], signal.SIGTERM)
    with pytest.raises(WorkerDiedError, match=r"Worker [02] \(slot [02], process"):
        envs.reset()
    envs.close()


@pytest.mark.long
def test_a_death_is_seen_while_another_worker_hangs():
    envs = TextVectorEnv([OddEnv] * 2, workers=2)
    envs.reset(seed=0)
    with pytest.raises(WorkerDiedError, match=r"Worker 1 .* died \(exit status 3\)"):
        envs.step(["hang", "exit"])
    envs.close()


def test_closing_tells_of_a_worker_that_died():
    envs = TextVectorEnv([OddEnv] * 2, workers=2)
    os.kill(envs.call("process")[1], signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="Worker 1"):
        envs.close()
    assert multiprocessing.active_children() == []
    envs.close()


@pytest.mark.long
def test_a_worker_that_hangs_is_named_after_the_timeout():
    envs = TextVectorEnv([OddEnv] * 4, workers=2, timeout=1.0)
    envs.reset(seed=0)
    with pytest.raises(WorkerTimeoutError, match=r"Worker 0 \(slots 0 to 1") as caught:
        envs.step(["hang", "look", "look", "look"])
    assert isinstance(caught.value, TimeoutError)
    assert "actual: none from Worker 0" in str(caught.value)
    with pytest.raises(WorkerTimeoutError):
        envs.reset()
    envs.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_environment_that_cannot_be_made_is_named(workers):
    made = []

    def make():
        made.append(OddEnv())
        return made[-1]

    with pytest.raises(ValueError, match="no such length") as caught:
        TextVectorEnv([make, make, partial(OddEnv, fails="constructor")], workers=workers)
    assert caught.value.__notes__ == ["Raised by the environment of slot 2."]
    assert all(env.closed for env in made)
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_while_it_makes_its_environments_is_named():
    with pytest.raises(WorkerDiedError, match=r"Worker 1 \(slot 1, process \d+\) died \(exit status 7\)"):
        TextVectorEnv([OddEnv, partial(OddEnv, fails="exit")], workers=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_closing(workers):
    envs = TextVectorEnv([OddEnv, partial(OddEnv, fails="close"), OddEnv], workers=workers)
    envs.reset()
    inside = [] if workers else envs.envs
    with pytest.raises(OSError, match="cannot close"):
        envs.close()
    assert all(env.closed for env in inside)
    envs.close()
    for call in (lambda: envs.reset(), lambda: envs.step(["look"] * 3), lambda: envs.get_attr("steps")):
        with pytest.raises(ClosedEnvironmentError, match="Make another"):
            call()


@pytest.mark.long
def test_workers_end_with_the_last_reference():
    envs = TextVectorEnv([OddEnv] * 2, workers=2)
    assert len(multiprocessing.active_children()) == 2
    del envs
    gc.collect()
    assert multiprocessing.active_children() == []


PROGRAM = """
import os, sys
from rwml_gym.vector.env import TextVectorEnv
from tests.helpers.odd_env import OddEnv

if __name__ == "__main__":
    envs = TextVectorEnv([OddEnv] * 4, workers=2, context=sys.argv[1])
    envs.reset(seed=0)
    print(*sorted(set(envs.call("process"))), flush=True)
    {what}
"""


def start(tmp_path, what, context="fork"):
    """Starts the program in a process group of its own and returns it with the processes of its workers."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.format(what=what))
    program = subprocess.Popen(
        [sys.executable, str(file), context],
        env={**unmeasured(), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return program, [int(process) for process in program.stdout.readline().split()]


def assert_gone(processes, seconds=10.0):
    deadline = time.monotonic() + seconds
    while any(is_running(process) for process in processes):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.02)


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


on_linux = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks into /proc")


@on_linux
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_program_that_does_not_close_ends_and_leaves_nothing(tmp_path, context):
    program, workers = start(tmp_path, "pass", context)
    out, err = program.communicate(timeout=30)
    assert (program.returncode, out, err) == (0, "", "")
    assert_gone(workers)


@on_linux
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_end_when_their_parent_is_killed(tmp_path, context):
    program, workers = start(tmp_path, "sys.stdin.read(); import time; time.sleep(600)", context)
    assert len(workers) == 2
    program.kill()
    program.communicate(timeout=30)
    assert_gone(workers)


@on_linux
def test_an_interruption_is_the_parents(tmp_path):
    # Jobs in the background of a script ignore interruptions, and so would this one.
    what = """
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from rwml_gym.errors import WorkerError
    try:
        envs.step(["look", "hang", "look", "look"])
    except KeyboardInterrupt:
        print("interrupted")
    try:
        envs.reset()
    except WorkerError as error:
        print(error)
    envs.close()
    print("closed")
    """
    program, workers = start(tmp_path, what.strip())
    assert program.stdout.readline() == "hanging\n"
    os.killpg(program.pid, signal.SIGINT)
    out, err = program.communicate(timeout=30)
    assert out.splitlines()[0] == "interrupted"
    assert "was interrupted" in out
    assert out.endswith("closed\n")
    assert err == ""
    assert_gone(workers)
