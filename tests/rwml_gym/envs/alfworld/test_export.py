"""Exported games are found and won by alfworld as it is installed, and an export never leaves half a game behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import gymnasium
import pytest

pytest.importorskip("alfworld")

from rwml_gym.agents.cli import main as cli
from rwml_gym.envs.alfworld.games import export as export_module
from rwml_gym.envs.alfworld.games.export import export_games
from rwml_gym.envs.alfworld.games.sources import TASK_TYPES, GeneratedGames, OfficialGames
from rwml_gym.errors import InvalidConfigError
from tests.helpers.alfworld_data import official_data

STOCK = """
import json, sys
from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

folder, = sys.argv[1:]
world = AlfredTWEnv(
    {
        "env": {
            "goal_desc_human_anns_prob": 0.0,
            "task_types": [1, 2, 3, 4, 5, 6],
            "domain_randomization": False,
            "expert_type": "handcoded",
        },
        "dataset": {"data_path": folder, "num_train_games": -1},
        "general": {"training_method": "dagger"},
        "dagger": {"training": {"max_nb_steps_per_episode": 50}},
    },
    train_eval="train",
)
env = world.init_env(batch_size=1)
played = []
for _ in world.game_files:
    observations, infos = env.reset()
    (file,) = infos["extra.gamefile"]
    task = observations[0]
    advice = [infos["extra.expert_plan"][0][0]]
    for action in json.load(open(file))["walkthrough"]:
        assert action in infos["admissible_commands"][0], (file, action)
        observations, _, _, infos = env.step([action])
        advice.append(infos["extra.expert_plan"][0][0])
    played.append({"file": file, "task": task, "won": bool(infos["won"][0]), "advice": advice})
print("PLAYED " + json.dumps(played))
"""


def play_in_stock_alfworld(folder, home):
    """Plays the plan of each game under a folder in alfworld's own environment, beside its own expert."""
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "ALFWORLD_DATA"} | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("PLAYED ")]
    return json.loads(line.removeprefix("PLAYED "))


