"""World-model learning in TRL's own trainer: its prompts are ours, and its rewards are the gap's."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from datasets import Dataset

from rwml_gym.agents.integrations.trl import prediction_dataset, prediction_reward
from rwml_gym.agents.language.models import add_adapter
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.wrappers import RecordTransitions
from tests.conftest import policy_weights

pytestmark = pytest.mark.long

trl: Any = pytest.importorskip("trl")

G = 4


def _trainer(policy: Any, tokenizer: Any, data: Dataset, rewards: Any, folder: Path, max_steps: int = 2) -> Any:
    return trl.GRPOTrainer(
        model=policy,
        processing_class=tokenizer,
        train_dataset=data,
        reward_funcs=rewards,
        args=trl.GRPOConfig(
            output_dir=str(folder),
            max_steps=max_steps,
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

    trainer = _trainer(policy, tokenizer, prediction_dataset(transitions, prompts), gap_reward, tmp_path)
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


def test_completions_as_messages_earn_what_their_text_earns(tiny, transitions):
    prompts = Prompts(tiny[1], style="chat")
    truth = transitions[0].next_state
    texts = [f"So <next_state>{truth}</next_state>", "<next_state>Nothing happens.</next_state>", "", "I call a tool."]
    chat: list[Any] = [[{"role": "assistant", "content": text}] for text in texts]
    chat[2] = [{"role": "assistant", "content": None, "tool_calls": []}]
    chat[3] = [
        {"role": "assistant", "content": texts[3]},
        {"role": "tool", "content": f"<next_state>{truth}</next_state>"},
    ]
    parts: list[Any] = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in texts]
    reward = prediction_reward(GapReward("hashing"), prompts)
    for completions in (texts, chat, parts):
        assert reward(completions=completions, next_state=[truth] * 4, role=[""] * 4) == [1, 0, 0, 0]


def test_trl_hands_over_messages_that_earn_as_texts_do(tiny, transitions, tmp_path):
    """A conversational data set, in TRL's own trainer."""
    model, tokenizer = tiny
    gap = GapReward("hashing", shape="continuous")
    inner, seen = prediction_reward(gap, Prompts(tokenizer, style="chat")), []

    def spied(completions: Any, **columns: Any) -> list[float]:
        texts = [f"<next_state>{state}</next_state>" for state in columns["next_state"]]  # what a good model writes
        said = [[{**messages[0], "content": text}] for messages, text in zip(completions, texts, strict=True)]
        seen.append((completions, inner(completions=said, **columns)))
        return inner(completions=completions, **columns)

    rows = [
        {"prompt": [{"role": "user", "content": t.action}], "next_state": t.next_state, "role": t.role}
        for t in transitions
    ]
    trainer = _trainer(add_adapter(model, rank=4), tokenizer, Dataset.from_list(rows), spied, tmp_path, max_steps=1)
    trainer.train()
    ((completions, rewards),) = seen
    assert all(messages[0]["role"] == "assistant" for messages in completions)
    assert rewards == [1.0] * len(completions)


def test_completions_of_another_make_are_named(tiny):
    reward = prediction_reward(GapReward("hashing"), Prompts(tiny[1]))
    with pytest.raises(InvalidConfigError, match="texts or lists of messages, actual: 3"):
        reward(completions=[3], next_state=["?"])


def test_a_missing_column_is_named_unless_it_is_not_needed(tiny):
    prompts = Prompts(tiny[1])
    reward = prediction_reward(GapReward("hashing"), prompts)
    assert reward(completions=["It rains."], next_state=["It rains."]) == [1.0]
    assert reward(completions=["It rains."], next_state=["It rains."], role=[None]) == [1.0]
    with pytest.raises(InvalidConfigError, match="column 'next_state'"):
        reward(completions=["It rains."], role=[""])
    by_role = prediction_reward(GapReward("hashing", measures={"tool": {"gap": "exact"}}), prompts)
    with pytest.raises(InvalidConfigError, match="column 'role'"):
        by_role(completions=["It rains."], next_state=["It rains."])


def test_each_reward_has_a_name_of_its_own_in_trls_logs(tiny, transitions, tmp_path):
    model, tokenizer = tiny
    prompts = Prompts(tokenizer)
    rewards = [
        prediction_reward(GapReward("hashing"), prompts),
        prediction_reward(GapReward("hashing", shape="continuous"), prompts),
        prediction_reward(GapReward("hashing", gap="rouge"), prompts),
        prediction_reward(GapReward("hashing", threshold=0.9), prompts),
        prediction_reward(GapReward("hashing", measures={"tool": {"gap": "exact"}}), prompts),
        prediction_reward(GapReward("hashing"), prompts, name="mine"),
    ]
    trainer = _trainer(
        add_adapter(model, rank=4), tokenizer, prediction_dataset(transitions, prompts), rewards, tmp_path, max_steps=1
    )
    names = trainer.reward_func_names
    assert len(set(names)) == len(rewards)
    assert names[-1] == "mine"
    trainer.train()
    logged = {key for row in trainer.state.log_history for key in row if key.startswith("rewards/")}
    assert {f"rewards/{name}/mean" for name in names} <= logged


@pytest.mark.parametrize("dump", [pickle.dumps, cloudpickle.dumps])
def test_rewards_can_be_pickled(tiny, dump):
    reward = prediction_reward(GapReward("hashing", measures={"tool": {"gap": "rouge"}}), Prompts(tiny[1]))
    again = pickle.loads(dump(reward))
    batch = {
        "completions": ["It rains.", "a b", "?"],
        "next_state": ["It rains.", "a c", "!"],
        "role": ["", "tool", ""],
    }
    assert again(**batch) == reward(**batch)
    assert again.__name__ == reward.__name__


def test_no_transitions_are_refused(tiny):
    with pytest.raises(InvalidConfigError, match="Expected at least one transition"):
        prediction_dataset([], Prompts(tiny[1]))
