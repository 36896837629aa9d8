"""The fitted tables are what the script makes of `valid_train`, and bring generated games near to recorded ones."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("alfworld")

from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.goals import rooms_of
from rwml_gym.envs.alfworld.games.sources import ROOMS, TASK_TYPES
from rwml_gym.envs.alfworld.games.tables import FLOOR, fitted, goal_weight, instances, kinds_of_place, place_weight
from tests.helpers.alfworld_data import official_data
from tests.helpers.paths import ROOT


def run(script: str, *words: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "generator" / script), "--data", str(official_data()), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.long
def test_the_script_makes_the_tables_again(tmp_path):
    run("fit_tables.py", "--out", str(tmp_path / "tables.json"))
    shipped = ROOT / "rwml_gym" / "envs" / "alfworld" / "games" / "tables.json"
    assert (tmp_path / "tables.json").read_text() == shipped.read_text()


@pytest.mark.long
def test_cross_validation_prefers_the_prior_that_was_used():
    rows = [line.split() for line in run("fit_tables.py", "--cross-validate").splitlines()[1:]]
    best = max(rows, key=lambda row: float(row[1]))
    assert float(best[0]) == fitted()["prior"]


def test_the_tables_say_what_they_were_fitted_to():
    assert "valid_train by benchmarks/generator/fit_tables.py" in fitted()["about"]
    assert fitted()["games"] == 200


def test_weights_are_positive_and_of_things_that_exist():
    objects = package.constants().OBJECTS_SET
    for weights in (fitted()["place_weights"], *fitted()["place_factors"].values()):
        assert weights.keys() <= objects | {FLOOR}
        assert min(weights.values()) > 0
    assert fitted()["place_factors"].keys() <= objects
    for task_type in TASK_TYPES:
        assert tuple(fitted()["rooms"][task_type]) == rooms_of(task_type)
        for weights in fitted()["goals"][task_type].values():
            assert weights.keys() <= objects
            assert min(weights.values()) > 0


def test_what_was_never_recorded_has_the_weights_of_the_prior():
    assert place_weight("NeverSeen", "CounterTop") == fitted()["place_weights"]["CounterTop"]
    assert place_weight("NeverSeen", "PaintingHanger") == 1
    assert goal_weight("look_at_obj_in_light", "NeverSeen", "FloorLamp") == 1
    assert instances("kitchen", "NeverSeen") == ([1], [1])


def test_numbers_of_objects_are_those_of_the_room_or_else_of_all_rooms():
    kitchen, bedroom = (fitted()["instances"][room]["Mug"] for room in ("kitchen", "bedroom"))
    assert kitchen != bedroom
    assert instances("kitchen", "Mug") == ([int(count) for count in kitchen], list(kitchen.values()))
    everywhere = sum(sum(fitted()["instances"][room].get("Mug", {}).values()) for room in ROOMS)
    assert sum(instances("bathroom", "Mug")[1]) == everywhere


def test_objects_may_be_where_alfworld_allows_them_or_where_they_were_recorded():
    receptacles = ["CoffeeMachine", "Drawer", "TVStand"]
    assert kinds_of_place("Mug", receptacles, recorded=()) == ["CoffeeMachine", FLOOR]
    assert kinds_of_place("Mug", receptacles, recorded=["TVStand", "Sofa"]) == ["CoffeeMachine", "TVStand", FLOOR]


@pytest.mark.slow
def test_pairs_are_within_the_target_of_games_nothing_was_fitted_to():
    seen, train = run("measure_games.py", "--copies", "5").split("valid_train: ")
    distances = [float(number) for number in re.findall(r"pairs +(0\.\d+)", seen)]
    assert len(distances) == 3
    assert max(distances) <= 0.15
    assert max(float(number) for number in re.findall(r"pairs +(0\.\d+)", train)) < min(distances)
