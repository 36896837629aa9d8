"""A language model as agent and as world model."""

from __future__ import annotations

from typing import Any

import pytest

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sessions import Sessions
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.transitions import Transition, Turn
from rwml_gym.world_models.base import WorldModel
from rwml_gym.wrappers import WorldModelRewardVectorWrapper, WorldModelRewardWrapper

INFO = {"task": "Put the mug into the kitchen.", "admissible_actions": ["look", "take mug"]}
TRANSITIONS = [
    Transition((Turn("", f"You are in room {i}."),), "look", f"Here, you see mug {i}.", task="Find it.")
    for i in range(5)
]


@pytest.fixture(params=["transcript", "chat"])
def world_model(request, adapted) -> LanguageWorldModel:
    model, tokenizer = adapted
    return LanguageWorldModel(model, tokenizer, Prompts(tokenizer, request.param), max_new_tokens=8, batch_rows=4)


@pytest.fixture
def shown(monkeypatch) -> list[list[list[int]]]:
    """The prompts the agent gives to the model, call by call."""
    calls: list[list[list[int]]] = []
    generate = Sessions.generate

    def record(self, requests, **settings: Any):
        calls.append([list(request.prompt) for request in requests])
        return generate(self, requests, **settings)

    monkeypatch.setattr(Sessions, "generate", record)
    return calls


def _agent(adapted, **settings: Any) -> LanguageModelAgent:
    return LanguageModelAgent(*adapted, Prompts(adapted[1], history=3), **settings)


def test_a_world_model_predicts_one_state_each(world_model):
    predictor: WorldModel = world_model
    histories, actions = [t.history for t in TRANSITIONS], [t.action for t in TRANSITIONS]
    predictions = predictor.predict(histories, actions, [t.task for t in TRANSITIONS])
    assert len(predictions) == 5
    assert all(isinstance(p, str) for p in predictions)
    assert predictor.predict(histories, actions, [t.task for t in TRANSITIONS]) == predictions
    assert predictor.predict(histories[:1], actions[:1]) == predictor.predict(histories[:1], actions[:1], [""])
    assert predictor.predict([], []) == []


def test_predict_is_the_greedy_attempt(world_model):
    predictions = world_model.predict(
        [t.history for t in TRANSITIONS], [t.action for t in TRANSITIONS], [t.task for t in TRANSITIONS]
    )
    attempts = world_model.attempts(TRANSITIONS, 1, temperature=0.0)
    assert predictions == [world_model.prompts.read_prediction(row[0].text) for row in attempts]


def test_attempts_are_many_and_follow_from_their_seed(world_model):
    a, b, c = (world_model.attempts(TRANSITIONS, 3, seed=seed) for seed in (1, 1, 2))
    assert [len(row) for row in a] == [3] * 5
    assert a == b
    assert a != c


def test_attempts_report_their_progress(world_model):
    seen: list[int] = []
    world_model.attempts(TRANSITIONS, 2, progress=seen.append)
    assert sum(seen) == 5


def test_an_agent_is_shown_its_own_last_turns(adapted, shown):
    agent = _agent(adapted)
    tokenizer = adapted[1]
    agent.reset([True, True])
    states = [[f"room {i}, slot {s}." for s in range(2)] for i in range(5)]
    actions = [agent.act(row, [INFO, INFO]) for row in states]
    for slot in range(2):
        text = tokenizer.decode(shown[4][slot])
        assert all((state[slot] in text) == (i >= 2) for i, state in enumerate(states))
        assert not any(state[1 - slot] in text for state in states)
        for turn in actions[1:4]:
            assert turn[slot] in text
        assert INFO["task"] in text


def test_a_slot_that_starts_again_forgets(adapted, shown):
    agent = _agent(adapted)
    agent.reset([True, True])
    agent.act(["old left.", "old right."], [INFO, INFO])
    agent.reset([True, False])
    agent.act(["new left.", "new right."], [INFO, INFO])
    left, right = (adapted[1].decode(prompt) for prompt in shown[1])
    assert "old" not in left
    assert "old right." in right


