"""An evaluation counts what a plain Gymnasium loop counts, loses nothing, and records failures as outcomes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import gymnasium
import pytest

pytest.importorskip("alfworld")

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.agents import make_cast
from rwml_gym.agents.evaluation.panel import Panel, choose
from rwml_gym.agents.evaluation.replay import replay
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.players.base import Move
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.traces.folder import EPISODES, STEPS, read_trace
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord
from rwml_gym.errors import ConfigMismatchError, GameNotFoundError, InvalidConfigError, StorageError

SPLIT = "generated_held_out"
HERE = "tests.agents.evaluation.test_run"


def first_action(observation, info):
    return info["admissible_actions"][0]


def goodbye(messages, tools):
    assert messages[0]["role"] == "system"
    assert [tool["function"]["name"] for tool in tools][-1] == "done"
    if messages[-1]["role"] == "tool":
        return "Goodbye."
    call = {"id": "c1", "type": "function", "function": {"name": "get_users", "arguments": "{}"}}
    return {"role": "assistant", "content": "I look it up.", "tool_calls": [call]}


class Predicts:
    """Expects that nothing changes; fails where the task is about an apple."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, observation, info):
        if "apple" in info["task"]:
            raise ValueError("no apples")
        return {"action": "look", "prediction": observation, "thought": "Let me see."}


def test_a_plain_loop_counts_the_same():
    config = EvaluateConfig(agent="random", split=SPLIT, episodes=12, seed=3)
    env = gymnasium.make("rwml_gym/ALFWorld-v0", split=SPLIT)
    games = choose(env, 12)
    make_player = make_cast(config).make_player
    assert make_player is not None
    expected = []
    for place in Panel("rwml_gym/ALFWorld-v0", games, 1, 3).places():
        observation, info = env.reset(options={"game": place.game})
        player, over, steps, invalid = make_player(place.seed), False, 0, 0
        while not over:
            observation, _, terminated, truncated, info = env.step(player.move(observation, info).action)
            over = terminated or truncated
            steps, invalid = steps + 1, invalid + info["invalid_action"]
        expected.append((info["game"], info["won"], steps, invalid))
    assert [(e.game, e.won, e.steps, e.invalid) for e in evaluate(config).episodes] == expected


def test_the_expert_wins_and_the_random_agent_does_not():
    told = []
    expert = evaluate(EvaluateConfig(agent="expert", split=SPLIT, episodes=12), watchers=[told.append]).episodes
    assert all(episode.won and episode.reward == 1.0 and episode.ended == "won" for episode in expert)
    assert [record for record in told if isinstance(record, EpisodeRecord)] == expert
    assert len({episode.task_type for episode in expert}) == 6
    random = evaluate(EvaluateConfig(agent="random", split=SPLIT, episodes=12)).episodes
    assert sum(episode.won for episode in random) <= 3


def test_the_baselines_of_tau2_have_their_known_scores():
    pytest.importorskip("tau2")
    for agent, wins in (("no-op", 19), ("transfer", 19)):
        episodes = evaluate(EvaluateConfig(agent=agent, env="tau2", domain="airline")).episodes
        assert (sum(episode.won for episode in episodes), len(episodes)) == (wins, 50)
        assert {episode.domain for episode in episodes} == {"airline"}
        assert all(episode.counted and set(episode.counted) <= set(episode.score_parts) for episode in episodes)


def test_splits_are_scored_apart():
    pytest.importorskip("tau2")
    assert len(evaluate(EvaluateConfig("tau2", agent="no-op", domain="retail", split="test")).episodes) == 40
    config = EvaluateConfig("tau2", agent="random-caller", domain="mock", max_steps=5)
    assert evaluate(config).header["split"] == "base"
    assert evaluate(replace(config, agent=None)).header["agent"] == "random-caller"
    with pytest.raises(InvalidConfigError, match=r"split of retail to be one of .*, actual: 'valid'"):
        evaluate(EvaluateConfig("tau2", agent="no-op", split="valid"))


