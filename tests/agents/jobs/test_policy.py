"""Policy training on real generated games, with a tiny model that can learn next to nothing: the machinery."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("matplotlib")

from safetensors.torch import load_file

from rwml_gym.agents.config.base import FaultConfig
from rwml_gym.agents.config.files import save_config
from rwml_gym.agents.config.policy import (
    POLICY_PRESETS,
    EpisodeConfig,
    EvaluationConfig,
    ImitationConfig,
    PolicyConfig,
    PolicyStageConfig,
    policy_preset,
)
from rwml_gym.agents.jobs.policy import run_policy
from rwml_gym.agents.learning.options import GRPOConfig, ObservationLossConfig
from rwml_gym.errors import ConfigMismatchError, InvalidConfigError, ModelNotFoundError
from rwml_gym.transitions import Transition, TransitionDataset, Turn
from tests.helpers.policy_run import walk_for_reward


@pytest.fixture(autouse=True, scope="module")
def walking():
    """Walks are rewarded, as `tests.helpers.policy_run` does in other processes: there is something to learn from."""
    from rwml_gym.envs.alfworld.env import ALFWorldEnv

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ALFWorldEnv, "step", walk_for_reward)
        yield


def config(model: Path, **changes: Any) -> PolicyConfig:
    """Two updates on two games, with constrained actions: a random model walks now and then."""
    settings: dict[str, Any] = {
        "model": str(model),
        "dtype": "float32",  # so that sums in another order are the same to many digits
        "task_types": ("pick_and_place_simple",),
        "max_prompt_tokens": 4000,
        "lora_rank": 4,
        "episode": EpisodeConfig(max_steps=3, decoding="constrained", slots=3),
        "imitation": ImitationConfig(steps=2, games=3, batch_size=2),
        "stage": PolicyStageConfig(steps=2, games=2, groups=2, group_size=2, checkpoint_every=1),
        "evaluation": EvaluationConfig(games=2, temperature=1.0, every=1, training_games=True),
        "seed": 3,
    }
    return PolicyConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model with room for whole episodes of its byte-level tokens."""
    from tests.conftest import write_model

    return write_model(tmp_path_factory.mktemp("policy") / "model", max_position_embeddings=8192)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


