"""Evaluations of agents that imagine or vote: through the configuration, with what it refuses before any work."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("alfworld")

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.evaluation.table import row_line
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.traces.folder import read_trace
from rwml_gym.errors import ConfigMismatchError, InvalidConfigError, ModelNotFoundError
from tests.helpers.command_line import run, said
from tests.helpers.small_world_model import small_config

TOY = EvaluateConfig(env="toy", agent="imagining", imagine="engine", episodes=10)


def lengths(texts):
    return np.array([[len(text), 1.0] for text in texts])


def wins(config):
    return sum(episode.won for episode in evaluate(config).episodes)


def test_the_engine_is_the_ceiling_and_a_lookup_is_not():
    assert wins(TOY) == 10
    assert wins(replace(TOY, imagine="nothing-changes")) < 5
    assert wins(replace(TOY, imagine="most-frequent", imagine_games=4)) < 5


@pytest.mark.parametrize("imagine", ["most-frequent", "retrieval"])
def test_the_same_seed_plays_the_same_in_any_number_of_slots(imagine):
    config = replace(TOY, imagine=imagine, imagine_games=3, imagine_steps=2, encoder="hashing", max_steps=6)
    many, one = evaluate(config).episodes, evaluate(replace(config, slots=1)).episodes
    assert [(e.game, e.won, e.steps) for e in many] == [(e.game, e.won, e.steps) for e in one]


def test_the_trace_holds_what_was_imagined(tmp_path):
    header = evaluate(replace(TOY, episodes=2), tmp_path).header
    steps = list(read_trace(tmp_path).steps())
    assert steps
    assert all(step.prediction == step.next_observation for step in steps)
    assert all(step.action in step.thought.splitlines()[0] for step in steps)
    assert "imagining 1 step with engine" in row_line(header, evaluate(replace(TOY, episodes=2)).episodes)
    with pytest.raises(ConfigMismatchError, match="another prompts"):
        evaluate(replace(TOY, episodes=2, imagine_steps=2), tmp_path)


def test_another_encoder_of_the_lookup_needs_another_folder(tmp_path):
    config = replace(TOY, imagine="retrieval", imagine_games=2, episodes=1, max_steps=2, encoder="hashing")
    evaluate(config, tmp_path)
    with pytest.raises(ConfigMismatchError, match="another prompts"):
        evaluate(replace(config, encoder="tests.agents.evaluation.test_imagining:lengths"), tmp_path)


@pytest.mark.long
def test_a_lookup_learns_from_recorded_games_that_are_not_played(tmp_path, capsys):
    words = ("record", "--env", "toy", "--split", "held_out", "--games", "6", "--out", tmp_path / "data")
    assert run(*words) == 0
    recorded = replace(TOY, imagine="most-frequent", imagine_transitions=str(tmp_path / "data"))
    with pytest.raises(InvalidConfigError, match=r"other games than those that are played, actual: \d+ games in both"):
        evaluate(replace(recorded, episodes=None))
    assert run(*words[:4], "train", *words[5:-1], tmp_path / "other") == 0
    assert evaluate(replace(recorded, imagine_transitions=str(tmp_path / "other"), max_steps=2)).episodes


@pytest.mark.long
def test_votes_of_a_model_are_counted_with_their_tokens(tiny_folder, tmp_path):
    config = EvaluateConfig(
        env="toy",
        agent="voting",
        model=str(tiny_folder),
        samples=4,
        temperature=1.0,
        decoding="constrained",
        history=1,
        episodes=3,
        max_steps=3,
    )
    evaluate(config, tmp_path)
    steps = list(read_trace(tmp_path).steps())
    assert len(steps) == 9
    assert not any(step.invalid for step in steps)
    assert all(step.completion_tokens > 4 and step.prediction is None for step in steps)
    alone = evaluate(replace(config, slots=1)).episodes
    assert [e.completion_tokens for e in alone] == [e.completion_tokens for e in read_trace(tmp_path).episodes]


@pytest.fixture(scope="module")
def adapter(tiny_folder, tmp_path_factory):
    pytest.importorskip("matplotlib")
    from rwml_gym.agents.jobs.world_model import run_world_model

    folder = tmp_path_factory.mktemp("rwml") / "run"
    run_world_model(small_config(tiny_folder), folder)
    path = folder / "adapters" / "rwml" / "world_model.json"
    path.write_text(path.read_text().replace(f'"{tiny_folder.name}"', f'"{tiny_folder}"'))
    return folder / "adapters" / "rwml"


@pytest.mark.long
def test_a_trained_world_model_imagines_and_its_tokens_are_counted(adapter, tiny_folder):
    config = replace(TOY, imagine=str(adapter), episodes=3, max_steps=2, imagine_candidates=3)
    episodes = evaluate(config).episodes
    assert all(episode.completion_tokens >= 3 * 2 for episode in episodes)
    proposing = replace(config, model=str(tiny_folder), samples=2, temperature=1.0, history=1)
    assert all(episode.error is None for episode in evaluate(proposing).episodes)


@pytest.mark.long
def test_counted_predictions_are_the_predictions(adapter):
    from rwml_gym.agents.language.world_model import load_world_model
    from rwml_gym.agents.runs.worlds import Source

    source = Source(TOY)
    transitions = collect(source.make(6), source.player(0), [0, 1, 2])
    histories = [t.history for t in transitions for _ in range(3)]
    actions = [a for t in transitions for a in (t.action, "look", "go to kitchen")]
    tasks = [t.task for t in transitions for _ in range(3)]
    model = load_world_model(adapter, device="cpu")
    model.model.float()  # in bfloat16, rounding changes the words of a model with random weights
    with model.predicting():
        counted = model.predict_counted(histories, actions, tasks)
    assert [text for text, _ in counted] == model.predict(histories, actions, tasks)
    assert all(0 < count <= model.max_new_tokens for _, count in counted)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"agent": "imagining"}, "nothing-changes, most-frequent.*--imagine"),
        ({"agent": "imagining", "imagine": "retrievl"}, "Did you mean 'retrieval'"),
        ({"agent": "imagining", "imagine": "engine", "imagine_steps": 0}, "imagine_steps of at least 1"),
        (
            {"agent": "imagining", "imagine": "engine", "imagine_discount": 2.0},
            "imagine_discount above 0 and at most 1",
        ),
        ({"agent": "imagining", "imagine": "engine", "imagine_transitions": "x"}, "most-frequent or retrieval"),
        ({"agent": "imagining", "imagine": "engine", "adapter": "x"}, "--samples"),
        ({"agent": "imagining", "imagine": "engine", "samples": 4}, "--temperature 1"),
        ({"agent": "imagining", "imagine": "engine", "samples": 1, "thoughts": True}, "plain actions"),
        ({"agent": "random", "imagine": "engine"}, "--agent imagining or voting with --imagine, actual: 'random'"),
        ({"agent": "model", "samples": 3, "imagine_steps": 2}, "--imagine-steps, --samples, actual: 'model'"),
        ({"agent": "voting"}, "Expected --samples"),
        ({"agent": "voting", "samples": 4, "temperature": 1.0, "imagine": "engine"}, "no --imagine"),
    ],
)
def test_options_that_do_not_go_together_are_refused(fields, match):
    with pytest.raises(InvalidConfigError, match=match):
        EvaluateConfig(**fields)


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (replace(TOY, env="tau2"), InvalidConfigError, "plays τ²-bench"),
        (replace(TOY, imagine="no/such/folder"), ModelNotFoundError, "no/such/folder"),
        (replace(TOY, imagine_transitions="no/such", imagine="retrieval"), Exception, "no/such"),
        (
            replace(TOY, env="tests.helpers.plain_env:rwml_gym_tests/Plain-v0"),
            InvalidConfigError,
            "names its games .*--imagine",
        ),
    ],
)
def test_what_cannot_be_imagined_is_refused_before_play(config, error, match, tmp_path):
    with pytest.raises(error, match=match):
        evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_line_has_it(capsys):
    words = ("evaluate", "--env", "toy", "--agent", "imagining", "--imagine", "engine", "--episodes", "2", "--row")
    assert run(*words) == 0
    assert "| imagining 1 step with engine | toy held_out | 2 x 1 |" in said(capsys)
    assert run("evaluate", "--env", "toy", "--agent", "imagining") == 2
    assert "Give it by --imagine" in said(capsys)
