"""The expert wins, from what an agent sees alone, in both grammars and whatever others play in between."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

import rwml_gym  # noqa: F401 (registers the id)
from rwml_gym.envs.alfworld.engine.engine import Engine
from rwml_gym.envs.alfworld.engine.game import Goal
from rwml_gym.envs.alfworld.env import ALFWorldEnv
from rwml_gym.envs.alfworld.expert import Expert
from rwml_gym.envs.alfworld.games.sources import TASK_TYPES, make_games
from rwml_gym.envs.alfworld.reading import Command, read_command, read_contents, read_happening
from tests.helpers.alfworld_data import official_data

ID = "rwml_gym/ALFWorld-v0"
MUG = Goal("pick_and_place_simple", "Mug", "Desk")


def play(game, epsilon=0.0, limit=50, seed=0):
    """Plays a game by the expert's advice, or now and then not: the actions, and whether they won."""
    engine, expert, rng, actions = Engine(), Expert(game.goal, seed), random.Random(seed), []
    state = engine.start(game.data)
    while not state.won and len(actions) < limit:
        advice = expert.act(state.text, state.admissible)
        assert advice in state.admissible
        if rng.random() < epsilon:
            advice = rng.choice([*state.admissible, "dance", "", "take 🙂 from {r}", "go to fridge 99", " look "])
        actions.append(advice)
        state = engine.step(advice)
    return actions, state.won


def official(task_type, grammar):
    games = make_games("valid_seen", [task_type], grammar, official_data())
    return games.load(games.names[0])


# --- winning


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_it_wins_generated_games(task_type):
    games = make_games("generated", [task_type])
    for name in games.names[:2]:
        assert play(games.load(name))[1], name


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_it_wins_official_games_in_the_same_steps_in_both_grammars(task_type):
    installed, won = play(official(task_type, "installed"))
    assert won
    original, won = play(official(task_type, "original"))
    assert won
    assert list(map(read_command, installed)) == list(map(read_command, original))


@pytest.mark.parametrize("lamp", ["DeskLamp", "FloorLamp"])
def test_it_finds_lamps_of_both_kinds(lamp):
    games = make_games("generated", ["look_at_obj_in_light"])
    asked = (game for game in map(games.load, games.names[:100]) if game.goal.lamp == lamp)
    actions, won = play(next(asked))
    assert won
    assert f"use {lamp.lower()} 1" in actions


@pytest.mark.slow
@pytest.mark.parametrize("grammar", ["installed", "original"])
def test_it_wins_more_official_games_than_alfworlds_own(grammar):
    games = make_games("valid_seen", grammar=grammar, data=official_data())
    plays = [play(games.load(name)) for name in games.names]
    assert len(plays) == 140
    assert sum(won for _, won in plays) >= 139  # 140 with the seeds of the environment; 132 is what alfworld's wins
    assert sum(len(actions) for actions, _ in plays) < 140 * 9


@pytest.mark.slow
def test_it_wins_nearly_all_generated_games():
    games = make_games("generated_held_out")
    assert sum(play(games.load(name))[1] for name in games.names[:200]) >= 196


# --- beside other players


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_it_copes_with_what_others_do(task_type):
    games = make_games("generated", [task_type])
    wins = [play(games.load(name), epsilon=0.3, limit=100, seed=seed)[1] for name in games.names[:2] for seed in (1, 2)]
    assert sum(wins) >= 3


def test_it_knows_what_random_play_has_done():
    """After a long random walk it still wins, though things lie elsewhere than they did."""
    games, won = make_games("generated", ["pick_cool_then_place_in_recep", "pick_two_obj_and_place"]), 0
    for name in games.names[:4]:
        game = games.load(name)
        engine, expert, rng = Engine(), Expert(game.goal), random.Random(name)
        state = engine.start(game.data)
        for step in range(150):
            if state.won:
                break
            advice = expert.act(state.text, state.admissible)
            state = engine.step(rng.choice(state.admissible) if step < 80 else advice)
        won += state.won
    assert won == 4


