"""An environment can be copied and pickled at any moment: both go on alike, and neither disturbs the other."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import cloudpickle
import gymnasium
import pytest

pytest.importorskip("tau2")

from rwml_gym.envs.tau2.domains import DOMAINS, load_domain
from tests.helpers.paths import ROOT
from tests.helpers.tau2_stock import trajectory
from tests.rwml_gym.envs.tau2.test_users import Model, call

WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "cloudpickle": lambda env: cloudpickle.loads(cloudpickle.dumps(env)),
}
WRAPPED = {
    "bare": lambda env: env.unwrapped,
    "limited": lambda env: env,
    "recorded": lambda env: gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.TimeLimit(env, 7)),
}


def make(domain, wrapped="limited", **arguments):
    return WRAPPED[wrapped](gymnasium.make("rwml_gym/Tau2-v0", domain=domain, **arguments))


def said_in(env, domain, game):
    return trajectory(domain, env.unwrapped.games.task_id(game), "gold")


def without_time(outcome):
    """What an episode's statistics say besides the time."""
    *rest, info = outcome
    return [*rest, {key: value for key, value in info.items() if key != "episode"}]


def play(env, said):
    outcomes = []
    for action in said:
        outcomes.append(without_time(env.step(action)))
        if outcomes[-1][2] or outcomes[-1][3]:
            break
    return outcomes


@pytest.mark.long
@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_copy_goes_on_as_the_original(domain, way, wrapped):
    game = make(domain).unwrapped.games.names[3]
    env = make(domain, wrapped)
    again = WAYS[way](env)  # before the first reset
    assert without_time(again.reset(seed=5)) == without_time(env.reset(seed=5))
    said = said_in(env, domain, game)
    expected = None
    for moment in range(len(said) + 1):
        env.reset(seed=1, options={"game": game})
        before = play(env, said[:moment])
        copied = WAYS[way](env)
        if not (before and (before[-1][2] or before[-1][3])):
            outcomes = [play(copied, said[moment:]), play(env, said[moment:])]  # the copy first
            expected = expected or outcomes[0]
            assert outcomes[0] == outcomes[1] == expected[moment:]
        # the next tasks are the same, too
        assert without_time(copied.reset()) == without_time(env.reset())


def test_a_copy_of_a_copy_in_mid_episode_keeps_each_database_apart():
    env = make("retail")
    env.reset(seed=0)
    world = env.unwrapped._conversation.world
    user = next(iter(world.tools.db.users))
    before = world.get_db_hash()
    address = "address1='1 Elm', address2='', city='X', state='CA', country='USA', zip='10001'"
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env)), copy.deepcopy(pickle.loads(pickle.dumps(env)))]
    for number, copied in enumerate(copies):
        copied.step(f"modify_user_address(user_id='{user}', {address[:-2]}{number}')")
    hashes = {copied.unwrapped._conversation.world.get_db_hash() for copied in copies}
    assert len({before, *hashes}) == 4
    assert world.get_db_hash() == load_domain("retail").make().get_db_hash() == before


def test_a_user_played_by_a_model_is_copied_with_its_conversation():
    answers = ("Hello.", call("toggle_airplane_mode"), "Done.", "###STOP###")
    env = make("telecom", user="model", user_model=Model(*answers))
    env.reset(seed=0)
    copied, pickled = copy.deepcopy(env), pickle.loads(pickle.dumps(env))
    said = ["Please switch it.", "Bye"]
    assert play(copied, said) == play(pickled, said) == play(env, said)


READ = """
import os, pickle, sys
env = pickle.load(sys.stdin.buffer)
print(env.step("done()")[4]["score_parts"])
assert "SECRET_OF_THE_FILE" not in os.environ
"""


@pytest.mark.long
@pytest.mark.parametrize("domain", ["airline", "telecom"])
def test_a_pickle_can_be_read_in_another_process(domain, tmp_path):
    (tmp_path / ".env").write_text("SECRET_OF_THE_FILE=1\n")
    env = make(domain, "bare")
    env.reset(seed=0)
    env.step("transfer_to_human_agents(summary='x')")
    run = subprocess.run(
        [sys.executable, "-c", READ],
        input=pickle.dumps(env),
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert run.stderr == b""
    assert run.stdout.decode().strip() == str(env.step("done()")[4]["score_parts"])
