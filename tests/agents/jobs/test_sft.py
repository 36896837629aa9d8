"""Supervised fine-tuning as a job."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("alfworld")

from safetensors.torch import load_file

from rwml_gym.agents.config.sft import SFT_PRESETS, SFTJobConfig, sft_preset
from rwml_gym.agents.jobs.plan import plan_run
from rwml_gym.agents.jobs.sft import run_sft
from rwml_gym.agents.language.logprobs import completion_logprobs
from rwml_gym.agents.language.models import load_adapter, load_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import InvalidDatasetError, Transition, TransitionDataset, Turn
from rwml_gym.wrappers import RecordTransitions


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from tests.conftest import write_model

    return write_model(tmp_path_factory.mktemp("sft") / "model", max_position_embeddings=8192)


def config(model: Path, **changes: Any) -> SFTJobConfig:
    settings: dict[str, Any] = {
        "model": str(model),
        "dtype": "float32",
        "task_types": ("pick_and_place_simple",),
        "lora_rank": 4,
        "max_prompt_tokens": 600,
        "games": 2,
        "held_out_games": 2,
        "max_steps": 6,
        "sft": SFTConfig(steps=4, batch_size=4, learning_rate=1e-2, warmup=0),
    }
    return SFTJobConfig(**{**settings, **changes})


@pytest.mark.long
def test_next_states_are_learnt(model, tmp_path):
    result = run_sft(config(model, target="states"), tmp_path)
    assert result["loss_after"] < result["loss_before"] - 0.1
    assert (tmp_path / "adapters/sft/adapter_model.safetensors").is_file()
    assert len(json.loads((tmp_path / "metrics/sft.json").read_text())) == 4
    # Again: nothing is done anew.
    stamp = (tmp_path / "adapters/sft/adapter_model.safetensors").stat().st_mtime_ns
    assert run_sft(config(model, target="states"), tmp_path) == result
    assert (tmp_path / "adapters/sft/adapter_model.safetensors").stat().st_mtime_ns == stamp


def _recorded(tmp_path: Path, games: int) -> tuple[str, TransitionDataset]:
    recorder = RecordTransitions(ToyHouseEnv())
    for game in recorder.unwrapped.games.names[:games]:
        recorder.reset(options={"game": game})
        for action in ("look", "go to kitchen", "go to bedroom"):
            recorder.step(action)
    data = TransitionDataset(recorder.transitions)
    data.save(tmp_path / "recorded")
    return str(tmp_path / "recorded"), data


@pytest.mark.long
def test_the_loss_is_that_of_held_out_games_of_the_same_data(model, tmp_path, capsys, monkeypatch):
    """No ALFWorld is played for transitions of a toy house, whatever `env` says."""
    path, data = _recorded(tmp_path, games=5)
    monkeypatch.setattr("rwml_gym.agents.runs.worlds._make", lambda *args, **kwargs: pytest.fail("nothing is played"))
    result = run_sft(config(model, target="states", task_types=None, transitions=path), tmp_path / "run")
    out = capsys.readouterr().out
    assert "9 transitions of 3 games; 6 transitions of 2 games are held out" in out
    # The loss before is the base model's on whole games of this data: two of these five.
    base, tokenizer = load_model(str(model), "float32", "cpu")
    prompts = Prompts(tokenizer, max_tokens=600)

    def pairs(model: torch.nn.Module) -> dict[tuple[str, str], float]:
        losses: dict[str, list[tuple[float, int]]] = {}
        for t in data:
            prompt, target = prompts.predict(t.history, t.action, t.task), prompts.target(t.next_state)[:96]
            with torch.no_grad():
                found = completion_logprobs(model, [prompt], torch.tensor([target]))
            losses.setdefault(t.game, []).append((-float(found.sum()), len(target)))
        return {
            pair: sum(a for game in pair for a, _ in losses[game]) / sum(n for game in pair for _, n in losses[game])
            for pair in itertools.combinations(losses, 2)
        }

    (held_out,) = (pair for pair, loss in pairs(base).items() if loss == pytest.approx(result["loss_before"], abs=1e-4))
    # The loss after is the trained model's on the same two.
    trained = load_adapter(base, str(tmp_path / "run/adapters/sft"))
    assert result["loss_after"] == pytest.approx(pairs(trained)[held_out], abs=1e-4)
    assert result["loss_after"] < result["loss_before"] - 0.1


def test_states_are_learnt_for_epochs_and_measured_on_transitions_of_other_games(model, tmp_path, capsys):
    _, data = _recorded(tmp_path, games=5)
    games = list(data.games)
    for name, chosen in (("train", games[:3]), ("other", games[3:]), ("both", games[2:])):
        TransitionDataset(t for t in data if t.game in chosen).save(tmp_path / name)
    settings = config(
        model,
        target="states",
        task_types=None,
        transitions=str(tmp_path / "train"),
        held_out_transitions=str(tmp_path / "other"),
        sft=SFTConfig(epochs=2, batch_size=3, learning_rate=1e-2, warmup=0),
    )
    run_sft(settings, tmp_path / "run")
    assert "6 steps of 3 on 9 transitions of 3 games; 6 transitions of 2 games are held out" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "run/metrics/sft.json").read_text())) == 6
    with pytest.raises(InvalidConfigError, match="1 games in both"):
        run_sft(dataclasses.replace(settings, held_out_transitions=str(tmp_path / "both")), tmp_path / "again")
    with pytest.raises(InvalidDatasetError, match=r"no such folder.*transitions/kept"):
        run_sft(dataclasses.replace(settings, transitions=str(tmp_path / "none")), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_window_that_was_not_recorded_is_refused_before_any_work(model, tmp_path):
    TransitionDataset(
        Transition((Turn("", "a"), Turn("look", "b")), "look", "c", step=step, game=str(step)) for step in (3, 4)
    ).save(tmp_path / "recorded")
    learn = config(
        model, target="states", env="toy", task_types=None, transitions=str(tmp_path / "recorded"), history=3
    )
    for start in (run_sft, plan_run):
        with pytest.raises(InvalidConfigError, match="at most 2 turns"):
            start(learn, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_transitions_of_one_game_leave_none_to_hold_out(model, tmp_path):
    path, _ = _recorded(tmp_path, games=1)
    with pytest.raises(InvalidConfigError, match=r"at least 2 games.*actual: 1"):
        run_sft(config(model, target="states", transitions=path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_transitions_of_a_service_are_asked_for_as_such(model, tmp_path, monkeypatch):
    _, data = _recorded(tmp_path, games=2)
    TransitionDataset(dataclasses.replace(t, role="tool") for t in data).save(tmp_path / "service")
    asked: list[str] = []
    make = SFTJobConfig.make_prompts

    def spied(self, tokenizer, world, **settings):
        asked.append(world)
        return make(self, tokenizer, world, **settings)

    monkeypatch.setattr(SFTJobConfig, "make_prompts", spied)
    run_sft(
        config(model, target="states", sft=SFTConfig(steps=1), transitions=str(tmp_path / "service")), tmp_path / "run"
    )
    assert asked == ["service"]


@pytest.mark.long
def test_imitation_says_nothing_of_grpo(model, tmp_path, capfd):
    run_sft(config(model, env="toy", task_types=None, history=0, max_prompt_tokens=4000), tmp_path)
    said = "".join(capfd.readouterr())
    assert "Imitation: 4 steps" in said
    assert "GRPO: " not in said
    assert "policy: " not in said


@pytest.mark.long
def test_actions_are_imitated(model, tmp_path):
    result = run_sft(config(model, max_steps=9, history=0, max_prompt_tokens=4000), tmp_path)
    assert [e["step"] for e in result["evaluations"]] == [0]
    losses = [row["loss"] for row in json.loads((tmp_path / "metrics/imitation.json").read_text())]
    assert losses[-1] < losses[0]
    assert load_file(tmp_path / "adapters/imitation/adapter_model.safetensors")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SFTJobConfig(target="rewards"), "actions"),
        (lambda: SFTJobConfig(games=0), "games"),
        (lambda: sft_preset("none"), "demo"),
    ],
)
def test_what_cannot_be_learnt_is_refused(make, match):
    with pytest.raises(InvalidConfigError, match=match):
        make()


def test_presets_have_their_names():
    assert {"demo", "smollm2", "smoke"} <= SFT_PRESETS.keys()