def test_each_step_is_a_line_with_what_happened(tmp_path):
    config = EvaluateConfig(env="toy", split="held_out", episodes=8, agent=f"{HERE}:Predicts", gap="exact", max_steps=3)
    result = evaluate(config, tmp_path)
    trace = read_trace(tmp_path)
    assert trace.episodes == result.episodes
    steps = list(trace.steps())
    lost = [episode for episode in trace.episodes if episode.error]
    assert lost
    assert {(e.error, e.failed, e.ended, e.steps) for e in lost} == {("ValueError: no apples", "agent", "failed", 0)}
    assert Counter(step.episode for step in steps) == {e.episode: 3 for e in trace.episodes if not e.error}
    for step in steps:
        assert (step.action, step.prediction, step.thought) == ("look", step.observation, "Let me see.")
        assert step.gap == float(step.observation.split() != step.next_observation.split())
        assert step.gap_reward == 1.0 - step.gap
    assert trace.header["gap"]["name"] == "exact"
    assert json.loads((tmp_path / "panel.json").read_text()) == [e.game for e in trace.episodes]


def test_a_prediction_never_reaches_the_environment():
    config = EvaluateConfig(env="toy", split="held_out", episodes=4, agent=f"{HERE}:Predicts", max_steps=3)
    told: list[StepRecord] = []
    evaluate(config, watchers=[told.append])
    steps = [record for record in told if isinstance(record, StepRecord)]
    assert steps
    assert not any(step.invalid for step in steps)
    assert all(step.prediction and step.gap is None for step in steps)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_interrupted_evaluation_goes_on_and_ends_alike(tmp_path, concurrency):
    config = EvaluateConfig(
        env="toy", agent=f"{HERE}:first_action", episodes=6, trials=2, max_steps=4, concurrency=concurrency
    )
    evaluate(config, tmp_path / "whole")
    count = 0

    def interrupt(record):
        nonlocal count
        count += isinstance(record, EpisodeRecord)
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(replace(config, concurrency=1), tmp_path / "cut", [interrupt])
    before = read_trace(tmp_path / "cut").episodes
    assert len(before) == 5
    played: list[EpisodeRecord] = []
    evaluate(config, tmp_path / "cut", [lambda r: played.append(r) if isinstance(r, EpisodeRecord) else None])
    assert {e.episode for e in played} == set(range(5, 12))
    for name in (STEPS, EPISODES):
        lines = []
        for folder in ("whole", "cut"):
            text = (tmp_path / folder / name).read_text(encoding="utf-8")
            lines.append([{**json.loads(line), "seconds": 0} for line in text.splitlines()])
        assert lines[0] == lines[1]


def test_another_panel_needs_another_folder(tmp_path):
    config = EvaluateConfig(env="toy", agent=f"{HERE}:first_action", episodes=2, max_steps=2)
    first = evaluate(config, tmp_path)
    with pytest.raises(ConfigMismatchError, match=r"games 3.*panel .*Choose another --run-dir"):
        evaluate(replace(config, episodes=3), tmp_path)
    again = replace(config, episodes=None, panel=str(tmp_path / "panel.json"), seed=7)
    assert evaluate(again).header["panel"] == first.header["panel"]


@pytest.mark.parametrize("option", ["show_policy", "show_actions", "predictions"])
def test_other_prompts_need_another_folder(tmp_path, option):
    config = EvaluateConfig(env="tau2", domain="mock", episodes=1, agent=f"{HERE}:goodbye", gap="exact")
    evaluate(config, tmp_path)
    with pytest.raises(ConfigMismatchError, match="another prompts"):
        evaluate(replace(config, **{option: not getattr(config, option)}), tmp_path)


