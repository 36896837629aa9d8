"""What an evaluation wrote is there after any interruption, once, and in the order of the panel."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym.agents.traces.folder import EPISODES, HEADER, STEPS, TraceWriter, read_trace
from rwml_gym.agents.traces.records import EpisodeRecord, StepRecord
from rwml_gym.errors import ConfigMismatchError, StorageError

HEADER_CONTENT = {"agent": "mine", "panel": "abc", "made_with": {"commit": "1"}}


def step(episode: int, number: int, text: str = "x") -> StepRecord:
    return StepRecord(episode, f"game {episode}", 0, number, text, "look", text)


def episode(number: int, steps: int, **fields) -> EpisodeRecord:
    return EpisodeRecord(number, f"game {number}", 0, won=True, reward=1.0, steps=steps, **fields)


def write(folder, numbers, steps=2):
    writer = TraceWriter(folder, HEADER_CONTENT)
    for number in numbers:
        for each in range(1, steps + 1):
            writer.step(step(number, each))
        writer.end(episode(number, steps))
    return writer


def test_what_was_written_is_read(tmp_path):
    write(tmp_path, [0, 1]).close()
    trace = read_trace(tmp_path)
    assert dict(trace.header) == HEADER_CONTENT
    assert trace.episodes == [episode(0, 2), episode(1, 2)]
    assert list(trace.steps()) == [step(0, 1), step(0, 2), step(1, 1), step(1, 2)]


def test_a_line_is_there_before_the_next_step(tmp_path):
    writer = TraceWriter(tmp_path, HEADER_CONTENT)
    writer.step(step(0, 1))
    assert len((tmp_path / STEPS).read_text().splitlines()) == 1
    writer.close()


def test_the_order_is_that_of_the_panel_once_all_is_played(tmp_path):
    writer = TraceWriter(tmp_path / "a", HEADER_CONTENT)
    for number, each in [(1, 1), (0, 1), (1, 2), (0, 2)]:
        writer.step(step(number, each))
    writer.end(episode(1, 2))
    writer.end(episode(0, 2))
    writer.close(complete=True)
    write(tmp_path / "b", [0, 1]).close(complete=True)
    for name in (STEPS, EPISODES, HEADER):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("seed", range(10))
def test_a_kill_at_any_byte_loses_no_finished_episode_and_repeats_none(tmp_path, seed):
    """Steps reach the file before their episode's line, so every cut of both files that respects this can happen."""
    write(tmp_path / "whole", range(6)).close(complete=True)
    writer = write(tmp_path / "cut", range(4))
    writer.step(step(4, 1))
    writer.close()
    rng = random.Random(seed)
    episodes = (tmp_path / "cut" / EPISODES).read_bytes()
    kept = rng.randint(0, len(episodes))
    (tmp_path / "cut" / EPISODES).write_bytes(episodes[:kept])
    finished = episodes[:kept].count(b"\n")
    if finished == 4:
        steps = (tmp_path / "cut" / STEPS).read_bytes()
        last = steps.rindex(b"\n", 0, -1) + 1
        (tmp_path / "cut" / STEPS).write_bytes(steps[: rng.randint(last, len(steps))])
    writer = TraceWriter(tmp_path / "cut", HEADER_CONTENT)
    assert sorted(writer.episodes) == list(range(finished))
    for number in range(6):
        if number not in writer.episodes:
            for each in (1, 2):
                writer.step(step(number, each))
            writer.end(episode(number, 2))
    writer.close(complete=True)
    for name in (STEPS, EPISODES):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@settings(deadline=None)
@given(st.text(max_size=50))
def test_any_text_comes_back(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("trace")
    writer = TraceWriter(folder, HEADER_CONTENT)
    writer.step(step(0, 1, text))
    writer.end(episode(0, 1, error=text))
    writer.close(complete=True)
    trace = read_trace(folder)
    assert trace.episodes[0].error == text
    assert [s.observation for s in trace.steps()] == [text]


def test_a_lone_surrogate_does_not_stop_the_evaluation(tmp_path):
    writer = TraceWriter(tmp_path, HEADER_CONTENT)
    writer.step(step(0, 1, "a \ud800 b"))
    writer.end(episode(0, 1))
    writer.close(complete=True)
    assert [s.observation for s in read_trace(tmp_path).steps()] == ["a \ud800 b"]


def test_another_evaluation_does_not_go_on_here(tmp_path):
    write(tmp_path, [0]).close()
    with pytest.raises(ConfigMismatchError, match=r"agent 'yours' \(there: 'mine'\). Choose another --run-dir"):
        TraceWriter(tmp_path, {**HEADER_CONTENT, "agent": "yours"})
    newer = {**HEADER_CONTENT, "made_with": {"commit": "2"}}
    TraceWriter(tmp_path, newer).close()
    assert read_trace(tmp_path).header["made_with"] == {"commit": "1"}


def test_two_evaluations_do_not_write_to_one_folder(tmp_path):
    first = write(tmp_path, [0])
    with pytest.raises(StorageError, match=r"another one does\. Wait until it ends, or choose another --run-dir"):
        TraceWriter(tmp_path, HEADER_CONTENT)
    first.step(step(1, 1))
    first.end(episode(1, 1))
    first.close()
    assert sorted(TraceWriter(tmp_path, HEADER_CONTENT).episodes) == [0, 1]


def test_a_refused_or_killed_evaluation_keeps_no_other_out(tmp_path):
    write(tmp_path, [0]).close()
    with pytest.raises(ConfigMismatchError):
        TraceWriter(tmp_path, {**HEADER_CONTENT, "agent": "yours"})
    program = (
        "import os, sys; from rwml_gym.agents.traces.folder import TraceWriter; "
        "writer = TraceWriter(sys.argv[1], {**eval(sys.argv[2])}); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path), repr(HEADER_CONTENT)], check=False)
    assert killed.returncode == -9
    assert list(TraceWriter(tmp_path, HEADER_CONTENT).episodes) == [0]


def test_a_system_without_locks_writes_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr("rwml_gym.storage.lock.fcntl", None)
    write(tmp_path / "run", [0]).close()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {HEADER, STEPS, EPISODES}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (HEADER, "[]", "Expected a mapping"),
        (HEADER, "{", "Expected the folder of an evaluation"),
        (EPISODES, "no JSON\n", r"Expected JSON in line 1 of .*Remove the line"),
        (EPISODES, '{"episode": 1}\n', "Expected a EpisodeRecord"),
        (EPISODES, '{"other": 1}\n', "Expected the fields of"),
    ],
)
def test_a_damaged_folder_is_an_error_that_names_the_place(tmp_path, name, content, match):
    write(tmp_path, [0]).close()
    (tmp_path / name).write_text(content)
    with pytest.raises(StorageError, match=match):
        read_trace(tmp_path)


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(StorageError, match="which `rwml-gym evaluate --run-dir` makes"):
        read_trace(tmp_path)
    (tmp_path / STEPS).write_text("{}\n")
    with pytest.raises(StorageError, match=r"Expected run.json beside the lines"):
        TraceWriter(tmp_path, HEADER_CONTENT)
    assert json.loads((tmp_path / STEPS).read_text()) == {}


@pytest.mark.parametrize(
    ("name", "what"), [("config.json", "a training"), ("dataset_info.json", "recorded transitions")]
)
def test_a_folder_of_other_results_is_left_alone(tmp_path, name, what):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigMismatchError, match=f"which holds {what}. Choose another --run-dir"):
        TraceWriter(tmp_path, {"agent": "x"})
    assert [path.name for path in tmp_path.iterdir()] == [name]
