"""The toy house: the template of an environment, so it keeps everything that `TextEnv` promises."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import rwml_gym  # noqa: F401 - registers the ids
from rwml_gym.envs.base import INFO_KEYS, GameSource, TextEnv
from rwml_gym.envs.toy import COUNT, SPLITS, Houses, ToyHouseEnv
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from rwml_gym.vector.env import TextVectorEnv

ID = "rwml_gym/ToyHouse-v0"


def test_gymnasium_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, disable_env_checker=True, expert=True).unwrapped, skip_render_check=False)


def test_no_house_is_in_two_splits_and_no_two_houses_are_the_same():
    assert [*SPLITS["train"], *SPLITS["held_out"]] == list(range(COUNT))
    houses = [Houses(split, len(numbers)) for split, numbers in SPLITS.items()]
    layouts = {
        (*house.places.values(), house.target, house.goal, house.start)
        for source in houses
        for house in map(source.load, source.names)
    }
    assert len(layouts) == COUNT
    assert all(house.goal != house.places[house.target] for house in map(houses[1].load, houses[1].names[:200]))


@pytest.mark.parametrize("split", SPLITS)
def test_the_expert_wins_every_game_in_a_few_steps(split):
    env = gymnasium.make(ID, split=split, games=100, expert=True)
    for game in env.unwrapped.games.names:
        _, info = env.reset(options={"game": game})
        assert set(info) - {"expert_action"} <= INFO_KEYS.keys()
        rewards = []
        while not info["won"]:
            assert info["expert_action"] in info["admissible_actions"]
            _, reward, terminated, truncated, info = env.step(info["expert_action"])
            rewards.append(reward)
        assert (terminated, truncated, info["expert_action"]) == (True, False, "")
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
        assert len(rewards) <= 4


def test_admissible_actions_are_listed_verb_by_verb_in_the_order_of_rooms_and_things():
    env = ToyHouseEnv()
    _, info = env.reset(options={"game": "house-0"})  # everything is in the kitchen
    takes = [f"take {thing}" for thing in ("mug", "apple", "book", "soap", "key")]
    assert info["admissible_actions"] == ["look", "go to bedroom", "go to bathroom", *takes]
    for action in ("take key", "take apple", "go to bedroom"):
        *_, info = env.step(action)
    assert info["admissible_actions"] == ["look", "go to kitchen", "go to bathroom", "drop apple", "drop key"]


def test_an_action_that_is_not_admissible_costs_a_step_and_changes_nothing():
    env = ToyHouseEnv(render_mode="ansi")
    before, info = env.reset(seed=3)
    observation, reward, terminated, _, after = env.step("fly")
    assert (observation, reward, terminated, after["invalid_action"]) == ("Nothing happens.", 0.0, False, True)
    assert after["admissible_actions"] == info["admissible_actions"]
    assert env.render() == "> fly\nNothing happens."
    assert env.step("look")[0] == before


def test_many_are_played_side_by_side():
    envs = TextVectorEnv([lambda: gymnasium.make(ID)] * 3)
    observations, infos = envs.reset(seed=0)
    single = [gymnasium.make(ID).reset(seed=seed) for seed in range(3)]
    assert observations == tuple(observation for observation, _ in single)
    assert list(infos["game"]) == [info["game"] for _, info in single]
    envs.close()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: ToyHouseEnv(split="test"), InvalidConfigError, "train, held_out, actual: 'test'"),
        (lambda: ToyHouseEnv(split=["train"]), InvalidConfigError, r"train, held_out, actual: \['train'\]"),
        (lambda: ToyHouseEnv(games=5833), InvalidConfigError, "from 1 to 5832, actual: 5833"),
        (lambda: ToyHouseEnv(games=0), InvalidConfigError, "a whole number of at least 1, actual: 0"),
        (lambda: ToyHouseEnv(games=2.5), InvalidConfigError, r"a whole number of at least 1, actual: 2\.5"),
        (lambda: ToyHouseEnv(games="64"), InvalidConfigError, "a whole number of at least 1, actual: '64'"),
        (lambda: ToyHouseEnv(render_mode="human"), InvalidConfigError, "actual: 'human'"),
        (lambda: ToyHouseEnv().reset(options={"game": "house-64"}), GameNotFoundError, "'house-0', actual: 'house-64'"),
        (lambda: ToyHouseEnv().reset(options={"game": ["house-0"]}), GameNotFoundError, r"of one game.*\['house-0'\]"),
        (lambda: ToyHouseEnv().reset(options={"game": np.array(["house-0"])}), GameNotFoundError, "of one game.*array"),
        (lambda: ToyHouseEnv().reset(options={"game": 3}), GameNotFoundError, "of one game.*actual: 3"),
        (lambda: ToyHouseEnv().reset(options="game"), InvalidConfigError, "Expected options .*, actual: 'game'"),
        (lambda: ToyHouseEnv().reset(options={"gmae": 1}), InvalidConfigError, "also 'gmae'"),
        (lambda: ToyHouseEnv().step("look"), ResetNeeded, r"Call reset\(\)"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_failed_reset_leaves_an_environment_that_has_to_be_reset():
    env = ToyHouseEnv()
    env.reset(seed=0)
    with pytest.raises(GameNotFoundError):
        env.reset(options={"game": "nowhere"})
    with pytest.raises(ResetNeeded):
        env.step("look")
    with pytest.raises(TypeError, match="string"):
        env.step(3)


def test_an_environment_needs_two_methods_and_a_source_of_games():
    class Echo(TextEnv[str]):
        def _begin(self, game):
            return game, {"game": game}

        def _act(self, action):
            return action, 0.0, False, False, {}

    class Words:
        names = ("one", "two")

        def sample(self, rng):
            return self.names[int(rng.integers(2))]

        def load(self, name):
            return name

    source: GameSource[str] = Words()
    env = Echo(source)
    assert env.reset(options={"game": "two"}) == ("two", {"game": "two"})
    assert env.reset(seed=1) == env.reset(seed=1)
    assert env.step("three")[0] == "three"
