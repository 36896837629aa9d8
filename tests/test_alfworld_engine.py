"""The engine says, letter for letter, what stock alfworld says, and leaves no trace in the process."""

from __future__ import annotations

import gc
import json
import random
import sys

import pytest

pytest.importorskip("alfworld")
textworld = pytest.importorskip("textworld")

import fast_downward  # noqa: E402
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos  # noqa: E402
from alfworld.agents.utils.misc import Demangler  # noqa: E402
from textworld.envs.pddl import PddlEnv  # noqa: E402

from rwml_gym.alfworld import engine as engine_module  # noqa: E402
from rwml_gym.alfworld.engine import Engine  # noqa: E402
from rwml_gym.alfworld.games import TASK_TYPES, GeneratedGames, OfficialGames  # noqa: E402
from rwml_gym.alfworld.grammar import is_static  # noqa: E402
from tests.alfworld_data import official_data  # noqa: E402

ODD = [
    "",
    "   ",
    "Look",
    "look at nothing",
    "go to fridge 99",
    "{o}",
    "{o.name}",
    "#intro#",
    "[x]",
    "🙂",
    "look\n",
    "%s",
]


def stock_env(**infos):
    requested = textworld.EnvInfos(feedback=True, won=True, admissible_commands=True, extras=["gamefile"], **infos)
    return AlfredInfos(AlfredDemangler(PddlEnv(requested)))


@pytest.fixture(scope="module")
def stock():
    return stock_env()  # one for all: each leaks 35 MB of disk


def assert_same(ours, theirs):
    assert ours["feedback"] == theirs["feedback"]
    assert ours["admissible_commands"] == theirs["admissible_commands"]
    assert ours["won"] == theirs["won"]
    assert set(ours["_facts"]) == set(theirs["_facts"])


def walk_both(game, stock, steps, seed=0, plan=()):
    """Plays the same commands in both engines: random admissible ones, some odd ones, then the plan."""
    rng = random.Random(seed)
    engine = Engine()
    engine.load(game.data)
    stock.load(game.data)
    ours, theirs = engine.reset(), stock.reset()
    assert_same(ours, theirs)
    planned = list(plan)
    for _ in range(steps + len(planned)):
        if planned:
            command = planned.pop(0)
        else:
            command = rng.choice(ODD) if rng.random() < 0.2 else rng.choice(theirs["admissible_commands"])
        if rng.random() < 0.1:
            command = f"  {command} "
        (ours, score, done), (theirs, *expected) = engine.step(command), stock.step(command)
        assert [score, done] == expected
        assert_same(ours, theirs)
    engine.close()
    return ours


def generated(task_type, seed, split="generated"):
    return GeneratedGames(split, [task_type]).load(f"{split}/{task_type}/{seed}")


def test_a_won_generated_game_reads_as_in_stock(stock):
    game = generated("pick_heat_then_place_in_recep", 5)
    assert walk_both(game, stock, steps=0, plan=game.plan)["won"]


def test_a_generated_game_reads_as_in_stock(stock):
    walk_both(generated("look_at_obj_in_light", 5), stock, steps=15)


@pytest.mark.parametrize("grammar", ["original", "installed"])
def test_official_games_read_as_in_stock(stock, grammar):
    games = OfficialGames(official_data(), "valid_seen", grammar=grammar)
    walk_both(games.load(games.names[77]), stock, steps=20)


