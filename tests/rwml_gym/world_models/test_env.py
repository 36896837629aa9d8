"""A world model as an environment; how success is recognised is measured on real games."""

from __future__ import annotations

import warnings

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import GameNotFoundError, InvalidConfigError, WorldModelError
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import NothingChanges
from rwml_gym.world_models.by_name import make_world_model
from rwml_gym.world_models.env import Start, WorldModelEnv, says, task_is_done

START = Start("house-0", "You are in the kitchen.", "Put the mug into the bedroom.", ("look", "drop mug"), "toy-1")
OTHER = Start("house-1", "You are in the bathroom.", "Put the key into the kitchen.")


class Simulator:
    """A perfect world model of the toy house: it plays the real game."""

    def predict(self, histories, actions, tasks=None):
        answers = []
        for history, action in zip(histories, actions, strict=True):
            env = ToyHouseEnv()
            env.reset(options={"game": "house-3"})
            for turn in history[1:]:
                env.step(turn.action)
            answers.append(env.step(action)[0])
        return answers


def test_it_passes_gymnasium_s_checker():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(WorldModelEnv(NothingChanges(), [START, OTHER], render_mode="ansi"), skip_render_check=True)


def test_an_episode_is_what_the_model_predicts_from_its_own_predictions():
    seen = []

    class Counts:
        def predict(self, histories, actions, tasks=None):
            seen.append((histories[0], tasks))
            return [f"State {len(histories[0])} after {actions[0]}."]

    env = WorldModelEnv(Counts(), [START, OTHER], max_steps=3, history=2)
    observation, info = env.reset(options={"game": "house-0"})
    assert (observation, info["task"]) == (START.observation, START.task)
    assert info["admissible_actions"] == ["look", "drop mug"]
    assert env.step("look")[0] == "State 1 after look."
    _, reward, terminated, truncated, again = env.step("look")
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert set(again) == set(info)
    assert env.step("go")[3]
    assert seen[-1] == (
        (Turn("look", "State 1 after look."), Turn("look", "State 2 after look.")),
        [START.task],
    )
    assert [turn.action for turn in env.turns] == ["", "look", "look", "go"]


def test_a_perfect_model_is_won_as_the_real_game_is():
    real = ToyHouseEnv(expert=True)
    observation, info = real.reset(options={"game": "house-3"})
    env = WorldModelEnv(Simulator(), [Start("house-3", observation, info["task"])], history=20)
    assert env.reset(seed=0)[0] == observation
    won = terminated = False
    while not won:
        action = info["expert_action"]
        observation, _, won, _, info = real.step(action)
        imagined, reward, terminated, _, imagined_info = env.step(action)
        assert imagined == observation
    assert terminated
    assert reward == 1.0
    assert imagined_info["won"]


