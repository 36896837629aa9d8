"""What the tests of vector environments share: walks, comparisons to the last type, and no process left behind."""

from __future__ import annotations

import copy
import gc
import multiprocessing
from functools import cache

import numpy as np
from gymnasium.vector import SyncVectorEnv

from tests.helpers.odd_env import OddEnv

MODES = ["NextStep", "SameStep", "Disabled"]


def assert_no_process_is_left():
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


@cache
def expected_walks():
    return {mode: walk_and_close(SyncVectorEnv([OddEnv] * 5, autoreset_mode=mode), mode) for mode in MODES}