def test_a_longer_turn_of_a_model_needs_another_folder(tiny_folder, tmp_path):
    config = EvaluateConfig(agent="model", model=str(tiny_folder), episodes=1, max_steps=1, history=1)
    evaluate(config, tmp_path)
    with pytest.raises(ConfigMismatchError, match="another prompts"):
        evaluate(replace(config, action_tokens=8), tmp_path)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_full_disk_is_nobodys_failed_episode(concurrency):
    """Neither agent nor environment has failed, so no episode counts as lost."""
    told = []

    def full(record):
        told.append(record)
        if isinstance(record, StepRecord) and len(told) > 5:
            raise StorageError("no room")

    config = EvaluateConfig(env="toy", agent=f"{HERE}:first_action", episodes=4, max_steps=3, concurrency=concurrency)
    with pytest.raises(StorageError, match="no room"):
        evaluate(config, watchers=[full])
    assert not any(isinstance(record, EpisodeRecord) and record.error for record in told)


def test_an_agent_of_messages_and_tools_serves_a_customer(tmp_path):
    pytest.importorskip("tau2")
    config = EvaluateConfig(env="tau2", domain="mock", episodes=2, agent=f"{HERE}:goodbye", concurrency=1)
    evaluate(config, tmp_path)
    trace = read_trace(tmp_path)
    steps = list(trace.steps())
    assert [step.action for step in steps[:2]] == ['{"name": "get_users", "arguments": {}}', "Goodbye."]
    assert steps[0].message_role == "tool"
    assert steps[0].thought == "I look it up."
    assert [message["role"] for message in steps[0].shown] == ["system", "user"]
    assert "policy" in steps[0].shown[0]["content"].lower()
    assert [message["role"] for message in steps[1].shown] == ["tool"]
    assert not steps[1].shown[0]["content"].startswith("tool:")
    assert trace.header["user"] == "scripted"
    assert {e.ended for e in trace.episodes} == {"user_stop"}


def test_a_failing_environment_is_an_outcome(tmp_path):
    config = EvaluateConfig(
        env="tests.helpers.failing_env:Failing-v0", agent=f"{HERE}:first_action", episodes=4, concurrency=1
    )
    episodes = evaluate(config, tmp_path).episodes
    assert [(e.failed, e.error) for e in episodes] == [
        ("", None),
        ("environment", "OSError: no such room"),
        ("environment", "RuntimeError: the door is stuck"),
        ("", None),
    ]


def leaves(observation, info):
    raise SystemExit


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_agent_that_exits_has_failed_and_the_others_play_on(concurrency):
    config = EvaluateConfig(env="toy", agent=f"{HERE}:leaves", episodes=3, concurrency=concurrency)
    assert [(e.failed, e.error) for e in evaluate(config).episodes] == [("agent", "SystemExit: ")] * 3


@pytest.mark.parametrize(("env", "tokens"), [("tau2", 256), ("rwml_gym/Tau2-v0", 256), ("toy", 16)])
def test_a_turn_has_as_many_tokens_as_what_is_played_needs(tiny_folder, env, tokens):
    if tokens > 16:
        pytest.importorskip("tau2")
    config = EvaluateConfig(env=env, agent="model", model=str(tiny_folder), dtype="float32")
    agent = make_cast(config).agent
    assert isinstance(agent, LanguageModelAgent)
    assert agent.action_tokens == tokens


def test_replay_finds_the_step_that_was_changed(tmp_path):
    evaluate(EvaluateConfig(agent="random", split=SPLIT, episodes=3, max_steps=6), tmp_path)
    assert replay(read_trace(tmp_path)).deviations == []
    lines = (tmp_path / STEPS).read_text(encoding="utf-8").splitlines()
    changed = json.loads(lines[8])
    changed["next_observation"] += " A cat sleeps here."
    lines[8] = json.dumps(changed)
    (tmp_path / STEPS).write_text("\n".join([*lines, ""]), encoding="utf-8")
    found = replay(read_trace(tmp_path))
    assert (found.episodes, found.steps) == (3, 18)
    assert [(d.episode, d.step, d.what) for d in found.deviations] == [(1, 3, "observation")]


