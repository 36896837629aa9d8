"""World-model learning in TRL's own trainer: its prompts are ours, and its rewards are the gap's."""

from __future__ import annotations

from typing import Any

import pytest

from rwml_gym.agents.integrations.trl import prediction_dataset, prediction_reward
from rwml_gym.agents.language.models import add_adapter
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.wrappers import RecordTransitions
from tests.conftest import policy_weights

trl: Any = pytest.importorskip("trl")

G = 4


@pytest.fixture(scope="module")
def transitions():
    env = RecordTransitions(ToyHouseEnv())
    for seed in range(2):
        env.reset(seed=seed)
        for action in ("look", "go to bedroom", "fly"):
            env.step(action)
    return env.transitions


@pytest.mark.parametrize("style", ["transcript", "chat"])
def test_the_model_is_asked_what_it_is_asked_here(tiny, transitions, style):
    tokenizer = tiny[1]
    prompts = Prompts(tokenizer, style=style)
    data = prediction_dataset(transitions, prompts)
    for row, transition in zip(data, transitions, strict=True):
        ids = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        assert ids == prompts.predict(transition.history, transition.action, transition.task)
        assert (row["next_state"], row["role"]) == (transition.next_state, transition.role)


def test_completions_are_read_and_scored_as_here(tiny, transitions):
    prompts = Prompts(tiny[1])
    truth = transitions[0].next_state
    gap = GapReward("hashing", measures={"tool": {"gap": "exact"}})
    reward = prediction_reward(gap, prompts)
    completions = [f"{truth}\n> go on", "Nothing happens.", f"{truth}!", "", f" {truth}"]
    roles = ["", "", "tool", "", "tool"]
    rewards = reward(prompts=["?"] * 5, completions=completions, next_state=[truth] * 5, role=roles, trainer_state=None)
    assert rewards == [1, 0, 0, 0, 1]


def test_trl_trains_on_the_gap(tiny, transitions, tmp_path):
    model, tokenizer = tiny
    policy = add_adapter(model, rank=4, alpha=8, seed=3)
    before = policy_weights(policy)
    prompts = Prompts(tokenizer)
    gap = GapReward("hashing", shape="continuous")
    inner, seen = prediction_reward(gap, prompts), []

    def gap_reward(completions: list[str], **columns: Any) -> list[float]:
        rewards = inner(completions=completions, **columns)
        seen.append((completions, columns, rewards))
        return rewards

    trainer = trl.GRPOTrainer(
        model=policy,
        processing_class=tokenizer,
        train_dataset=prediction_dataset(transitions, prompts),
        reward_funcs=gap_reward,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2 * G,
            num_generations=G,
            max_completion_length=12,
            learning_rate=1e-3,
            beta=0.0,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        ),
    )
    trainer.train()
    assert len(seen) == 2
    for (completions, columns, rewards), row in zip(seen, trainer.state.log_history, strict=False):
        assert len(completions) == 2 * G
        assert sorted(map(columns["prompts"].count, set(columns["prompts"]))) == [G, G]
        read = [prompts.read_prediction(text) for text in completions]
        assert rewards == gap(read, columns["next_state"]).rewards.tolist()
        assert row["rewards/gap_reward/mean"] == pytest.approx(sum(rewards) / len(rewards), abs=1e-4)
    after = policy_weights(policy)
    assert any((after[name] != weight).any() for name, weight in before.items())


def test_no_transitions_are_refused(tiny):
    with pytest.raises(InvalidConfigError, match="Expected at least one transition"):
        prediction_dataset([], Prompts(tiny[1]))