def test_every_start_is_played_once_where_asked():
    env = WorldModelEnv(NothingChanges(), [START, OTHER], order="each-once")
    assert {env.reset(seed=1)[1]["game"], env.reset()[1]["game"]} == {"house-0", "house-1"}
    with pytest.raises(GameNotFoundError, match="house-9"):
        env.reset(options={"game": "house-9"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"starts": []}, "at least one game"),
        ({"starts": [START, START]}, "2 of 1 games"),
        ({"max_steps": 0}, "max_steps"),
        ({"history": 0}, "history"),
        ({"model": NothingChanges}, "Expected a world model"),
        ({"model": "retrieval"}, "make_world_model"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        WorldModelEnv(**{"model": NothingChanges(), "starts": [START], **arguments})


def test_models_that_fail_or_predict_no_text_are_named():
    class Fails:
        def predict(self, histories, actions, tasks=None):
            raise OSError("out of order")

    class Vectors:
        def predict(self, histories, actions, tasks=None):
            return [[1.0]]

    for model in (Fails(), Vectors()):
        env = WorldModelEnv(model, [START])
        env.reset(seed=0)
        with pytest.raises(WorldModelError, match=type(model).__name__):
            env.step("look")
    learned = make_world_model("learned", "hashing")
    for _ in range(3):
        learned.learn([[Turn("", "a")]], ["look"], ["b"])
    env = WorldModelEnv(learned, [START])
    env.reset(seed=0)
    with pytest.raises(InvalidConfigError, match="predicts text"):
        env.step("look")


# Success in words


def play(env: gym.Env, game: str, choose) -> tuple[str, list[Turn], bool]:
    observation, info = env.reset(options={"game": game})
    turns, over = [Turn("", observation)], False
    while not over:
        action = choose(info)
        observation, _, terminated, truncated, info = env.step(action)
        turns.append(Turn(action, observation))
        over = terminated or truncated
    return info["task"], turns, info["won"]


def recognised(task: str, turns: list[Turn]) -> list[int]:
    return [number for number in range(1, len(turns)) if task_is_done(task, turns[: number + 1])]


def test_the_expert_s_games_are_recognised_in_the_last_step():
    pytest.importorskip("alfworld")
    env = gym.make("rwml_gym/ALFWorld-v0", split="generated_held_out", expert=True)
    games = env.unwrapped.games.names[:36]
    kinds, right = set(), 0
    for game in games:
        task, turns, won = play(env, game, lambda info: info["expert_action"])
        assert won
        kinds.add(game.split("/")[1])
        right += recognised(task, turns) == [len(turns) - 1]
    assert len(kinds) == 6
    assert right >= 0.9 * len(games)


def test_random_games_are_seldom_taken_for_won():
    import random

    rng = random.Random(0)
    env = gym.make("rwml_gym/ToyHouse-v0")
    wrong = played = 0
    for number in range(40):
        task, turns, won = play(env, f"house-{number}", lambda info: rng.choice(info["admissible_actions"]))
        found = recognised(task, turns)
        assert found == ([len(turns) - 1] if won else []), (task, turns)
        wrong += bool(found) != won
        played += 1
    assert played == 40
    assert wrong == 0


@pytest.mark.parametrize(
    ("task", "deeds", "done"),
    [
        ("put some mug on desk.", ["move mug 1 to desk 1|You move the mug 1 to the desk 1."], True),
        ("put some mug on desk.", ["go to desk 1|You arrive at desk 1. On the desk 1, you see a mug 1."], False),
        ("put some mug on desk.", ["move mug 1 to desk 1|Nothing happens."], False),
        ("put two mug in desk.", ["move mug 1 to desk 1|You move the mug 1 to the desk 1."], False),
        (
            "put two mugs in desk.",
            [f"move mug {n} to desk 1|You move the mug {n} to the desk 1." for n in (1, 2)],
            True,
        ),
        (
            "put a hot egg in fridge.",
            ["heat egg 1|You heat the egg 1 using the microwave 1.", "move egg 1|You move the egg 1 to the fridge 1."],
            True,
        ),
        (
            "put a hot egg in fridge.",
            ["heat cup 1|You heat the cup 1 using the microwave 1.", "move egg 1|You move the egg 1 to the fridge 1."],
            False,
        ),
        (
            "examine the mug with the desklamp.",
            ["take mug 1|You pick up the mug 1 from the desk 1.", "use desklamp 1|You turn on the desklamp 1."],
            True,
        ),
        ("examine the mug with the desklamp.", ["use desklamp 1|You turn on the desklamp 1."], False),
        ("", ["drop mug|You put the mug down."], False),
    ],
)
def test_success_follows_from_the_words(task, deeds, done):
    turns = [Turn("", "You are in a room."), *(Turn(*deed.split("|")) for deed in deeds)]
    assert task_is_done(task, turns) is done


def test_a_game_may_say_so_itself():
    assert says("You WON")("", [Turn("look", "... you won!")])
    assert not says("you won")("", [Turn("look", "you lost")])
