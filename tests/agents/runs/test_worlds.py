"""Which games a run trains on and which it holds out: never the same one, and always those that were asked for."""

from __future__ import annotations

import importlib.util

import pytest

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.runs.worlds import Source, choose_games
from rwml_gym.errors import GameNotFoundError, InvalidConfigError, InvalidGameError
from rwml_gym.transitions import Transition, TransitionDataset, Turn
from tests.helpers import plain_env  # noqa: F401 (registers an id that names no games)


def _needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


PLAIN = EnvConfig("rwml_gym_tests/Plain-v0")
SMALL_GAMES = EnvConfig("alfworld", task_types=("pick_and_place_simple",))
SOURCES = [
    pytest.param(EnvConfig("toy"), id="toy, of two splits"),
    pytest.param(EnvConfig("toy", split="held_out"), id="toy, one split divided"),
    pytest.param(SMALL_GAMES, id="alfworld, of two splits", marks=_needs("alfworld")),
    pytest.param(
        EnvConfig("alfworld", split="generated_held_out"), id="alfworld, one split divided", marks=_needs("alfworld")
    ),
    pytest.param(EnvConfig("tau2", domain="retail"), id="retail, of two splits", marks=_needs("tau2")),
    pytest.param(EnvConfig("tau2", domain="mock", split="base"), id="mock, one split divided", marks=_needs("tau2")),
    pytest.param(PLAIN, id="an id whose games are seeds"),
]


@pytest.mark.parametrize("config", SOURCES)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_game_is_trained_on_and_held_out(config, seed):
    games = Source(config).prepare(seed, 4, 3, 5)
    assert (len(set(games.train)), len(games.train)) == (4, 4)
    assert (len(set(games.held_out)), len(games.held_out)) == (3, 3)
    assert not set(games.train) & set(games.held_out)


@pytest.mark.parametrize("config", SOURCES)
def test_the_environments_play_the_games_that_were_chosen_for_them(config):
    games = Source(config).prepare(0, 2, 2, 5)
    for make_env, names in ((games.make_env, games.train), (games.make_held_out_env, games.held_out)):
        with make_env() as env:
            assert env.spec.max_episode_steps == 5
            for name in names:
                if isinstance(name, str):
                    assert env.reset(options={"game": name})[1]["game"] == name
                else:
                    env.reset(seed=name)


@pytest.mark.parametrize("config", SOURCES)
def test_games_follow_from_the_seed_and_those_of_another_are_others(config):
    def chosen(seed: int) -> tuple[list, list]:
        games = Source(config).prepare(seed, 4, 3, 5)
        return games.train, games.held_out

    assert chosen(0) == chosen(0)
    assert chosen(0)[0] != chosen(1)[0]
    assert chosen(0)[1] != chosen(1)[1]


def test_a_split_with_a_counterpart_is_trained_on_whole_and_the_counterpart_held_out():
    source = Source(EnvConfig("toy"))
    with source.make(split="train")() as train, source.make(split="held_out")() as held_out:
        names, other = set(train.unwrapped.games.names), set(held_out.unwrapped.games.names)
    games = source.prepare(0, 0, len(other), 5)
    assert set(games.train) == names
    assert set(games.held_out) == other
    assert not names & other


def test_of_a_split_without_a_counterpart_all_that_is_not_held_out_is_trained_on():
    source = Source(EnvConfig("toy", split="held_out"))
    with source.make()() as env:
        names = set(env.unwrapped.games.names)
    games = source.prepare(0, 0, 3, 5)
    assert len(games.held_out) == 3
    assert len(games.train) == len(names) - 3
    assert {*games.train, *games.held_out} == names


@pytest.mark.parametrize("held_out", [0, 1])
def test_a_split_that_is_held_out_whole_leaves_nothing_to_train_on(held_out):
    source = Source(EnvConfig("toy", split="held_out"))
    with source.make()() as env:
        count = len(env.unwrapped.games.names)
    with pytest.raises(InvalidConfigError, match=rf"{count + held_out} of {count} are held out. Hold out fewer"):
        source.prepare(0, 0, count + held_out, 5)


