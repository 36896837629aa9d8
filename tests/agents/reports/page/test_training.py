"""The folders of trainings: results, curves and gaps, of finished ones and of those that were interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from rwml_gym.agents.reports.page.document import write_page
from rwml_gym.agents.reports.page.histogram import histogram
from rwml_gym.errors import StorageError
from rwml_gym.files import write_json
from rwml_gym.statistics import wilson_interval
from tests.agents.reports.page.test_document import data_of


def training(folder: Path) -> Path:
    write_json(folder / "config.json", {"command": "rwml", "model": "/home/someone/models/small", "env": "alfworld"})
    write_json(folder / "versions.json", {"python": "3.11.2", "torch": "2.9.0"})
    return folder


def world_model(folder: Path) -> Path:
    rows = [
        {"step": n, "reward": n / 20, "distance": 0.5 / n, "groups": 4, "signal_groups": n % 5, "kl": 0.0, "loss": 0.1}
        for n in range(1, 13)
    ]
    write_json(training(folder) / "metrics" / "rwml.json", rows)
    write_json(folder / "metrics" / "warm_start.json", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}])
    values = {"reward at τ_d": [0.5, 0.4, 0.6], "mean gap": [0.2, 0.1, 0.3]}
    write_json(
        folder / "results.json",
        {
            "threshold": 0.02,
            "measures": {},
            "transitions": 8,
            "models": {"base": values, "RWML": values},
            "differences": {"RWML - base": [0.1, -0.1, 0.3]},
        },
    )
    predictions = [{"game": f"g{n % 3}", "distance": n / 10, "role": ""} for n in range(8)]
    write_json(folder / "evaluation" / "rwml.json", predictions)
    return folder


def shown(tmp_path: Path, folder: Path) -> dict:
    write_page([folder], tmp_path / "page.html")
    (run,) = data_of(tmp_path / "page.html")["trainings"]
    return run


def test_a_world_model(tmp_path):
    run = shown(tmp_path, world_model(tmp_path / "run"))
    assert [t["title"] for t in run["tables"][:2]] == [
        "Held-out reward at τ_d, 8 transitions",
        "Held-out mean gap, 8 transitions",
    ]
    assert run["tables"][2]["rows"] == [{"name": "RWML - base", "value": [0.1, -0.1, 0.3]}]
    curves = {curve["key"]: curve for curve in run["curves"]["rwml"]}
    assert curves["signal"]["y"][:5] == [0.25, 0.5, 0.75, 1.0, 0.0]
    assert "kl" not in curves  # 0 throughout
    assert run["curves"]["warm_start"][0]["y"] == [2.0]  # without the NaN
    (gaps,) = run["gaps"]
    assert gaps["gaps"]["threshold"] == 0.02
    assert gaps["gaps"]["below"][0] == 1 / 8
    assert ["model", "small"] in run["facts"]  # without the folder
    assert "/home" not in (tmp_path / "page.html").read_text("utf-8")


def test_a_policy(tmp_path):
    folder = training(tmp_path / "run")
    row = {"name": "held-out", "played": 20, "invalid": 0.1, "steps": 12.0, "judged": True, "unit": "games"}
    write_json(folder / "report.json", [{**row, "step": 0, "won": 4}, {**row, "step": 50, "won": 9}])
    (table,) = shown(tmp_path, folder)["tables"]
    assert [line["value"][0] for line in table["rows"]] == [0.2, 0.45]
    assert table["rows"][1]["value"][1] < 0.45 < table["rows"][1]["value"][2]


def test_episodes_of_one_game_are_no_games_of_their_own(tmp_path):
    """The page has the interval of the run's own report."""
    folder = training(tmp_path / "run")
    row = {"name": "training", "step": 0, "won": 32, "played": 96, "invalid": 0.0, "steps": 12.0}
    write_json(folder / "report.json", [{**row, "by_game": [[8, 8]] * 4 + [[0, 8]] * 8}])
    (table,) = shown(tmp_path, folder)["tables"]
    assert table["interval"] == "over games"
    low, high = table["rows"][0]["value"][1:]
    assert low < 0.1
    assert high > 0.55


def test_an_interrupted_training_shows_its_last_intact_checkpoint(tmp_path):
    folder = training(tmp_path / "run")
    rows = [{"step": n, "reward": 0.5, "loss": 1.0} for n in (1, 2, 3)]
    for number, count in (("000002", 2), ("000003", 3)):
        write_json(folder / "checkpoints" / "rwml" / f"step-{number}" / "metrics.json", rows[:count])
    (folder / "checkpoints" / "rwml" / "step-000003" / "metrics.json").write_text("[{")
    run = shown(tmp_path, folder)
    assert not run["finished"]
    assert run["curves"]["rwml"][0]["x"] == [1, 2]


def test_files_of_another_kind_are_named(tmp_path):
    folder = training(tmp_path / "run")
    write_json(folder / "report.json", [{"surprise": 1}])
    with pytest.raises(StorageError, match="Expected the files of a training"):
        shown(tmp_path, folder)


@pytest.mark.parametrize("threshold", [0.02, 0.5, None])
def test_a_histogram_counts_every_gap(threshold):
    gaps = [0.0, 0.0199, 0.02, 0.3, 1.0, 2.0, float("nan")]
    found = histogram(gaps, [f"g{n}" for n in range(7)], threshold)
    assert found is not None
    assert sum(found["counts"]) == found["n"] == 6
    if threshold:
        border = found["edges"].index(threshold)
        assert sum(found["counts"][:border]) == sum(gap < threshold for gap in gaps)


def test_gaps_that_are_alike_do_not_make_their_share_certain():
    found = histogram([0.01, 0.01], ["a", "b"], 0.02)
    assert found is not None
    assert found["below"] == (1.0, *wilson_interval(2, 2))


def test_no_gaps_have_no_histogram():
    assert histogram([], [], 0.02) is None
    zero = histogram([0.0], ["a"], None)
    assert zero is not None
    assert zero["mean"] == (0.0, None, None)
    assert sum(zero["counts"]) == 1
