"""`rwml_gym/ALFWorld-v0` keeps Gymnasium's contract and its own, and leaves the process as it was."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

import rwml_gym  # noqa: F401 (registers the id)
from rwml_gym.envs.alfworld.env import ALFWorldEnv
from rwml_gym.envs.alfworld.games.sources import TASK_TYPES
from rwml_gym.errors import GameNotFoundError, InvalidConfigError, InvalidGameError
from tests.helpers.alfworld_data import official_data

ID = "rwml_gym/ALFWorld-v0"
GAME = "generated/look_at_obj_in_light/1"
INFO_KEYS = {"task", "admissible_actions", "won", "invalid_action", "game", "task_type", "data_version"}


@pytest.fixture
def env():
    env = gymnasium.make(ID)
    yield env
    env.close()


@pytest.fixture(scope="module")
def shared_env():
    return ALFWorldEnv()


def plan_of(env, info):
    return env.unwrapped.games.load(info["game"]).plan


@pytest.mark.parametrize("arguments", [{}, {"split": "generated_held_out", "render_mode": "ansi"}])
def test_gymnasium_has_nothing_to_say(arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, **arguments).unwrapped)
        check_env(ALFWorldEnv(**arguments), skip_render_check=True)  # that one needs a spec


@pytest.mark.long
def test_gymnasium_has_nothing_to_say_about_official_games():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, split="valid_seen", data=official_data()).unwrapped)


def test_playing_under_make_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, task_types=["pick_two_obj_and_place"], render_mode="ansi")
        env.reset(seed=0)
        for _ in range(3):
            env.step(env.action_space.sample())
            env.render()
        env.close()


def test_the_plan_wins_and_only_the_last_action_is_rewarded(env):
    observation, info = env.reset(options={"game": "generated/pick_clean_then_place_in_recep/3"})
    assert observation.endswith(f"Your task is to: {info['task']}.")
    *before, last = plan_of(env, info)
    for action in before:
        assert action in info["admissible_actions"]
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info["won"], info["invalid_action"]) == (0.0, False, False, False, False)
    observation, reward, terminated, truncated, info = env.step(last)
    assert (reward, terminated, truncated, info["won"]) == (1.0, True, False, True)
    assert isinstance(reward, float)
    with pytest.raises(ResetNeeded, match="no episode is running"):
        env.step("look")
    env.reset()
    env.step("look")


def test_info_has_the_same_keys_and_says_where_the_state_came_from(env):
    _, at_reset = env.reset(options={"game": GAME})
    *_, at_step = env.step("look")
    assert set(at_reset) == set(at_step) == INFO_KEYS
    for info in (at_reset, at_step):
        assert info["game"] == GAME
        assert info["task_type"] == "look_at_obj_in_light"
        assert info["data_version"].startswith("generated (alfworld")
        assert info["admissible_actions"] == sorted(set(info["admissible_actions"]))
        json.dumps(info)


@pytest.mark.long
def test_admissible_actions_are_listed_in_the_order_of_the_stock_engine(env):
    stock = ALFWorldEnv(engine="textworld")
    (_, ours), (_, theirs) = (each.reset(options={"game": GAME}) for each in (env, stock))
    for action in [None, *plan_of(env, ours)[:2]]:
        if action is not None:
            (*_, ours), (*_, theirs) = env.step(action), stock.step(action)
        assert ours["admissible_actions"] == theirs["admissible_actions"]
        assert ours["admissible_actions"] == sorted(theirs["admissible_actions"])
    stock.close()


def test_the_info_given_out_is_the_users_own(env):
    _, info = env.reset(options={"game": GAME})
    info["admissible_actions"].clear()
    *_, info = env.step("look")
    assert not info["invalid_action"]
    assert info["admissible_actions"]


def test_a_seed_and_actions_give_the_same_episode():
    def episode():
        env = gymnasium.make(ID)
        trace = [env.reset(seed=11)]
        for index in range(12):
            actions = trace[-1][-1]["admissible_actions"]
            trace.append(env.step(actions[index * 7 % len(actions)]))
        trace.append(env.reset())
        env.close()
        return trace

    assert episode() == episode()


def test_the_next_reset_brings_another_game(env):
    names = [env.reset(seed=0)[1]["game"]] + [env.reset()[1]["game"] for _ in range(3)]
    assert len(set(names)) == 4
    assert env.reset(seed=0)[1]["game"] == names[0]


def test_make_passes_the_arguments_on():
    env = gymnasium.make(
        ID, split="valid_seen", task_types=["pick_heat_then_place_in_recep"], grammar="original", data=official_data()
    )
    _, info = env.reset(seed=0)
    assert info["task_type"] == "pick_heat_then_place_in_recep"
    assert info["game"].startswith("valid_seen/pick_heat")
    assert info["data_version"] == "json_2.1.1"
    assert "help" not in info["admissible_actions"]  # the older grammar has none


def test_the_spec_can_be_pickled_and_made_again():
    env = gymnasium.make(ID, task_types=["look_at_obj_in_light"], split="generated_held_out")
    spec = pickle.loads(pickle.dumps(env.spec))
    assert spec.max_episode_steps == 50
    assert gymnasium.make(spec).reset(seed=2) == env.reset(seed=2)
    json.loads(spec.to_json())


def test_the_fiftieth_step_truncates(env):
    env.reset(options={"game": GAME})
    for step in range(1, 51):
        _, _, terminated, truncated, _ = env.step("inventory")
        assert (terminated, truncated) == (False, step == 50)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.text(), st.sampled_from(["{r}", "{0}", "%s", "#task#", "[x]", "LOOK", "\ud800", "help me"])))
def test_any_string_is_playable(shared_env, action):
    _, info = shared_env.reset(options={"game": GAME})
    observation, reward, terminated, _, after = shared_env.step(action)
    known = action.strip() in info["admissible_actions"]
    assert after["invalid_action"] is not known
    assert (reward, terminated) == (0.0, False)
    assert observation in shared_env.observation_space
    if not known:
        assert observation == "Nothing happens."
        assert after["admissible_actions"] == info["admissible_actions"]


@pytest.mark.parametrize("action", [None, 3, b"look", ["look"], {"action": "look"}])
def test_what_is_no_string_is_refused(shared_env, action):
    shared_env.reset(options={"game": GAME})
    with pytest.raises(TypeError, match="Expected a string as action, actual: "):
        shared_env.step(action)


def test_step_before_reset_is_refused():
    with pytest.raises(ResetNeeded):
        ALFWorldEnv().step("look")
    with pytest.raises(ResetNeeded):
        gymnasium.make(ID).step("look")


def test_ansi_shows_the_last_exchange():
    env = ALFWorldEnv(render_mode="ansi")
    first, _ = env.reset(options={"game": GAME})
    assert env.render() == first
    env.step("inventory")
    assert env.render() == "> inventory\nYou are not carrying anything."
    assert ALFWorldEnv().render() is None


def test_an_environment_can_be_closed_twice_and_used_again():
    env = ALFWorldEnv()
    env.close()
    first, _ = env.reset(options={"game": GAME})
    env.close()
    env.close()
    with pytest.raises(ResetNeeded):
        env.step("look")
    assert env.reset(options={"game": GAME})[0] == first


def test_environments_in_one_process_do_not_mix():
    names = [f"generated/{kind}/0" for kind in TASK_TYPES[:3]] + [GAME, GAME]
    envs = [ALFWorldEnv() for _ in names]
    infos = [env.reset(options={"game": name})[1] for env, name in zip(envs, names, strict=True)]
    plans = [list(plan_of(env, info)) for env, info in zip(envs, infos, strict=True)]
    won = [False] * len(envs)
    while not all(won):
        for index, (env, plan) in enumerate(zip(envs, plans, strict=True)):
            if not won[index]:
                won[index] = env.step(plan.pop(0))[4]["won"]
    assert not any(plans)


def test_a_synchronous_vector_environment_plays():
    envs = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="sync")
    observations, _ = envs.reset(seed=0)
    assert len(observations) == 2
    observations, rewards, *_ = envs.step(("look", "no such thing"))
    assert observations[1] == "Nothing happens."
    assert list(rewards) == [0.0, 0.0]
    envs.close()


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "test"}, InvalidConfigError, "Expected split to be one of .*, actual: 'test'"),
        ({"task_types": ["cook"]}, InvalidConfigError, "Expected task type to be one of .*, actual: 'cook'"),
        ({"grammar": "new"}, InvalidConfigError, "Expected grammar to be one of .*, actual: 'new'"),
        ({"render_mode": "human"}, InvalidConfigError, "Expected render_mode to be .*, actual: 'human'"),
        ({"split": "train", "data": "/nowhere"}, GameNotFoundError, "alfworld-download"),
    ],
)
def test_wrong_arguments_are_refused_by_the_constructor(arguments, error, message):
    with pytest.raises(error, match=message):
        ALFWorldEnv(**arguments)


def test_wrong_options_are_refused(shared_env):
    with pytest.raises(GameNotFoundError, match="actual: 'nothing'"):
        shared_env.reset(options={"game": "nothing"})
    with pytest.raises(ResetNeeded):
        shared_env.step("look")  # the failed reset left no game
    with pytest.raises(InvalidConfigError, match="Expected only \"game\" in options, actual: also 'gmae'"):
        shared_env.reset(options={"gmae": GAME})


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("pddl_problem", "(:init", "(:init (nonsense a b)"),
        ("pddl_problem", ")", ""),
        ("pddl_domain", "(:action", "(:acton"),
        ("grammar", "action GotoLocation {", "action GotoLocation"),
    ],
)
def test_a_game_that_cannot_be_played_is_named(tmp_path, key, old, new):
    source = sorted((official_data() / "valid_seen").glob("look_at*"))[0]
    shutil.copytree(source, tmp_path / "valid_seen" / source.name)
    file = next(tmp_path.glob("**/game.tw-pddl"))
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, key: content[key].replace(old, new)}))
    argv, stdout = copy.copy(sys.argv), sys.stdout
    env = ALFWorldEnv("valid_seen", data=tmp_path, grammar="original")
    with pytest.raises(InvalidGameError, match=r"game\.tw-pddl"):
        env.reset(seed=0)
    assert sys.argv == argv
    assert sys.stdout is stdout


# --- traces in the process

TRAPS = """
import os, random, sys, warnings
warnings.simplefilter("error")
argv, stdout, stderr = sys.argv, sys.stdout, sys.stderr
random.seed(0)
state = random.getstate()
import gymnasium, rwml_gym
assert not {"alfworld", "textworld", "torch"} & set(sys.modules), "importing rwml_gym is heavy"
env = gymnasium.make("rwml_gym/ALFWorld-v0")
observation, info = env.reset(seed=0)
for action in info["admissible_actions"][:3]:
    env.step(action)
env.close()
assert sys.argv is argv and argv[1:] == ["--mine", "1"], sys.argv
assert sys.stdout is stdout and sys.stderr is stderr
assert random.getstate() == state, "the global random generator was used"
assert "ALFWORLD_DATA" not in os.environ
"""


def test_playing_leaves_no_trace(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "ALFWORLD_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", TRAPS, "--mine", "1"],
        env={**environment, "HOME": str(tmp_path), "RWML_GYM_CACHE": str(tmp_path / "kept")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert not list(tmp_path.iterdir())  # alfworld's own domains and grammars need no cache
