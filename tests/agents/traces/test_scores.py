"""Scores and their intervals are those of the definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym.agents.evaluation.table import comparison_text, row_line, table_json, table_text
from rwml_gym.agents.traces.records import EpisodeRecord
from rwml_gym.agents.traces.scores import compare, groups_of, pass_hat, score, success_interval
from rwml_gym.errors import InvalidConfigError
from rwml_gym.statistics import wilson_interval

HEADER = {
    "agent": "litellm:m",
    "model": "m",
    "env": "tau2",
    "domain": "retail",
    "split": "base",
    "user": "solo",
    "panel": "0123456789ab",
    "games": 4,
    "trials": 1,
    "seed": 5,
    "max_steps": 100,
    "made_with": {"versions": {"rwml-gym": "9.9"}, "commit": "abcdef"},
}


def episodes(wins: dict[str, list[bool]], **fields) -> list[EpisodeRecord]:
    """Episodes by game and trial."""
    values = {"reward": 0.0, "steps": 10, **fields}
    numbered = [(game, trial, won) for game, row in wins.items() for trial, won in enumerate(row)]
    return [EpisodeRecord(i, game, trial, won=won, **values) for i, (game, trial, won) in enumerate(numbered)]


def test_one_trial_has_wilsons_interval():
    played = episodes({"a": [True], "b": [False], "c": [False]})
    assert success_interval(played) == (1 / 3, *wilson_interval(1, 3))


def test_trials_of_a_game_are_no_independent_episodes():
    """Ten games that are all won or all lost, eight times each, say no more than ten episodes."""
    many = success_interval(episodes({f"g{i}": [i < 5] * 8 for i in range(10)}))
    assert many[0] == 0.5
    assert many[2] - many[1] > 0.4
    assert success_interval(episodes({f"g{i}": [True] * 8 for i in range(10)}))[1:] == wilson_interval(10, 10)


@pytest.mark.parametrize("wins", [{"a": [True, True, False, False]}, {f"g{i}": [True, False] for i in range(3)}])
def test_games_that_are_alike_do_not_make_the_success_certain(wins):
    played = episodes(wins)
    for value, low, high in (success_interval(played), pass_hat(played)[1]):
        assert (value, low, high) == (0.5, *wilson_interval(len(wins) / 2, len(wins)))
        assert high - low > 0.5


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_pass_hat_is_the_share_of_subsets_that_are_all_won(table):
    found = pass_hat(episodes({f"g{i}": row for i, row in enumerate(table)}))
    assert list(found) == [1, 2, 3, 4]
    for k, (value, low, high) in found.items():
        shares = [sum(map(all, combinations(row, k))) / len(list(combinations(row, k))) for row in table]
        assert value == pytest.approx(sum(shares) / len(shares))
        assert -1e-9 <= low <= value + 1e-9
        assert value <= high + 1e-9


def test_one_trial_has_no_pass_hat():
    assert pass_hat(episodes({"a": [True], "b": [True]})) == {}


def test_each_row_has_its_own_episodes():
    """Rates, steps and invalid actions are all distinct, so that no number can stand in another's place."""
    rows = [
        *[("heat", i < 4, 10, 1, 2) for i in range(5)],
        *[("cool", i < 1, 20, 5, 6) for i in range(3)],
        *[("clean", False, 40, 30, 31) for i in range(2)],
    ]
    played = [
        EpisodeRecord(i, f"g{i}", 0, won, 0.0, steps, task_type=kind, invalid=invalid, inefficient=inefficient)
        for i, (kind, won, steps, invalid, inefficient) in enumerate(rows)
    ]
    found = {name: score(chosen) for name, chosen in groups_of(played).items()}
    assert {name: (s.episodes, round(s.success[0] * s.episodes), s.steps) for name, s in found.items()} == {
        "all": (10, 5, 19.0),
        "clean": (2, 0, 40.0),
        "cool": (3, 1, 20.0),
        "heat": (5, 4, 10.0),
    }
    assert (found["cool"].invalid, found["cool"].inefficient) == (0.25, 0.3)
    table = table_text({**HEADER, "games": 10}, played)
    line = next(line for line in table.splitlines() if line.startswith("heat"))
    low, high = wilson_interval(4, 5)
    assert line.split() == ["heat", "5", "0.800", f"[{low:.3f},", f"{high:.3f}]", "10.0", "10.0%", "20.0%"]


def test_a_task_type_of_the_name_of_another_row_replaces_none():
    played = episodes({"a": [True]}, task_type="all", domain="x") + episodes({"b": [False]}, task_type="x", domain="y")
    rows = {name: [e.game for e in chosen] for name, chosen in groups_of(played).items()}
    assert rows == {"all": ["a", "b"], "x": ["a"], "y": ["b"], "all (task type)": ["a"], "x (task type)": ["b"]}
    assert "2 episodes of 4" in table_text(HEADER, played)


def test_tasks_with_wrong_data_are_told_apart():
    played = episodes({"a": [True]}) + episodes({"b": [False]}, known_problem="the goal cannot be reached")
    assert list(groups_of(played)) == ["all", "without known problems"]
    assert "1 of 2 tasks have wrong data" in table_text(HEADER, played)


