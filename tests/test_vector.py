"""Vector environments give what Gymnasium's own give, in one process and in several, and no failure is a hang."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import rwml_gym  # noqa: F401 (registers the id)
from rwml_gym.errors import InvalidConfigError, TextTooLongError, WorkerDiedError, WorkerError, WorkerTimeoutError
from rwml_gym.vector import TextVectorEnv
from rwml_gym.wrappers import RecordTransitions, WorldModelRewardWrapper
from tests.odd_env import TEXTS, NumberEnv, OddEnv, TwoPartError
from tests.toy_env import ToyHouse

MODES = ["NextStep", "SameStep", "Disabled"]
ID = "rwml_gym/ALFWorld-v0"


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    if multiprocessing.active_children():
        gc.collect()  # those of vector environments that a failed constructor or test left in a traceback
    assert multiprocessing.active_children() == []


def assert_same(actual, expected, where="result"):
    """The same values of the same types, arrays of the same dtype and shape, dictionaries in any order."""
    assert type(actual) is type(expected), where
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), where
        for key in expected:
            assert_same(actual[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, tuple | list) or (isinstance(expected, np.ndarray) and expected.dtype == object):
        assert len(actual) == len(expected), where
        for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype, where
        np.testing.assert_array_equal(actual, expected, err_msg=where)
    else:
        assert actual == expected, where


def walk(envs, mode, steps=60, seed=3):
    """What a random walk over the admissible actions gives, as copies."""
    rng = np.random.default_rng(seed)
    results = [envs.reset(seed=seed)]
    admissible = list(results[0][1]["admissible_actions"])
    for _ in range(steps):
        actions = [str(rng.choice(choice)) if choice else "look" for choice in admissible]
        results.append(envs.step(actions))
        _, _, terminations, truncations, infos = results[-1]
        ended = terminations | truncations
        if mode == "Disabled" and ended.any():
            results.append(envs.reset(seed=[None] * len(ended), options={"reset_mask": ended}))
        for now in (infos, results[-1][-1]):
            for slot in np.flatnonzero(now["_admissible_actions"]):
                admissible[slot] = now["admissible_actions"][slot]
    return copy.deepcopy(results)


def walk_and_close(envs, mode, **arguments):
    try:
        return walk(envs, mode, **arguments)
    finally:
        envs.close()


@pytest.fixture(scope="module")
def expected():
    return {mode: walk_and_close(SyncVectorEnv([OddEnv] * 5, autoreset_mode=mode), mode) for mode in MODES}


# --- the same as Gymnasium's own


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_a_random_walk_gives_what_gymnasium_gives(expected, mode, workers):
    envs = TextVectorEnv([OddEnv] * 5, mode, workers=workers)
    assert_same(walk_and_close(envs, mode), expected[mode])


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_worker_processes_share_the_memory_of_any_text(expected, mode):
    envs = AsyncVectorEnv([OddEnv] * 5, autoreset_mode=mode)
    assert_same(walk_and_close(envs, mode), expected[mode])


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_start_in_every_way(expected, context):
    made_here = [lambda: OddEnv()] * 5
    envs = TextVectorEnv(made_here, "SameStep", workers=2, context=context)
    assert_same(walk_and_close(envs, "SameStep"), expected["SameStep"])


@pytest.mark.parametrize("workers", [0, 2])
def test_wrapped_environments_keep_their_nested_infos(workers):
    def make():
        return RecordTransitions(WorldModelRewardWrapper(ToyHouse(), "hashing", predictor="nothing-changes"))

    ours = TextVectorEnv([make] * 3, workers=workers)
    theirs = SyncVectorEnv([make] * 3)
    assert_same(walk(ours, "NextStep"), walk(theirs, "NextStep"))
    assert_same(
        [list(dataset) for dataset in ours.call("dataset")],
        [list(dataset) for dataset in theirs.call("dataset")],
    )
    ours.close()
    theirs.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_spaces_and_description_are_those_of_gymnasium(workers):
    make = partial(OddEnv, render_mode="ansi")
    ours, theirs = TextVectorEnv([make] * 3, workers=workers), SyncVectorEnv([make] * 3)
    for name in ("num_envs", "single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("metadata", "render_mode", "closed", "spec"):
        assert_same(getattr(ours, name), getattr(theirs, name))
    assert "autoreset_mode" not in OddEnv.metadata
    observations, _ = ours.reset(seed=0)
    assert observations in ours.observation_space
    ours.step(ours.action_space.sample())
    ours.close()
    theirs.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_calls_and_attributes_are_those_of_gymnasium(workers):
    make = partial(OddEnv, render_mode="ansi")
    ours, theirs = TextVectorEnv([make] * 3, workers=workers), SyncVectorEnv([make] * 3)
    for envs in (ours, theirs):
        envs.reset(seed=[5, 5, 9])
        envs.step(["look"] * 3)
        envs.set_attr("steps", [4, 5, 6])
        envs.set_attr("fails", "never")
    for what in (
        lambda envs: envs.render(),
        lambda envs: envs.call("render"),
        lambda envs: envs.get_attr("steps"),
        lambda envs: envs.get_attr("fails"),
        lambda envs: envs.call("has_wrapper_attr", "options"),
        lambda envs: envs.np_random_seed,
        lambda envs: [generator.random() for generator in envs.np_random],
    ):
        assert_same(what(ours), what(theirs))
    ours.close()
    theirs.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_seeds(workers):
    envs = TextVectorEnv([OddEnv] * 3, workers=workers)
    by_first = envs.reset(seed=4)
    assert_same(envs.reset(seed=[4, 5, 6]), by_first)
    assert_same(envs.reset(seed=np.int64(4)), by_first)
    assert envs.get_attr("np_random_seed") == (4, 5, 6)
    alone = OddEnv().reset(seed=5)[1]
    assert by_first[1]["task"][1] == alone["task"]
    envs.reset()  # goes on with the generators
    assert envs.get_attr("np_random_seed") == (4, 5, 6)
    with pytest.raises(InvalidConfigError, match="Expected 3 seeds"):
        envs.reset(seed=[1, 2])
    envs.close()


def test_the_shares_of_workers_are_even_and_in_order():
    envs = TextVectorEnv([OddEnv] * 7, workers=3)
    processes = envs.call("process")
    assert [processes.count(process) for process in dict.fromkeys(processes)] == [2, 2, 3]
    assert os.getpid() not in processes
    with pytest.raises(AttributeError, match="worker processes"):
        _ = envs.envs
    envs.close()


def test_options_are_the_users_own():
    envs = TextVectorEnv([OddEnv] * 2)
    envs.reset(seed=0)
    options = {"reset_mask": np.array([True, False]), "game": 1}
    _, infos = envs.reset(options=options)
    assert set(options) == {"reset_mask", "game"}
    assert list(infos["options"]) == [["game"], None]
    envs.close()


# --- shared memory of gymnasium.vector.AsyncVectorEnv


def test_the_observations_of_shared_memory_are_the_last_ones():
    envs = AsyncVectorEnv([OddEnv] * 3, copy=False)
    view, _ = envs.reset(seed=1)
    first = tuple(view)
    while tuple(view) == first:
        envs.step(["look"] * 3)
    assert view == tuple(view) == (view[0], view[1], view[-1]) == view[:]
    assert set(view) <= set(TEXTS)
    assert repr(view[0]) in repr(view)
    with pytest.raises(IndexError):
        view[3]
    for copied in (copy.copy(view), copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert_same(copied, tuple(view))
    envs.close()


class Described(gymnasium.ObservationWrapper):
    """A text inside of a dictionary."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Dict({"text": env.observation_space})

    def observation(self, observation):
        return {"text": observation}