@pytest.fixture(scope="module")
def finished(model, walking, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "run"
    run_policy(config(model, imitation=ImitationConfig()), folder)
    return folder


@pytest.mark.long
def test_a_run_leaves_its_results(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*")}
    assert names >= {"adapters/policy/adapter_model.safetensors", "report.txt", "curves.png", "config.yaml"}
    rows = _json(finished / "metrics" / "policy.json")
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["episodes"] == 4
        assert row["failed"] == 0
        assert row["invalid"] == 0  # constrained to what is admissible
        assert 0 <= row["success"] <= 1
        assert row["sampling_mismatch_max"] < 1e-3
        assert row["signal_groups"] > 0
        assert row["grad_norm"] > 0
    evaluations = _json(finished / "report.json")
    assert [(e["name"], e["step"]) for e in evaluations] == [
        (name, step) for step in (0, 1, 2) for name in ("training", "held-out")
    ]
    assert "95 % intervals" in (finished / "report.txt").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_same_run_again_is_the_same_and_a_finished_one_is_not_played_again(finished, model, tmp_path):
    settings = config(model, imitation=ImitationConfig())
    again = run_policy(settings, tmp_path / "again")
    assert [vars(e) for e in again] == _json(finished / "report.json")
    assert _untimed(_json(tmp_path / "again/metrics/policy.json")) == _untimed(_json(finished / "metrics/policy.json"))
    weights = finished / "adapters/policy/adapter_model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert run_policy(settings, finished) == again
    assert weights.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("sequence", ["episode", "turn"])
def test_a_model_that_predicts_nothing_earns_nothing(model, tmp_path, sequence):
    """A random model predicts nothing: what it earns is 0, and that is no signal."""
    settings = config(
        model,
        episode=EpisodeConfig(max_steps=3, predictions=True, action_tokens=24),
        imitation=ImitationConfig(),
        history=0 if sequence == "episode" else 2,
        stage=PolicyStageConfig(
            steps=1,
            games=1,
            groups=1,
            group_size=4,
            sequence=sequence,
            world_model_weight=1.0,
            encoder="hashing",
            threshold=1.9,
        ),
        evaluation=EvaluationConfig(games=0),
    )
    run_policy(settings, tmp_path)
    (row,) = _json(tmp_path / "metrics/policy.json")
    assert row["gap_reward"] == 0
    assert row["signal_groups"] == 0
    assert row["loss"] == 0


@pytest.mark.long
@pytest.mark.parametrize("history", [0, 2])
@pytest.mark.parametrize("placebo", ["none", "shuffled", "random"])
def test_a_model_adapts_to_a_world_by_its_answers_alone(model, tmp_path, history, placebo):
    loss = ObservationLossConfig("cross_entropy", weight=1.0, placebo=placebo)
    settings = config(
        model,
        history=history,
        imitation=ImitationConfig(),
        stage=PolicyStageConfig(
            steps=4, games=2, groups=2, group_size=2, rounds=3, task_weight=0.0, observation_loss=loss
        ),
        grpo=GRPOConfig(beta=0.0, learning_rate=1e-2),
        evaluation=EvaluationConfig(games=0),
    )
    run_policy(settings, tmp_path)
    rows = _json(tmp_path / "metrics/policy.json")
    assert [row["signal_groups"] for row in rows] == [0] * 4
    assert [row["groups"] for row in rows] == [2] * 4  # no further rounds for a signal that nobody asked for
    assert all(row["grad_norm"] > 0 for row in rows)
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["observation_loss"], rel=1e-4)
    if placebo == "none":
        assert rows[-1]["observation_loss"] < rows[0]["observation_loss"] - 0.2
    report = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert ("none in this run" if placebo == "none" else f"on {placebo} answers") in report


def test_predictions_are_scored_against_a_placebo_if_wanted():
    """What is right of the world is wrong of another turn; the task's rewards stay."""
    from rwml_gym.agents.jobs.channels import _score_again
    from rwml_gym.agents.players.language_model import TurnRecord
    from rwml_gym.agents.players.rollout import Episode, EpisodeSpec
    from rwml_gym.reward.gap import GapReward

    texts = ["You are in the kitchen.", "Nothing happens."]
    written = [TurnRecord([], None, f"look <next_state>{text}</next_state>") for text in texts]
    scored = Episode(EpisodeSpec("g"), [0.0, 1.0], [1.0, 1.0], texts, ["", ""], written=written)
    plain = Episode(EpisodeSpec("g"), [1.0], [], ["x"], [""], written=written[:1])
    # Its environment failed in the second turn, which was written but has no answer.
    failed = Episode(EpisodeSpec("g"), [0.0], [1.0], texts[:1], [""], written=written, error="OSError: x")
    _score_again([scored, failed, plain], [texts[::-1], ["y"], ["y"]], GapReward("hashing", 0.1))
    assert failed.gap_rewards == [1.0]
    assert scored.gap_rewards == [0.0, 0.0]
    assert plain.gap_rewards == []
    _score_again([scored], [[texts[0]] * 2], GapReward("hashing", 0.1))
    assert scored.gap_rewards == [1.0, 0.0]
    assert scored.rewards == [0.0, 1.0]


@pytest.mark.long
def test_an_expert_is_imitated(model, tmp_path):
    settings = config(
        model,
        episode=EpisodeConfig(max_steps=9, slots=3, decoding="constrained"),
        imitation=ImitationConfig(steps=3, games=3, batch_size=2, learning_rate=1e-2, warmup=0),
        stage=PolicyStageConfig(steps=0, games=2),
        evaluation=EvaluationConfig(games=1),
    )
    run_policy(settings, tmp_path)
    losses = [row["loss"] for row in _json(tmp_path / "metrics/imitation.json")]
    assert losses[-1] < losses[0]
    a, b = (load_file(tmp_path / f"adapters/{n}/adapter_model.safetensors") for n in ("imitation", "policy"))
    assert all(a[name].equal(b[name]) for name in a)  # no update of the policy came after it
    # What was learnt is where another run starts.
    other = replace(settings, adapter=str(tmp_path / "adapters/imitation"), imitation=ImitationConfig())
    run_policy(other, tmp_path / "other")
    c = load_file(tmp_path / "other/adapters/policy/adapter_model.safetensors")
    assert all(a[name].equal(c[name]) for name in a)


@pytest.mark.long
@pytest.mark.parametrize("decoding", ["free", "constrained"])
def test_predictions_are_imitated_with_the_actions(model, tmp_path, decoding):
    """The expert's environment is the plain one; the agent's takes predictions out, when it is evaluated, too."""
    settings = config(
        model,
        episode=EpisodeConfig(max_steps=9, slots=3, predictions=True, action_tokens=24, decoding=decoding),
        imitation=ImitationConfig(steps=2, games=3, batch_size=2),
        stage=PolicyStageConfig(steps=1, games=2, groups=1, group_size=2, world_model_weight=1.0, encoder="hashing"),
        evaluation=EvaluationConfig(games=1, training_games=True),
    )
    evaluations = run_policy(settings, tmp_path)
    assert [(e.name, e.step) for e in evaluations] == [(n, s) for s in (0, 1) for n in ("training", "held-out")]
    assert _json(tmp_path / "metrics/imitation.json")[-1]["loss"] > 0
    (row,) = _json(tmp_path / "metrics/policy.json")
    # The update's probabilities are those of sampling, of choices and of free text.
    assert row["sampling_mismatch"] < 1e-3
    assert row["invalid"] == 0 or decoding == "free"


def test_all_tasks_of_a_split_may_be_trained_on(model):
    pytest.importorskip("tau2")
    from rwml_gym.agents.runs.worlds import Source

    tau2 = config(model, env="tau2", domain="airline", task_types=None, imitation=ImitationConfig())
    games = Source(tau2).prepare(0, 0, 3, 5)
    assert len(games.train) == 30
    assert len(games.held_out) == 3
    with pytest.raises(InvalidConfigError, match="no end"):
        Source(config(model)).prepare(0, 0, 3, 5)


@pytest.mark.long
def test_the_update_does_not_depend_on_the_slots(finished, model, tmp_path):
    settings = config(model, imitation=ImitationConfig(), evaluation=EvaluationConfig(games=0))
    weights = []
    for slots in (1, 4):
        folder = tmp_path / str(slots)
        run_policy(replace(settings, episode=replace(settings.episode, slots=slots)), folder)
        weights.append(load_file(folder / "adapters/policy/adapter_model.safetensors"))
    for name, value in weights[0].items():
        # Sums in another order; AdamW turns a gradient of nearly nothing into a step of either sign.
        assert (value - weights[1][name]).abs().median() < 1e-6, name


@pytest.mark.long
def test_tau2_is_trained_on(model, tmp_path):
    pytest.importorskip("tau2")
    settings = config(
        model,
        env="tau2",
        domain="mock",
        split="base",
        task_types=None,
        imitation=ImitationConfig(),
        episode=EpisodeConfig(max_steps=2, predictions=True, action_tokens=24),
        stage=PolicyStageConfig(steps=1, games=2, groups=2, group_size=2, world_model_weight=0.5, encoder="hashing"),
        evaluation=EvaluationConfig(games=1),
    )
    evaluations = run_policy(settings, tmp_path)
    assert [(e.name, e.step) for e in evaluations] == [("held-out", 0), ("held-out", 1)]


# Restarts


COMMAND = [sys.executable, "-m", "tests.helpers.policy_run", "train", "policy"]


def _command(file: Path, folder: Path) -> list[str]:
    return [*COMMAND, "--config", str(file), "--run-dir", str(folder)]


@pytest.mark.long
def test_killed_at_any_moment_and_restarted_it_ends_the_same(finished, model, tmp_path):
    """SIGKILL at two random moments of its work, then the same command: the same metrics, evaluations and weights."""
    file, folder = tmp_path / "policy.yaml", tmp_path / "run"
    save_config(config(model, imitation=ImitationConfig()), file)
    milestones = ["config.json", "checkpoints/policy/step-000001", "checkpoints/policy/step-000002"]
    rng = random.Random()
    stops = [(milestones[i], 0.5 * rng.random()) for i in sorted(rng.sample(range(3), 2))]
    killed = 0
    for milestone, delay in stops:
        process = subprocess.Popen(_command(file, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (folder / milestone).exists():
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    done = subprocess.run(_command(file, folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert killed, stops
    assert _json(folder / "report.json") == _json(finished / "report.json"), stops
    assert _untimed(_json(folder / "metrics/policy.json")) == _untimed(_json(finished / "metrics/policy.json")), stops
    path = "adapters/policy/adapter_model.safetensors"
    a, b = load_file(folder / path), load_file(finished / path)
    assert all(a[name].equal(b[name]) for name in b), stops


@pytest.mark.long
def test_an_environment_that_breaks_is_dropped_or_stops_the_run(model, tmp_path, monkeypatch):
    from rwml_gym.envs.alfworld.env import ALFWorldEnv

    step, calls = ALFWorldEnv.step, []

    def breaks(self, action):
        calls.append(action)
        if len(calls) == 7:
            raise OSError("the engine is gone")
        return step(self, action)

    monkeypatch.setattr(ALFWorldEnv, "step", breaks)  # over the one that rewards walks
    settings = config(model, imitation=ImitationConfig(), evaluation=EvaluationConfig(games=0))
    with pytest.raises(OSError, match="engine is gone"):
        run_policy(settings, tmp_path / "stops")
    calls.clear()
    run_policy(replace(settings, faults=FaultConfig(on_env_error="drop")), tmp_path / "goes_on")
    rows = _json(tmp_path / "goes_on/metrics/policy.json")
    assert sum(row["failed"] for row in rows) == 1
    assert [row["episodes"] for row in rows] == [4, 4]


@pytest.mark.long
def test_two_processes_train_as_one(model, tmp_path):
    """Started by accelerate, each plays its share of the games, also of those that success is measured on."""
    file = tmp_path / "policy.yaml"
    settings = config(
        model,
        imitation=ImitationConfig(),
        grpo=GRPOConfig(beta=0.0, learning_rate=1e-3),
        evaluation=EvaluationConfig(games=1, every=1, training_games=True),
    )
    save_config(settings, file)
    launch = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2.yaml"),
        *(
            "-m",
            "tests.helpers.policy_run",
            "train",
            "policy",
            "--config",
            str(file),
            "--run-dir",
            str(tmp_path / "two"),
        ),
    ]
    done = subprocess.run(
        launch, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run_policy(settings, tmp_path / "one")
    one, two = (_untimed(_json(tmp_path / name / "metrics/policy.json")) for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a["episodes"] == b["episodes"] == 4
        for key in ("reward", "steps", "tokens", "signal_groups", "loss", "grad_norm"):
            assert a[key] == pytest.approx(b[key], abs=1e-5), key
    first, second = (_json(tmp_path / name / "report.json") for name in ("one", "two"))
    for a, b in zip(first, second, strict=True):
        assert a.pop("by_game") == b.pop("by_game")
        assert a == pytest.approx(b)


# Refusals


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: EpisodeConfig(decoding="scored"), "constrained"),
        (lambda: EpisodeConfig(decoding="constrained", thoughts=True), "'free'"),
        (lambda: PolicyStageConfig(task_weight=0.0), "none of them"),
        (lambda: PolicyStageConfig(gap_delivery="z-score"), "z_score"),
        (lambda: PolicyStageConfig(gap_tokens="action"), "prediction"),
        (lambda: PolicyStageConfig(task_tokens="prediction"), "action"),
        (lambda: PolicyConfig(stage=PolicyStageConfig(task_tokens="action")), "predictions with stage.task_tokens"),
        (lambda: PolicyStageConfig(gap_placebo="shuffled"), "world_model_weight.*observation_loss"),
        (lambda: PolicyStageConfig(gap_tokens="all", gap_delivery="z_score"), "with gap_delivery and gap_tokens"),
        (
            lambda: PolicyConfig(episode=EpisodeConfig(thoughts=True), imitation=ImitationConfig(steps=1)),
            "Nobody wrote",
        ),
        (lambda: PolicyStageConfig(group_size=1), "group_size"),
        (lambda: PolicyStageConfig(sequence="token"), "episode"),
        (lambda: PolicyConfig(stage=PolicyStageConfig(world_model_weight=1.0)), "predictions"),
        (lambda: policy_preset("none"), "demo.*smollm2"),
    ],
)
def test_what_cannot_be_trained_is_refused(make, match):
    with pytest.raises(InvalidConfigError, match=match):
        make()


def test_a_demonstration_has_the_tools_of_its_own_domain(model, tmp_path, monkeypatch):
    pytest.importorskip("tau2")
    games = ["airline/train/1", "retail/train/2"]
    TransitionDataset(
        Transition((Turn("", "user: Hi."),), "Hello!", "user: Bye.", game=game, episode=i, won=True, role="user")
        for i, game in enumerate(games)
    ).save(tmp_path / "recorded")
    shown = []

    def stop(transitions, prompts, describe):
        shown.extend(describe(transition) for transition in transitions)
        raise KeyboardInterrupt

    monkeypatch.setattr("rwml_gym.agents.jobs.imitation.demonstrations", stop)
    imitation = ImitationConfig(steps=1, transitions=str(tmp_path / "recorded"))
    settings = config(model, env="tau2", domain="all", task_types=None, split="base", imitation=imitation)
    with pytest.raises(KeyboardInterrupt):
        run_policy(replace(settings, evaluation=EvaluationConfig(games=0)), tmp_path / "run")
    assert ["book_reservation" in text for text in shown] == [True, False]
    assert ["exchange_delivered_order_items" in text for text in shown] == [False, True]


def test_an_expert_that_is_not_there_is_not_imitated(tmp_path):
    pytest.importorskip("tau2")
    with pytest.raises(InvalidConfigError, match=r"τ²-bench, which has none.*imitation\.transitions"):
        run_policy(PolicyConfig(env="tau2", imitation=ImitationConfig(steps=1)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_input_leaves_no_folder(model, tmp_path):
    for changes, error in (
        ({"adapter": str(tmp_path / "nothing")}, ModelNotFoundError),
        ({"model": str(tmp_path / "nothing")}, ModelNotFoundError),
        ({"task_types": ("fly",)}, InvalidConfigError),
    ):
        with pytest.raises(error):
            run_policy(replace(config(model), **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_not_touched(finished, model):
    with pytest.raises(ConfigMismatchError, match="seed"):
        run_policy(config(model, imitation=ImitationConfig(), seed=4), finished)


def test_presets_are_what_they_say():
    assert {"demo", "smollm2", "paper-alfworld", "paper-tau2"} <= POLICY_PRESETS.keys()
    assert "Qwen2.5-7B" in POLICY_PRESETS["paper-alfworld"].model
    assert "Qwen3-8B" in POLICY_PRESETS["paper-tau2"].model