def files_under(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_stock_alfworld_finds_and_wins_an_exported_game(tmp_path):
    games = GeneratedGames(task_types=["look_at_obj_in_light"], rooms=["living_room"])
    game = next(game for game in map(games.load, games.names) if game.goal.lamp == "FloorLamp")
    export_games([game], tmp_path / "games")
    (played,) = play_in_stock_alfworld(tmp_path / "games" / "generated", tmp_path / "home")
    assert played["won"]
    assert f"Your task is to: {game.task}." in played["task"]
    # its hand-coded expert has read what is to be done from traj_data.json
    assert any(action.startswith(f"take {game.goal.target.lower()} ") for action in played["advice"])


@pytest.mark.slow
def test_stock_alfworld_wins_exported_games_of_every_task_type(tmp_path):
    assert cli.main(["games", "export", "--number", "12", "--out", str(tmp_path / "games")]) == 0
    played = play_in_stock_alfworld(tmp_path / "games" / "generated", tmp_path / "home")
    assert len(played) == 12
    assert all(game["won"] for game in played)


def test_an_exported_game_is_laid_out_as_official_games_are(tmp_path):
    games = GeneratedGames(rooms=["kitchen"], difficulty=(3, 30))
    game = games.load(games.names[2])
    (folder,) = export_games([game], tmp_path)
    task = f"pick_heat_then_place_in_recep-{game.goal.target}-None-{game.goal.receptacle}-{game.floor_plan}"
    assert folder == tmp_path / "generated" / task / "trial_generated_kitchen_3-30_0"
    assert sorted(p.name for p in folder.iterdir()) == ["game.tw-pddl", "initial_state.pddl", "traj_data.json"]
    content = json.loads((folder / "game.tw-pddl").read_text())
    assert content == game.data
    assert content["walkthrough"] == list(game.plan)
    assert (folder / "initial_state.pddl").read_text() == content["pddl_problem"]


def test_the_trajectory_has_the_entries_of_official_ones(tmp_path):
    games = GeneratedGames()
    (folder,) = export_games([games.load(games.names[0])], tmp_path)
    trajectory = json.loads((folder / "traj_data.json").read_text())
    official = next((official_data() / "valid_seen").glob("*/*/traj_data.json"))
    recorded = json.loads(official.read_text())
    assert trajectory.keys() == recorded.keys()
    assert trajectory["pddl_params"].keys() == recorded["pddl_params"].keys()


def test_exported_games_read_back_as_official_ones(tmp_path):
    source = GeneratedGames("generated_held_out")
    games = [source.load(name) for name in source.names[:12]]
    folders = export_games(games, tmp_path)
    (tmp_path / "generated_held_out").rename(tmp_path / "train")
    read = OfficialGames(tmp_path, "train")
    assert len(read.names) == len(set(folders)) == 12
    back = {game.task + str(game.data["pddl_problem"]): game for game in map(read.load, read.names)}
    for game in games:
        same = back[game.task + game.data["pddl_problem"]]
        assert (same.goal, same.floor_plan, same.plan) == (game.goal, game.floor_plan, game.plan)


def test_exported_games_are_played_by_the_option_that_wrote_them(tmp_path):
    assert cli.main(["games", "export", "--split", "generated", "--number", "6", "--out", str(tmp_path)]) == 0
    made, read = (
        gymnasium.make("rwml_gym/ALFWorld-v0", split="generated", data=data, order=order)
        for data, order in ((None, "random"), (tmp_path, "each-once"))
    )
    assert len(read.unwrapped.games.names) == 6
    for _ in range(6):
        observation, info = read.reset()
        seed = info["game"].rpartition("_")[2]
        same, expected = made.reset(options={"game": f"generated/{info['task_type']}/{seed}"})
        assert (observation, info["admissible_actions"]) == (same, expected["admissible_actions"])


def test_official_games_are_exported_in_the_words_of_the_installed_alfworld(tmp_path):
    source = OfficialGames(official_data(), "valid_seen")
    name = source.names[0]
    (folder,) = export_games([source.load(name)], tmp_path)
    assert folder == tmp_path / name
    assert "move {o} to {r}" in json.loads((folder / "game.tw-pddl").read_text())["grammar"]
    original = official_data() / name / "traj_data.json"
    assert json.loads((folder / "traj_data.json").read_text()) == json.loads(original.read_text())


def test_what_is_there_is_left_alone_unless_asked(tmp_path):
    source = GeneratedGames()
    first, second = (source.load(name) for name in source.names[:2])
    export_games([first], tmp_path)
    before = files_under(tmp_path)
    with pytest.raises(InvalidConfigError, match=r"actual: .*generated exists\..*--overwrite"):
        export_games([second], tmp_path)
    assert files_under(tmp_path) == before
    export_games([first, second], tmp_path, overwrite=True)
    assert before.items() < files_under(tmp_path).items()
    assert len(files_under(tmp_path)) == 6


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    source = GeneratedGames()
    with pytest.raises(InvalidConfigError, match=r"Expected a writable folder, actual: .*file"):
        export_games([source.load(source.names[0])], tmp_path / "file")


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_export_leaves_whole_games(tmp_path, monkeypatch, overwrite):
    source = GeneratedGames()
    games = [source.load(name) for name in source.names[:2]]
    if overwrite:
        export_games(games, tmp_path)
    before = files_under(tmp_path)
    export_one = export_module._trajectory

    def interrupted(game, trial):
        if game is games[1]:
            raise KeyboardInterrupt
        return export_one(game, trial)

    monkeypatch.setattr(export_module, "_trajectory", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_games(games, tmp_path, overwrite=overwrite)
    after = files_under(tmp_path)
    assert after == before if overwrite else len(after) == 3
    assert not any(part.startswith(".") for path in after for part in path.split("/"))


# --- the command


def test_the_command_exports_what_was_asked_for(tmp_path, capsys):
    words = ["--task-types", TASK_TYPES[0], TASK_TYPES[5], "--rooms", "bathroom", "--difficulty", "5", "10"]
    assert cli.main(["games", "export", "--out", str(tmp_path), "--number", "4", "--first", "2", *words]) == 0
    assert capsys.readouterr().out == f"4 games in {tmp_path / 'generated'}\n"
    trials = sorted(p.parent.name for p in tmp_path.glob("generated/*/*/game.tw-pddl"))
    assert trials == [f"trial_generated_bathroom_5-10_{seed}" for seed in (1, 1, 2, 2)]
    tasks = {p.name.split("-")[0] for p in (tmp_path / "generated").iterdir()}
    assert tasks == {TASK_TYPES[0], TASK_TYPES[5]}


def test_the_command_exports_whole_official_splits(tmp_path, capsys):
    shutil.copytree(official_data() / "valid_seen", tmp_path / "data" / "valid_seen")
    words = ["--split", "valid_seen", "--data", str(tmp_path / "data"), "--rooms", "bathroom"]
    assert cli.main(["games", "export", "--out", str(tmp_path / "out"), *words]) == 0
    number = len(list((tmp_path / "out").glob("valid_seen/*/*/game.tw-pddl")))
    assert number > 10
    assert capsys.readouterr().out.startswith(f"{number} games in ")


def test_the_command_lists_names(capsys):
    assert cli.main(["games", "list", "--number", "2", "--difficulty", "7", "--split", "generated_held_out"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "generated_held_out/pick_and_place_simple/7-7/0",
        "generated_held_out/look_at_obj_in_light/7-7/0",
    ]
    assert cli.main(["games", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 100


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--split", "eval"], "generated_held_out"),
        (["--rooms", "garage"], "living_room"),
        (["--difficulty", "5", "9", "12"], "the fewest and the most"),
        (["--number", "0"], "--number of at least 1"),
        (["--first", "-1"], "--first of at least 0"),
        (["--split", "valid_seen", "--data", "no/such/folder"], "alfworld-download"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_to_the_command_names_its_fix(tmp_path, capsys, words, fix):
    assert cli.main(["games", "export", "--out", str(tmp_path / "out"), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("rwml-gym: ")
    assert fix in err
    assert not (tmp_path / "out").exists()


def test_there_may_be_fewer_games_than_are_left_out(tmp_path, capsys):
    words = ["games", "list", "--split", "valid_seen", "--data", str(official_data()), "--first", "140"]
    assert cli.main(words) == 2
    assert "Expected --first below 140, the number of games, actual: 140" in capsys.readouterr().err