def test_texts_inside_of_other_spaces_share_memory_too():
    make = [lambda: Described(OddEnv())] * 2
    ours, theirs = AsyncVectorEnv(make), AsyncVectorEnv(make, shared_memory=False)
    for envs in (ours, theirs):
        envs.reset(seed=0)
    assert_same(ours.step(["look"] * 2), theirs.step(["look"] * 2))
    ours.close()
    theirs.close()


def test_a_text_of_the_longest_characters_fits_and_a_longer_one_is_named():
    def make(text):
        env = OddEnv(length=4)
        env._text = lambda: text
        return env

    envs = AsyncVectorEnv([lambda: make("🙂" * 4), lambda: make("🙂")])
    assert envs.reset()[0] == ("🙂" * 4, "🙂")
    envs.close()
    envs = AsyncVectorEnv([lambda: make("🙂"), lambda: make("abcde")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it logs what it raises
        with pytest.raises(TextTooLongError, match=r"environment 1 has 5 characters, .* `shared_memory=False`"):
            envs.reset()
    envs.close(terminate=True)


# --- ALFWorld through gymnasium.make_vec


@pytest.fixture(scope="module")
def alfworld():
    pytest.importorskip("alfworld")
    envs = {mode: make_alfworld("sync", vector_kwargs={"autoreset_mode": mode}) for mode in MODES}
    return {mode: walk_and_close(envs[mode], mode, steps=30) for mode in MODES}


def make_alfworld(mode, **arguments):
    task_types = ["pick_heat_then_place_in_recep", "look_at_obj_in_light"]
    return gymnasium.make_vec(
        ID, num_envs=3, vectorization_mode=mode, max_episode_steps=12, task_types=task_types, **arguments
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [0, 2])
def test_alfworld_by_default_is_alfworld_in_mode_sync(alfworld, mode, workers):
    envs = make_alfworld(None, autoreset_mode=mode, workers=workers)
    assert isinstance(envs, TextVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode(mode)
    assert_same(walk_and_close(envs, mode, steps=30), alfworld[mode])


@pytest.mark.parametrize("mode", MODES)
def test_alfworld_in_mode_async_is_alfworld_in_mode_sync(alfworld, mode):
    envs = make_alfworld("async", vector_kwargs={"autoreset_mode": mode})
    assert_same(walk_and_close(envs, mode, steps=30), alfworld[mode])


@pytest.mark.parametrize("arguments", [{"vectorization_mode": "async"}, {"workers": 1}])
def test_alfworld_in_spawned_processes(arguments):
    pytest.importorskip("alfworld")
    context = {"context": "spawn"} if "workers" in arguments else {"vector_kwargs": {"context": "spawn"}}
    spawned, here = gymnasium.make_vec(ID, 1, **arguments, **context), gymnasium.make_vec(ID, 1)
    assert_same(walk_and_close(spawned, "NextStep", steps=3), walk_and_close(here, "NextStep", steps=3))


def test_the_registered_limit_of_steps_truncates():
    pytest.importorskip("alfworld")
    envs = gymnasium.make_vec(ID, num_envs=2)
    envs.reset(seed=0)
    truncated = [envs.step(["look", "look"])[3].tolist() for _ in range(51)]
    assert truncated == [[False, False]] * 49 + [[True, True]] + [[False, False]]
    envs.close()


def test_the_spec_makes_the_same_again():
    pytest.importorskip("alfworld")
    envs = gymnasium.make_vec(ID, num_envs=2, workers=1, split="generated_held_out", autoreset_mode="SameStep")
    spec = pickle.loads(pickle.dumps(envs.spec))
    assert spec.to_json()
    again = gymnasium.make_vec(spec)
    assert again.num_envs == 2
    assert again.metadata == envs.metadata
    assert_same(walk_and_close(again, "SameStep", steps=4), walk_and_close(envs, "SameStep", steps=4))


def test_making_warns_of_nothing():
    pytest.importorskip("alfworld")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec(ID, num_envs=2, render_mode="ansi")
        envs.reset(seed=0)
        envs.step(envs.action_space.sample())
        assert all(envs.render())
        envs.close()


# --- failures


@pytest.mark.parametrize("workers", [0, 2])
def test_what_an_environment_raises_names_its_slot_and_a_reset_goes_on(expected, workers):
    envs = TextVectorEnv([OddEnv] * 5, workers=workers)
    envs.reset(seed=0)
    with pytest.raises(KeyError, match="no such thing") as caught:
        envs.step(["look", "look", "look", "raise", "look"])
    assert caught.value.__notes__ == ["Raised by the environment of slot 3."]
    with pytest.raises(ResetNeeded, match=r"last step\(\) failed"):
        envs.step(["look"] * 5)
    with pytest.raises(ResetNeeded, match="must not leave out slots"):
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
    with pytest.raises(WorkerDiedError, match=rf"Worker 1 \(slots 2 to 3, process \d+\) died: .*{fate}") as caught:
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


def test_a_death_is_seen_while_another_worker_hangs():
    envs = TextVectorEnv([OddEnv] * 2, workers=2)
    envs.reset(seed=0)
    with pytest.raises(WorkerDiedError, match=r"Worker 1 .* died: exit status 3"):
        envs.step(["hang", "exit"])
    envs.close()


def test_closing_tells_of_a_worker_that_died():
    envs = TextVectorEnv([OddEnv] * 2, workers=2)
    os.kill(envs.call("process")[1], signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="Worker 1"):
        envs.close()
    assert multiprocessing.active_children() == []
    envs.close()


def test_a_worker_that_hangs_is_named_after_the_timeout():
    envs = TextVectorEnv([OddEnv] * 4, workers=2, timeout=1.0)
    envs.reset(seed=0)
    with pytest.raises(WorkerTimeoutError, match=r"Worker 0 \(slots 0 to 1") as caught:
        envs.step(["hang", "look", "look", "look"])
    assert isinstance(caught.value, TimeoutError)
    assert str(caught.value).startswith("Worker 0")
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
    with pytest.raises(WorkerDiedError, match=r"Worker 1 \(slot 1, process \d+\) died: exit status 7"):
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
        with pytest.raises(ClosedEnvironmentError, match="make another"):
            call()


def test_workers_end_with_the_last_reference():
    envs = TextVectorEnv([OddEnv] * 2, workers=2)
    assert len(multiprocessing.active_children()) == 2
    del envs
    gc.collect()
    assert multiprocessing.active_children() == []


PROGRAM = """
import os, sys
from rwml_gym.vector import TextVectorEnv
from tests.odd_env import OddEnv

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
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
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
    what = """
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


# --- mistakes


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("actions", "message"),
    [("look", "actual: one, 'look'"), (["look"], "actual: 1"), ([], "actual: 0"), (["look"] * 3, "actual: 3")],
)
def test_a_wrong_number_of_actions_is_refused_before_any_step(workers, actions, message):
    envs = TextVectorEnv([OddEnv] * 2, workers=workers)
    with pytest.raises(ResetNeeded, match="before the first reset"):
        envs.step(["look"] * 2)
    envs.reset(seed=0)
    with pytest.raises(InvalidConfigError, match=f"Expected 2 actions, one for each slot, {message}"):
        envs.step(actions)
    assert envs.get_attr("steps") == (0, 0)
    envs.step(np.array(["look", "look"]))
    envs.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_without_autoreset_an_ended_slot_has_to_be_reset(workers):
    envs = TextVectorEnv([OddEnv] * 3, AutoresetMode.DISABLED, workers=workers)
    envs.reset(seed=0)
    ended = np.zeros(3, dtype=np.bool_)
    while not ended.any() or ended.all():
        _, _, terminations, truncations, _ = envs.step(["look"] * 3)
        ended = terminations | truncations
    steps = envs.get_attr("steps")
    with pytest.raises(ResetNeeded, match=rf"the episodes of slots \[{np.flatnonzero(ended)[0]}"):
        envs.step(["look"] * 3)
    envs.reset(options={"reset_mask": ended})
    assert envs.get_attr("steps") == tuple(np.where(ended, 0, steps))
    envs.step(["look"] * 3)
    envs.close()


@pytest.mark.parametrize(
    "mask", [[True, False], np.array([1, 0]), np.array([True]), np.array([False, False]), "all", None]
)
def test_a_wrong_mask_is_refused(mask):
    envs = TextVectorEnv([OddEnv] * 2)
    envs.reset()
    with pytest.raises(InvalidConfigError, match="reset_mask"):
        envs.reset(options={"reset_mask": mask})
    envs.close()


def test_the_first_reset_is_of_all_slots():
    envs = TextVectorEnv([OddEnv] * 2)
    with pytest.raises(ResetNeeded, match="must not leave out slots"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.close()


def test_wrong_calls_are_refused():
    envs = TextVectorEnv([OddEnv] * 2)
    with pytest.raises(InvalidConfigError, match="use `reset` itself"):
        envs.call("reset")
    with pytest.raises(InvalidConfigError, match="Expected 2 values"):
        envs.set_attr("steps", [1, 2, 3])
    with pytest.raises(AttributeError, match="no_such_thing"):
        envs.get_attr("no_such_thing")
    envs.close()


same = OddEnv()


@pytest.mark.parametrize(
    ("env_fns", "arguments", "message"),
    [
        ([], {}, "at least one env_fn"),
        ([OddEnv()], {}, "functions that make environments"),
        ([int], {}, "Expected env_fns to make environments, actual for slot 0: 0"),
        ([lambda: same, lambda: same], {}, "some gave the same one"),
        ([NumberEnv], {}, "Expected text environments, actual observation_space of slot 0: Discrete"),
        ([OddEnv, partial(OddEnv, length=9)], {}, "actual of slot 1: UnicodeText"),
        ([OddEnv, partial(OddEnv, length=9)], {"workers": 2}, "actual of slot 1: UnicodeText"),
        ([OddEnv], {"autoreset_mode": "Never"}, 'Unknown autoreset_mode .Never.; expected one of "NextStep"'),
        ([OddEnv], {"workers": -1}, "Expected workers to be an integer of at least 0"),
        ([OddEnv], {"workers": True}, "Expected workers to be an integer"),
        ([OddEnv], {"workers": 2}, "at most one worker for each of 1 slots"),
        ([OddEnv], {"timeout": 1}, "give `workers` too"),
        ([OddEnv], {"context": "spawn"}, "give `workers` too"),
        ([OddEnv], {"workers": 1, "timeout": 0}, "Expected a timeout of more than 0 seconds"),
        ([OddEnv], {"workers": 1, "context": "thread"}, "Unknown context 'thread'"),
    ],
)
def test_wrong_arguments_are_refused(env_fns, arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        TextVectorEnv(env_fns, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_envs": 0}, InvalidConfigError, "Expected num_envs to be an integer of at least 1"),
        ({"split": "test"}, InvalidConfigError, "Unknown split 'test'"),
        ({"split": "test", "workers": 1}, InvalidConfigError, "Unknown split 'test'"),
        ({"workers": 3, "num_envs": 2}, InvalidConfigError, "at most one worker"),
        ({"autoreset_mode": "same"}, InvalidConfigError, "SameStep"),
        ({"shared_memory": True}, TypeError, "unexpected keyword argument 'shared_memory'"),
    ],
)
def test_wrong_arguments_of_make_vec_are_refused(arguments, error, message):
    pytest.importorskip("alfworld")
    with pytest.raises(error, match=message):
        gymnasium.make_vec(ID, **arguments)
