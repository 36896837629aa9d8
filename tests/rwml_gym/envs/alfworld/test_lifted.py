"""What may be done is looked up in the facts, and is what fast-downward grounds."""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

from rwml_gym.envs.alfworld.engine.compiled import compile_game
from rwml_gym.envs.alfworld.engine.engine import Engine
from rwml_gym.envs.alfworld.engine.grammar import _known, load, parse, without_goal
from rwml_gym.envs.alfworld.engine.grounded import GroundedPlay
from rwml_gym.envs.alfworld.engine.lifted import LiftedPlay
from rwml_gym.envs.alfworld.engine.pddl import UnsupportedPDDL, read_domain, read_problem
from rwml_gym.envs.alfworld.games import package
from rwml_gym.envs.alfworld.games.sources import TASK_TYPES, GeneratedGames, OfficialGames
from rwml_gym.storage.disk_cache import content_hash
from tests.helpers.alfworld_data import official_data
from tests.helpers.alfworld_operators import grounded, lifted, lifted_game
from tests.helpers.alfworld_stock import odd_command

GENERATED = [f"generated/{kind}/{seed}" for seed in range(84) for kind in TASK_TYPES]  # 504 games


def official(split, index, grammar="installed"):
    games = OfficialGames(official_data(), split, grammar=grammar)
    return games.load(games.names[index])


def check_operators(game):
    ours, theirs = lifted(lifted_game(game.data)), grounded(game.data)
    for part, expected in theirs.items():
        assert ours[part] == expected, (game.name, part)
    assert len(theirs["operators"]) > 100


def check_walk(game, steps=40):
    """The same texts, commands and ends as from fast-downward's operators, on the way of a random player."""
    shared = lifted_game(game.data)
    ours = LiftedPlay(shared)
    compiled = compile_game(game.data["pddl_domain"], game.data["pddl_problem"], shared.texts, shared.goal_sentence)
    theirs = GroundedPlay(compiled)
    rng = random.Random(game.name)
    state = ours.start()
    assert state == theirs.start()
    commands = [None] * steps + list(game.plan or ())
    for command in commands:
        command = command or (odd_command if rng.random() < 0.1 else lambda r, a: r.choice(a))(rng, state.admissible)
        state = ours.step(command)
        assert state == theirs.step(command), (game.name, command)
    assert set(ours.facts) == set(theirs.facts)
    for predicate, rows in theirs.facts.items():
        assert ours.facts[predicate] == rows, predicate


@pytest.mark.long
@pytest.mark.parametrize("name", [GENERATED[11 * index] for index in range(6)])
def test_generated_operators_are_those_of_fast_downward(name):
    check_operators(GeneratedGames().load(name))


@pytest.mark.long
@pytest.mark.parametrize("index", [3, 60])
def test_official_operators_are_those_of_fast_downward(index):
    check_operators(official("valid_seen", index))


@pytest.mark.parametrize("name", [GENERATED[7 * index + 1] for index in range(6)])
def test_generated_games_are_played_as_from_operators(name):
    check_walk(GeneratedGames().load(name))


@pytest.mark.parametrize("grammar", ["installed", "original"])
def test_official_games_are_played_as_from_operators(grammar):
    check_walk(official("valid_seen", 8, grammar))


@pytest.mark.slow
@pytest.mark.parametrize("share", range(6))
def test_all_generated_games(share):
    games = GeneratedGames()
    for name in GENERATED[share::6]:
        check_operators(games.load(name))
        check_walk(games.load(name))


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("valid_seen", 140), ("valid_train", 200)])
def test_all_official_games(split, count):
    games = {grammar: OfficialGames(official_data(), split, grammar=grammar) for grammar in ("installed", "original")}
    assert len(games["installed"].names) == count
    for name in games["installed"].names:
        check_operators(games["installed"].load(name))
        for source in games.values():
            check_walk(source.load(name), steps=20)


def test_a_copy_goes_on_where_the_first_one_was():
    game = GeneratedGames().load(GENERATED[2])
    engine = Engine()
    engine.start(game.data)
    for command in game.plan[:3]:
        engine.step(command)
    other = pickle.loads(pickle.dumps(engine))
    for command in game.plan[3:]:
        assert engine.step(command) == other.step(command)


def test_plays_of_one_game_do_not_share_what_changes():
    game = GeneratedGames().load(GENERATED[1])
    shared = lifted_game(game.data)
    first, second = LiftedPlay(shared), LiftedPlay(shared)
    before = second.start()
    for command in game.plan:
        first.step(command)
    assert second.start() == before
    assert LiftedPlay(shared).start() == before


