"""Generated games can be won, are not won at the start, and come again from their names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

from rwml_gym.alfworld import generator, rooms
from rwml_gym.alfworld.games import GENERATED_SPLITS, TASK_TYPES, GeneratedGames
from rwml_gym.alfworld.generator import generate, verify
from rwml_gym.alfworld.rooms import FLOOR_PLANS
from rwml_gym.errors import InvalidGameError

FINGERPRINT = """
import hashlib
from rwml_gym.alfworld.games import GeneratedGames
games = GeneratedGames("generated_held_out")
data = [games.load(name) for name in games.names[:24]]
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
    with pytest.raises(InvalidGameError, match="not won by its own plan"):
        verify(replace(game, plan=game.plan[:-1]))
    with pytest.raises(InvalidGameError, match="action 1 of its plan, 'fly', is not admissible"):
        verify(replace(game, plan=("fly", *game.plan)))
    with pytest.raises(InvalidGameError, match="no plan"):
        verify(replace(game, plan=None))


def test_verify_refuses_a_game_won_at_the_start(monkeypatch):
    # the targets are put where they have to end up
    monkeypatch.setattr(rooms, "hiding_places", lambda plan, goal: [goal.receptacle])
    with pytest.raises(InvalidGameError, match="won before the first action"):
        verify(generate("won", "pick_and_place_simple"))


def test_a_source_can_verify_at_load(monkeypatch):
    games = GeneratedGames(task_types=["look_at_obj_in_light"], verify=True)
    assert games.load(games.names[0]).plan
    monkeypatch.setattr(generator, "_plan", lambda room, goal: ["look"])
    with pytest.raises(InvalidGameError, match="not won"):
        games.load(games.names[0])
