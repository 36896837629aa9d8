"""The engine says, letter for letter, what stock alfworld says, from any thread, and leaves no trace in the process."""

from __future__ import annotations

import gc
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

import fast_downward
from alfworld.agents.utils.misc import Demangler

from rwml_gym.envs.alfworld.engine import stock
from rwml_gym.envs.alfworld.engine.engine import Engine, forget_games
from rwml_gym.envs.alfworld.engine.stock import TextworldEngine
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.sources import TASK_TYPES, GeneratedGames, OfficialGames
from rwml_gym.errors import InvalidGameError
from tests.helpers.alfworld_data import official_data
from tests.helpers.alfworld_stock import ODD, stock_env, walk_both


@pytest.fixture(scope="module")
def reference():
    return stock_env()  # one for all: each leaks 35 MB of disk


@pytest.fixture
def fresh_cache(monkeypatch, tmp_path):
    """Nothing translated yet, neither in memory nor on disk."""
    monkeypatch.setenv("RWML_GYM_CACHE", str(tmp_path))
    forget_games()
    yield tmp_path
    forget_games()


def generated(task_type, seed, split="generated"):
    return GeneratedGames(split, [task_type]).load(f"{split}/{task_type}/{seed}")


def play(engine, game, commands=None):
    """Everything the engine says on the way."""
    state = engine.start(game.data)
    states = [state]
    for command in commands or game.plan:
        state = engine.step(command)
        states.append(state)
    return states


# -- the same text as stock: a sample; `make test-equality` plays them all


@pytest.mark.long
def test_a_won_generated_game_reads_as_in_stock(reference):
    game = generated("pick_heat_then_place_in_recep", 5)
    assert walk_both(game, reference, steps=0, plan=game.plan).won


@pytest.mark.long
def test_a_generated_game_reads_as_in_stock(reference):
    walk_both(generated("look_at_obj_in_light", 5), reference, steps=25)


@pytest.mark.long
@pytest.mark.parametrize("grammar", ["original", "installed"])
@pytest.mark.parametrize("index", [0, 77])
def test_official_games_read_as_in_stock(reference, grammar, index):
    games = OfficialGames(official_data(), "valid_seen", grammar=grammar)
    walk_both(games.load(games.names[index]), reference, steps=25, seed=index)


@pytest.mark.long
def test_goal_sentences_written_by_people_read_as_in_stock(reference):
    """The text grammar of textworld has its own ideas about some signs; they are kept."""
    game = generated("pick_and_place_simple", 3)
    for sentence in [
        'Put the "red" mug, 50% full, on Bob\'s desk; then go',
        "a {b",
        "UNKNOWN GOAL",
        "Où ça ?",
        "x // y",
    ]:
        grammar = game.data["grammar"].replace(f"to: {game.task}.", f"to: {json.dumps(sentence)[1:-1]}.")
        data = {**game.data, "grammar": grammar}
        try:
            reference.load(data)
            expected = reference.reset()["feedback"]
        except Exception:
            with pytest.raises(Exception):  # noqa: B017, PT011 (textworld's own)
                Engine().start(data)
        else:
            assert Engine().start(data).text == expected


@pytest.mark.long
def test_textworld_is_there_as_the_reference():
    game = generated("look_at_obj_in_light", 1)
    commands = [*game.plan[:1], "look", "nonsense", *game.plan[1:]]
    assert play(TextworldEngine(), game, commands) == play(Engine(), game, commands)


@pytest.mark.long
def test_names_are_those_of_the_stock_demangler(reference):
    for task_type in TASK_TYPES:
        game = generated(task_type, 1)
        reference.load(game.data)
        infos = reference.unwrapped._entity_infos
        demangler = Demangler(game_infos=infos)
        engine = Engine()
        engine.start(game.data)
        ours = dict(zip(engine.ids, engine.names, strict=True))
        assert {i: ours[i] for i in infos} == {i: demangler.demangle_alfred_name(i) for i in infos}


# -- an engine alone


def test_starting_again_starts_over():
    game = generated("pick_clean_then_place_in_recep", 2)
    engine = Engine()
    first, second = play(engine, game), play(engine, game)
    assert first == second
    assert first[-1].won


def test_what_is_given_away_may_be_changed():
    game = generated("pick_and_place_simple", 2)
    engine = Engine()
    state = engine.start(game.data)
    expected = list(state.admissible)
    state.admissible.clear()
    nothing = engine.step("nonsense")
    assert nothing == ("Nothing happens.", expected, False)
    nothing.admissible.clear()
    assert engine.step(game.plan[0]).text != "Nothing happens."


def test_a_goal_undone_is_not_won():
    """As in stock: `won` is about now."""
    game = generated("pick_and_place_simple", 2)
    engine = Engine()
    assert play(engine, game)[-1].won
    moved = game.plan[-1].removeprefix("move ")
    assert not engine.step(f"take {moved.replace(' to ', ' from ')}").won
    assert engine.step(game.plan[-1]).won


def test_a_step_needs_a_game():
    engine = Engine()
    with pytest.raises(RuntimeError, match=r"Engine\.start"):
        engine.step("look")
    engine.start(generated("pick_and_place_simple", 1).data)
    engine.close()
    with pytest.raises(RuntimeError, match=r"Engine\.start"):
        engine.step("look")


def test_engines_take_turns_without_mixing():
    games = [generated("pick_and_place_simple", seed) for seed in (1, 2, 1)]
    alone = [play(Engine(), game) for game in games]
    engines = [Engine() for _ in games]
    together = [[engine.start(game.data)] for engine, game in zip(engines, games, strict=True)]
    for turn in range(max(len(game.plan) for game in games)):
        for engine, game, states in zip(engines, games, together, strict=True):
            if turn < len(game.plan):
                states.append(engine.step(game.plan[turn]))
    assert together == alone