REWRITES = {
    "implication": ("(or (not (openable ?r)) (opened ?r))", "(imply (openable ?r) (opened ?r))"),
    "universal": (
        "(or (not (openable ?r)) (opened ?r))",
        "(not (forall (?x - agent) (and (openable ?r) (not (opened ?r)))))",
    ),
}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_what_is_not_read_is_left_to_fast_downward(rewrite):
    """The same domain in other words, which only fast-downward reads, plays the same."""
    game = GeneratedGames().load(GENERATED[0])
    domain = package.domain().replace(*REWRITES[rewrite])
    assert domain != package.domain()
    with pytest.raises(UnsupportedPDDL):
        read_domain(domain)
    ours, theirs = Engine(), Engine()
    state = ours.start(game.data)
    assert theirs.start({**game.data, "pddl_domain": domain}) == state
    assert isinstance(theirs._play, GroundedPlay)
    for command in game.plan:
        state = ours.step(command)
        assert theirs.step(command) == state
    assert state.won


DOMAIN = """(define (domain d) (:types thing place) (:predicates (at ?t - thing ?p - place) (lit ?p - place))
(:action move :parameters (?t - thing ?p - place ?q - place) ; a comment
 :precondition (and (at ?t ?p) (or (at ?q ?q) (exists (?o - thing) (and (at ?o ?q) (not (= ?o ?t))))))
 :effect (and (not (at ?t ?p)) (when (lit ?q) (not (lit ?q))) (at ?t ?q))))"""
PROBLEM = """(define (problem p) (:domain d) (:objects a b - thing x - place y - place)
(:init (at a x) (at b y) (= (distance x y) 3)) (:goal (exists (?t - thing) (at ?t y))))"""


def test_a_domain_in_normal_form():
    domain = read_domain(DOMAIN)
    first, second = domain.schemas  # one for each part of the disjunction
    assert first.parameters == second.parameters == (("?t", "thing"), ("?p", "place"), ("?q", "place"))
    assert [tuple(literal) for literal in first.precondition.literals] == [
        ("at", ("?t", "?p"), False),
        ("at", ("?q", "?q"), False),
    ]
    assert second.precondition.variables == {"?t": "thing", "?p": "place", "?q": "place", "?o@0": "thing"}
    assert [tuple(literal) for literal in second.precondition.literals] == [
        ("at", ("?t", "?p"), False),
        ("at", ("?o@0", "?q"), False),
        ("=", ("?o@0", "?t"), True),
    ]
    assert [(effect.literal.predicate, effect.literal.negated, len(effect.condition)) for effect in first.effects] == [
        ("at", False, 0),
        ("at", True, 0),
        ("lit", True, 1),
    ]
    assert domain.fluents == {"at", "lit"}


def test_a_problem():
    problem = read_problem(PROBLEM, read_domain(DOMAIN))
    assert problem.entities == {"a": "thing", "b": "thing", "x": "place", "y": "place"}
    assert problem.facts == {"at": [["a", "x"], ["b", "y"]]}
    (goal,) = problem.goal
    assert goal.variables == {"?t@0": "thing"}


@pytest.mark.parametrize(
    "change",
    [
        ("(:objects", "(:things"),
        ("(at a x)", "(at a x"),
        ("(at a x)", "(at a x y)"),
        ("(at a x)", "(near a x)"),
        ("(at a x)", "(not (at a x))"),
        ("(at a x)", "at a x"),
        ("a b - thing", "a b - ghost"),
        ("a b - thing", "a a - thing"),
        ("(at ?t y)", "(near ?t y)"),
        ("(at ?t y)", "(at ?u y)"),
        ("(exists (?t - thing) (at ?t y))", "(forall (?t - thing) (at ?t y))"),
        ("(at b y)", "(at b ÿ)"),
        ("))))", ")))))"),
    ],
)
def test_a_problem_that_is_not_read(change):
    domain = read_domain(DOMAIN)
    assert PROBLEM.replace(*change) != PROBLEM
    with pytest.raises(UnsupportedPDDL):
        read_problem(PROBLEM.replace(*change), domain)


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(0, 700),
    end=st.integers(0, 700),
    filling=st.text(alphabet="()?-:=; \nabxy", max_size=12),
    which=st.booleans(),
)
def test_damaged_text_is_read_or_left_to_fast_downward(start, end, filling, which):
    text = DOMAIN if which else PROBLEM
    damaged = text[:start] + filling + text[max(start, end) :]
    domain = read_domain(DOMAIN)
    try:
        read_domain(damaged) if which else read_problem(damaged, domain)
    except UnsupportedPDDL:
        return


@pytest.mark.parametrize("source", ["generated", "official"])
def test_the_grammars_at_hand_are_those_of_the_parser(source):
    game = GeneratedGames().load(GENERATED[0]) if source == "generated" else official("valid_seen", 0, "original")
    text, _ = without_goal(game.data["grammar"])
    assert content_hash(text) in _known()
    assert load(text) == parse(text)
