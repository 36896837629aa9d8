"""Policy training on a few toy houses: whom it imitates, what it trains on, and what it is evaluated on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("matplotlib")

from rwml_gym.agents.config.policy import (
    EpisodeConfig,
    EvaluationConfig,
    ImitationConfig,
    PolicyConfig,
    PolicyStageConfig,
)
from rwml_gym.agents.jobs import imitation, policy, success
from rwml_gym.agents.players.baselines import ExpertAgent
from rwml_gym.agents.players.rollout import collect
from rwml_gym.agents.runs.worlds import Source
from rwml_gym.transitions import Transition

SEED = 0  # the expert gets the one house that can be won in three steps
TRAIN, HELD_OUT, EXPERT = 4, 2, 6  # together all twelve houses that there are


class Finished(NamedTuple):
    """What was seen of a run."""

    folder: Path
    config: PolicyConfig
    trained: list[list]  # episodes of each training round
    evaluated: list[list]  # of each evaluation
    recorded: list[Transition]  # the expert's
    demonstrations: int


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory) -> Finished:
    config = PolicyConfig(
        env="toy",
        env_arguments='{"games": 12}',
        split="held_out",
        model=str(tiny_folder),
        dtype="float32",
        lora_rank=2,
        history=1,
        max_prompt_tokens=300,
        episode=EpisodeConfig(max_steps=3, action_tokens=4, slots=4),
        imitation=ImitationConfig(steps=1, games=EXPERT, batch_size=2),
        stage=PolicyStageConfig(steps=3, games=TRAIN, groups=2, group_size=2),
        seed=SEED,
        evaluation=EvaluationConfig(games=HELD_OUT, repeats=2, temperature=1.0, every=2, training_games=True),
    )
    folder = tmp_path_factory.mktemp("policy") / "run"
    trained: list[list] = []
    evaluated: list[list] = []
    recorded: list[Transition] = []
    shown: list[int] = []
    roll_out, collect, imitation_step = policy.roll_out, imitation.collect, imitation.imitation_step

    def seen(*args: Any, **kwargs: Any) -> list:
        episodes = roll_out(*args, **kwargs)
        (evaluated if "progress" in kwargs else trained).append(episodes)
        return episodes

    def collected(*args: Any, **kwargs: Any) -> Any:
        data = collect(*args, **kwargs)
        recorded.extend(data)
        return data

    def imitated(model: Any, data: Any, *args: Any, **named: Any) -> Any:
        shown.append(len(data))
        return imitation_step(model, data, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "roll_out", seen)
        patch.setattr(success, "roll_out", seen)
        patch.setattr(imitation, "collect", collected)
        patch.setattr(imitation, "imitation_step", imitated)
        policy.run_policy(config, folder)
    return Finished(folder, config, trained, evaluated, recorded, shown[0])


@pytest.mark.long
def test_training_evaluation_and_imitation_play_the_games_that_are_theirs(finished):
    config = finished.config
    games = Source(config).prepare(config.seed, TRAIN, HELD_OUT, 3)
    assert {e.game for round_ in finished.trained for e in round_} == set(games.train)
    names = [{e.game for e in episodes} for episodes in finished.evaluated]
    assert names == [set(games.train), set(games.held_out)] * 3
    expert = {t.game for t in finished.recorded}
    assert len(expert) == EXPERT
    assert not expert & {*games.train, *games.held_out}


def test_only_what_the_expert_won_is_imitated(finished):
    won = [t for t in finished.recorded if t.won]
    assert 0 < len(won) < len(finished.recorded), "this budget is enough for some of the games"
    assert finished.demonstrations == len(won)


def test_evaluations_come_before_the_first_update_after_every_other_one_and_last(finished):
    found = json.loads((finished.folder / "report.json").read_text(encoding="utf-8"))
    assert [(e["name"], e["step"]) for e in found] == [
        (name, step) for step in (0, 2, 3) for name in ("training", "held-out")
    ]
    for evaluation, episodes in zip(found, finished.evaluated, strict=True):
        steps = sum(e.steps for e in episodes)
        assert (evaluation["played"], evaluation["won"]) == (len(episodes), sum(e.won for e in episodes))
        assert evaluation["steps"] == pytest.approx(steps / len(episodes))
        assert evaluation["invalid"] == pytest.approx(sum(sum(e.invalid) for e in episodes) / steps)


def test_repeats_of_a_game_differ_and_every_evaluation_draws_the_same(finished):
    held_out = finished.evaluated[1::2]
    specs = [[(e.spec.game, e.spec.seed) for e in episodes] for episodes in held_out]
    assert specs[0] == specs[1] == specs[2]
    assert len({seed for _, seed in specs[0]}) == 2 * HELD_OUT
    for one, other in zip(held_out[0][::2], held_out[0][1::2], strict=True):
        assert one.game == other.game
        assert [w.completion.tokens for w in one.written] != [w.completion.tokens for w in other.written]


@pytest.mark.long
def test_recorded_games_that_the_policy_is_evaluated_on_are_not_imitated(finished, tmp_path, capsys, monkeypatch):
    config = replace(finished.config, stage=replace(finished.config.stage, steps=0))
    source = Source(config)
    with (make := source.make(12, expert=True))() as env:
        names = env.unwrapped.games.names
    recorded = collect(make, ExpertAgent(), names)
    assert all(t.won for t in recorded)
    recorded.save(tmp_path / "data")
    held_out = source.prepare(config.seed, TRAIN, HELD_OUT, 3).held_out
    allowed = [t for t in recorded if t.game not in held_out]
    shown = []
    step = imitation.imitation_step

    def seen(model: Any, data: Any, *args: Any, **named: Any) -> Any:
        shown.append(len(data))
        return step(model, data, *args, **named)

    monkeypatch.setattr(imitation, "imitation_step", seen)
    config = replace(config, imitation=replace(config.imitation, transitions=str(tmp_path / "data")))
    policy.run_policy(config, tmp_path / "run")
    assert 0 < len(allowed) < len(recorded)
    assert f"Left out: {len(recorded) - len(allowed)} transitions of games" in capsys.readouterr().out
    assert set(shown) == {len(allowed)}


@pytest.mark.long
def test_each_split_is_evaluated_by_itself_with_its_own_step_budget(finished, tmp_path, monkeypatch):
    """Also the training games, where they are evaluated."""
    config = replace(
        finished.config,
        split="train",
        env_arguments=None,
        imitation=ImitationConfig(),
        stage=replace(finished.config.stage, steps=1),
        evaluation=EvaluationConfig(games=2, splits=("held_out",), max_steps=5, temperature=1.0, training_games=True),
    )
    played: dict[int, list[int]] = {0: [], 1: []}
    roll_out = policy.roll_out

    def seen(*args: Any, **kwargs: Any) -> list:
        episodes = roll_out(*args, **kwargs)
        played["progress" in kwargs] += [e.steps for e in episodes if not e.won]
        return episodes

    monkeypatch.setattr(policy, "roll_out", seen)
    monkeypatch.setattr(success, "roll_out", seen)
    evaluations = policy.run_policy(config, tmp_path)
    assert [(e.name, e.step) for e in evaluations] == [
        ("training", 0), ("held_out", 0), ("training", 1), ("held_out", 1),
    ]  # fmt: skip
    assert set(played[False]) == {config.episode.max_steps} == {3}
    assert set(played[True]) == {5}
