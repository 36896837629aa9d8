"""Generated games can be won, are not won at the start, and come again from their names."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

import rwml_gym  # noqa: F401 (registers the environment)
from rwml_gym.envs.alfworld.engine.game import Goal, entity_names, room_of
from rwml_gym.envs.alfworld.games import generator, rooms
from rwml_gym.envs.alfworld.games.generator import generate, verify
from rwml_gym.envs.alfworld.games.goals import rooms_of
from rwml_gym.envs.alfworld.games.problem import read_room, symbol, write_problem
from rwml_gym.envs.alfworld.games.rooms import FLOOR_PLANS, TREATMENTS, furnish, kind_of, layout
from rwml_gym.envs.alfworld.games.sources import GENERATED_SPLITS, TASK_TYPES, GeneratedGames, OfficialGames
from rwml_gym.envs.alfworld.games.tables import fitted
from rwml_gym.errors import InvalidConfigError, InvalidGameError
from tests.helpers.alfworld_data import official_data

FINGERPRINT = """
import hashlib
from rwml_gym.envs.alfworld.games.sources import GeneratedGames
games = GeneratedGames("generated_held_out")
narrow = GeneratedGames(rooms=["kitchen", "living_room"], difficulty=(4, 20))
data = [games.load(name) for name in games.names[:24]] + [narrow.load(name) for name in narrow.names[:12]]
print(hashlib.sha256(repr([(g.name, g.task, sorted(g.data.items()), g.plan) for g in data]).encode()).hexdigest())
"""


@pytest.mark.parametrize("split", GENERATED_SPLITS)
def test_games_of_every_task_type_are_won_by_their_plans(split):
    games = GeneratedGames(split)
    for name in games.names[:6]:
        game = games.load(name)
        assert 0 < verify(game) == len(game.plan) <= 50


@pytest.mark.slow
@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_hundreds_of_games_are_won_by_their_plans(task_type):
    for split in GENERATED_SPLITS:
        games = GeneratedGames(split, [task_type])
        for name in games.names[100:130]:
            game = games.load(name)
            assert verify(game) == len(game.plan)


@pytest.mark.long
def test_a_game_comes_again_in_every_process():
    fingerprints = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(fingerprints) == 1


def test_an_environment_can_be_asked_for_rooms_and_difficulty():
    env = gymnasium.make("rwml_gym/ALFWorld-v0", rooms=["bathroom"], difficulty=[5, 15])
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        assert re.fullmatch(r"generated/\w+/bathroom/5-15/\d+", info["game"])
        assert "toilet" in observation
    env.reset(options={"game": "generated/pick_and_place_simple/bathroom/7-7/3"})
    with pytest.raises(InvalidConfigError, match="for look_at_obj_in_light, actual: rooms="):
        gymnasium.make("rwml_gym/ALFWorld-v0", task_types=["look_at_obj_in_light"], rooms=["bathroom"])


def test_splits_share_no_game():
    train, held_out = (GeneratedGames(split) for split in GENERATED_SPLITS)
    assert not set(train.names[:600]) & set(held_out.names[:600])
    problems = [games.load(name).data["pddl_problem"] for games in (train, held_out) for name in games.names[:60]]
    assert len(set(problems)) == len(problems)


def test_every_task_type_varies():
    for task_type in TASK_TYPES:
        games = GeneratedGames(task_types=[task_type])
        tasks = Counter(games.load(name).task for name in games.names[:40])
        assert len(tasks) > 15
        assert all(game.task_type == task_type for game in map(games.load, games.names[:3]))


REQUESTS = [(task_type, room) for task_type in TASK_TYPES for room in rooms_of(task_type)]


@given(request=st.sampled_from(REQUESTS), seed=st.integers(0, 10**9))
@settings(max_examples=100, deadline=None)
def test_games_can_be_won_and_are_not_won_yet(request, seed):
    task_type, room_type = request
    game = generate(f"property/{seed}", task_type, room_type)
    room, goal = read_room(game.data["pddl_problem"]), game.goal
    assert room_of(game.floor_plan) == room_type
    assert game.floor_plan in FLOOR_PLANS[room_type]
    within_reach = room.within_reach(goal.target)
    assert len(within_reach) >= goal.count
    if task_type in TREATMENTS:  # nothing is treated yet, so targets may be where they have to end up
        assert TREATMENTS[task_type].tool not in map(kind_of, within_reach.values())
    else:
        assert goal.receptacle not in map(kind_of, within_reach.values())
    if goal.lamp:
        assert room.within_reach(goal.lamp)
    else:
        assert room.of_kind(goal.receptacle)
    assert len(game.plan) <= 20
    # the objects of a floor plan are those of its layout, and its receptacles never change
    assert set(room.object_kinds()) == set(layout(game.floor_plan).kinds)
    assert room.receptacles == layout(game.floor_plan).receptacles


@given(request=st.sampled_from(REQUESTS), seed=st.integers(0, 10**9))
@settings(max_examples=50, deadline=None)
def test_the_difficulty_is_the_number_of_receptacles_where_the_target_may_be(request, seed):
    game = generate(f"difficulty/{seed}", *request)
    room, goal = read_room(game.data["pddl_problem"]), game.goal
    allowed = set(re.findall(rf"\(canContain (\w+)Type {goal.target}Type\)", game.data["pddl_problem"]))
    avoided = TREATMENTS[goal.task_type].tool if goal.task_type in TREATMENTS else goal.receptacle
    searched = {r for r in room.receptacles if kind_of(r) in allowed - {avoided}}
    recorded = {r for r in room.receptacles if kind_of(r) in fitted()["place_factors"].get(goal.target, ())}
    assert len(searched) <= game.difficulty
    assert game.difficulty == len(searched | {r for r in recorded if kind_of(r) != avoided})
    assert set(room.within_reach(goal.target).values()) <= searched | recorded


@given(seed=st.integers(0, 10**9), floor_plan=st.sampled_from(sorted(sum(FLOOR_PLANS.values(), ()))))
@settings(max_examples=50, deadline=None)
def test_a_problem_reads_back_as_its_room(seed, floor_plan):
    goal = Goal("pick_and_place_simple", "Mug", "Fridge")
    room = furnish(random.Random(seed), floor_plan)
    assert read_room(write_problem(room, "loc|1|-1|0|30", goal)) == room


def test_a_recorded_problem_is_read_whole():
    source = OfficialGames(official_data(), "valid_seen")
    for name in source.names[::20]:
        problem = source.load(name).data["pddl_problem"].split("(:goal")[0]
        room = read_room(problem)
        assert len(room.receptacles) == problem.count("(receptacleType ")
        assert len(room.objects) == problem.count("(objectType ")
        held = {entity for entity in re.findall(r"\(inReceptacle (\S+) ", problem)}
        assert sum(place is not None for place in room.objects.values()) == len(held)


def test_a_room_has_the_receptacles_that_were_recorded():
    source = OfficialGames(official_data(), "valid_train")
    for name in source.names[::5]:
        game = source.load(name)
        recorded = Counter(map(kind_of, read_room(game.data["pddl_problem"]).receptacles))
        assert Counter(map(kind_of, layout(game.floor_plan).receptacles)) == recorded


def test_living_rooms_have_tasks_with_floor_lamps():
    games = GeneratedGames(task_types=["look_at_obj_in_light"], rooms=["living_room"])
    lit = [game for game in map(games.load, games.names[:12]) if game.goal.lamp == "FloorLamp"]
    assert len(lit) > 3
    for game in lit[:3]:
        assert "floorlamp" in game.task
        assert game.plan[-1].startswith("use floorlamp ")
        assert verify(game) == len(game.plan)


def test_objects_on_no_receptacle_are_there_but_nobody_can_see_or_take_them():
    def lost_in(game):
        objects = read_room(game.data["pddl_problem"]).objects
        return [thing for thing, place in objects.items() if place is None and kind_of(thing) == "Box"]

    games = GeneratedGames(rooms=["living_room"])
    game = next(filter(lost_in, map(games.load, games.names)))
    problem = game.data["pddl_problem"]
    room = read_room(problem)
    for thing in lost_in(game):
        assert re.search(rf"\(objectAtLocation {symbol(thing)} loc_\S+\)", problem)
        assert f"(pickupable {symbol(thing)})" in problem
    names = entity_names(symbol(entity).lower() for entity in (*room.receptacles, *room.objects))
    env = gymnasium.make("rwml_gym/ALFWorld-v0", max_episode_steps=1000)
    seen, info = env.reset(options={"game": game.name})
    for receptacle in room.receptacles:
        for action in (f"go to {names[symbol(receptacle).lower()]}", f"open {names[symbol(receptacle).lower()]}"):
            observation, *_, info = env.step(action)
            seen += "\n" + observation + "\n".join(info["admissible_actions"])
    for thing, place in room.objects.items():
        shown = re.search(rf"\b{names[symbol(thing).lower()]}\b", seen) is not None
        assert shown == (place is not None), thing


def test_only_a_target_in_a_fridge_is_cold_at_the_start():
    games = GeneratedGames(task_types=["pick_heat_then_place_in_recep"])
    cold = 0
    for game in map(games.load, games.names[:40]):
        room = read_room(game.data["pddl_problem"])
        chilled = set(re.findall(r"\(isCool (\S+)\)", game.data["pddl_problem"]))
        targets = room.within_reach(game.goal.target)
        assert chilled == {symbol(thing) for thing, place in targets.items() if kind_of(place) == "Fridge"}
        cold += bool(chilled)
    assert cold > 3


def test_the_rooms_of_valid_unseen_are_left_out():
    plans = [number for numbers in FLOOR_PLANS.values() for number in numbers]
    assert len(plans) == 116
    assert not {10, 219, 308, 424} & set(plans)


def test_the_goal_sentence_stands_in_the_grammar_once():
    game = generate("any name will do", "pick_two_obj_and_place")
    assert game.data["grammar"].count(f"Your task is to: {game.task}.") == 1
    assert "UNKNOWN GOAL" not in game.data["grammar"]
    assert game.data_version.startswith("generated (alfworld ")


def test_verify_refuses_a_plan_that_does_not_win():
    game = generate("refused", "pick_and_place_simple")
    with pytest.raises(InvalidGameError, match=r"Expected a plan that wins .* does not"):
        verify(replace(game, plan=game.plan[:-1]))
    with pytest.raises(InvalidGameError, match=r"Expected admissible actions in .* actual: 'fly' at 1"):
        verify(replace(game, plan=("fly", *game.plan)))
    with pytest.raises(InvalidGameError, match="Expected a plan to verify, actual: none"):
        verify(replace(game, plan=None))


def test_verify_refuses_a_game_won_at_the_start(monkeypatch):
    # the targets are put where they have to end up
    monkeypatch.setattr(rooms, "hiding_places", lambda plan, goal: [goal.receptacle])
    with pytest.raises(InvalidGameError, match=r"not won at the start, actual: .* is won"):
        verify(generate("won", "pick_and_place_simple"))


def test_a_source_can_verify_at_load(monkeypatch):
    games = GeneratedGames(task_types=["look_at_obj_in_light"], verify=True)
    assert games.load(games.names[0]).plan
    monkeypatch.setattr(generator, "_plan", lambda room, goal: ["look"])
    with pytest.raises(InvalidGameError, match=r"Expected a plan that wins .* does not"):
        games.load(games.names[0])