def test_a_random_action_costs_no_generation(adapted, shown):
    actions = _agent(adapted, random_share=1.0).act(["a.", "b."], [INFO, INFO])
    assert set(actions) <= set(INFO["admissible_actions"])
    assert shown == [[]]


def test_where_no_actions_are_listed_the_model_acts(adapted, shown):
    _agent(adapted, random_share=1.0).act(["a."], [{"admissible_actions": []}])
    assert len(shown[0]) == 1


def test_at_temperature_zero_the_seed_does_not_matter(adapted):
    a, b = (_agent(adapted, temperature=0.0, seed=seed).act(["a.", "b."], [INFO, INFO]) for seed in (1, 2))
    assert a == b


class _Calls:
    """An explorer that counts what it is asked and told."""

    def __init__(self) -> None:
        self.asked, self.forgotten = 0, 0

    def act(self, observations, infos):
        self.asked += 1
        return [f"f({i})" for i in range(len(infos))]

    def reset(self, mask):
        self.forgotten += sum(mask)


def test_an_explorer_plays_where_nothing_is_listed(adapted, shown):
    explorer = _Calls()
    agent = _agent(adapted, random_share=1.0, explorer=explorer)
    agent.reset([True, True])
    assert agent.act(["a.", "b."], [{"admissible_actions": []}] * 2) == ["f(0)", "f(1)"]
    assert (explorer.asked, explorer.forgotten, shown) == (1, 2, [[]])
    # It goes on listening while the model plays.
    _agent(adapted, explorer=explorer).act(["a."], [{}])
    assert explorer.asked == 2
    assert len(shown[1]) == 1


def test_the_model_is_shown_the_tools_and_if_wanted_the_policy(adapted, shown):
    parameters = {"properties": {"order_id": {"type": "string"}, "reason": {"type": "string"}}}
    tools = [
        {"function": {"name": "cancel", "parameters": parameters}},
        {"function": {"name": "done", "parameters": {}}},
    ]
    info = {"task": "Serve.", "tools": tools, "policy": "Never lie."}
    for show_policy in (False, True):
        _agent(adapted, show_policy=show_policy, action_tokens=2).act(["user: Hi."], [info])
    without, with_policy = (adapted[1].decode(prompts[0]) for prompts in shown)
    assert "Task: Serve.\nTools: cancel(order_id, reason), done()\n" in without
    assert "Never lie." not in without
    assert "Policy:\nNever lie.\nTools:" in with_policy


def test_a_new_start_of_fewer_slots_forgets_what_other_weights_read(adapted):
    from tests.conftest import randomise

    model, _ = adapted
    agent = _agent(adapted, temperature=0.0)
    agent.reset([True] * 3)
    agent.act(["You are in the kitchen."] * 3, [INFO] * 3)
    randomise(model, seed=5)
    agent.reset([True])
    fresh = _agent(adapted, temperature=0.0)
    fresh.reset([True])
    assert agent.act(["You are in the kitchen."], [INFO]) == fresh.act(["You are in the kitchen."], [INFO])
    (turn,), (expected,) = agent.written(0), fresh.written(0)
    assert turn.completion.logprobs == pytest.approx(expected.completion.logprobs, abs=1e-6)


def test_it_predicts_in_the_agents_place_for_one_and_for_many(world_model):
    from gymnasium.vector import SyncVectorEnv

    arguments: dict[str, Any] = {"encoder": "hashing", "predictor": world_model, "shape": "continuous"}
    env = WorldModelRewardWrapper(ToyHouseEnv(), **arguments)
    observation, info = env.reset(seed=0)
    (expected,) = world_model.predict([[Turn("", observation)]], ["look"], [info["task"]])
    told = env.step("look")[4]["world_model"]
    assert (told["prediction"], told["source"]) == (expected, "predictor" if expected.strip() else "none")
    envs = WorldModelRewardVectorWrapper(SyncVectorEnv([ToyHouseEnv] * 3), **arguments)
    envs.reset(seed=0)
    assert envs.step(["look"] * 3)[4]["world_model"]["prediction"][0] == expected
    assert envs.step(["fly"] * 3)[1].shape == (3,)