@pytest.mark.slow
@pytest.mark.parametrize("grammar", ["original", "installed"])
@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_many_official_games_read_as_in_stock(stock, grammar, task_type):
    games = OfficialGames(official_data(), "valid_train", [task_type], grammar)
    for seed, name in enumerate(games.names[::7][:2]):
        walk_both(games.load(name), stock, steps=30, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_many_generated_games_read_as_in_stock(stock, task_type):
    for seed in range(2):
        game = generated(task_type, seed, "generated_held_out")
        walk_both(game, stock, steps=30, seed=seed, plan=game.plan)


def test_a_file_is_loaded_by_its_path():
    games = OfficialGames(official_data(), "valid_seen", grammar="original")
    game = games.load(games.names[3])
    engine = Engine()
    engine.load(game.path)
    by_path = engine.reset()["feedback"]
    engine.load(game.data)
    assert engine.reset()["feedback"] == by_path
    assert game.task in by_path


def test_names_are_those_of_the_stock_demangler():
    engine = Engine()
    for task_type in TASK_TYPES:
        engine.load(generated(task_type, 1).data)
        infos = engine._entity_infos
        demangler = Demangler(game_infos=infos)
        assert {i: info.name for i, info in infos.items()} == {i: demangler.demangle_alfred_name(i) for i in infos}


def test_reset_starts_over_and_changes_nothing():
    game = generated("pick_clean_then_place_in_recep", 2)
    engine = Engine()
    engine.load(game.data)
    episodes = []
    for _ in range(3):
        state = engine.reset()
        texts = [state["feedback"], *state["admissible_commands"]]
        for action in game.plan:
            state, _, _ = engine.step(action)
            texts += [state["feedback"], *state["admissible_commands"]]
        assert state["won"]
        episodes.append(texts)
    assert episodes[0] == episodes[1] == episodes[2]


def test_engines_take_turns_without_mixing():
    games = [generated("pick_and_place_simple", seed) for seed in (1, 2, 1)]

    def play(engine, game):
        engine.load(game.data)
        yield engine.reset()["feedback"]
        for action in game.plan:
            yield engine.step(action)[0]["feedback"]

    alone = [list(play(Engine(), game)) for game in games]
    together = list(zip(*(play(Engine(), game) for game in games), strict=False))
    for index, episode in enumerate(alone):
        texts = [turn[index] for turn in together]
        assert texts == episode[: len(texts)]


def test_a_library_is_reused_after_close_and_after_garbage_collection():
    engine = Engine()
    library = engine.downward_lib
    engine.close()
    engine.close()  # twice is fine and hands it on once
    assert engine_module._libraries.count(library) == 1
    taken = [Engine() for _ in range(len(engine_module._libraries))]
    assert any(other.downward_lib is library for other in taken)
    assert len({id(other.downward_lib) for other in taken}) == len(taken)
    count = len(taken)
    del taken
    gc.collect()
    assert len(engine_module._libraries) >= count


def test_a_closed_engine_cannot_reach_the_one_that_took_its_library():
    game = generated("look_at_obj_in_light", 1)
    closed = Engine()
    closed.load(game.data)
    closed.reset()
    closed.close()
    engine = Engine()
    engine.load(game.data)
    engine.reset()
    with pytest.raises(AttributeError):
        closed.step(game.plan[0])
    assert engine.step(game.plan[0])[0]["feedback"] != "Nothing happens."


def test_translating_restores_the_process_even_on_error():
    argv, stdout = sys.argv, sys.stdout
    broken = {**generated("pick_and_place_simple", 1).data, "pddl_problem": "(define (problem p) (:domain alfred"}
    with pytest.raises(Exception):  # noqa: B017, PT011 (the translator's own)
        Engine().load(broken)
    assert sys.argv is argv
    assert sys.stdout is stdout
    assert gc.isenabled()


def test_no_library_is_patched():
    """Stock environments in the same process stay stock."""
    import textworld.envs.pddl.textgen as textgen
    from textworld.logic import Rule

    engine = Engine()
    engine.load(generated("pick_and_place_simple", 1).data)
    engine.reset()
    assert fast_downward.pddl2sas.__module__ == "fast_downward.interface"
    for function in (textgen._parse_and_convert, textgen.copy_context, textgen.ContextSensitiveGrammar.replace):
        assert function.__module__ == "textworld.envs.pddl.textgen"
    assert Rule.parse_conjunctive_query.__module__ == "textworld.logic"


def test_the_planner_is_there_when_asked_for():
    game = generated("look_at_obj_in_light", 1)
    engine = Engine(textworld.EnvInfos(admissible_commands=True, won=True, policy_commands=True))
    engine.load(game.data)
    state = engine.reset()
    while not state["won"]:
        assert state["policy_commands"]
        state, _, _ = engine.step(state["policy_commands"][0])


def test_only_commands_that_no_state_changes_are_remembered():
    fluents = frozenset({"atlocation", "inreceptacle"})
    assert is_static("open {r}", fluents)
    assert is_static("go to [{r.name | receptacleatlocation(r:receptacle, l:location)}]", fluents)
    assert not is_static("go to [{r.name | atlocation(a:agent, l:location)}]", fluents)
    assert not is_static("take [{o.name | not_inreceptacle(o:object, r:receptacle)}]", fluents)
    assert not is_static("say #task#", fluents)


def test_goal_sentences_written_by_people_read_as_in_stock(stock):
    """The text grammar of textworld has its own ideas about some signs; they are kept."""
    game = generated("pick_and_place_simple", 3)
    sentence = 'Put the "red" mug, 50% full, on Bob\'s desk; then go'
    grammar = game.data["grammar"].replace(f"to: {game.task}.", f"to: {json.dumps(sentence)[1:-1]}.")
    data = {**game.data, "grammar": grammar}
    engine = Engine()
    engine.load(data)
    stock.load(data)
    text = engine.reset()["feedback"]
    assert text == stock.reset()["feedback"]
    assert "Your task is to: Put the" in text
