"""Episodes for TRL's trainer: what a rollout plays and hands over. `test_trl_training` has TRL's side."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import cloudpickle
import gymnasium as gym
import pytest
import torch
from accelerate.utils import DistributedType

from rwml_gym.agents.integrations.trl import EnvironmentRollout, make_dataset, task_reward, world_model_reward
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError, RWMLGymError
from rwml_gym.transitions import Turn
from rwml_gym.wrappers import WorldModelRewardWrapper


def make_env() -> WorldModelRewardWrapper:
    return WorldModelRewardWrapper(ToyHouseEnv(), encoder="hashing", mode="report", predictor="nothing-changes")


@pytest.fixture
def tokenizer(tiny) -> Any:
    return tiny[1]


def fake_trainer(**changes: Any) -> Any:
    accelerator = SimpleNamespace(
        num_processes=1, process_index=0, device="cpu", distributed_type=DistributedType.NO, mixed_precision="no"
    )
    settings = {
        "max_completion_length": 400,
        "use_vllm": False,
        "accelerator": accelerator,
        "model": SimpleNamespace(training=True),
        "state": SimpleNamespace(global_step=0),
    }
    return SimpleNamespace(**{**settings, **changes})


def scripted(tokenizer: Any, *commands: str) -> Callable:
    """Writes the same commands in every episode, turn by turn."""
    turns = iter(commands)

    def generate(sequences: list[list[int]], trainer: Any) -> list[tuple[list[int], list[float]]]:
        tokens = tokenizer.encode(next(turns))
        return [(tokens, [-1.0 - i for i in range(len(tokens))]) for _ in sequences]

    return generate


class Looks:
    """Looks in every turn; unlike a closure it can be pickled."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokens = tokenizer.encode(" look\n")

    def __call__(self, sequences: list[list[int]], trainer: Any) -> list[tuple[list[int], list[float]]]:
        return [(self.tokens, [-1.0] * len(self.tokens)) for _ in sequences]


def cloudpickle_round(value: Any) -> Any:
    return pickle.loads(cloudpickle.dumps(value))


def winning(game: str) -> list[str]:
    env = ToyHouseEnv()
    env.reset(options={"game": game})
    return [
        f" go to {env.places[env.game.target]}\n",
        f" take {env.game.target}\n",
        f" go to {env.game.goal}\n",
        f" drop {env.game.target}\n",
    ]


def play(tokenizer: Any, games: Sequence[str | int], commands: Sequence[str], **changes: Any) -> dict[str, Any]:
    trainer = changes.pop("trainer", None) or fake_trainer()
    settings = {"generate": scripted(tokenizer, *commands), "action_tokens": 40, **changes}
    rollout = EnvironmentRollout(settings.pop("env", make_env), Prompts(tokenizer, history=0), **settings)
    return rollout(make_dataset(games)["prompt"], trainer)


def test_an_episode_is_one_text_and_its_reward_the_task_s(tokenizer):
    commands = winning("house-1")
    result = play(tokenizer, ["house-1", "house-1"], commands)
    env = ToyHouseEnv()
    observation, info = env.reset(options={"game": "house-1"})
    assert result["prompt_ids"][0] == Prompts(tokenizer).act([Turn("", observation)], info["task"])
    heard = [env.step(command.strip())[0] for command in commands]
    expected = "".join(f"{c}{o}\n>" for c, o in zip(commands[:-1], heard[:-1], strict=True)) + commands[-1] + "<|eos|>"
    assert tokenizer.decode(result["completion_ids"][0]) == expected
    own = [t for t, m in zip(result["completion_ids"][0], result["env_mask"][0], strict=True) if m]
    assert tokenizer.decode(own) == "".join(commands)
    assert result["episode_reward"] == [1.0, 1.0]
    assert result["episode_turns"] == [4, 4]
    assert task_reward(**result) == [1.0, 1.0]


def test_the_world_model_reward_is_the_mean_of_the_predictions(tokenizer):
    # It predicts that nothing changes: right about the second and third look, wrong about the journey.
    result = play(tokenizer, ["house-1"], [" look\n", " look\n", " go to bedroom\n", " look\n"], max_turns=4)
    assert world_model_reward(**result) == result["episode_world_model"] == [0.75]


def test_an_environment_without_predictions_cannot_reward_them(tokenizer):
    result = play(tokenizer, ["house-1"], [" look\n"], max_turns=1, env=ToyHouseEnv)
    with pytest.raises(InvalidConfigError, match="WorldModelRewardWrapper"):
        world_model_reward(**result)


def test_what_is_written_behind_the_end_of_a_turn_is_cut_off(tokenizer):
    result = play(tokenizer, ["house-1"], [" look\nand more"], max_turns=1)
    assert tokenizer.decode(result["completion_ids"][0]) == " look\n<|eos|>"
    assert result["logprobs"][0][-1] == 0.0
    long = play(tokenizer, ["house-1"], [" a word and another and no end"], max_turns=1, action_tokens=3)
    assert sum(long["env_mask"][0]) == 3


