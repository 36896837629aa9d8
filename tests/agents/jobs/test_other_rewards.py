"""The main job on states with arbitrary parts, and with a judge: what the model is shown, and what the reward sees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.jobs import world_model
from rwml_gym.agents.jobs.plan import plan_run
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.language.judge import JudgeReward
from rwml_gym.agents.language.models import load_model
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.diagnostics.perturbations.nuisance import arbitrary, plain
from rwml_gym.errors import InvalidConfigError, ModelNotFoundError
from rwml_gym.reward.nuisance import without_nuisance
from rwml_gym.transitions import TransitionDataset
from rwml_gym.world_models.base import MostFrequentOutcome
from tests.helpers.small_world_model import small_config

SFT = SFTConfig(steps=2, batch_size=2, learning_rate=1e-2, warmup=0, mask_arbitrary=True, loss="clipped_mae")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def noisy(tiny_folder, tmp_path_factory):
    """A run with arbitrary parts: its folder, its results, and the prompts, targets and masks of its SFT."""
    folder, updates = tmp_path_factory.mktemp("noisy") / "run", []
    update = world_model.sft_update

    def seen(model, optimizer, prompts, targets, *args, **named):
        updates.append((prompts, targets, named["masks"]))
        return update(model, optimizer, prompts, targets, *args, **named)

    stage = StageConfig(steps=1, groups=4, group_size=4, evaluate_every=1)
    config = small_config(
        tiny_folder, nuisance=0.4, sft=SFT, max_new_tokens=40, warm_start=True, baseline=True, stage=stage, forgetting=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_model, "sft_update", seen)
        results = run_world_model(config, folder)
    return folder, results, updates, config


@pytest.mark.long
def test_the_recorded_transitions_are_those_that_were_played(noisy):
    folder = noisy[0]
    for name in ("train", "held_out"):
        assert not any("~" in t.next_state + t.state for t in TransitionDataset.load(folder / "transitions" / name))


def test_models_are_shown_arbitrary_parts_and_learn_targets_without_them(noisy, tiny_folder):
    _, tokenizer = load_model(str(tiny_folder), "float32", "cpu")
    prompts, targets, masks = noisy[2][0]
    assert any("~" in tokenizer.decode(prompt) for prompt in prompts)
    assert any("~" in tokenizer.decode(target) for target in targets)
    for target, mask in zip(targets, masks, strict=True):
        learnt = tokenizer.decode([token for token, counts in zip(target, mask, strict=True) if counts])
        assert "~" not in learnt
        assert len(mask) == len(target)


def test_the_reward_of_a_prediction_does_not_depend_on_arbitrary_parts(noisy):
    folder, results, _, _ = noisy
    train, held_out = (list(TransitionDataset.load(folder / "transitions" / name)) for name in ("train", "held_out"))
    lookup = MostFrequentOutcome(TransitionDataset(train))
    expected = lookup.predict([t.history for t in held_out], [t.action for t in held_out], None)
    rows = results["most frequent"]
    assert [row.prediction for row in rows] == expected
    assert any("~" in row.next_state for row in rows)
    assert [without_nuisance(row.next_state) for row in rows] == [t.next_state for t in held_out]
    assert [row.exact for row in rows] == [p == t.next_state for p, t in zip(expected, held_out, strict=True)]
    assert any(row.exact for row in rows)
    assert all(row.reward == 1 for row in rows if row.exact)


def test_the_best_sft_of_all_evaluations_is_kept_and_can_be_told(noisy):
    from rwml_gym.agents.jobs.claims.metrics import metrics_of

    folder, results, _, _ = noisy
    names = ["warm_start", *(path.stem for path in (folder / "evaluation").glob("sft_same_time*.json"))]
    rewards = {
        name: sum(row["reward"] for row in _json(folder / "evaluation" / f"{name}.json")) / len(results["RWML"])
        for name in names
    }
    assert metrics_of("rwml", folder)["sft_same_time.best"] == pytest.approx(max(rewards.values()))
    kept = (folder / "adapters" / "sft_same_time_best" / "adapter_model.safetensors").read_bytes()
    best = [name for name, reward in rewards.items() if reward == max(rewards.values())]
    assert kept in [(folder / "adapters" / name / "adapter_model.safetensors").read_bytes() for name in best]
    assert (folder / "adapters" / "sft_same_time_best" / "world_model.json").is_file()


def test_what_the_run_showed_follows_from_its_seed(noisy):
    folder, results, _, config = noisy
    from rwml_gym.agents.seeding import seed_of

    held_out = TransitionDataset.load(folder / "transitions" / "held_out")
    shown = arbitrary(held_out, 0.4, seed_of(config.seed, "nuisance"))
    assert [row.next_state for row in results["RWML"]] == [t.next_state for t in shown]
    assert plain(shown) == list(held_out)


@pytest.mark.long
@pytest.mark.parametrize("judge", ["base", "named"])
def test_a_judge_is_the_model_without_adapter_and_its_no_is_the_distance(tiny_folder, tmp_path, judge):
    name = "base" if judge == "base" else str(tiny_folder)
    config = small_config(tiny_folder, judge=name, threshold=None, warm_start=True, forgetting=0)
    results = run_world_model(config, tmp_path / "run")
    rows = results["RWML"]
    expected = JudgeReward(*load_model(str(tiny_folder), "float32", "cpu"))(
        [row.prediction for row in rows], [row.next_state for row in rows]
    )
    assert [row.distance for row in rows] == pytest.approx(expected.distances.tolist(), abs=1e-4)
    assert [row.reward for row in rows] == [float(row.distance < 0.5) for row in rows]
    assert _json(tmp_path / "run" / "results.json")["threshold"] == 0.5
    (step,) = _json(tmp_path / "run" / "metrics" / "rwml.json")
    assert step["groups"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nuisance": 1.0}, "nuisance of at least 0 and below 1"),
        ({"nuisance": 0.3, "target_view": "schema"}, "target view 'raw'"),
        ({"sft": SFT}, "nuisance above 0"),
        ({"judge": ""}, "name of a judge"),
        ({"judge": "base", "threshold_by": "paper"}, "no other way"),
        ({"judge": "base", "threshold": 1.5}, "threshold"),
        ({"judge": "base", "filter": FilterConfig(threshold=1.5)}, "threshold"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(InvalidConfigError, match=message):
        RWMLConfig(**{"threshold": None, **changes})


def test_sft_alone_has_nothing_to_mask_and_actions_have_one_loss():
    with pytest.raises(InvalidConfigError, match=r"no sft\.mask_arbitrary"):
        SFTJobConfig(target="states", sft=SFTConfig(mask_arbitrary=True))
    for changes in ({"loss": "clipped_mae"}, {"decay": 0.1}, {"balance": True}, {"max_grad_norm": 0.5}):
        (name,) = changes
        with pytest.raises(InvalidConfigError, match=rf"no sft\.{name} for target 'actions'"):
            SFTJobConfig(sft=SFTConfig(**changes))
    with pytest.raises(InvalidConfigError, match="no action_tokens with target 'states'"):
        SFTJobConfig(target="states", action_tokens=9)
    assert SFTJobConfig(target="states", sft=SFTConfig(loss="clipped_mae")).sft.token_loss.kind == "clipped_mae"


@pytest.mark.long
def test_a_judge_that_is_not_there_or_has_tools_to_judge_is_told_before_anything_is_written(tiny_folder, tmp_path):
    missing = small_config(tiny_folder, judge=str(tmp_path / "nowhere"))
    with pytest.raises(ModelNotFoundError):
        run_world_model(missing, tmp_path / "run")
    assert "nowhere" in plan_run(missing, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    pytest.importorskip("tau2")
    tools = replace(missing, env="tau2", judge="base")
    for start in (run_world_model, plan_run):
        with pytest.raises(InvalidConfigError, match="without results of tools"):
            start(tools, tmp_path / "run")
    assert not (tmp_path / "run").exists()
