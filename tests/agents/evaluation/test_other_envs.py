"""Environments of others, with few keys in `info`, are evaluated, compared, replayed and shown like ours."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.panel import Panel
from rwml_gym.agents.evaluation.replay import replay
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.evaluation.table import table_text
from rwml_gym.agents.players.base import Move
from rwml_gym.agents.players.rollout import EpisodeSpec, roll_out
from rwml_gym.agents.reports.page.document import write_page
from rwml_gym.agents.traces.folder import STEPS, read_trace
from rwml_gym.agents.traces.scores import compare
from rwml_gym.errors import InvalidConfigError
from tests.agents.reports.page.test_document import data_of
from tests.helpers.command_line import run, said
from tests.helpers.lamp_env import LampEnv
from tests.helpers.traces import make_trace

HERE = "tests.agents.evaluation.test_other_envs"
LAMP = "tests.helpers.lamp_env:rwml_gym_tests/Lamp-v0"


def on(observation, info):
    return "on"


def wait(observation, info):
    return "wait"


def numbers(observation, info):
    """Answers with the numbers of another library."""
    move = {"prompt_tokens": np.int64(7), "completion_tokens": np.uint8(3), "cost": np.float32(0.5)}
    return {"action": np.str_("on"), "shown": [{"role": "user", "content": "On?", "place": np.int64(1)}], **move}


def rounded(observation, info):
    return {"action": "on", "completion_tokens": 7.5}


def unwritten(observation, info):
    return Move("on", shown=[{"role": "user", "content": {1, 2}}])


class OnAgent:
    """Switches the lamps of all slots on."""

    def act(self, observations, infos):
        return ["on"] * len(observations)

    def reset(self, mask):
        pass


def lamp(agent="on", episodes=8, **arguments) -> EvaluateConfig:
    return EvaluateConfig(
        env=LAMP, agent=f"{HERE}:{agent}", episodes=episodes, concurrency=1, env_arguments=json.dumps(arguments)
    )


def test_seeds_are_the_games_where_many_seeds_share_a_name(tmp_path):
    won = evaluate(lamp(keys="won game"), tmp_path).episodes
    lost = evaluate(lamp("wait", keys="won game")).episodes
    assert [episode.game for episode in won] == [str(seed) for seed in range(8)]
    found = compare(won, lost)
    assert found is not None
    assert (found.pairs, found.games, found.success) == (8, 8, (1.0, 0.0))
    again = replay(read_trace(tmp_path))
    assert (again.steps, again.deviations) == (8, [])


def test_a_rollout_calls_an_episode_by_its_seed():
    episodes = roll_out(lambda: LampEnv(keys="won game"), OnAgent(), [EpisodeSpec(seed) for seed in (3, 7)])
    assert [episode.game for episode in episodes] == ["3", "7"]


def page(folders, tmp_path):
    write_page(folders, tmp_path / "page.html")
    return data_of(tmp_path / "page.html")


def test_an_episode_that_failed_at_the_reset_is_lost(tmp_path):
    config = lamp(episodes=4, broken=2)
    played = evaluate(config, tmp_path / "on")
    table = table_text(played.header, played.episodes)
    assert "0.750" in table
    evaluate(replace(config, agent=f"{HERE}:wait"), tmp_path / "wait")
    shown = page([tmp_path / "on", tmp_path / "wait"], tmp_path)
    run = shown["evaluations"][0]
    assert run["judged"]
    assert run["results"]["success"][0] == 0.75
    assert [line["outcome"] for line in run["episodes"]] == ["won", "won", "error", "won"]
    (difference,) = shown["differences"]
    assert (difference["games"], difference["value"][0]) == (4, -0.75)


def test_a_failure_does_not_make_an_environment_say_who_won(tmp_path):
    played = evaluate(lamp(episodes=4, broken=2, keys=""), tmp_path / "run")
    assert 'no info["won"]' in table_text(played.header, played.episodes)
    assert not page([tmp_path / "run"], tmp_path)["evaluations"][0]["judged"]


def test_where_nobody_says_who_won_nothing_is_compared(tmp_path, capsys):
    for name in ("on", "wait"):
        evaluate(lamp(name, keys=""), tmp_path / name)
    assert run("compare", tmp_path / "on", tmp_path / "wait") == 2
    assert 'give info["won"]. The mean rewards of an episode are 1.000, 0.000.' in said(capsys)
    assert page([tmp_path / "on", tmp_path / "wait"], tmp_path)["differences"] == []


def test_the_same_seed_of_other_arguments_is_another_game(tmp_path, capsys):
    same, other = (evaluate(lamp(lamps=lamps), tmp_path / str(lamps)).header["panel"] for lamps in (3, 9))
    assert same != other
    assert run("compare", tmp_path / "3", tmp_path / "9") == 2
    assert "env_arguments {'lamps': 3} and {'lamps': 9}. Play the panel of the first one with the same" in said(capsys)
    assert page([tmp_path / "3", tmp_path / "9"], tmp_path)["differences"] == []
    assert evaluate(lamp(lamps=3, broken=99), tmp_path / "b").header["panel"] != same


def test_names_are_games_in_any_folder_and_split(tmp_path):
    headers = [{"env_arguments": {"data": f"/{name}/data", "split": name}} for name in ("a", "b")]
    folders = [make_trace(tmp_path / str(i), **fields) for i, fields in enumerate(headers)]
    assert run("compare", *folders) == 0
    assert Panel("e", ("a",), arguments=headers[0]).hash == Panel("e", ("a",)).hash
    seeds = [Panel("e", (0,), arguments={"data": f"/{name}", "size": 3}).hash for name in ("a", "b")]
    assert seeds[0] == seeds[1] != Panel("e", (0,)).hash


def test_numbers_of_other_libraries_are_written_down(tmp_path):
    result = evaluate(lamp("numbers", episodes=2, keys="won score_parts counted ended"), tmp_path)
    trace = read_trace(tmp_path)
    assert trace.episodes == result.episodes
    (first, _), episode = trace.steps(), trace.episodes[0]
    assert (first.prompt_tokens, first.completion_tokens, first.cost) == (7, 3, 0.5)
    assert first.shown == [{"role": "user", "content": "On?", "place": 1}]
    assert (episode.score_parts, episode.counted) == ({"light": 1.0, "heat": ["light"]}, ["light"])
    assert episode.ended == "light"


@pytest.mark.parametrize(("agent", "match"), [("rounded", "whole numbers of tokens"), ("unwritten", "JSON can hold")])
def test_what_cannot_be_written_down_is_the_agents_failure(tmp_path, agent, match):
    (episode,) = evaluate(lamp(agent, episodes=1), tmp_path).episodes
    assert episode.failed == "agent"
    assert f"UnreadableAnswerError: Expected a {'move' if agent == 'rounded' else 'text'}" in (episode.error or "")
    assert match in (episode.error or "")


def test_a_seed_of_numpy_is_the_same_seed(tmp_path):
    ours = evaluate(lamp(episodes=2)).episodes
    config = replace(lamp(episodes=2), seed=np.int64(0), trials=np.int64(1))
    assert [e.seed for e in evaluate(config, tmp_path).episodes] == [e.seed for e in ours]
    assert read_trace(tmp_path).header["seed"] == 0


@pytest.mark.parametrize("reward", ["nan", "inf"])
def test_rewards_that_are_not_finite_are_null_in_every_json(tmp_path, capsys, reward):
    def strict(text):
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    words = ("evaluate", "--env", LAMP, "--agent", f"{HERE}:on", "--episodes", 2, "--json")
    arguments = f"{{reward: .{reward}}}"
    assert run(*words, "--env-arguments", arguments, "--run-dir", tmp_path / "run") == 0
    scores = strict(capsys.readouterr().out)["scores"]["all"]
    assert (scores["reward"], scores["success"][0]) == (None, 1.0)
    assert run("compare", tmp_path / "run", tmp_path / "run", "--json") == 0
    strict(capsys.readouterr().out)
    trace = read_trace(tmp_path / "run")
    assert [math.isnan(step.reward) for step in trace.steps()] == [True, True]
    assert all(strict(line)["reward"] is None for line in (tmp_path / "run" / STEPS).read_text().splitlines())
    assert replay(trace).deviations == []
    write_page([tmp_path / "run"], tmp_path / "page.html")
    (part,) = re.findall(r'id="part-0-0">([^<]*)</script>', (tmp_path / "page.html").read_text("utf-8"))
    packed = strict(gzip.decompress(base64.b64decode(part)))
    assert [len(episode["steps"]) for episode in packed["episodes"]] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "game"),
    [
        ({"env": "toy", "split": "train"}, "house-5863"),
        ({"env": "toy"}, "generated/pick_and_place_simple/1"),
        ({"env": "alfworld", "split": "generated"}, "house-1"),
        ({"env": "alfworld", "task_types": ("look_at_obj_in_light",)}, "generated_held_out/pick_and_place_simple/1"),
    ],
)
def test_a_panel_of_other_games_is_refused_because_each_would_count_as_lost(tmp_path, changes, game):
    if changes["env"] == "alfworld":
        pytest.importorskip("alfworld")
    (tmp_path / "panel.json").write_text(json.dumps([game]))
    config = EvaluateConfig(**changes, agent=f"{HERE}:on", panel=str(tmp_path / "panel.json"))
    with pytest.raises(InvalidConfigError, match=f"games of this environment .*{game}.*--split"):
        evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("env", "games", "wanted"), [(LAMP, ["lamp-1"], "seeds"), ("toy", [1, 2], "names")])
def test_a_panel_of_another_kind_of_games_is_refused(tmp_path, env, games, wanted):
    (tmp_path / "panel.json").write_text(json.dumps(games))
    config = EvaluateConfig(env=env, agent=f"{HERE}:on", panel=str(tmp_path / "panel.json"))
    with pytest.raises(InvalidConfigError, match=f"{wanted} in this environment"):
        evaluate(config)