def test_cost_is_by_won_task_and_parts_by_those_that_count():
    played = episodes({"a": [True], "b": [False]}, cost=0.5, counted=["DB"], score_parts={"DB": 1.0, "ACTION": 0.0})
    found = score(played)
    assert (found.cost, found.cost_per_win) == (1.0, 1.0)
    assert found.parts == {"DB": (2, 2)}
    assert score(episodes({"a": [False]}, cost=0.5)).cost_per_win is None
    table = table_text(HEADER, played)
    assert "1.0000 US dollars in all, 1.0000 for each won episode" in table
    assert "DB 2/2" in table


def test_the_head_says_who_played_what():
    table = table_text(HEADER, episodes({"a": [True]}))
    for part in ("litellm:m", "tau2 retail base user solo", "0123456789ab: 4 games", "seed 5", "100 steps", "abcdef"):
        assert part in table
    assert "1 episodes of 4, unfinished" in table
    row = row_line(HEADER, episodes({"a|b": [True]}, data_version="v1|x"))
    assert row.startswith("| litellm:m | tau2 retail base user solo | 4 x 1, 1 of 4 episodes | `0123456789ab` | 1.0")
    assert "| 4 x 1 |" in row_line(HEADER, episodes({game: [True] for game in "abcd"}))
    assert row.endswith("| v1\\|x |")
    assert table_json(HEADER, episodes({"a": [True]}))["scores"]["all"]["episodes"] == 1


def test_a_failure_is_counted_and_named():
    played = episodes({"a": [False]}, error="ValueError: \x1b[31mred", failed="agent")
    assert "1 episodes were ended by a failure" in table_text(HEADER, played)


def test_an_environment_that_says_nothing_of_success_is_not_said_to_fail():
    table = table_text(HEADER, [EpisodeRecord(0, "3", 0, False, 0.75, 2, judged=False)])
    assert 'gives no info["won"]' in table
    assert "mean reward of an episode: 0.750" in table


def test_pairs_are_compared_by_game_and_trial():
    first = episodes({"a": [True, False], "b": [False, False], "only here": [True]})
    second = episodes({"b": [True, False], "a": [True, True]})
    found = compare(first, second)
    assert found is not None
    assert (found.pairs, found.games) == (4, 2)
    assert found.success == (0.25, 0.75)
    assert found.difference[0] == 0.5
    assert (found.only_first, found.only_second) == ([], [("a", 1), ("b", 0)])
    assert "Only y won: 2." in comparison_text("x", "y", found)
    assert compare(first, episodes({"elsewhere": [True]})) is None


def test_episodes_of_one_name_are_not_paired_by_chance():
    twice = episodes({"a": [True]}) + episodes({"a": [False]})
    with pytest.raises(InvalidConfigError, match="'a', trial 0, 2 times"):
        compare(twice, twice[:1])


def test_the_number_of_games_is_that_of_the_normal_test():
    """Of pairs that differ in half the cases, to either side, the variance is a half."""
    first = episodes({f"g{i}": [i % 2 == 0] for i in range(400)})
    second = episodes({f"g{i}": [(i // 2) % 2 == 0] for i in range(400)})
    found = compare(first, second, 0.05)
    assert found is not None
    assert found.needed == pytest.approx((1.959964 + 0.841621) ** 2 * 0.5 / 0.05**2, rel=0.01)


def test_equal_runs_do_not_prove_that_agents_are_equal():
    same = episodes({f"g{i}": [True] for i in range(10)})
    found = compare(same, same)
    assert found is not None
    assert found.difference[1] < -0.2
    assert found.difference[2] > 0.2
    assert "do not tell which is better" in comparison_text("x", "y", found)


@pytest.mark.parametrize(
    ("wins", "games", "trials", "p"),
    [(1, 1, 1, 1.0), (4, 4, 1, 0.125), (4, 100, 1, 0.125), (6, 6, 1, 0.03125), (6, 100, 1, 0.03125), (3, 3, 4, 0.25)],
)
def test_few_games_prove_no_difference(wins, games, trials, p):
    """McNemar's exact test has these values; six games are the fewest that can tell."""
    first = episodes({f"g{i}": [False] * trials for i in range(games)})
    second = episodes({f"g{i}": [i < wins] * trials for i in range(games)})
    found, reverse = compare(first, second), compare(second, first)
    assert found is not None
    assert reverse is not None
    assert found.p == reverse.p == p
    assert found.difference[0] == wins / games
    assert reverse.difference == pytest.approx([-found.difference[place] for place in (0, 2, 1)])
    better = p < 0.05
    assert ("y is better" in comparison_text("x", "y", found)) == better
    assert ("x is better" in comparison_text("x", "y", reverse)) == better
    if trials == 1:
        assert (found.difference[1] > 0) == better


@pytest.mark.parametrize(("games", "differ"), [(1, 0.5), (4, 0.5), (20, 0.3), (100, 0.04), (200, 0.3)])
def test_equal_agents_are_rarely_told_apart(games, differ):
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        kinds = rng.choice(3, games, p=[differ / 2, differ / 2, 1 - differ])
        first, second = ({f"g{i}": [bool(kind == own)] for i, kind in enumerate(kinds)} for own in (0, 1))
        found = compare(episodes(first), episodes(second))
        assert found is not None
        wrong += found.significant or not found.difference[1] <= 0 <= found.difference[2]
    assert wrong <= 0.05 * 300