def test_an_undone_step_is_done_again():
    game = make_games("generated", ["pick_clean_then_place_in_recep"]).load(
        "generated/pick_clean_then_place_in_recep/0"
    )
    engine, expert = Engine(), Expert(game.goal)
    state = engine.start(game.data)

    def advised(verb):
        nonlocal state
        for _ in range(50):
            action = expert.act(state.text, state.admissible)
            if read_command(action).verb == verb:
                return action
            state = engine.step(action)
        pytest.fail(f"never says {verb}")

    taken = read_command(advised("take"))
    state = engine.step(f"take {taken.thing} from {taken.place}")
    advised("clean")
    state = engine.step("dance")
    advice = expert.act(state.text, state.admissible)
    assert read_command(advice).verb == "clean"
    state = engine.step(advice)
    put = [command for command in state.admissible if command.startswith("move ")]
    if put:  # laid down right here, it is taken up again, and not cleaned a second time
        state = engine.step(put[0])
        assert read_command(advised("take")).thing == taken.thing
        state = engine.step(advised("take"))
    assert read_command(advised("put")).thing == taken.thing


def test_a_thing_of_no_use_in_the_hand_is_put_away_first():
    expert = Expert(MUG)
    expert.act("Welcome.", ["go to desk 1", "go to shelf 1"])
    with_pen = ["examine shelf 1", "go to desk 1", "move pen 1 to shelf 1"]
    assert expert.act("You pick up the pen 1 from the shelf 1.", with_pen) == "move pen 1 to shelf 1"
    # where it cannot be put, another place is looked for
    nowhere = ["examine shelf 1", "go to desk 1"]
    assert expert.act("Nothing happens.", nowhere) == "go to desk 1"


def test_having_searched_in_vain_it_starts_over():
    expert, places = Expert(MUG), [f"shelf {number}" for number in range(1, 6)]
    visited, observation, here = [], "Welcome.", None
    for _ in range(20):
        admissible = [f"go to {place}" for place in places if place != here]
        admissible += ["look", *([f"examine {here}"] if here else [])]
        action = expert.act(observation, admissible)
        here = read_command(action).thing
        visited.append(here)
        observation = f"You arrive at {here}. On the {here}, you see nothing."
    assert sorted(visited[:5]) == places
    assert min(map(visited.count, places)) >= 3


def test_two_things_go_to_the_same_receptacle():
    expert = Expert(Goal("pick_two_obj_and_place", "Pen", "Drawer"))
    first = ["examine drawer 1", "close drawer 1", "go to drawer 2", "go to desk 1", "take pen 1 from drawer 1"]
    expert.act("The drawer 1 is open. In it, you see a pen 1.", first)
    at_desk = ["examine desk 1", "go to drawer 1", "go to drawer 2", "take pen 2 from desk 1"]
    assert expert.act("On the desk 1, you see a pen 2.", at_desk) == "take pen 2 from desk 1"
    held = ["examine desk 1", "go to drawer 1", "go to drawer 2", "move pen 2 to desk 1"]
    assert expert.act("You pick up the pen 2 from the desk 1.", held) == "go to drawer 1"


# --- reading


names = st.builds("{} {}".format, st.sampled_from(["mug", "desklamp", "stoveburner", "cd"]), st.integers(0, 99))


@given(names, names)
def test_both_grammars_read_the_same(thing, place):
    assert read_command(f"put {thing} in/on {place}") == read_command(f"move {thing} to {place}")
    assert read_command(f"take {thing} from {place}") == Command("take", thing, place)
    assert read_command(f"go to {place}") == Command("go", place)
    put = read_happening(f"You put the {thing} in/on the {place}.")
    assert put == read_happening(f"You move the {thing} to the {place}.") == ("put", thing, place)
    assert read_happening(f"You heat the {thing} using the {place}.") == ("heat", thing, place)


