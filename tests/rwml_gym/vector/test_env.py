"""Vector environments give what Gymnasium's own give, in one process and in several."""

from __future__ import annotations

import copy
import os
import pickle
import warnings
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import rwml_gym  # noqa: F401 (registers the id)
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError, TextTooLongError
from rwml_gym.vector.env import TextVectorEnv
from rwml_gym.wrappers import RecordTransitions, WorldModelRewardWrapper
from tests.helpers.odd_env import TEXTS, NumberEnv, OddEnv
from tests.helpers.vector_walks import (
    MODES,
    assert_no_process_is_left,
    assert_same,
    expected_walks,
    walk,
    walk_and_close,
)

ID = "rwml_gym/ALFWorld-v0"


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    assert_no_process_is_left()


@pytest.fixture(scope="module")
def expected():
    return expected_walks()


# --- the same as Gymnasium's own


@pytest.mark.long
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
        return RecordTransitions(WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="nothing-changes"))

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
    for same in (np.int64(4), np.array([4, 5, 6]), [4, np.int32(5), np.uint8(6)], range(4, 7)):
        assert_same(envs.reset(seed=same), by_first)
    assert envs.get_attr("np_random_seed") == (4, 5, 6)
    alone = OddEnv().reset(seed=5)[1]
    assert by_first[1]["task"][1] == alone["task"]
    envs.reset()  # goes on with the generators
    assert envs.get_attr("np_random_seed") == (4, 5, 6)
    for seed in (3.0, [1, 2.5, 3], "abc"):
        with pytest.raises(InvalidConfigError, match="Expected `seed` to be a whole number"):
            envs.reset(seed=seed)
    with pytest.raises(InvalidConfigError, match="Expected 3 seeds"):
        envs.reset(seed=[1, 2])
    envs.close()


def test_the_shares_of_workers_are_even_and_in_order():
    envs = TextVectorEnv([OddEnv] * 7, workers=3)
    processes = envs.call("process")
    assert [processes.count(process) for process in dict.fromkeys(processes)] == [2, 2, 3]
    assert os.getpid() not in processes
    with pytest.raises(AttributeError, match="in this process, actual: in workers"):
        _ = envs.envs
    envs.close()


def test_options_are_the_users_own():
    envs = TextVectorEnv([OddEnv] * 2)
    envs.reset(seed=0)
    options = {"reset_mask": np.array([True, False]), "game": "house-1"}
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
        with pytest.raises(TextTooLongError, match=r"of environment 1\), actual: 5\..* `shared_memory=False`"):
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


# --- mistakes


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ("look", "actual: 'look'"),
        (["look"], "actual: 1"),
        ([], "actual: 0"),
        (["look"] * 3, "actual: 3"),
        (None, "actual: None"),
        (5, "actual: 5"),
    ],
)
def test_a_wrong_number_of_actions_is_refused_before_any_step(workers, actions, message):
    envs = TextVectorEnv([OddEnv] * 2, workers=workers)
    with pytest.raises(ResetNeeded, match=r"Expected reset\(\) before the first step\(\)"):
        envs.step(["look"] * 2)
    envs.reset(seed=0)
    with pytest.raises(InvalidConfigError, match=f"Expected 2 actions, one per slot, {message}"):
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
    with pytest.raises(ResetNeeded, match=rf"actual: those of slots \[{np.flatnonzero(ended)[0]}"):
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
    with pytest.raises(ResetNeeded, match="Expected all slots in the reset mask"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.close()


def test_wrong_calls_are_refused():
    envs = TextVectorEnv([OddEnv] * 2)
    with pytest.raises(InvalidConfigError, match=r"actual: reset\. Use `reset\(\)`"):
        envs.call("reset")
    with pytest.raises(InvalidConfigError, match=r"Expected options such as .*, actual: 'game'"):
        envs.reset(options="game")
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
        ([int], {}, "Expected env_fns to make environments, actual: 0 for slot 0"),
        ([lambda: same, lambda: same], {}, "some returned the same one"),
        ([NumberEnv], {}, r"Expected text environments, actual: observation_space Discrete\(.*\) of slot 0"),
        ([OddEnv, partial(OddEnv, length=9)], {}, r"actual: UnicodeText\(.*\) in slot 1"),
        ([OddEnv, partial(OddEnv, length=9)], {"workers": 2}, r"actual: UnicodeText\(.*\) in slot 1"),
        ([OddEnv], {"autoreset_mode": "Never"}, 'Expected autoreset_mode to be one of "NextStep".*, actual: .Never.'),
        ([OddEnv], {"workers": -1}, "Expected `workers` to be a whole number of at least 0"),
        ([OddEnv], {"workers": True}, "Expected `workers` to be a whole number"),
        ([OddEnv], {"workers": 2}, "Expected at most 1 workers, one per slot, actual: 2"),
        ([OddEnv], {"timeout": 1}, "Expected `workers` with `context` or `timeout`"),
        ([OddEnv], {"context": "spawn"}, "Expected `workers` with `context` or `timeout`"),
        ([OddEnv], {"workers": 1, "timeout": 0}, "Expected a timeout of more than 0 seconds"),
        ([OddEnv], {"workers": 1, "timeout": "5"}, "Expected a timeout of more than 0 seconds, actual: '5'"),
        ([OddEnv], {"workers": 1, "context": "thread"}, "Expected context to be one of .*, actual: 'thread'"),
    ],
)
def test_wrong_arguments_are_refused(env_fns, arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        TextVectorEnv(env_fns, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_envs": 0}, InvalidConfigError, "Expected `num_envs` to be a whole number of at least 1"),
        ({"split": "test"}, InvalidConfigError, "Expected split to be one of .*, actual: 'test'"),
        ({"split": "test", "workers": 1}, InvalidConfigError, "Expected split to be one of .*, actual: 'test'"),
        ({"workers": 3, "num_envs": 2}, InvalidConfigError, "at most 2 workers"),
        ({"autoreset_mode": "same"}, InvalidConfigError, "SameStep"),
        ({"shared_memory": True}, TypeError, "unexpected keyword argument 'shared_memory'"),
    ],
)
def test_wrong_arguments_of_make_vec_are_refused(arguments, error, message):
    pytest.importorskip("alfworld")
    with pytest.raises(error, match=message):
        gymnasium.make_vec(ID, **arguments)
