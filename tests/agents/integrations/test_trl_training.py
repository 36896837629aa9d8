"""The contract with TRL: its own `GRPOTrainer` on our episodes, two steps on a CPU, and what it makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rwml_gym.agents.integrations.trl import EnvironmentRollout, make_dataset, task_reward, world_model_reward
from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.grpo import policy_loss
from rwml_gym.agents.learning.options import GRPOConfig
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.wrappers import WorldModelRewardWrapper
from tests.conftest import policy_weights, randomise
from tests.helpers.grpo_groups import LOSS_TYPES

pytestmark = pytest.mark.long

trl: Any = pytest.importorskip("trl")

G = 3
STEPS = 2
LONGEST = 160


def make_env() -> WorldModelRewardWrapper:
    return WorldModelRewardWrapper(ToyHouseEnv(), encoder="hashing", mode="report", predictor="nothing-changes")


def some_difference(completion_ids, episode_failed, **_: Any) -> list[float | None]:
    """A random model earns nothing by playing: without differences there would be no gradient to compare."""
    return [None if f else float(sum(tokens) % 7) for tokens, f in zip(completion_ids, episode_failed, strict=True)]


class _Trainer(trl.GRPOTrainer):
    """Keeps each batch, its loss, and the model's log-probabilities before the update."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[SimpleNamespace] = []

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        prompts = [
            ids[mask.bool()].tolist() for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)
        ]
        mask = (inputs["completion_mask"] * inputs["tool_mask"]).float()
        with torch.no_grad():
            logprobs = completion_logprobs(
                self.accelerator.unwrap_model(model), prompts, inputs["completion_ids"], mask
            )
        kept = {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        self.seen.append(SimpleNamespace(inputs=kept, loss=loss.item(), logprobs=logprobs, mask=mask))
        return loss


def train(
    folder: str,
    out: str,
    alter: Callable = lambda result: result,
    env: Callable = make_env,
    resume: str | None = None,
    games: Sequence[str | int] = ("house-1", 5),
    **settings: Any,
) -> SimpleNamespace:
    """Two steps of TRL's trainer on two games; `alter` changes what the rollout hands over."""
    model, tokenizer = load_model(folder, "float32", "cpu")
    policy = randomise(add_adapter(model, rank=4, alpha=8, seed=3))
    before = policy_weights(policy)
    own = EnvironmentRollout(env, Prompts(tokenizer, history=0), max_turns=3, action_tokens=6)
    calls: list[SimpleNamespace] = []

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        result = alter(own(prompts, trainer))
        calls.append(SimpleNamespace(prompts=list(prompts), result=copy.deepcopy(result)))
        return result

    trainer = _Trainer(
        model=policy,
        reward_funcs=[task_reward, world_model_reward, some_difference],
        rollout_func=rollout,
        train_dataset=make_dataset(games),
        processing_class=tokenizer,
        args=trl.GRPOConfig(
            output_dir=out,
            max_steps=STEPS,
            per_device_train_batch_size=2 * G,
            num_generations=G,
            max_completion_length=LONGEST,
            learning_rate=1e-3,
            beta=0.0,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            **{"save_strategy": "no", **settings},
        ),
    )
    trainer.train(resume_from_checkpoint=resume)
    return SimpleNamespace(trainer=trainer, calls=calls, before=before, after=policy_weights(policy))


@pytest.fixture(scope="module", autouse=True)
def _no_reminder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        yield


@pytest.fixture(scope="module", params=LOSS_TYPES)
def trained(request, tiny_folder, tmp_path_factory) -> SimpleNamespace:
    return train(str(tiny_folder), str(tmp_path_factory.mktemp("trl")), loss_type=request.param)


def test_trl_asks_for_one_row_a_prompt_and_trains_on_them(trained):
    assert len(trained.calls) == len(trained.trainer.seen) == STEPS
    for call in trained.calls:
        assert len(call.prompts) == 2 * G
        assert sorted(map(call.prompts.count, set(call.prompts))) == [G, G]
        assert {len(values) for values in call.result.values()} == {2 * G}
    assert all(not torch.equal(trained.after[name], weight) for name, weight in trained.before.items())


def test_rows_are_episodes_as_the_prompts_put_them(trained):
    tokenizer = trained.trainer.processing_class
    for call in trained.calls:
        result = call.result
        # The rows of one prompt are episodes of one game.
        texts = {(prompt, tuple(ids)) for prompt, ids in zip(call.prompts, result["prompt_ids"], strict=True)}
        assert len(texts) == 2
        assert all(tokenizer.decode(ids).endswith("\n>") for ids in result["prompt_ids"])
        assert result["episode_turns"] == [3] * (2 * G)
        for tokens, mask in zip(result["completion_ids"], result["env_mask"], strict=True):
            assert len(tokens) <= LONGEST
            heard = [tokenizer.decode(part) for own, part in _parts(tokens, mask) if not own]
            assert all(text.endswith("\n>") for text in heard[:2])
            assert heard[2:] in ([tokenizer.eos_token], [])  # none if the model's last turn ends with it
            assert tokens[-1] == tokenizer.eos_token_id
            assert all(len(part) <= 6 for own, part in _parts(tokens, mask) if own)


def test_trl_takes_over_masks_and_log_probabilities(trained):
    for call, seen in zip(trained.calls, trained.trainer.seen, strict=True):
        rows = _matched(call.result, seen.inputs)
        for row, (tokens, mask, logprobs) in enumerate(rows):
            length = len(tokens)
            assert len(mask) == len(logprobs) == length == int(seen.inputs["completion_mask"][row].sum())
            assert seen.inputs["tool_mask"][row, :length].tolist() == mask
            torch.testing.assert_close(
                seen.inputs["sampling_per_token_logps"][row, :length], torch.tensor(logprobs, dtype=torch.float32)
            )
            assert [value == 0.0 for value in logprobs] == [not own for own in mask]


def test_sampling_log_probabilities_are_those_of_the_model(trained):
    for seen in trained.trainer.seen:
        gap = (seen.inputs["sampling_per_token_logps"] - seen.logprobs) * seen.mask
        assert gap.abs().max() < 1e-4


def test_the_loss_of_trl_counts_only_what_the_model_wrote(trained):
    for seen in trained.trainer.seen:
        loss, sums = policy_loss(
            seen.logprobs,
            seen.logprobs,
            seen.inputs["advantages"][:, None],
            seen.mask,
            GRPOConfig(loss_type=trained.trainer.loss_type, beta=0.0),
            max_completion_length=LONGEST,
        )
        assert seen.loss == pytest.approx(loss.item(), abs=1e-5)
        assert seen.inputs["advantages"].abs().max() > 0.1
        assert sums["tokens"] < seen.inputs["completion_mask"].sum()


def test_a_training_that_trl_resumes_plays_what_the_whole_one_played(tiny_folder, tmp_path):
    games = [f"house-{i}" for i in range(8)]  # TRL's own order of games goes on within an epoch only
    whole = train(str(tiny_folder), str(tmp_path), games=games, save_strategy="steps", save_steps=1)
    resumed = train(str(tiny_folder), str(tmp_path / "again"), games=games, resume=str(tmp_path / "checkpoint-1"))
    assert len(whole.calls) == STEPS
    (again,) = resumed.calls
    assert sorted(again.prompts) == sorted(whole.calls[1].prompts)
    assert again.result == whole.calls[1].result


def test_trl_says_so_when_a_key_is_missing(tiny_folder, tmp_path):
    # Should TRL ask for other keys than these three, this or the tests above fail.
    for key in ("prompt_ids", "completion_ids", "logprobs"):
        with pytest.raises(ValueError, match=f"must return keys.*{key}"):
            train(str(tiny_folder), str(tmp_path), lambda result, key=key: {k: result[k] for k in result if k != key})


def test_an_episode_that_failed_has_no_part_in_the_update(tiny_folder, tmp_path):
    class Breaks(ToyHouseEnv):
        made = 0

        def __init__(self) -> None:
            super().__init__()
            Breaks.made += 1
            self.number = Breaks.made

        def step(self, action):
            if self.number == 2:
                raise OSError("out of order")
            return super().step(action)

    def broken() -> WorldModelRewardWrapper:
        return WorldModelRewardWrapper(Breaks(), encoder="hashing", mode="report", predictor="nothing-changes")

    done = train(str(tiny_folder), str(tmp_path), env=broken)
    assert [sum(call.result["episode_failed"]) for call in done.calls] == [1, 0]  # the next one has a new environment
    inputs = done.trainer.seen[0].inputs
    counting = (inputs["completion_mask"] * inputs["tool_mask"]).sum(1)
    assert (counting == 0).sum() == 1
    assert inputs["advantages"][counting == 0].item() == 0
    # The baseline of its group is that of the two others.
    assert inputs["advantages"].sum() == pytest.approx(0, abs=1e-5)


def _matched(result: dict[str, Any], inputs: dict[str, torch.Tensor]) -> list[Any]:
    """The rollout's rows in the order of the batch, which TRL has shuffled."""
    rows = list(zip(result["completion_ids"], result["env_mask"], result["logprobs"], strict=True))
    ordered = []
    for ids, mask in zip(inputs["completion_ids"], inputs["completion_mask"], strict=True):
        tokens = ids[mask.bool()].tolist()
        ordered.append(next(row for row in rows if row[0] == tokens))
    return ordered


def _parts(tokens: Sequence[int], mask: Sequence[int]) -> list[tuple[int, list[int]]]:
    """What the model wrote (1) and heard (0) in turns."""
    parts: list[tuple[int, list[int]]] = []
    for token, own in zip(tokens, mask, strict=True):
        if not parts or parts[-1][0] != own:
            parts.append((own, []))
        parts[-1][1].append(token)
    return parts
