"""TRL's own `GRPOTrainer` on our environments through `environment_factory`: its tool loop, its parser, its update."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch

import rwml_gym  # noqa: F401  registers the ids
from rwml_gym.agents.integrations.trl_environment import (
    PredictingEnvironment,
    TextEnvironment,
    make_environment_dataset,
    predictions_reward,
)
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import GameNotFoundError, InvalidConfigError
from rwml_gym.wrappers import WorldModelRewardWrapper
from tests.conftest import policy_weights, randomise, write_model

pytestmark = pytest.mark.long

trl: Any = pytest.importorskip("trl")

G = 3


def toy() -> gym.Env:
    return gym.make("rwml_gym/ToyHouse-v0", max_episode_steps=6)


def predicting() -> gym.Env:
    return WorldModelRewardWrapper(toy(), encoder="hashing", threshold=0.1)


def winning(game: str) -> list[str]:
    env = ToyHouseEnv()
    env.reset(options={"game": game})
    return [
        f"go to {env.places[env.game.target]}",
        f"take {env.game.target}",
        f"go to {env.game.goal}",
        f"drop {env.game.target}",
    ]


def test_an_episode_is_played_by_calls_of_act():
    environment = TextEnvironment(toy)
    assert "Task: Put the" in environment.reset(prompt=[], game="house-1")
    answers = [environment.act(action) for action in winning("house-1")]
    assert answers[-1].endswith("The episode is over.")
    assert environment.get_reward() == 1.0
    assert environment.act("look") == "The episode is over."
    environment.reset(game="house-1")
    assert environment.get_reward() == 0.0


def test_a_row_names_one_episode():
    environment = TextEnvironment(toy)
    assert environment.reset(seed=3) == environment.reset(seed=3, game=None)
    for row in ({}, {"game": "house-1", "seed": 1}):
        with pytest.raises(InvalidConfigError, match="make_environment_dataset"):
            environment.reset(**row)
    with pytest.raises(GameNotFoundError):
        environment.reset(game="nowhere")
    for games in ([], ["house-1", 2]):
        with pytest.raises(InvalidConfigError, match="of one kind"):
            make_environment_dataset(games)


def test_tau2_s_calls_and_rules_are_there():
    pytest.importorskip("tau2")
    environment = TextEnvironment(partial(gym.make, "rwml_gym/Tau2-v0", domain="mock", disable_env_checker=True))
    shown = environment.reset(game="mock/base/0")
    assert "Policy:" in shown
    assert '"get_users"' in shown
    assert "user_1" in environment.act("get_users()")


def test_predictions_are_scored_and_the_task_reward_stays_the_task_s():
    environment = PredictingEnvironment(predicting, show_actions=False)
    environment.reset(game="house-1")
    first, *rest = winning("house-1")
    environment.act("look", "")
    answer = environment.act("look", "something else entirely")
    environment.act("look", answer)
    assert predictions_reward([environment]) == [pytest.approx(1 / 3)]
    for action in (first, *rest[:2]):
        environment.act(action, "")
    assert environment.get_reward() == 0.0


def test_rewards_say_what_they_lack():
    environment = TextEnvironment(toy)
    with pytest.raises(InvalidConfigError, match="environment_factory"):
        predictions_reward()
    environment.reset(game="house-1")
    assert predictions_reward([environment]) == [None]
    environment.act("look")
    with pytest.raises(InvalidConfigError, match="WorldModelRewardWrapper"):
        predictions_reward([environment])


# TRL's trainer


class _Scripted(trl.GRPOTrainer):
    """The trainer with a model that plays a script, by the tool messages in its prompt; one row gives up."""

    script: list[str]

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        completions = []
        for row, ids in enumerate(prompt_ids):
            turn = self.processing_class.decode(ids).count("<tool_response>")
            gives_up = turn == row == 0 or turn == len(self.script)
            text = "I give up." if gives_up else self.script[turn]
            completions.append(self.processing_class.encode(f"{text}<|im_end|>"))
        return completions, None

    def _generate_and_score_completions(self, inputs):
        found = super()._generate_and_score_completions(inputs)
        self.batch = SimpleNamespace(
            found=found,
            played=[(e._dialogue.steps, e.get_reward()) for e in self.environments],
            texts=[self.processing_class.decode(ids) for ids in found["completion_ids"]],
        )
        return found


def call(action: str) -> str:
    return f'<tool_call>\n{{"name": "act", "arguments": {{"action": "{action}"}}}}\n</tool_call>'


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from transformers import AutoTokenizer
    from trl.chat_template_utils import qwen3_chat_template

    from rwml_gym.agents.language.models import add_adapter, load_model

    folder = write_model(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=8192)
    model, _ = load_model(str(folder), "float32", "cpu")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = qwen3_chat_template
    model.resize_token_embeddings(len(tokenizer))
    policy = randomise(add_adapter(model, rank=4, alpha=8, seed=3))
    before = policy_weights(policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        trainer = _Scripted(
            model=policy,
            processing_class=tokenizer,
            environment_factory=partial(TextEnvironment, toy),
            train_dataset=make_environment_dataset(["house-1"] * 2),
            args=trl.GRPOConfig(
                output_dir=str(tmp_path_factory.mktemp("trl")),
                max_steps=1,
                per_device_train_batch_size=G,
                num_generations=G,
                max_completion_length=3000,
                learning_rate=1e-3,
                beta=0.0,
                bf16=False,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                logging_steps=1,
                save_strategy="no",
            ),
        )
        trainer.script = [call(action) for action in winning("house-1")]
        trainer.train()
    return SimpleNamespace(trainer=trainer, batch=trainer.batch, before=before, after=policy_weights(policy))


def test_trl_plays_the_games_with_its_own_tool_loop(trained):
    assert sorted(trained.batch.played) == [(0, 0.0), (4, 1.0), (4, 1.0)]
    assert sum("The episode is over." in text for text in trained.batch.texts) == 2


def test_trl_takes_the_environment_s_reward(trained):
    (row,) = [row for row in trained.trainer.state.log_history if "reward" in row]
    assert row["rewards/TextEnvironment/mean"] == pytest.approx(2 / 3)
    assert row["tools/call_frequency"] == pytest.approx(8 / 3)
    assert row["tools/failure_frequency"] == 0.0


def test_trl_masks_what_the_world_answered_and_updates(trained):
    found = trained.batch.found
    counting = (found["completion_mask"] * found["tool_mask"]).sum(1)
    assert (counting < found["completion_mask"].sum(1)).sum() == 2
    assert any(not torch.equal(trained.after[name], weight) for name, weight in trained.before.items())