def test_threads_play_and_translate_at_once(fresh_cache):
    games = [generated(kind, seed) for kind in TASK_TYPES[:3] for seed in range(2)]
    start = threading.Barrier(6)

    def in_a_thread(game):
        start.wait()
        return [play(Engine(), game) for _ in range(3)]

    with ThreadPoolExecutor(6) as pool:
        threaded = list(pool.map(in_a_thread, games))
    assert threaded == [[play(Engine(), game)] * 3 for game in games]


def test_translating_leaves_the_process_as_it_was(fresh_cache, capsys):
    argv, stdout = sys.argv, sys.stdout
    game = generated("pick_and_place_simple", 1)
    Engine().start(game.data)
    broken = {**game.data, "pddl_problem": "(define (problem p) (:domain alfred"}
    with pytest.raises(Exception):  # noqa: B017, PT011 (the translator's own)
        Engine().start(broken)
    assert sys.argv is argv
    assert sys.stdout is stdout
    assert gc.isenabled()
    assert capsys.readouterr().out == ""


def test_other_threads_can_print_while_a_game_is_translated(fresh_cache, capsys):
    begun, done, printed = threading.Event(), threading.Event(), []

    def chatter():
        while not done.wait(0.001):
            print("still here")
            printed.append("still here")
            begun.set()

    thread = threading.Thread(target=chatter)
    thread.start()
    begun.wait()
    Engine().start(generated("pick_and_place_simple", 1).data)
    done.set()
    thread.join()
    assert capsys.readouterr().out.splitlines() == printed


def test_no_library_is_patched():
    """Stock environments in the same process stay stock."""
    import textworld.envs.pddl.textgen as textgen
    from textworld.logic import Rule

    Engine().start(generated("pick_and_place_simple", 1).data)
    assert fast_downward.pddl2sas.__module__ == "fast_downward.interface"
    for function in (textgen._parse_and_convert, textgen.copy_context, textgen.ContextSensitiveGrammar.replace):
        assert function.__module__ == "textworld.envs.pddl.textgen"
    assert Rule.parse_conjunctive_query.__module__ == "textworld.logic"


# -- what a file may not do


def test_python_in_a_text_grammar_is_refused_and_not_run(tmp_path):
    game = generated("pick_and_place_simple", 1)
    trap = tmp_path / "trap"
    evil = game.data["grammar"].replace("{r.name or r.id}", "{open('" + str(trap) + "', 'w')}")
    assert evil != game.data["grammar"]
    with pytest.raises(InvalidGameError, match="which may run any Python"):
        Engine().start({**game.data, "grammar": evil})
    assert not trap.exists()


def test_a_grammar_without_an_introduction_says_so():
    game = generated("pick_and_place_simple", 1)
    with pytest.raises(InvalidGameError, match="#intro#"):
        Engine().start({**game.data, "grammar": game.data["grammar"].replace('"intro"', '"outro"')})


def test_placeholders_of_two_types_are_left_to_textworld():
    game = generated("pick_and_place_simple", 1)
    grammar = game.data["grammar"].replace(
        "openable(r:receptacle) & opened(r:receptacle)", "openable(r:object) & opened(r:object)", 1
    )
    with pytest.raises(InvalidGameError, match='engine="textworld"'):
        Engine().start({**game.data, "grammar": grammar})


def test_a_precondition_on_a_derived_predicate_is_left_to_textworld():
    game = generated("pick_and_place_simple", 1)
    rule = "(:predicates (near ?r - receptacle)\n"
    derived = (
        "(:derived (near ?r - receptacle) (exists (?a - agent ?l - location) "
        "(and (atLocation ?a ?l) (receptacleAtLocation ?r ?l))))\n(:action look"
    )
    domain = package.domain().replace("(:predicates", rule, 1).replace("(:action look", derived, 1)
    domain = domain.replace("(not (opened ?r))\n            )\n    :effect", "(near ?r)\n)\n    :effect", 1)
    with pytest.raises(InvalidGameError, match=r'derived predicate.*engine="textworld"'):
        Engine().start({**game.data, "pddl_domain": domain})


# -- the reference and its libraries


def test_a_library_is_reused_after_close_and_after_garbage_collection():
    engine = TextworldEngine()
    library = engine._env.downward_lib
    engine.close()
    engine.close()  # twice is fine and hands it on once
    assert stock._libraries.count(library) == 1
    taken = [TextworldEngine() for _ in range(len(stock._libraries))]
    assert any(other._env.downward_lib is library for other in taken)
    assert len({id(other._env.downward_lib) for other in taken}) == len(taken)
    count = len(taken)
    del taken
    gc.collect()
    assert len(stock._libraries) >= count


@pytest.mark.long
def test_a_closed_reference_cannot_reach_the_one_that_took_its_library():
    game = generated("look_at_obj_in_light", 1)
    closed = TextworldEngine()
    closed.start(game.data)
    closed.close()
    engine = TextworldEngine()
    engine.start(game.data)
    with pytest.raises(RuntimeError, match="closed"):
        closed.step(game.plan[0])
    assert engine.step(game.plan[0]).text != "Nothing happens."


def test_odd_commands_are_odd():
    """The equality tests say something about them only if they reach the engines as they are."""
    assert len(set(ODD)) == len(ODD)
    assert max(map(len, ODD)) == 10_000
    assert any(not command.isascii() for command in ODD)
