"""Sources list, draw and load games by name, and say what to do where that fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("alfworld")

from rwml_gym.envs.alfworld.engine.game import Goal, room_of
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games import sources as games_module
from rwml_gym.envs.alfworld.games.export import export_games
from rwml_gym.envs.alfworld.games.sources import ROOMS, TASK_TYPES, GeneratedGames, OfficialGames, make_games
from rwml_gym.errors import DependencyNotInstalled, GameNotFoundError, InvalidConfigError, InvalidGameError
from tests.helpers.alfworld_data import official_data


@pytest.fixture
def few(tmp_path):
    """A copy of six official games, free to be damaged, in the layout of `alfworld-download`."""
    source = official_data() / "valid_seen"
    for task_type in TASK_TYPES:
        folder = sorted(source.glob(f"{task_type}-*"))[0]
        shutil.copytree(folder, tmp_path / "json_2.1.1" / "valid_seen" / folder.name)
    return tmp_path


def game_files(folder):
    return sorted(folder.glob("**/game.tw-pddl"))


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# --- generated


def test_generated_names_are_a_sequence_of_billions():
    names = GeneratedGames(task_types=["look_at_obj_in_light", "pick_two_obj_and_place"]).names
    assert names[:3] == [
        "generated/look_at_obj_in_light/0",
        "generated/pick_two_obj_and_place/0",
        "generated/look_at_obj_in_light/1",
    ]
    assert len(names) == 2 * 2**31
    assert names[-1] in names
    with pytest.raises(IndexError):
        names[len(names)]


@pytest.mark.parametrize(
    "name",
    [
        "generated_held_out/look_at_obj_in_light/0",
        "generated/look_at_obj_in_light/-1",
        "generated/look_at_obj_in_light/00",
        "generated/look_at_obj_in_light/2147483648",
        "generated/look_at_obj_in_light/٣",
        "generated/pick_two_obj_and_place/0",
        "generated/look_at_obj_in_light",
        "",
        None,
        3,
    ],
)
def test_unknown_generated_names_are_refused(name):
    with pytest.raises(GameNotFoundError, match="Expected a game name generated/<task type>/<seed>"):
        GeneratedGames(task_types=["look_at_obj_in_light"]).load(name)


def test_names_say_the_room_and_the_difficulty_that_were_asked_for():
    assert GeneratedGames(rooms=["bathroom", "kitchen"]).names[:6] == [
        "generated/pick_and_place_simple/kitchen/0",
        "generated/pick_clean_then_place_in_recep/kitchen/0",
        "generated/pick_heat_then_place_in_recep/kitchen/0",
        "generated/pick_cool_then_place_in_recep/kitchen/0",
        "generated/pick_two_obj_and_place/kitchen/0",
        "generated/pick_and_place_simple/bathroom/1",
    ]
    assert GeneratedGames(difficulty=7).names[0] == "generated/pick_and_place_simple/7-7/0"
    asked = GeneratedGames(task_types=["pick_heat_then_place_in_recep"], rooms=["kitchen"], difficulty=[3, 9])
    assert asked.names[5] == "generated/pick_heat_then_place_in_recep/kitchen/3-9/5"


@given(
    task_types=st.none() | st.sets(st.sampled_from(TASK_TYPES), min_size=1).map(sorted),
    rooms=st.none() | st.sets(st.sampled_from(ROOMS), min_size=1).map(sorted),
    difficulty=st.none() | st.integers(1, 20) | st.tuples(st.integers(1, 12), st.integers(12, 60)),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=60, deadline=None)
def test_what_is_asked_for_is_what_comes(task_types, rooms, difficulty, seed):
    try:
        games = GeneratedGames("generated", task_types, rooms, difficulty)
    except InvalidConfigError:
        assert rooms is not None or difficulty is not None
        return
    name = games.names[seed * len(games.task_types)]
    assert name in games.names
    assert GeneratedGames().load(name).data == games.load(name).data  # a source without requests has every game
    game = games.load(name)
    assert (game.name, game.task_type) == (name, games.task_types[0])
    assert task_types is None or game.task_type in task_types
    assert rooms is None or room_of(game.floor_plan) in rooms
    fewest, most = (difficulty, difficulty) if isinstance(difficulty, int) else difficulty or (1, 99)
    assert fewest <= game.difficulty <= most


def test_a_source_loads_what_meets_its_requests_however_it_was_asked_for():
    games = GeneratedGames(rooms=["kitchen", "bathroom"], difficulty=(3, 9))
    for name in ("generated/pick_and_place_simple/kitchen/4-4/1", "generated/pick_and_place_simple/bathroom/3-9/2"):
        assert games.load(name).name == name


def test_every_room_asked_for_has_its_turn():
    games = GeneratedGames("generated_held_out", ["pick_and_place_simple"], ROOMS, (4, 12))
    assert [room_of(games.load(name).floor_plan) for name in games.names[:8]] == [*ROOMS, *ROOMS]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"rooms": ["kitchen"]}, "generated/pick_and_place_simple/0"),
        ({"rooms": ["kitchen"]}, "generated/pick_and_place_simple/bedroom/0"),
        ({"difficulty": (2, 9)}, "generated/pick_and_place_simple/0"),
        ({"difficulty": (2, 9)}, "generated/pick_and_place_simple/2-10/0"),
        ({}, "generated/pick_heat_then_place_in_recep/bedroom/0"),
        ({}, "generated/pick_and_place_simple/90-99/0"),
        ({}, "generated/pick_and_place_simple/9-2/0"),
        ({}, f"generated/pick_and_place_simple/{'9' * 5000}"),
        ({}, "generated/pick_and_place_simple/garage/0"),
    ],
)
def test_names_beyond_what_was_asked_for_or_exists_are_refused(arguments, name):
    with pytest.raises(GameNotFoundError, match="Expected a game name generated/<task type>"):
        GeneratedGames(**arguments).load(name)
    assert name not in GeneratedGames(**arguments).names


@pytest.mark.parametrize("name", ["generated/look_at_obj_in_light/bedroom/0", "generated/pick_and_place_simple/1"])
def test_only_the_names_of_a_source_are_listed(name):
    assert name not in GeneratedGames(task_types=["look_at_obj_in_light"]).names


def test_generated_draws_repeat_with_the_seed_and_reach_every_task_type():
    def draws(seed):
        rng = np.random.default_rng(seed)
        return [GeneratedGames().sample(rng).name for _ in range(30)]

    assert draws(0) == draws(0) != draws(1)
    assert {name.split("/")[1] for name in draws(0)} == set(TASK_TYPES)


# --- official


def test_official_names_are_sorted_and_complete():
    names = OfficialGames(official_data(), "valid_seen").names
    assert len(names) == 140
    assert list(names) == sorted(names)
    assert all(name.startswith("valid_seen/") for name in names)
    assert len(OfficialGames(official_data(), "valid_train").names) == 200


def test_task_types_select_and_partition():
    by_type = {kind: OfficialGames(official_data(), "valid_seen", [kind]).names for kind in TASK_TYPES}
    assert sum(map(len, by_type.values())) == 140
    assert all(f"/{kind}-" in name for kind, names in by_type.items() for name in names)


def test_rooms_select_and_partition_official_games():
    by_room = {room: OfficialGames(official_data(), "valid_seen", rooms=[room]).names for room in ROOMS}
    assert sum(map(len, by_room.values())) == 140
    assert all(room_of(int(name.split("/")[1].split("-")[4])) == room for room in ROOMS for name in by_room[room])


def test_official_games_know_their_goal_and_floor_plan():
    source = OfficialGames(official_data(), "valid_seen")
    name = next(name for name in source.names if "look_at_obj_in_light-Bowl-None-DeskLamp-301" in name)
    game = source.load(name)
    assert game.goal == Goal("look_at_obj_in_light", "Bowl", lamp="DeskLamp")
    assert (game.floor_plan, game.difficulty) == (301, None)
    for name in source.names:
        game = source.load(name)
        assert f"(objectType ?o {game.goal.target}Type)" in game.data["pddl_problem"].replace("?o1", "?o")


def test_the_installed_grammar_keeps_the_goal_and_changes_the_words():
    name = OfficialGames(official_data(), "valid_seen").names[0]
    new = OfficialGames(official_data(), "valid_seen", grammar="installed").load(name)
    old = OfficialGames(official_data(), "valid_seen", grammar="original").load(name)
    assert new.task == old.task
    assert new.data["pddl_problem"] == old.data["pddl_problem"]
    assert "put {o} in/on {r}" in old.data["grammar"]
    assert "move {o} to {r}" in new.data["grammar"]
    assert f"Your task is to: {new.task}." in new.data["grammar"]
    assert old.data_version == "json_2.1.1"
    assert new.data_version == f"json_2.1.1, rewritten to alfworld {package.version()}"


def test_a_game_in_the_installed_grammar_is_left_as_it_is(few):
    file = game_files(few)[0]
    name = OfficialGames(few).names[0]
    rewritten = OfficialGames(few).load(name).data
    edit(file, grammar=rewritten["grammar"], pddl_domain=rewritten["pddl_domain"], walkthrough=["look"])
    game = OfficialGames(few).load(name)
    assert game.data_version == "json_2.1.2"
    assert game.plan == ("look",)


def test_other_words_are_of_an_unknown_release(few):
    """A release is what its games say, not the folder that it unpacks into."""
    file = game_files(few)[0]
    name = OfficialGames(few).names[0]
    content = OfficialGames(few, grammar="installed").load(name).data
    edit(file, grammar=content["grammar"].replace("You open", "Thou openest", 1), pddl_domain=content["pddl_domain"])
    assert OfficialGames(few, grammar="original").load(name).data_version.startswith("unknown release (")


def test_the_version_of_alfworld_holds_a_hash_of_its_data():
    assert re.fullmatch(rf"{metadata.version('alfworld')} \([0-9a-f]{{12}}\)", package.version())


def test_every_goal_sentence_is_found():
    games = OfficialGames(official_data(), "valid_seen")
    for name in games.names:
        game = games.load(name)
        assert game.task
        assert not game.task.endswith(".")


def test_data_is_found_in_each_layout(few, monkeypatch):
    expected = OfficialGames(few).names
    assert OfficialGames(few / "json_2.1.1").names == expected
    assert OfficialGames(str(few)).names == expected
    monkeypatch.setenv("ALFWORLD_DATA", str(few))
    assert OfficialGames().names == expected


def test_movable_sliced_and_foreign_folders_are_left_out(few):
    split = few / "json_2.1.1" / "valid_seen"
    folder = next(split.glob("pick_and_place_simple-*"))
    for name in ("pick_and_place_with_movable_recep-Pen-Bowl-Desk-1", "pick_and_place_simple-AppleSliced-None-Desk-2"):
        shutil.copytree(folder, split / name)
    assert len(OfficialGames(few).names) == 6


def test_the_task_type_of_a_renamed_folder_is_read_from_its_trajectory(few):
    split = few / "json_2.1.1" / "valid_seen"
    folder = next(split.glob("look_at_obj_in_light-*"))
    folder.rename(split / "renamed")
    games = OfficialGames(few, task_types=["look_at_obj_in_light"])
    assert games.names[0].startswith("valid_seen/renamed/")
    game = games.load(games.names[0])
    assert game.task_type == "look_at_obj_in_light"
    assert [game.goal.target, game.goal.receptacle, game.goal.lamp] == [folder.name.split("-")[1], "", "DeskLamp"]
    assert game.floor_plan == int(folder.name.split("-")[4])


def test_a_folder_that_says_no_more_than_its_task_type_is_played_but_is_in_no_room(few):
    split = few / "json_2.1.1" / "valid_seen"
    folder = next(split.glob("look_at_obj_in_light-*"))
    folder = folder.rename(split / "look_at_obj_in_light")
    for trajectory in folder.glob("*/traj_data.json"):
        trajectory.unlink()
    games = OfficialGames(few, task_types=["look_at_obj_in_light"])
    game = games.load(games.names[0])
    assert (game.task_type, game.goal, game.floor_plan) == ("look_at_obj_in_light", None, None)
    with pytest.raises(GameNotFoundError, match="in bedroom"):
        OfficialGames(few, task_types=["look_at_obj_in_light"], rooms=["bedroom"])
    with pytest.raises(InvalidConfigError, match=r"the folder name of .*look_at_obj_in_light.*, actual: none"):
        export_games([game], few / "out")


def test_listing_opens_no_game_file(few):
    for file in game_files(few):
        file.write_text("not json")
    assert len(OfficialGames(few).names) == 6


def test_unsolvable_games_are_never_drawn_and_refused_by_name(few):
    files = game_files(few)
    for file in files[1:]:
        edit(file, solvable=False)
    games = OfficialGames(few)
    rng = np.random.default_rng(0)
    assert {games.sample(rng).name for _ in range(5)} == {games.names[0]}
    with pytest.raises(InvalidGameError, match="Expected a solvable game, actual: "):
        games.load(games.names[1])
    edit(files[0], solvable=False)
    with pytest.raises(InvalidGameError, match="Expected a solvable game, actual: none in "):
        OfficialGames(few).sample(rng)


@pytest.mark.parametrize("content", ["", "not json", "[]", "{}", '{"pddl_domain": 1, "grammar": 2, "pddl_problem": 3}'])
def test_a_corrupt_file_is_named(few, content):
    file = game_files(few)[0]
    file.write_text(content)
    games = OfficialGames(few)
    with pytest.raises(InvalidGameError, match=r"Expected a readable game in .*game\.tw-pddl, .*alfworld-download"):
        games.load(games.names[0])


ODD = {
    "a pipe": lambda file: os.mkfifo(file),
    "an endless device": lambda file: file.symlink_to("/dev/zero"),
    "a folder": lambda file: file.mkdir(),
    "deep nesting": lambda file: file.write_text("[" * 100_000 + "]" * 100_000),
    "nothing": lambda file: file.write_text(""),
    "a number": lambda file: file.write_text("Infinity"),
    "a huge file": lambda file: (file.touch(), os.truncate(file, 2**40)),
    "no UTF-8": lambda file: file.write_bytes(b"\xff\xfe{}"),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_game_file_is_the_error_of_that_game_alone(few, odd):
    file = game_files(few)[0]
    file.unlink()
    ODD[odd](file)
    games = OfficialGames(few)
    broken, sound = games.names[0], games.names[1]
    with pytest.raises(InvalidGameError, match=r"Expected a readable game in .*Run `alfworld-download --force`"):
        games.load(broken)
    assert games.load(sound).name == sound


def trajectory_of(target: object = "", room: str = "1") -> str:
    goal = json.dumps({"object_target": target, "parent_target": ""})
    return f'{{"task_type": "", "pddl_params": {goal}, "scene": {{"scene_num": {room}}}}}'


TRAJECTORIES = {
    "infinite room": trajectory_of(room="Infinity"),
    "no room": trajectory_of(room="NaN"),
    "room of another type": trajectory_of(room="[]"),
    "goal of another type": trajectory_of(target=1),
    "parameters of another type": '{"task_type": "", "pddl_params": [], "scene": {"scene_num": 1}}',
    "list": "[]",
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("odd", [*ODD, *TRAJECTORIES, "floor plan", "floor plan 0"])
def test_one_odd_folder_does_not_break_a_split(few, odd):
    file = game_files(few)[0]
    name = "pick_and_place_simple-Mug-None-Shelf-999" if odd == "floor plan" else "odd"
    name = "pick_and_place_simple-Mug-None-Shelf-0" if odd == "floor plan 0" else name
    folder = file.parent.parent.rename(few / "json_2.1.1" / "valid_seen" / name)
    (trajectory,) = folder.glob("*/traj_data.json")
    if odd in ODD:
        trajectory.unlink()
        ODD[odd](trajectory)
    elif odd in TRAJECTORIES:
        trajectory.write_text(TRAJECTORIES[odd])
    with pytest.warns(UserWarning, match=rf"Left out 1 games under .*\n- Expected a readable game in .*{name}"):
        games = OfficialGames(few)
    assert len(games.names) == 5
    assert games.load(games.names[0]).name == games.names[0]


def test_binary_rubbish_and_a_missing_goal_are_corrupt_too(few):
    games = OfficialGames(few)
    first, second, *_ = game_files(few)
    first.write_bytes(b"\xff\xfe\x00")
    edit(second, grammar="grammar :: ")
    for name in games.names[:2]:
        with pytest.raises(InvalidGameError, match=r"game\.tw-pddl"):
            games.load(name)


@pytest.mark.parametrize("goal", ["put a \\q mug", "put a\nmug", "put a \ud800 mug"])
def test_a_goal_that_is_no_text_is_corrupt(few, goal):
    games = OfficialGames(few)
    file = game_files(few)[0]
    edit(
        file, grammar=json.loads(file.read_text())["grammar"].replace("Your task is to: ", f"Your task is to: {goal} ")
    )
    with pytest.raises(InvalidGameError, match=r"Expected a readable game in .*game\.tw-pddl"):
        games.load(games.names[0])


def test_official_draws_repeat_with_the_seed():
    games = OfficialGames(official_data(), "valid_seen")

    def draws(seed):
        rng = np.random.default_rng(seed)
        return [games.sample(rng).name for _ in range(20)]

    assert draws(0) == draws(0) != draws(1)


def test_an_unknown_official_name_is_refused():
    with pytest.raises(GameNotFoundError, match=r"Expected one of the 140 games under .* such as"):
        OfficialGames(official_data(), "valid_seen").load("valid_seen/nothing")


# --- mistakes in arguments


def test_no_data_names_the_ways_out(tmp_path, monkeypatch):
    with pytest.raises(GameNotFoundError, match=r"alfworld-download.*ALFWORLD_DATA.*data=.*generated"):
        make_games("valid_unseen", data=tmp_path)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "missing"))
    with pytest.raises(GameNotFoundError, match="missing"):
        make_games("train")


def test_an_unknown_split_lists_the_known_and_the_present(few):
    with pytest.raises(InvalidConfigError, match=r"valid_seen.*generated_held_out.*folders there: .*valid_seen"):
        make_games("eval", data=few)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "generated", "task_types": ["cook"]}, "one of pick_and_place_simple, .*two_obj.*, actual: 'cook'"),
        ({"split": "generated", "task_types": "look_at_obj_in_light"}, "Expected a list"),
        ({"split": "generated", "task_types": []}, "actual: no `task_types`"),
        ({"split": "generated", "grammar": "old"}, "to be one of installed, original, mixed"),
        ({"split": "valid_seen", "task_types": ["cook"]}, "'cook'"),
        ({"split": "generated", "rooms": ["garage"]}, "one of kitchen, living_room, .*bathroom, actual: 'garage'"),
        ({"split": "generated", "rooms": "kitchen"}, "Expected a list of rooms"),
        ({"split": "generated", "rooms": []}, "actual: no `rooms`"),
        (
            {"split": "generated", "task_types": ["pick_heat_then_place_in_recep"], "rooms": ["bathroom", "bedroom"]},
            "a room of kitchen for pick_heat_then_place_in_recep, actual: rooms=",
        ),
        (
            {"split": "generated", "task_types": ["look_at_obj_in_light"], "rooms": ["kitchen", "bedroom"]},
            "Expected a game of look_at_obj_in_light in a kitchen, actual: none",
        ),
        ({"split": "generated", "difficulty": 0}, "at least 1"),
        ({"split": "generated", "difficulty": (9, 5)}, "the fewest and the most"),
        ({"split": "generated", "difficulty": "5-9"}, "the fewest and the most"),
        ({"split": "generated", "difficulty": 7.5}, "the fewest and the most"),
        ({"split": "generated", "difficulty": True}, "the fewest and the most"),
        (
            {"split": "generated", "difficulty": 99},
            "a difficulty of 1 to .*, actual: 99 receptacles to search",
        ),
        (
            {"split": "generated", "difficulty": (1, 2), "task_types": ["pick_heat_then_place_in_recep"]},
            "Expected a difficulty of 3 to",
        ),
        ({"split": "valid_seen", "difficulty": 5}, "Expected no `difficulty` for games from files"),
        ({"split": "valid_seen", "rooms": ["garage"]}, "'garage'"),
        ({"split": "valid_seen", "data": 5}, "Expected `data` as the path of a folder, actual: 5"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        make_games(**arguments)


def test_a_folder_without_exported_games_says_how_to_go_on(few):
    with pytest.raises(GameNotFoundError, match=r"exported games of split 'generated', actual: none .* Remove `data`"):
        make_games("generated", data=few)


def test_a_split_without_such_tasks_says_so(few):
    shutil.rmtree(next((few / "json_2.1.1" / "valid_seen").glob("look_at*")))
    with pytest.raises(GameNotFoundError, match=r"Expected a game\.tw-pddl of look_at_obj_in_light"):
        OfficialGames(few, task_types=["look_at_obj_in_light"])


def test_task_types_may_come_in_any_order():
    assert GeneratedGames(task_types=reversed(TASK_TYPES)).task_types == TASK_TYPES


@pytest.mark.parametrize("module", ["alfworld", "textworld", "fast_downward"])
def test_a_missing_package_names_the_extra(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install -e ".*\[alfworld\]"'):
        GeneratedGames()


def test_sources_import_neither_alfworld_nor_textworld():
    code = f"import sys, {games_module.__name__} as g; g.GeneratedGames().load('generated/look_at_obj_in_light/1'); "
    code += "print([m for m in ('alfworld', 'textworld', 'fast_downward') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
