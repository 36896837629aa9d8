"""Agents that imagine outcomes: the engine's are what happens, better ones win more, and slots stay apart."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import gymnasium
import pytest

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.agents.players.imagination import EngineImagination, ModelImagination, Outcome, Question
from rwml_gym.agents.players.imagining import ImaginingAgent, Proposal
from rwml_gym.agents.players.rollout import EpisodeSpec, roll_out
from rwml_gym.errors import InvalidConfigError, WorldModelError
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges

HOUSE = partial(gymnasium.make, "rwml_gym/ToyHouse-v0", split="held_out")
GAMES = [EpisodeSpec(f"house-{number}", number) for number in range(5_832, 5_852)]


def alfworld():
    pytest.importorskip("alfworld")
    rooms = ["bathroom"]
    return gymnasium.make("rwml_gym/ALFWorld-v0", split="generated_held_out", max_episode_steps=20, rooms=rooms)


class Watched(EngineImagination):
    """Notes how many questions each call has."""

    def __init__(self, make_env):
        super().__init__(make_env)
        self.calls = []

    def imagine(self, questions):
        self.calls.append(len(questions))
        return super().imagine(questions)


class Fixed:
    """Proposes the same actions in every turn."""

    def __init__(self, *actions):
        self.actions = actions

    def propose(self, slots, turns, infos, seeds):
        return [[Proposal(action, 10, 3) for action in self.actions] for _ in slots]

    def forget(self, slots):
        pass

    def playing(self):
        return nullcontext()


def played(make_env, agent, specs, slots):
    """The actions of each episode, and whether it was won."""
    found = [[] for _ in specs]

    class Notes:
        def began(self, number, observation, info):
            pass

        def stepped(self, number, slot, action, answer, seconds):
            found[number].append(action)

    episodes = roll_out(make_env, agent, specs, slots, watcher=Notes())
    return [(actions, episode.won) for actions, episode in zip(found, episodes, strict=True)]


@pytest.mark.parametrize("make_env", [HOUSE, pytest.param(alfworld, marks=pytest.mark.long)])
def test_what_the_engine_imagines_is_what_then_happens(make_env):
    env, agent = make_env(), RandomAgent(1)
    observation, info = env.reset(seed=3)
    engine, turns = EngineImagination(make_env), [Turn("", observation)]
    for _ in range(8):
        actions = [*info["admissible_actions"], "dance"]
        outcomes = engine.imagine([Question(info["game"], "", tuple(turns), action) for action in actions])
        (action,) = agent.act([observation], [info])
        observation, *_, info = env.step(action)
        expected = Outcome(observation, tuple(info["admissible_actions"]), info["won"], info["won"])
        assert outcomes[actions.index(action)] == expected
        turns.append(Turn(action, observation))
        # Several steps ahead, and again from the start where nothing is kept.
        for same in (engine, EngineImagination(make_env)):
            (again,) = same.imagine([Question(info["game"], "", tuple(turns[:-1]), action)])
            assert again == expected


@pytest.mark.parametrize("steps", [1, 3])
def test_with_the_engine_it_wins_where_random_actions_do_not(steps):
    won = sum(episode.won for episode in roll_out(HOUSE, ImaginingAgent(EngineImagination(HOUSE), steps), GAMES))
    random = sum(episode.won for episode in roll_out(HOUSE, RandomAgent(), GAMES))
    assert won == len(GAMES)
    assert random < len(GAMES) / 2


@pytest.mark.long
def test_with_the_engine_it_wins_in_alfworld():
    agent, specs = ImaginingAgent(EngineImagination(alfworld), 3), [EpisodeSpec(seed) for seed in range(3)]
    assert sum(episode.won for episode in roll_out(alfworld, agent, specs)) == 3
    assert sum(episode.won for episode in roll_out(alfworld, RandomAgent(), specs)) == 0


@pytest.mark.parametrize("steps", [1, 2])
def test_slots_do_not_influence_each_other_and_a_seed_plays_the_same(steps):
    def agent():
        return ImaginingAgent(ModelImagination(NothingChanges()), steps, candidates=3)

    alone = played(HOUSE, agent(), GAMES[:6], slots=1)
    assert played(HOUSE, agent(), GAMES[:6], slots=4) == alone
    assert played(HOUSE, agent(), [EpisodeSpec(spec.game, 1) for spec in GAMES[:6]], slots=4) != alone


def test_all_candidates_of_all_slots_are_imagined_in_one_call():
    engine = Watched(HOUSE)
    agent = ImaginingAgent(engine)
    envs = [HOUSE() for _ in range(3)]
    starts = [env.reset(options={"game": spec.game}) for env, spec in zip(envs, GAMES, strict=False)]
    agent.reset([True] * 3)
    agent.act([observation for observation, _ in starts], [info for _, info in starts])
    assert engine.calls == [sum(len(info["admissible_actions"]) for _, info in starts)]


def test_the_move_says_what_was_imagined():
    agent, env = ImaginingAgent(EngineImagination(HOUSE)), HOUSE()
    observation, info = env.reset(seed=0)
    agent.reset([True], [5])
    (action,) = agent.act([observation], [info])
    move = agent.last_move(0)
    assert move.action == action
    assert move.prediction == env.step(action)[0]
    assert move.completion_tokens == 0
    assert f"{action} (1): {move.prediction}" in move.thought.splitlines()[0]


def test_without_imagination_the_most_frequent_proposal_is_played():
    agent, env = ImaginingAgent(proposals=Fixed("look", "dance", "sing", "dance")), HOUSE()
    observation, info = env.reset(seed=0)
    assert agent.act([observation], [info]) == ["dance"]
    assert agent.last_move(0).completion_tokens == 12
    assert agent.last_move(0).prediction is None


def test_proposals_are_the_candidates_and_how_often_counts_only_among_equals():
    env = HOUSE()
    observation, info = env.reset(options={"game": "house-5832"})
    helpful = next(action for action in info["admissible_actions"] if action.startswith("go to"))
    agent = ImaginingAgent(EngineImagination(HOUSE), proposals=Fixed("dance", "dance", "dance", helpful))
    assert agent.act([observation], [info]) == [helpful]
    equal = ImaginingAgent(ModelImagination(NothingChanges()), proposals=Fixed("look", helpful, helpful))
    assert equal.act([observation], [info]) == [helpful]


def test_what_a_model_got_wrong_is_not_played_for_ever():
    lies = MostFrequentOutcome(capacity=10)
    lies.learn([[]], ["look"], ["You put the mug, the book, the key, the soap and the apple down in the bedroom."])
    agent, env = ImaginingAgent(ModelImagination(lies)), HOUSE()
    observation, info = env.reset(seed=0)
    actions = []
    for _ in range(6):
        actions += agent.act([observation], [info])
        observation, *_, info = env.step(actions[-1])
    assert len(set(actions)) > 3


def test_an_engine_with_another_game_is_told():
    engine = EngineImagination(HOUSE)
    with pytest.raises(WorldModelError, match="Expected the engine to answer as in the game 'house-5832'"):
        engine.imagine([Question("house-5832", "", (Turn("", "You are on the moon."),), "look")])


class NotCopied(gymnasium.Wrapper):
    """Cannot be copied."""

    unwrapped = property(lambda self: self)

    def __deepcopy__(self, memo):
        raise TypeError("one of a kind")


class Nameless(gymnasium.Wrapper):
    """Does not name its games."""

    def reset(self, **kwargs):
        return self.env.reset(**kwargs)[0], {}


class Chooses(gymnasium.Wrapper):
    """Plays the game that it likes."""

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=0 if options is None else 1)


class Refuses(gymnasium.Wrapper):
    """Takes no options."""

    def reset(self, *, seed=None, options=None):
        if options:
            raise ValueError("no options, please")
        return self.env.reset(seed=seed)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: EngineImagination(lambda: NotCopied(HOUSE())), "can be copied .* one of a kind.*--imagine"),
        (lambda: EngineImagination(lambda: Nameless(HOUSE())), "names its games .*--imagine"),
        (lambda: EngineImagination(lambda: Chooses(HOUSE())), "plays the game in reset.* in place of .*--imagine"),
        (lambda: EngineImagination(lambda: Refuses(HOUSE())), "plays the game in reset.*no options.*--imagine"),
        (lambda: ImaginingAgent(), "neither"),
        (lambda: ImaginingAgent(proposals=Fixed("look"), steps=0), "steps"),
        (lambda: ImaginingAgent(proposals=Fixed("look"), candidates=-1), "candidates"),
        (lambda: ImaginingAgent(proposals=Fixed("look"), discount=1.5), "discount above 0 and at most 1"),
    ],
)
def test_what_cannot_imagine_is_refused(make, match):
    with pytest.raises(InvalidConfigError, match=match):
        make()


class Vectors:
    """Predicts what is no text."""

    def predict(self, histories, actions):
        return [3.0 for _ in actions]


def test_a_model_that_predicts_no_text_is_told():
    with pytest.raises(WorldModelError, match=r"text .* from Vectors\.predict"):
        ModelImagination(Vectors()).imagine([Question("g", "t", (Turn("", "x"),), "look")])