def test_an_episode_without_room_for_another_turn_is_cut_off(tokenizer):
    trainer = fake_trainer(max_completion_length=150)
    result = play(tokenizer, ["house-1"], [" look\n"] * 20, trainer=trainer, max_turns=20, action_tokens=10)
    (tokens,) = result["completion_ids"]
    assert 80 < len(tokens) <= 150
    assert 1 < result["episode_turns"][0] < 20
    assert tokens[-1] != tokenizer.eos_token_id
    assert result["env_mask"][0][-1] == 1  # what nobody answers any more is not heard


def test_a_model_that_writes_nothing_makes_no_empty_row(tokenizer):
    result = play(tokenizer, ["house-1"], [""], max_turns=1)
    assert result["completion_ids"] == [[tokenizer.eos_token_id]]
    assert result["env_mask"] == [[0]]


def test_a_world_that_cannot_be_entered_is_a_row_that_counts_for_nothing(tokenizer, caplog):
    result = play(tokenizer, ["house-1", "nowhere"], winning("house-1"))
    assert result["episode_failed"] == [False, True]
    assert task_reward(**result) == [1.0, None]
    assert world_model_reward(**result)[1] is None
    assert sum(result["env_mask"][1]) == 0
    assert min(map(len, result["completion_ids"] + result["prompt_ids"])) > 0
    assert "nowhere" in caplog.text


def test_nothing_but_failures_is_an_error(tokenizer):
    with pytest.raises(RWMLGymError, match=r"all 2 episodes failed.*nowhere"):
        play(tokenizer, ["nowhere", "nowhere"], [])


@pytest.mark.parametrize("prompt", ["look", "{}", "[1]"])
def test_other_prompts_are_refused(tokenizer, prompt):
    with pytest.raises(InvalidConfigError, match="make_dataset"):
        EnvironmentRollout(make_env, Prompts(tokenizer))([prompt], fake_trainer())


def test_no_games_are_refused():
    with pytest.raises(InvalidConfigError, match="game"):
        make_dataset([])


def test_a_length_that_holds_one_turn_only_is_refused(tokenizer):
    with pytest.raises(InvalidConfigError, match="max_completion_length"):
        play(tokenizer, ["house-1"], [], trainer=fake_trainer(max_completion_length=40))


# Where the turns are written


