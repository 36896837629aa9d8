"""Every game at hand, letter for letter as in stock alfworld: `make test-equality`, an hour or more."""

from __future__ import annotations

import multiprocessing
import os

import pytest

pytest.importorskip("alfworld")

from rwml_gym.envs.alfworld.games.sources import TASK_TYPES, GeneratedGames, OfficialGames
from tests.helpers.alfworld_data import official_data
from tests.helpers.alfworld_stock import stock_env, walk_both

STEPS = 50
GENERATED = 300


def walk_share(share: list[tuple[dict, str, int]]) -> int:
    """Plays games, one after the other, in a process of its own; says how many."""
    stock = stock_env()
    for source, name, seed in share:
        games = OfficialGames(**source) if "data" in source else GeneratedGames(**source)
        game = games.load(name)
        walk_both(game, stock, STEPS, seed, plan=game.plan or ())
    return len(share)


def walk_all(tasks: list[tuple[dict, str, int]]) -> int:
    processes = os.cpu_count() or 1
    shares = [tasks[start::processes] for start in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return sum(pool.map(walk_share, shares, chunksize=1))


@pytest.mark.slow
@pytest.mark.parametrize("grammar", ["installed", "original"])
@pytest.mark.parametrize(("split", "count"), [("valid_seen", 140), ("valid_train", 200)])
def test_every_official_game_reads_as_in_stock(split, count, grammar):
    source = {"data": str(official_data()), "split": split, "grammar": grammar}
    names = OfficialGames(**source).names
    assert walk_all([(source, name, seed) for seed, name in enumerate(names)]) == count


@pytest.mark.slow
def test_generated_games_read_as_in_stock():
    names = GeneratedGames("generated").names[:GENERATED]
    assert {name.split("/")[1] for name in names} == set(TASK_TYPES)
    assert walk_all([({"split": "generated"}, name, seed) for seed, name in enumerate(names)]) == GENERATED
