"""Attempts of a language model as a world model: each is scored against its own transition."""

from __future__ import annotations

import pytest

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import Completion
from rwml_gym.agents.language.world_model import LanguageWorldModel, score_attempts
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, Turn

START = (Turn("", "user: Hi."),)


def test_each_attempt_is_measured_against_its_own_state_and_as_its_role_is(tiny):
    transitions = [
        Transition(START, "Could you wait?", "user: Yes.", role="user"),
        Transition(START, "get_order(order_id='#W1')", "tool: Error: Order not found", role="tool"),
        Transition(START, "get_user()", "tool: 7", role="tool"),
    ]
    texts = [
        ["user: Yes.", "tool: 7"],
        ["tool: Error: User not found", "tool: Error: Order not found"],
        ["user: Yes.", "tool: 7"],
    ]
    attempts = [[Completion([1], [0.0], text, True) for text in row] for row in texts]
    pytest.importorskip("rouge_score")
    gap = GapReward("hashing", threshold=0.1, measures={"tool": {"gap": "rouge", "shape": "continuous"}})
    scores = score_attempts(Prompts(tiny[1]), transitions, attempts, gap)
    assert scores.rewards.tolist() == [[1.0, 0.0], [0.75, 1.0], [0.0, 1.0]]
    assert scores.distances[1:].tolist() == [[0.25, 0.0], [1.0, 0.0]]


def test_predictions_are_the_greedy_attempts_at_each(adapted):
    model, tokenizer = adapted
    world_model = LanguageWorldModel(model, tokenizer, Prompts(tokenizer, max_tokens=100), 8, batch_rows=2)
    data = [Transition((Turn("", f"Room {i}."),), f"open door {i}", "", f"Find key {i}.") for i in range(5)]
    histories, actions, tasks = [t.history for t in data], [t.action for t in data], [t.task for t in data]
    found = world_model.predict(histories, actions, tasks)
    greedy = world_model.attempts(data, 1, temperature=0.0, seed=7)
    assert found == [world_model.prompts.read_prediction(c.text) for (c,) in greedy]
    assert [world_model.predict([h], [a], [t])[0] for h, a, t in zip(histories, actions, tasks, strict=True)] == found
    one, other = (world_model.attempts(data, 2, seed=seed) for seed in (1, 2))
    assert [[c.tokens for c in row] for row in one] != [[c.tokens for c in row] for row in other]