def test_a_training_game_is_listed_once_for_each_rollout_and_a_held_out_one_once():
    once, thrice = (Source(EnvConfig("toy")).prepare(0, 3, 2, 5, rollouts) for rollouts in (1, 3))
    assert thrice.train == [game for game in once.train for _ in range(3)]
    assert thrice.held_out == once.held_out


def test_two_splits_that_share_games_are_refused(monkeypatch):
    from rwml_gym.agents.runs import worlds

    same = worlds.World(
        "the toy", "rwml_gym/ToyHouse-v0", ("split",), split="train", held_out={"train": "train"}, expert=True
    )
    monkeypatch.setitem(worlds.WORLDS, "toy", same)
    with pytest.raises(InvalidConfigError, match="no game both in training and held out"):
        Source(EnvConfig("toy")).prepare(0, 3, 3, 5)


# The choice


def test_excluded_games_are_not_chosen():
    with Source(EnvConfig("toy", split="held_out")).make()() as env:
        names = env.unwrapped.games.names
        taken = set(names[::2])
        rest = len(names) - len(taken)
        for seed in range(5):
            chosen = choose_games(env, rest, seed, exclude=taken)
            assert len(set(chosen)) == rest
            assert not set(chosen) & taken
        with pytest.raises(InvalidConfigError, match=rf"Expected {rest + 1} playable games, actual: {rest}"):
            choose_games(env, rest + 1, 0, exclude=taken)


def test_excluded_seeds_are_not_chosen():
    with Source(PLAIN).make()() as env:
        first = choose_games(env, 6, seed=3)
        taken = set(first[:4])
        others = choose_games(env, 6, seed=3, exclude=taken)
        assert len(set(first)) == len(set(others)) == 6
        assert not set(others) & taken
        assert others[:2] == first[4:]  # the same draw, without what is taken


def test_a_game_that_cannot_be_played_is_passed_over_and_named(capsys, monkeypatch):
    with Source(EnvConfig("toy")).make()() as env:
        games = env.unwrapped.games
        broken = choose_games(env, 3, seed=0)[1]
        load = type(games).load

        def loads(self, name):
            if name == broken:
                raise InvalidGameError(f"{name} is broken")
            return load(self, name)

        monkeypatch.setattr(type(games), "load", loads)
        chosen = choose_games(env, 3, seed=0)
    assert len(set(chosen)) == 3
    assert broken not in chosen
    assert f"Left out: {broken}" in "".join(capsys.readouterr())


def test_no_games_are_no_games():
    with Source(EnvConfig("toy")).make()() as env:
        assert choose_games(env, 0, 0) == []


# Splits to evaluate


def test_splits_are_held_out_each_by_itself_with_a_step_budget_of_their_own():
    source = Source(EnvConfig("toy"))
    with source.make(split="held_out")() as env:
        names = set(env.unwrapped.games.names)
    games = source.prepare(0, 4, None, 5, splits=("held_out",), held_out_steps=9)
    assert list(games.sets) == ["held_out"]
    assert set(games.held_out) == names
    with games.make_env() as env, games.sets["held_out"].make_env() as other:
        assert (env.spec.max_episode_steps, other.spec.max_episode_steps) == (5, 9)
        assert other.reset(options={"game": games.held_out[0]})[1]["game"] == games.held_out[0]
    some = source.prepare(0, 4, 3, 5, splits=("held_out",))
    assert len(some.held_out) == 3
    assert set(some.held_out) <= names


def test_the_training_split_cannot_be_evaluated_as_another():
    with pytest.raises(InvalidConfigError, match="no game both in training and held out"):
        Source(EnvConfig("toy")).prepare(0, 0, None, 5, splits=("train",))
    with pytest.raises(InvalidConfigError, match="held_out"):
        Source(EnvConfig("toy")).prepare(0, 4, 3, 5, splits=("valid",))