def test_a_model_plays(tiny_folder, tmp_path):
    config = EvaluateConfig(agent="model", model=str(tiny_folder), episodes=2, history=1, slots=2, max_steps=4)
    episodes = evaluate(config, tmp_path).episodes
    assert [episode.steps for episode in episodes] == [4, 4]
    steps = list(read_trace(tmp_path).steps())
    assert all(step.shown and step.prompt_tokens and step.completion_tokens for step in steps)
    assert all(step.written is not None for step in steps)
    assert "\nTask: put " in str(steps[0].shown)


@pytest.mark.parametrize("decoding", ["constrained", "scored"])
def test_a_model_that_chooses_does_nothing_invalid(tiny_folder, decoding):
    types = ("pick_and_place_simple",)
    config = EvaluateConfig(
        agent="model", model=str(tiny_folder), task_types=types, episodes=2, max_steps=4, history=1, decoding=decoding
    )
    assert [(e.steps, e.invalid, e.task_type) for e in evaluate(config).episodes] == [(4, 0, types[0])] * 2


@pytest.mark.long
def test_a_model_plays_the_same_in_one_slot_and_in_many(tiny_folder):
    config = EvaluateConfig(
        agent="model",
        model=str(tiny_folder),
        episodes=4,
        max_steps=5,
        temperature=1.0,
        decoding="constrained",
        history=2,
    )
    many, one = evaluate(config).episodes, evaluate(replace(config, slots=1)).episodes
    assert [(e.game, e.won, e.reward) for e in many] == [(e.game, e.won, e.reward) for e in one]


def test_a_part_of_a_sorted_list_has_all_types():
    env = gymnasium.make("rwml_gym/Tau2-v0", domain="retail")
    few, many = choose(env, 10), choose(env, 30)
    assert few == many[:10]
    assert len(set(many)) == 30
    assert list(few) != list(env.unwrapped.games.names[:10])
    assert choose(env, None) == tuple(env.unwrapped.games.names)


def test_trials_of_a_sampling_agent_differ():
    episodes = evaluate(EvaluateConfig(env="toy", agent="random", episodes=5, trials=3)).episodes
    assert len({e.seed for e in episodes}) == 15
    assert [e.game for e in episodes[:5]] == [e.game for e in episodes[5:10]]


def test_a_move_with_other_fields_is_named():
    with pytest.raises(TypeError):
        Move(action="look", mood="good")


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (EvaluateConfig(agent="expert", env="tau2"), InvalidConfigError, "τ²-bench, random"),
        (EvaluateConfig(agent="random", env="tau2"), InvalidConfigError, "plays τ²-bench, random-caller.*'random'"),
        (EvaluateConfig(agent="task-words", env="tau2"), InvalidConfigError, "plays τ²-bench, random-caller"),
        (EvaluateConfig(agent="random-caller"), InvalidConfigError, "plays ALFWorld"),
        (EvaluateConfig(agent="transfer"), InvalidConfigError, "ALFWorld, random"),
        (EvaluateConfig(agent="litellm:"), InvalidConfigError, "model's name in --agent litellm:MODEL"),
        (EvaluateConfig(agent="no_such_module:act"), InvalidConfigError, "module that can be imported"),
        (EvaluateConfig(agent=f"{HERE}:nothing"), InvalidConfigError, "nothing of that name"),
        (EvaluateConfig(agent=f"{HERE}:SPLIT"), InvalidConfigError, "actual: str. Give a function"),
        (EvaluateConfig(agent=f"{HERE}:Panel"), InvalidConfigError, "act.observation, info."),
        (EvaluateConfig(env="tau2", rooms=("kitchen",)), InvalidConfigError, "rooms. Remove it"),
        (EvaluateConfig(split="dev"), InvalidConfigError, "Expected split to be one of"),
        (EvaluateConfig(split="valid_seen", data="no_such_folder"), GameNotFoundError, "no_such_folder"),
        (EvaluateConfig(env="tau2", domain="bank"), InvalidConfigError, "to be one of airline"),
        (EvaluateConfig(panel="no_such_file.json"), InvalidConfigError, "JSON file with a list of games"),
    ],
)
def test_what_does_not_go_together_is_refused_before_play(config, error, match):
    with pytest.raises(error, match=match):
        evaluate(config)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (
            {"agent": "litellm:openai/m", "temperature": 0.7},
            r"--temperature, .*--agent-arguments '{\"temperature\": 0.7}'",
        ),
        ({"agent": "litellm:openai/m", "history": 1, "thoughts": True}, "--history, --thoughts, .*Leave them out"),
        ({"agent": "expert", "temperature": 1.0}, "--temperature, actual: 'expert'. Leave it out"),
        ({"agent": "random", "predictions": True, "gap": "exact"}, "--predictions"),
        ({"attempts": 3}, "--attempts, actual: None"),
        ({"agent": "random", "model": "Qwen/Qwen2.5-7B-Instruct"}, "--model, actual: 'random'"),
        ({"agent": "expert", "dtype": "bfloat16"}, "--dtype"),
        ({"agent": "random", "encoder": "hashing"}, "--encoder"),
        ({"agent": "random", "concurrency": 2}, "--concurrency"),
        ({"agent": "package.module:name", "slots": 2}, "--slots"),
        ({"agent": "imagining", "imagine": "engine", "imagine_games": 3}, "--imagine-games"),
        ({"agent": "imagining", "imagine": "engine", "imagine_discount": 0.5}, "--imagine-discount"),
        ({"agent": "package.module:name", "action_tokens": 9}, "--action-tokens"),
    ],
)
def test_options_that_the_agent_does_not_use_are_refused(fields, match):
    with pytest.raises(InvalidConfigError, match=match):
        EvaluateConfig(**fields).check_used()


