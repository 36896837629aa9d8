"""Which game follows which: each game once, over vector slots, and groups whose members play the same game."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from rwml_gym.vector.env import make_text
from rwml_gym.wrappers import WorldModelRewardVectorWrapper
from tests.helpers.alfworld_data import official_data

ID = "rwml_gym/ToyHouse-v0"
GAMES = {f"house-{number}" for number in range(10)}


def toy():
    return gymnasium.make(ID, games=10, order="each-once")


def played(env, episodes: int, seed: int | None = None) -> list[str]:
    return [env.reset(seed=seed if number == 0 else None)[1]["game"] for number in range(episodes)]


def test_each_once_plays_every_game_and_then_again_in_another_order():
    env = toy()
    first, second = (played(env, 10, seed) for seed in (3, None))
    assert set(first) == set(second) == GAMES
    assert first != second


def test_the_order_follows_from_the_seed():
    assert played(toy(), 25, seed=3) == played(toy(), 25, seed=3)
    assert played(toy(), 10, seed=3) != played(toy(), 10, seed=4)
    env = toy()
    played(env, 7, seed=3)
    assert played(env, 10, seed=3) == played(toy(), 10, seed=3)  # a seed starts over


def test_a_game_by_name_does_not_disturb_the_order():
    env = toy()
    expected = played(env, 10, seed=5)
    env.reset(seed=5)
    env.reset(options={"game": "house-3"})
    assert [env.reset()[1]["game"] for _ in range(9)] == expected[1:]


@pytest.mark.parametrize("slots", [1, 3, 10])
@pytest.mark.parametrize("workers", [0, 1])
def test_slots_share_the_games_of_one_order(slots, workers):
    envs = gymnasium.make_vec(ID, slots, games=10, order="each-once", workers=workers)
    games = [list(envs.reset(seed=8 if number == 0 else None)[1]["game"]) for number in range(30)]
    envs.close()
    order = played(toy(), 10, seed=8)
    for slot, own in enumerate(zip(*games, strict=True)):
        share = order[slot::slots]
        assert list(own[: len(share)]) == share
    flat = [name for row in games for name in row]
    assert set(flat[:10]) == GAMES if 10 % slots == 0 else set(flat) == GAMES


def test_autoreset_goes_on_with_the_next_game_of_a_slot():
    envs = make_text(ID, 2, games=10, order="each-once", max_episode_steps=1, autoreset_mode="SameStep")
    games = [list(envs.reset(seed=8)[1]["game"])]
    games += [list(envs.step(["look", "look"])[4]["game"]) for _ in range(4)]
    assert [name for row in games for name in row] == played(toy(), 10, seed=8)


def test_one_order_has_one_seed():
    envs = make_text(ID, 2, games=10, order="each-once")
    assert len(set(envs.reset(seed=[8, 9])[1]["game"])) == 2  # as one seed of 8 gives
    mask = np.array([False, True])
    for seed, options, actual in (
        ([8, 8], None, r"\[8, 8\]"),
        ([None, 9], None, r"\[None, 9\]"),
        (5, {"reset_mask": mask}, r"\[5, 6\] with the reset mask \[False, True\]"),
    ):
        with pytest.raises(InvalidConfigError, match=rf"Expected one seed for all slots .* actual: {actual}\."):
            envs.reset(seed=seed, options=options)
    envs.reset(seed=[None, None], options={"reset_mask": mask})  # each slot goes on in the order
    first, second = make_text(ID, 2).reset(seed=[8, 8])[1]["game"]  # drawn games may have any seeds
    assert first == second


def test_one_game_a_slot():
    envs = make_text(ID, 3)
    _, infos = envs.reset(options={"game": ["house-5", "house-2", "house-5"]})
    assert infos["game"].tolist() == ["house-5", "house-2", "house-5"]
    assert envs.reset(options={"game": infos["game"]})[1]["game"].tolist() == infos["game"].tolist()  # an array
    mask = np.array([False, True, False])
    _, infos = envs.reset(options={"game": ("house-1", "house-7", "house-1"), "reset_mask": mask})
    assert infos["game"][1] == "house-7"
    assert infos["_game"].tolist() == [False, True, False]
    assert len(envs.reset(seed=0, options={"game": [None, "house-1", None]})[1]["game"]) == 3
    with pytest.raises(InvalidConfigError, match=r'Expected 3 names in options\["game"\], one per slot, actual: 2'):
        envs.reset(options={"game": ["house-5", "house-2"]})


def test_one_game_a_slot_in_workers_and_below_the_reward_wrapper():
    envs = WorldModelRewardVectorWrapper(make_text(ID, 4, workers=2), encoder="hashing")
    _, infos = envs.reset(options={"game": ["house-5", "house-2", "house-5", "house-9"]})
    envs.close()
    assert infos["game"].tolist() == ["house-5", "house-2", "house-5", "house-9"]


def test_official_games_are_each_played_once():
    env = gymnasium.make("rwml_gym/ALFWorld-v0", split="valid_seen", data=official_data(), order="each-once")
    names = env.unwrapped.games.names
    assert sorted(played(env, len(names), seed=0)) == sorted(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "sorted"}, "Expected order to be one of random, each-once, actual: 'sorted'"),
        ({"order": "each-once", "share": (2, 2)}, r"Expected share \(i, n\) with 0 <= i < n, actual: \(2, 2\)"),
        ({"order": "each-once", "share": 3}, r"actual: 3"),
        ({"order": "each-once", "share": (0, 99)}, "Expected 99 to 1,000,000 games .* actual: 64"),
        ({"share": (0, 2)}, 'Expected share only with order="each-once"'),
    ],
)
def test_bad_orders_are_refused(arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        ToyHouseEnv(**arguments)


def test_games_without_end_have_no_each_once():
    with pytest.raises(InvalidConfigError, match="Choose another split"):
        gymnasium.make("rwml_gym/ALFWorld-v0", order="each-once")


def test_an_official_game_by_its_path():
    env = gymnasium.make("rwml_gym/ALFWorld-v0", split="valid_seen", data=official_data())
    games = env.unwrapped.games
    name = games.names[7]
    file = games.folder / name.removeprefix("valid_seen/") / "game.tw-pddl"
    for path in (file, file.parent, file.relative_to(official_data()), file.relative_to(games.folder), f"./{name}/"):
        assert env.reset(options={"game": str(path)})[1]["game"] == name
    for path in ("/etc/passwd", "..", "", "valid_seen", "a\0b", file.with_name("traj_data.json")):
        with pytest.raises(GameNotFoundError, match="Expected one of the"):
            env.reset(options={"game": str(path)})
