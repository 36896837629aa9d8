"""The table of results: every number stands in the row, the column and the metric that it belongs to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rwml_gym.agents.config.world_model import RWMLConfig
from rwml_gym.agents.reports.evaluate import Prediction
from rwml_gym.agents.reports.world_model import Context, results_table, write_report
from rwml_gym.reward.gap import GapReward

CONTEXT = Context("release 7", {"tool": 0.25, "user": 1.0}, 24, "Tasks won: no-op 1/9")
METRICS = ("reward at τ_d", "mean gap", "exact match")
NAMES = ("base", "warm start", "RWML")
# Kinds of transitions: action type, whether something new is named, role, how many. `wait` and `look` are too few.
KINDS = (("go", True, "user", 12), ("open", False, "tool", 8), ("look", False, "tool", 7), ("wait", True, "user", 2))
# Mean reward, gap and exact match of each model in each of them: all distinct, all of whole transitions.
REWARD = {"base": (0.1, 0.2, 0.3, 0.4), "warm start": (0.15, 0.25, 0.35, 0.45), "RWML": (0.85, 0.75, 0.65, 0.55)}
GAP = {"base": (0.91, 0.82, 0.73, 0.64), "warm start": (0.9, 0.8, 0.7, 0.6), "RWML": (0.11, 0.22, 0.33, 0.44)}
EXACT = {"base": (0, 1, 2, 0), "warm start": (3, 2, 1, 1), "RWML": (9, 6, 4, 2)}


def _results() -> dict[str, list[Prediction]]:
    return {
        name: [
            Prediction(f"g{i}", kind, not new, f"{kind} {i}", f"state {i}", "p", reward, gap, i < exact, role)
            for (kind, new, role, count), reward, gap, exact in zip(
                KINDS, REWARD[name], GAP[name], EXACT[name], strict=True
            )
            for i in range(count)
        ]
        for name in NAMES
    }


def _cells(table: str) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    """Mean and interval by metric, row and model."""
    cells = {}
    lines = table.splitlines()
    for label in METRICS:
        start = next(i for i, line in enumerate(lines) if line.startswith(label))
        header = lines[start][29:]
        names = [header[i : i + 20].strip() for i in range(0, len(header), 20)]
        for line in lines[start + 1 :]:
            if not line:
                break
            row, values = line[2:22].strip(), line[29:]
            for place, name in enumerate(names):
                mean, low, high = values[20 * place : 20 * place + 20].replace("[", "").replace("]", "").split()
                cells[label, row, name] = (float(mean), float(low.rstrip(",")), float(high))
    return cells


def _counts(table: str) -> list[tuple[str, int]]:
    lines = table.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(METRICS[0]))
    end = lines.index("", start)
    return [(line[2:22].strip(), int(line[22:27])) for line in lines[start + 1 : end]]


def _mean(values: tuple[float, ...], chosen: tuple[int, ...]) -> float:
    return sum(values[k] * KINDS[k][3] for k in chosen) / sum(KINDS[k][3] for k in chosen)


ROWS = {
    "all": (0, 1, 2, 3),
    "names nothing new": (1, 2),
    "names something new": (0, 3),
    "role tool": (1, 2),
    "role user": (0, 3),
    "go": (0,),
    "open": (1,),
    "other actions": (2, 3),
}


def test_rows_are_counted_and_in_their_order():
    table = results_table(_results(), GapReward("hashing", threshold=0.3), CONTEXT)
    assert _counts(table) == [(row, sum(KINDS[k][3] for k in kinds)) for row, kinds in ROWS.items()]


@pytest.mark.parametrize("row", ROWS)
def test_each_cell_holds_the_mean_of_its_metric_row_and_model(row):
    cells = _cells(results_table(_results(), GapReward("hashing", threshold=0.3), CONTEXT))
    kinds = ROWS[row]
    for name in NAMES:
        exact = sum(EXACT[name][k] for k in kinds) / sum(KINDS[k][3] for k in kinds)
        expected = dict(zip(METRICS, (_mean(REWARD[name], kinds), _mean(GAP[name], kinds), exact), strict=True))
        for metric, mean in expected.items():
            found, low, high = cells[metric, row, name]
            assert found == pytest.approx(mean, abs=6e-4), (metric, name)
            assert low - 0.006 <= found <= high + 0.006, (metric, name)


def test_a_type_of_action_has_its_row_from_eight_transitions_on():
    results = {"base": [p for p in _results()["base"] if p.action_type in ("open", "look")]}
    rows = [row for row, _ in _counts(results_table(results, GapReward("hashing", threshold=0.3), CONTEXT))]
    assert rows == ["all", "names nothing new", "role tool", "open", "other actions"]


def test_an_interval_resamples_games():
    """One game decides nothing; the same rewards in many games do."""
    rewards = [0.0, 1.0] * 10
    one, many = (
        {"base": [Prediction(game(i), "go", True, f"go {i}", "s", "p", r, 1 - r, False) for i, r in enumerate(rewards)]}
        for game in (lambda i: "g", lambda i: f"g{i}")
    )
    gap = GapReward("hashing", threshold=0.3)
    _, low, high = _cells(results_table(one, gap, CONTEXT))["reward at τ_d", "all", "base"]
    assert low < 0.15 < 0.85 < high  # Wilson's for one game
    _, low, high = _cells(results_table(many, gap, CONTEXT))["reward at τ_d", "all", "base"]
    assert low < 0.4 < 0.6 < high


def test_games_that_are_all_alike_do_not_make_it_certain(tmp_path):
    rows = [Prediction(f"g{i}", "go", True, f"go {i}", "s", "p", 0.0, 1.2, False) for i in range(12)]
    gap = GapReward("hashing", threshold=0.3)
    cells = _cells(results_table({"base": rows}, gap, CONTEXT))
    assert cells["reward at τ_d", "all", "base"] == (0.0, 0.0, 0.24)
    mean, low, high = cells["mean gap", "all", "base"]
    assert 0 < low < mean == 1.2 < high < 2  # a cosine gap is at most 2


def test_the_words_around_the_numbers():
    gap = GapReward("hashing", threshold=0.3, measures={"tool": {"gap": "exact", "shape": "binary", "threshold": 0.5}})
    lines = results_table(_results(), gap, CONTEXT).splitlines()
    assert lines[0].startswith("Held-out: 29 transitions of 12 games, greedy predictions, τ_d = 0.3.")
    assert lines[1] == "Data: release 7"
    assert lines[2].startswith("Messages of role 'tool': exact match, τ_d 0.5")
    assert lines[3] == "States that fit into a prediction: 25% of 'tool', 100% of 'user' (24 tokens)"
    assert lines[4] == "Tasks won: no-op 1/9"


# Differences


def _shifted(name: str, by: list[float], base: list[float]) -> list[Prediction]:
    return [
        Prediction(f"g{i}", "go", True, f"go {i}", f"state {i}", name, b + d, 0.5, False)
        for i, (b, d) in enumerate(zip(base, by, strict=True))
    ]


def _differences(table: str) -> dict[str, tuple[float, float, float, str]]:
    lines = table.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Paired differences"))
    found = {}
    for line in lines[start + 1 :]:
        numbers, verdict = line[31:].split("]")
        mean, low, high = numbers.replace("[", "").split()
        found[line[2:30].strip()] = (float(mean), float(low.rstrip(",")), float(high), verdict.strip())
    return found


def test_a_difference_has_its_sign_and_its_verdict():
    base = [0.2, 0.4, 0.3, 0.5] * 5
    both = [0.1, -0.1] * 10
    results = {
        "most frequent": _shifted("m", [0.3] * 20, base),  # RWML is below it, surely
        "base": _shifted("b", [0.0] * 20, base),
        "warm start": _shifted("w", both, base),  # neither
        "RWML": _shifted("r", [0.25, 0.15] * 10, base),  # above the base, surely
        "SFT same time": _shifted("s", [0.25, 0.15] * 10, base),  # the same as RWML
    }
    table = results_table(results, GapReward("hashing", threshold=0.3), CONTEXT)
    found = _differences(table)
    assert {pair: (mean, verdict) for pair, (mean, _, _, verdict) in found.items()} == {
        "warm start - base": (0.0, "includes 0"),
        "RWML - base": (0.2, "excludes 0"),
        "RWML - warm start": (0.2, "excludes 0"),
        "SFT same time - warm start": (0.2, "excludes 0"),
        "RWML - SFT same time": (0.0, "includes 0"),
        "RWML - most frequent": (-0.1, "excludes 0"),
    }
    assert all(low <= mean <= high for mean, low, high, _ in found.values())
    low, high = found["RWML - SFT same time"][1:3]
    assert -low == high > 0, "predictions that are alike in 20 games do not prove that models are"


def test_only_what_was_run_is_compared():
    results = {name: rows for name, rows in _results().items() if name != "warm start"}
    table = results_table(results, GapReward("hashing", threshold=0.3), CONTEXT)
    assert list(_differences(table)) == ["RWML - base"]


# Files


@pytest.mark.long
def test_the_files_hold_the_same_numbers_as_the_table(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics").mkdir()
    results = _results()
    gap = GapReward("hashing", threshold=0.3)
    said = write_report(tmp_path, RWMLConfig(), results, gap, CONTEXT)
    table = results_table(results, gap, CONTEXT)
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == table + "\n"
    assert table in said
    assert str(tmp_path / "curves.png") in said
    assert (tmp_path / "curves.png").is_file()
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (found["threshold"], found["data_version"], found["transitions"]) == (0.3, "release 7", 29)
    assert found["fits"] == {"tool": 0.25, "user": 1.0}
    assert list(found["models"]) == list(NAMES)
    cells = _cells(table)
    for name in NAMES:
        assert list(found["models"][name]) == list(METRICS)
        for metric in METRICS:
            mean, low, high = found["models"][name][metric]
            assert (round(mean, 3), round(low, 2), round(high, 2)) == pytest.approx(
                cells[metric, "all", name], abs=1e-9
            )
    differences = _differences(table)
    assert list(found["differences"]) == list(differences)
    for pair, values in found["differences"].items():
        assert [round(value, 3) for value in values] == pytest.approx(differences[pair][:3])
    assert found["differences"]["RWML - base"][0] > 0.5


def test_predictions_of_other_transitions_are_not_compared():
    results = _results()
    results["RWML"][0] = replace(results["RWML"][0], action="go elsewhere")
    with pytest.raises(ValueError, match="same transitions"):
        results_table(results, GapReward("hashing", threshold=0.3), CONTEXT)