def test_sampling_here_asks_for_a_model_that_can(tiny_folder, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    trainer = fake_trainer(model=model, top_p=1.0, top_k=0, min_p=None)
    trainer.accelerator.unwrap_model = lambda model: model
    with pytest.raises(InvalidConfigError, match="load_model"):
        play(tokenizer, ["house-1"], [], trainer=trainer, generate=None)


def test_sampling_here_knows_no_nucleus(tiny, tokenizer):
    trainer = fake_trainer(model=tiny[0], top_p=0.9, top_k=0, min_p=None)
    trainer.accelerator.unwrap_model = lambda model: model
    with pytest.raises(InvalidConfigError, match="top_p"):
        play(tokenizer, ["house-1"], [], trainer=trainer, generate=None)


def _vllm(tokenizer: Any, commands: Sequence[str], **settings: Any) -> Any:
    """A stand-in with the signature of TRL's: what it is asked, and answers as it gives them."""
    VLLMGeneration = pytest.importorskip("trl.generation.vllm_generation").VLLMGeneration  # noqa: N806

    turns = iter(commands)

    def generate(prompts, images, num_generations, profiler=None):
        assert images is None
        assert num_generations == 1
        tokens = tokenizer.encode(next(turns))
        rows = [tuple(tokens) for _ in prompts]
        return prompts, rows, [[[-0.5] for _ in row] for row in rows], [[[t] for t in row] for row in rows]

    vllm = create_autospec(VLLMGeneration, instance=True, **settings)
    vllm.generate.side_effect = generate
    return vllm


@pytest.mark.long
def test_vllm_writes_where_the_trainer_uses_it(tokenizer):
    rollout = EnvironmentRollout(make_env, Prompts(tokenizer, history=0), action_tokens=40)
    assert rollout.generation_kwargs == {"max_tokens": 40, "stop": ["\n"]}
    vllm = _vllm(tokenizer, winning("house-1"), generation_kwargs=rollout.generation_kwargs)
    result = rollout(make_dataset(["house-1", "house-1"])["prompt"], fake_trainer(use_vllm=True, vllm_generation=vllm))
    expected = play(tokenizer, ["house-1", "house-1"], winning("house-1"))
    assert result["completion_ids"] == expected["completion_ids"]
    assert result["episode_reward"] == [1.0, 1.0]
    assert set(result["logprobs"][0]) == {-0.5, 0.0}


def test_vllm_without_the_length_of_a_turn_is_refused(tokenizer):
    trainer = fake_trainer(use_vllm=True, vllm_generation=_vllm(tokenizer, [], generation_kwargs={}))
    with pytest.raises(InvalidConfigError, match=r"generation_kwargs=rollout\.generation_kwargs"):
        play(tokenizer, ["house-1"], [], trainer=trainer, generate=None)


def test_processes_ask_vllm_in_step(tokenizer):
    # The other process plays two turns longer: this one goes on asking, for as many, and plays nothing.
    commands = [*winning("house-1"), " look\n", " look\n"]
    trainer = fake_trainer(
        use_vllm=True, vllm_generation=_vllm(tokenizer, commands, generation_kwargs={"max_tokens": 40})
    )
    others = iter([True] * 6 + [False])
    trainer.accelerator.num_processes = 2
    trainer.accelerator.gather = lambda running: torch.cat([running, torch.tensor([next(others)])])
    result = play(tokenizer, ["house-1", "house-1"], [], trainer=trainer, generate=None)
    asked = [call.kwargs["prompts"] for call in trainer.vllm_generation.generate.call_args_list]
    assert [len(prompts) for prompts in asked] == [2] * 6
    assert result["episode_turns"] == [4, 4]


# What is random


class Dice(gym.Env[str, str]):
    """Says a random number, whatever is done: what it says follows from its seed only."""

    observation_space = action_space = gym.spaces.Text(100)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return f"You see a {self.np_random.integers(1_000_000)}.", {"task": "Count."}

    def step(self, action):
        return f"You see a {self.np_random.integers(1_000_000)}.", 0.0, False, False, {}


def sampled(tokenizer: Any, policy: Any, steps: Sequence[int], games: Sequence[str | int]) -> list[dict[str, Any]]:
    """One batch of episodes at each of these steps of the trainer."""
    rollout = EnvironmentRollout(Dice, Prompts(tokenizer, history=0), max_turns=2, action_tokens=5)
    trainer = fake_trainer(model=policy, processing_class=tokenizer, temperature=1.0, top_p=1.0, top_k=0, min_p=None)
    trainer.accelerator.unwrap_model = lambda model: model
    prompts = make_dataset(games)["prompt"]
    found = []
    for step in steps:
        trainer.state.global_step = step
        found.append(rollout(prompts, trainer))
    return found


def test_a_resumed_training_plays_what_an_uninterrupted_one_would(adapted):
    policy, tokenizer = adapted
    whole = sampled(tokenizer, policy, [0, 1, 2, 3], ["a", "a", 7])
    resumed = sampled(tokenizer, policy, [2, 3], ["a", "a", 7])
    assert whole[2:] == resumed
    rows = [str((batch["prompt_ids"], batch["completion_ids"])) for batch in whole]
    assert len(set(rows)) == 4


def test_batches_of_one_step_differ_and_are_the_same_again(adapted):
    policy, tokenizer = adapted
    first, second = sampled(tokenizer, policy, [5, 5], ["a", 7])
    assert first["completion_ids"] != second["completion_ids"]
    assert [first, second] == sampled(tokenizer, policy, [5, 5], ["a", 7])


def test_evaluation_is_not_what_is_trained_on(adapted):
    policy, tokenizer = adapted
    (evaluated,) = sampled(tokenizer, policy.eval(), [1], ["a"])
    (trained,) = sampled(tokenizer, policy.train(), [1], ["a"])
    assert evaluated["completion_ids"] != trained["completion_ids"]


def test_episodes_of_one_game_in_one_step_begin_alike_whoever_plays_them(adapted):
    policy, tokenizer = adapted
    (found,) = sampled(tokenizer, policy, [3], ["a", "a", "b"])
    (alone,) = sampled(tokenizer, policy, [3], ["a"])
    assert found["prompt_ids"][0] == found["prompt_ids"][1] == alone["prompt_ids"][0]
    assert found["prompt_ids"][0] != found["prompt_ids"][2]


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, cloudpickle_round])
def test_a_rollout_can_be_copied_in_the_middle_of_a_training(tokenizer, copied):
    rollout = EnvironmentRollout(make_env, Prompts(tokenizer, history=0), Looks(tokenizer), max_turns=2)
    prompts = make_dataset(["house-1", 3])["prompt"]
    before = rollout(prompts, fake_trainer())
    assert copied(rollout)(prompts, fake_trainer()) == before == rollout(prompts, fake_trainer())


# Rewards


@pytest.mark.parametrize("reward", [task_reward, world_model_reward])
def test_rewards_without_their_columns_name_them(reward):
    with pytest.raises(InvalidConfigError, match=r"column 'episode_\w+'.*EnvironmentRollout"):
        reward(prompts=["?"], completions=["look"], trainer_state=None)