@pytest.mark.parametrize(
    "fields",
    [
        {"agent": "litellm:openai/m", "predictions": True, "attempts": 3, "timeout": 5.0, "show_policy": False},
        {"agent": "model", "temperature": 0.7, "history": 1, "thoughts": True},
        {"agent": "imagining", "imagine": "engine"},
        {"agent": "imagining", "imagine": "engine", "imagine_steps": 2, "imagine_discount": 0.5, "slots": 3},
        {"agent": "imagining", "imagine": "retrieval", "imagine_games": 3, "encoder": "hashing"},
        {"agent": "imagining", "imagine": "a/folder", "model": "a/base", "dtype": "float32"},
        {"env": "tau2", "agent": "transfer", "user": "model:local:m", "dtype": "float32"},
        {"agent": "random", "gap": "cosine", "encoder": "hashing"},
        {"agent": "imagining", "imagine": "engine", "samples": 4, "temperature": 1.0},
        {"agent": "package.module:name", "predictions": True, "show_actions": False},
        {"agent": "expert", "trials": 2, "seed": 3, "slots": 2},
    ],
)
def test_options_that_the_agent_uses_are_taken(fields):
    EvaluateConfig(**fields).check_used()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"adapter": "x"}, "the agent 'model' for an adapter"),
        ({"panel": "p.json", "episodes": 3}, "--panel or --episodes"),
        ({"threshold": 0.1}, "--gap with --threshold"),
        ({"agent_arguments": "{}"}, "--agent litellm:MODEL with --agent-arguments"),
        ({"max_cost": 1.0, "prices": (1.0, 2.0)}, "--max-cost, --prices, actual: None. Leave them out"),
        ({"agent": "litellm:x", "agent_arguments": "3"}, "agent_arguments as a mapping"),
        ({"user": "friendly"}, "scripted, solo or model:NAME"),
        ({"user": "model:"}, "scripted, solo or model:NAME"),
        ({"trials": 0}, "trials of at least 1"),
        ({"concurrency": 0}, "concurrency of at least 1"),
        ({"gap": "euclid"}, "gap among"),
    ],
)
def test_bad_values_are_refused(fields, match):
    with pytest.raises(InvalidConfigError, match=match):
        EvaluateConfig(**fields)