@given(names, st.lists(names, unique=True))
def test_contents_are_read_as_they_are_written(place, things):
    written = [f"a {thing}" for thing in things]
    listed = ", ".join([*written[:-1], f"and {written[-1]}"]) if len(written) > 1 else "".join(written) or "nothing"
    for text in (
        f"You arrive at loc 3. On the {place}, you see {listed}.",
        f"The {place} is open. In it, you see {listed}.",
    ):
        assert read_contents(text) == (place, things)
    assert read_contents(f"The {place} is closed.") is None


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(TASK_TYPES),
    st.lists(
        st.tuples(
            st.text() | st.sampled_from(["You pick up the mug 1 from the desk 1.", "On the desk 1, you see a mug 2."]),
            st.lists(
                st.text()
                | st.builds("go to {}".format, names)
                | st.builds("examine {}".format, names)
                | st.builds("open {}".format, names)
                | st.builds("move {} to {}".format, names, names)
                | st.builds("take {} from {}".format, names, names),
                unique=True,
            ),
        ),
        max_size=8,
    ),
)
def test_whatever_it_is_told_it_answers_with_something_admissible(task_type, states):
    goal = Goal(task_type, "Mug", lamp="DeskLamp") if "look" in task_type else Goal(task_type, "Mug", "StoveBurner")
    expert = Expert(goal)
    for observation, admissible in states:
        assert expert.act(observation, admissible) in (admissible or ["look"])


# --- determinism

EPISODE = """
import json, gymnasium, rwml_gym
env = gymnasium.make("rwml_gym/ALFWorld-v0", expert=True)
_, info = env.reset(seed=5)
said = [info["expert_action"]]
for step in range(30):
    action = info["expert_action"] if step % 3 else info["admissible_actions"][step % len(info["admissible_actions"])]
    *_, terminated, _, info = env.step(action)
    said.append(info["expert_action"])
    if terminated:
        break
print(json.dumps(said))
"""


@pytest.mark.long
def test_every_process_gets_the_same_advice():
    said = [
        subprocess.run(
            [sys.executable, "-c", EPISODE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1234")
    ]
    assert said[0] == said[1]
    assert len(json.loads(said[0])) > 3


# --- in the environment


def test_advice_is_given_on_request_only():
    env = ALFWorldEnv(expert=True)
    _, at_reset = env.reset(seed=0)
    *_, at_step = env.step("dance")
    _, plain = ALFWorldEnv().reset(seed=0)
    assert set(at_reset) == set(at_step) == {*plain, "expert_action"}
    assert {key: value for key, value in at_reset.items() if key != "expert_action"} == plain
    assert at_step["expert_action"] == at_reset["expert_action"]  # nothing has happened


def test_it_follows_from_the_game_and_the_actions():
    one, other = gymnasium.make(ID, expert=True), gymnasium.make(ID, expert=True)
    other.reset(seed=9)
    other.step("look")
    name = "generated/pick_two_obj_and_place/4"
    _, info = one.reset(seed=1, options={"game": name})
    _, same = other.reset(options={"game": name})
    for _ in range(50):
        assert info == same
        if info["won"]:
            break
        *_, info = one.step(info["expert_action"])
        *_, same = other.step(same["expert_action"])
    assert info["won"]


def test_a_won_game_needs_no_advice():
    env = gymnasium.make(ID, expert=True)
    _, info = env.reset(seed=3)
    while not info["won"]:
        assert info["expert_action"] in info["admissible_actions"]
        *_, truncated, info = env.step(info["expert_action"])
        assert not truncated
    assert info["expert_action"] == ""
    _, info = env.reset()
    assert info["expert_action"] in info["admissible_actions"]


def test_gymnasium_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, expert=True).unwrapped)


@pytest.mark.long
def test_the_reference_engine_gets_the_same_advice():
    ours = gymnasium.make(ID, expert=True, task_types=["pick_and_place_simple"])
    stock = gymnasium.make(ID, expert=True, task_types=["pick_and_place_simple"], engine="textworld")
    _, info = ours.reset(seed=2)
    _, same = stock.reset(seed=2)
    for _ in range(4):
        assert info == same
        *_, info = ours.step(info["expert_action"])
        *_, same = stock.step(same["expert_action"])
        if info["won"]:
            break
    stock.close()
