"""The main job on the toy house with a tiny model: what each stage starts from, learns from and is compared on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from safetensors.torch import load_file

from rwml_gym.agents.config.world_model import FilterConfig, RWMLConfig, StageConfig
from rwml_gym.agents.jobs import world_model
from rwml_gym.agents.jobs.data import some_of, with_outcome
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.language.models import load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.world_model import LanguageWorldModel
from rwml_gym.agents.learning.options import GRPOConfig, SFTConfig
from rwml_gym.transitions import Transition, TransitionDataset, Turn
from rwml_gym.world_models.base import MostFrequentOutcome, NothingChanges
from tests.helpers.small_world_model import small_config


def _config(model: Path, **changes: Any) -> RWMLConfig:
    return small_config(model, **{"grpo": GRPOConfig(beta=0.1), **changes})


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _weights(folder: Path, name: str) -> dict[str, Any]:
    return load_file(folder / "adapters" / name / "adapter_model.safetensors")


Finished = tuple[Path, dict[str, list], list[list[Transition]]]


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory) -> Finished:
    """A run with the warm start and the baseline; its folder, its results, and what each SFT step could draw from."""
    folder, learnt = tmp_path_factory.mktemp("rwml") / "run", []
    step = world_model.sft_step

    def seen(predictor, data, *args, **named):
        learnt.append(list(data))
        return step(predictor, data, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_model, "sft_step", seen)
        results = run_world_model(_config(tiny_folder, warm_start=True, baseline=True), folder)
    return folder, results, learnt


def _data(folder: Path, name: str) -> list[Transition]:
    return list(TransitionDataset.load(folder / "transitions" / name))


@pytest.mark.long
def test_the_held_out_games_are_played_apart_from_the_training_games(finished):
    folder, results, _ = finished
    games = {name: {t.game for t in _data(folder, name)} for name in ("train", "held_out")}
    assert {name: len(found) for name, found in games.items()} == {"train": 3, "held_out": 3}
    assert not games["train"] & games["held_out"]
    for predictions in results.values():
        assert {p.game for p in predictions} == games["held_out"]


def test_the_simple_models_know_the_training_games_only(finished):
    folder, results, _ = finished
    train, held_out = _data(folder, "train"), _data(folder, "held_out")
    for name, model in (("most frequent", MostFrequentOutcome(train)), ("nothing changes", NothingChanges())):
        expected = model.predict([t.history for t in held_out], [t.action for t in held_out], None)
        assert [p.prediction for p in results[name]] == expected


def test_the_base_model_is_scored_as_it_was_loaded_and_greedily(finished, tiny_folder):
    folder, results, _ = finished
    model, tokenizer = load_model(str(tiny_folder), "float32", "cpu")
    config = _config(tiny_folder)
    predictor = LanguageWorldModel(model, tokenizer, config.make_prompts(tokenizer, "game"), config.max_new_tokens)
    held_out = _data(folder, "held_out")
    expected = predictor.predict(
        [t.history for t in held_out], [t.action for t in held_out], [t.task for t in held_out]
    )
    assert [p.prediction for p in results["base"]] == expected


def test_the_baseline_learns_for_as_long_as_grpo_from_what_grpo_chooses_from(finished):
    folder, _, learnt = finished
    train = _data(folder, "train")
    grpo, sft = (_json(folder / "metrics" / f"{name}.json") for name in ("rwml", "warm_start"))
    spent, each = sum(row["seconds"] for row in grpo), float(np.median([row["seconds"] for row in sft]))
    found = _json(folder / "same_time.json")
    assert found["grpo_seconds"] == pytest.approx(spent)
    assert found["sft_seconds_per_step"] == pytest.approx(each)
    assert found["steps"] == round(spent / each)
    assert len(_json(folder / "metrics" / "sft_same_time.json")) == found["steps"]
    warm, baseline = learnt[0], learnt[2:]
    assert len(warm) == round(0.2 * len(train))
    for data in baseline:  # all that is not in the warm start, once
        assert sorted(map(train.index, [*warm, *data])) == sorted(map(train.index, train))


def test_with_a_warm_start_grpo_begins_there_and_is_measured_against_it(finished):
    folder, results, _ = finished
    (row,) = _json(folder / "metrics" / "rwml.json")
    assert row["signal_groups"] > 0
    assert row["kl"] == pytest.approx(0, abs=1e-6)  # the first update is made at the reference
    assert list(results) == ["nothing changes", "most frequent", "base", "warm start", "RWML", "SFT same time"]


@pytest.mark.long
@pytest.mark.parametrize("warm", [True, False])
def test_without_updates_the_policy_is_what_grpo_starts_from(tiny_folder, tmp_path, warm):
    config = _config(tiny_folder, warm_start=warm, stage=StageConfig(steps=0))
    results = run_world_model(config, tmp_path)
    sft, policy = _weights(tmp_path, "warm_start"), _weights(tmp_path, "rwml")
    learnt = [name for name in sft if "lora_B" in name]
    assert all(sft[name].abs().max() > 0 for name in learnt)
    assert all(policy[name].equal(sft[name]) if warm else policy[name].abs().max() == 0 for name in learnt)
    assert results["RWML"] == results["warm start" if warm else "base"]


@pytest.mark.long
def test_a_state_as_long_as_a_prediction_fits(finished, tiny_folder, tmp_path):
    folder, _, _ = finished
    _, tokenizer = load_model(str(tiny_folder), "float32", "cpu")
    prompts = Prompts(tokenizer, max_tokens=150)
    lengths = sorted(len(prompts.target(t.next_state)) for t in _data(folder, "held_out"))
    limit = lengths[len(lengths) // 2]
    config = _config(tiny_folder, max_new_tokens=limit, stage=StageConfig(steps=0), sft=SFTConfig(steps=0))
    run_world_model(config, tmp_path)
    share = sum(length <= limit for length in lengths) / len(lengths)
    assert _json(tmp_path / "results.json")["fits"] == {"": pytest.approx(share)}


# Choices of transitions


def _numbered(count: int) -> TransitionDataset:
    return TransitionDataset(
        Transition((Turn("", "A room."),), "look", f"State {i}." if i % 3 else " \n", game=str(i)) for i in range(count)
    )


def test_what_has_no_outcome_is_left_out():
    assert [int(t.game) for t in with_outcome(_numbered(9))] == [1, 2, 4, 5, 7, 8]


def test_some_transitions_are_a_random_part_in_their_order():
    data = _numbered(40)
    chosen = [int(t.game) for t in some_of(data, 10, seed=0)]
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen) != list(range(10))
    assert [int(t.game) for t in some_of(data, 10, seed=1)] != chosen
    for everything in (0, 40, 41):
        assert list(some_of(data, everything, seed=0)) == list(data)


@pytest.mark.long
def test_at_most_as_many_held_out_transitions_are_predicted_as_asked_for(tiny_folder, tmp_path):
    config = _config(tiny_folder, max_held_out=5, stage=StageConfig(steps=0), sft=SFTConfig(steps=0))
    results = run_world_model(replace(config, filter=FilterConfig(share=0.2, attempts=1, limit=1)), tmp_path)
    assert {len(predictions) for predictions in results.values()} == {5}
    held_out = _data(tmp_path, "held_out")
    places = [
        [(t.game, t.action, t.next_state) for t in held_out].index((p.game, p.action, p.next_state))
        for p in results["base"]
    ]
    assert places != list(range(5))


@pytest.mark.long
def test_held_out_transitions_are_predicted_between_updates_which_change_nothing_and_cost_no_time(
    tiny_folder, tmp_path
):
    stage = StageConfig(steps=3, groups=4, group_size=4)
    watched = replace(stage, evaluate_every=2)
    for name, settings in (("plain", stage), ("watched", watched)):
        run_world_model(_config(tiny_folder, warm_start=True, baseline=True, stage=settings), tmp_path / name)
    files = {path.stem for path in (tmp_path / "watched" / "evaluation").iterdir()}
    assert "rwml_step_2" in files
    assert "rwml_step_0" not in files
    assert set(_json(tmp_path / "watched" / "results.json")["forgetting"]) >= {"RWML step 2"}
    for name in _weights(tmp_path / "plain", "rwml"):
        a, b = (_weights(tmp_path / run, "rwml")[name] for run in ("plain", "watched"))
        assert (a == b).all(), name
    rows = _json(tmp_path / "watched" / "metrics" / "rwml.json")
    apart = sum(row.get("seconds_evaluated", 0.0) for row in rows)
    assert apart > 0
    spent = sum(row["seconds"] for row in rows) - apart
    assert _json(tmp_path / "watched" / "same_time.json")["grpo_seconds"] == pytest.approx(spent)
