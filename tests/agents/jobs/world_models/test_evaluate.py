"""The evaluation of world models, on games of the toy house and of ALFWorld."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from rwml_gym.agents.cli import main as cli
from rwml_gym.agents.config.evaluate_world_model import EvaluateWorldModelConfig
from rwml_gym.agents.jobs.world_models.ahead import choose_starts, predict_ahead
from rwml_gym.agents.jobs.world_models.evaluate import evaluate_world_models, make_gap
from rwml_gym.agents.jobs.world_models.imagined import collect_starts, play_inside, recognition
from rwml_gym.agents.language.models import add_adapter, load_model
from rwml_gym.agents.language.world_model import WORLD_MODEL_FILE, LanguageWorldModel, WorldModelSettings
from rwml_gym.agents.learning.checkpoint import save_adapter
from rwml_gym.agents.players.baselines import TaskWordsAgent
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError
from rwml_gym.files import write_json
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, TransitionDataset, Turn
from rwml_gym.world_models.base import NothingChanges
from rwml_gym.world_models.env import task_is_done
from rwml_gym.wrappers import RecordTransitions

GAP = GapReward("hashing", gap="exact")


def config(**changes) -> EvaluateWorldModelConfig:
    settings = {"env": "toy", "games": 6, "record_steps": 8, "gap": "exact", "encoder": "hashing", "limit": 30}
    settings |= {"steps_ahead": 3, "starts": 10, "imagined_games": 3, "imagined_steps": 6}
    return EvaluateWorldModelConfig(**{**settings, **changes})


def recorded(game: str, actions: list[str], history: int = 3) -> list[Transition]:
    env = RecordTransitions(ToyHouseEnv(), history)
    env.reset(options={"game": game})
    for action in actions:
        env.step(action)
    return list(env.transitions)


def winning(game: str) -> list[str]:
    env = ToyHouseEnv(expert=True)
    _, info = env.reset(options={"game": game})
    actions = []
    while not info["won"]:
        actions.append(info["expert_action"])
        *_, info = env.step(actions[-1])
    return actions


# Steps ahead


def test_starts_are_followed_by_enough_steps_of_one_episode():
    transitions = recorded("house-1", ["look", "fly", "look", "fly"]) + recorded("house-2", ["look", "fly"])
    starts = choose_starts(transitions, 3, 100, 0)
    assert [[t.step for t in start] for start in starts] == [[0, 1, 2], [1, 2, 3]]
    assert len(choose_starts(transitions, 2, 3, 0)) == 3
    assert choose_starts(transitions[:1] + transitions[2:3], 2, 10, 0) == []


def test_each_state_is_the_model_s_own_prediction():
    start = recorded("house-1", ["look", "fly", "look"])
    asked = []

    def predict(transitions):
        asked.append([t.history for t in transitions])
        return [start[0].next_state if len(asked) == 1 else "wrong" for _ in transitions]

    rows = predict_ahead(predict, [start, start], GAP, history=2)
    assert [(row.step, row.reward) for row in rows] == [(1, 1.0), (1, 1.0), (2, 0.0), (2, 0.0), (3, 0.0), (3, 0.0)]
    assert asked[2][0] == (Turn("look", start[0].next_state), Turn("fly", "wrong"))


# The model as an environment


class Optimist:
    """Predicts that whatever is done succeeds."""

    def predict(self, histories, actions, tasks=None):
        return [f"You put everything down: {task}" for task in tasks]


def test_success_that_is_only_imagined_is_told_apart():
    transitions = [t for n in (1, 2, 3) for t in recorded(f"house-{n}", winning(f"house-{n}"))]
    starts = collect_starts(ToyHouseEnv, ["house-1", "house-2", "house-3"], transitions)
    assert "drop " in " ".join(starts[0].actions)
    found, real = play_inside(Optimist(), starts, _toy, lambda: TaskWordsAgent(0), 6, task_is_done, 4)
    assert all(found.imagined)
    assert found.replayed == (False, False, False)
    assert len(found.real) == len(real) == 3
    again, _ = play_inside(NothingChanges(), starts, _toy, lambda: TaskWordsAgent(0), 6, task_is_done, 4, real)
    assert again.real == found.real
    assert again.imagined == (False, False, False)


def _toy():
    import gymnasium as gym

    return gym.make("rwml_gym/ToyHouse-v0", max_episode_steps=6)


def test_the_recognition_of_success_is_measured_on_real_episodes():
    won = recorded("house-1", winning("house-1"))
    lost = [replace(t, won=False, episode=9) for t in recorded("house-2", ["look", "fly"])]
    found = recognition([*won, *lost], task_is_done)
    assert (found.won, found.recognised, found.lost, found.mistaken) == (1, 1, 1, 0)
    found = recognition([*won, *lost], lambda task, turns: True)
    assert (found.recognised, found.mistaken) == (0, 1)
    assert recognition([won[-1]], task_is_done).won == 0


# The job


def test_all_parts_are_evaluated_and_the_same_again():
    found = evaluate_world_models(config())
    assert list(found.one_step) == ["nothing changes", "most frequent", "retrieval"]
    assert {row.step for row in found.ahead["retrieval"]} == {1, 2, 3}
    assert all(len(found.inside[name].games) == 3 for name in found.inside)
    assert len({found.inside[name].real for name in found.inside}) == 1
    assert evaluate_world_models(config()).to_json() == found.to_json()
    text = found.text(GAP, 96)
    for words in (
        "ONE STEP",
        "must be read",
        "SEVERAL STEPS AHEAD",
        "step 3",
        "THE MODEL AS AN ENVIRONMENT",
        "imagined",
    ):
        assert words in text
    assert "States that fit" not in text


def test_parts_may_be_left_out():
    found = evaluate_world_models(config(models=("nothing-changes",), steps_ahead=0, imagined_games=0))
    assert list(found.one_step) == ["nothing changes", "most frequent"]
    assert not found.ahead
    assert not found.inside
    assert "AHEAD" not in found.text(GAP, 96)
    short = evaluate_world_models(config(steps_ahead=9, imagined_games=0))
    assert "no held-out episode has 9 steps" in short.text(GAP, 96)


def test_a_language_model_and_a_language_player_take_part(tiny_folder):
    found = evaluate_world_models(
        config(
            models=("base",),
            model=str(tiny_folder),
            limit=4,
            starts=2,
            steps_ahead=2,
            imagined_games=1,
            imagined_steps=2,
            max_new_tokens=4,
            player="model",
            max_prompt_tokens=300,
        )
    )
    assert list(found.one_step) == ["base", "most frequent"]
    assert len(found.ahead["base"]) == 4
    assert len(found.inside["base"].games) == 1


@pytest.fixture
def adapter(tiny_folder, tmp_path):
    settings = WorldModelSettings(str(tiny_folder), "game", 5, "transcript", 2, 200)
    model = add_adapter(load_model(str(tiny_folder), "float32")[0], 2, 4)
    save_adapter(model, tmp_path / "adapter")
    write_json(tmp_path / "adapter" / WORLD_MODEL_FILE, asdict(settings))
    return tmp_path / "adapter"


def test_an_adapter_is_asked_as_it_was_trained(tiny_folder, adapter, monkeypatch):
    asked = []
    attempts = LanguageWorldModel.attempts
    monkeypatch.setattr(
        LanguageWorldModel,
        "attempts",
        lambda self, transitions, *rest, **more: asked.append(self) or attempts(self, transitions, *rest, **more),
    )
    told = []
    words = {"models": ("base",), "model": str(tiny_folder), "adapter": str(adapter), "limit": 4, "steps_ahead": 0}
    evaluate_world_models(config(**words, imagined_games=0), say=told.append)
    assert any("history 2" in text and "max_new_tokens 5" in text for text in told)
    assert len(asked) == 2  # the base model is asked alike
    assert {(m.prompts.history, m.prompts.max_tokens, m.max_new_tokens) for m in asked} == {(2, 200, 5)}
    with pytest.raises(InvalidConfigError, match="Leave out --history"):
        evaluate_world_models(config(**words, history=3))
    evaluate_world_models(config(**words, imagined_games=0, max_prompt_tokens=300))  # a limit may be another one
    assert (asked[-1].prompts.history, asked[-1].prompts.max_tokens) == (2, 300)
    (adapter / WORLD_MODEL_FILE).unlink()
    evaluate_world_models(config(**words, imagined_games=0, history=3, max_prompt_tokens=300, max_new_tokens=4))
    assert asked[-1].prompts.history == 3


def test_an_adapter_of_schemas_is_compared_in_that_view(adapter):
    pytest.importorskip("rouge_score")
    changes = {"adapter": str(adapter), "gap": "cosine"}
    assert make_gap(config(**changes), True).measure("tool").view == "raw"
    settings = json.loads((adapter / WORLD_MODEL_FILE).read_text())
    write_json(adapter / WORLD_MODEL_FILE, {**settings, "world": "service", "json_schema": True})
    measure = make_gap(config(**changes), True).measure("tool")
    assert (measure.gap, measure.view) == ("rouge", "schema")
    assert make_gap(config(**changes), False).measure("tool").view == "raw"


def test_services_are_not_played_inside_a_model():
    pytest.importorskip("tau2")
    settings = {"env": "tau2", "domain": "mock", "split": "base", "games": 4, "record_steps": 4, "steps_ahead": 2}
    found = evaluate_world_models(config(**settings))
    assert not found.inside
    assert found.ahead
    assert "no text of a service says whether its task is solved" in found.text(make_gap(config(), True), 96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("retrieva",)}, "Did you mean 'retrieval'"),
        ({"models": ("adapter",)}, "--adapter FOLDER"),
        ({"models": ()}, "at least one model"),
        ({"held_out": 1.0}, "held_out below 1"),
        ({"player_adapter": "x"}, "Use --player model"),
        ({"games": 1}, "games of at least 2"),
        ({"steps_ahead": -1}, "steps_ahead of at least 0"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(InvalidConfigError, match=message):
        config(**changes)


def test_the_command_reads_a_recording_and_writes_its_report(tmp_path, capsys):
    pytest.importorskip("datasets")
    data = tmp_path / "recorded"
    games = [f"house-{n}" for n in range(1, 5)]
    episodes = [replace(t, episode=n) for n, game in enumerate(games) for t in recorded(game, winning(game))]
    TransitionDataset(episodes).save(data)
    words = ["--env", "toy", "--transitions", str(data), "--gap", "exact", "--encoder", "hashing", "--steps-ahead", "2"]
    words += ["--imagined-games", "2", "--out", str(tmp_path / "out")]
    assert cli.main(["evaluate-world-model", *words]) == 0
    out, err = capsys.readouterr()
    assert "THE MODEL AS AN ENVIRONMENT" in out
    assert "right for 6 of 6 won" in " ".join(out.split())  # four recorded ones, and the expert's two
    assert "retrieval: " in err
    assert (tmp_path / "out" / "report.txt").read_text("utf-8").strip() in out
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert [row["step"] for row in results["ahead"]["retrieval"]] == [1, 2]
    assert cli.main(["evaluate-world-model", "--env", "toy", "--transitions", str(tmp_path / "nowhere")]) == 2
    assert "Check the path" in capsys.readouterr().err
    assert cli.main(["evaluate-world-model", *words, "--split", "held_out"]) == 2
    assert "Choose the environment of the transitions" in capsys.readouterr().err


@pytest.mark.slow
def test_alfworld_s_transitions_and_games_are_evaluated():
    pytest.importorskip("alfworld")
    found = evaluate_world_models(config(env="alfworld", games=8, imagined_games=4, imagined_steps=20))
    assert found.recognition is not None
    assert found.recognition.recognised >= 3
    assert found.data_version