def test_all_held_out_games_need_a_split_of_their_own():
    whole = Source(EnvConfig("toy")).prepare(0, 4, None, 5)
    with Source(EnvConfig("toy", split="held_out")).make()() as env:
        assert len(whole.held_out) == len(env.unwrapped.games.names)
    with pytest.raises(InvalidConfigError, match=r"actual: all\..*--evaluation\.splits"):
        Source(EnvConfig("toy", split="held_out")).prepare(0, 4, None, 5)


@_needs("alfworld")
def test_games_without_end_are_not_all_evaluated():
    with pytest.raises(InvalidConfigError, match="a number of held-out games"):
        Source(SMALL_GAMES).prepare(0, 4, None, 5)


def test_of_all_games_those_that_can_be_played_are_trained_on(monkeypatch):
    source = Source(EnvConfig("toy"))
    with source.make(split="train")() as env:
        names, load = set(env.unwrapped.games.names), type(env.unwrapped.games).load
        games = type(env.unwrapped.games)
    broken = min(names)

    def loads(self, name):
        if name == broken:
            raise InvalidGameError(f"{name} is broken")
        return load(self, name)

    monkeypatch.setattr(games, "load", loads)
    assert set(source.prepare(0, 0, 3, 5).train) == names - {broken}
    assert set(source.prepare(0, 0, 3, 5, load=False).train) == names  # files are not opened


# What prompts hold of a game


@_needs("tau2")
def test_rules_are_those_of_the_games_domain():
    games = Source(EnvConfig("tau2", domain="all")).prepare(0, 2, 2, 5)
    with games.make_env() as train, games.make_held_out_env() as test:
        names = {"airline": train.unwrapped.games.names, "retail": test.unwrapped.games.names}
    chosen = {domain: next(name for name in names[domain] if name.startswith(domain)) for domain in names}
    texts = {domain: games.rules(name) for domain, name in chosen.items()}
    for domain, text in texts.items():
        assert text.startswith("Policy:\n")
        assert ("reservation" in text) == (domain == "airline")
        assert '\n{"name": "' in text
    with pytest.raises(GameNotFoundError, match="--no-show-policy"):
        games.rules("mock/base/0")
    assert Source(EnvConfig("toy")).prepare(0, 2, 2, 5).rules("house-1") == ""


@_needs("tau2")
def test_what_the_user_knows_is_asked_for_unless_told_not_to():
    for config, told in ((EnvConfig("tau2"), True), (EnvConfig("tau2", '{"known_info": false}'), False)):
        source = Source(config)
        games = source.prepare(0, 2, 2, 5, **source.known_arguments)
        for make_env, name in ((games.make_env, games.train[0]), (games.make_held_out_env, games.held_out[0])):
            with make_env() as env:
                assert bool(env.reset(options={"game": name})[1]["known_info"]) == told
    assert Source(EnvConfig("toy")).known_arguments == {}


def test_recorded_transitions_of_another_environment_are_refused_and_those_of_an_own_one_are_taken(tmp_path):
    def saved(env_id: str) -> str:
        path = tmp_path / ("of " + env_id).replace("/", "-")
        turns = (Turn("", "You are in the hall."),)
        TransitionDataset([Transition(turns, "look", "You are in the hall.", env_id=env_id, game="g")]).save(path)
        return str(path)

    source = Source(EnvConfig("toy"))
    for env_id in ("rwml_gym/ToyHouse-v0", "MyEnv", ""):
        assert len(source.load(saved(env_id))) == 1
    with pytest.raises(InvalidConfigError, match=r"of rwml_gym/ToyHouse-v0.*of rwml_gym/Tau2-v0.*--env tau2"):
        source.load(saved("rwml_gym/Tau2-v0"))
