"""Scores of predictions, and how sure they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rwml_gym.agents.reports.evaluate import Prediction, evaluate_predictions, names_nothing_new, paired_difference
from rwml_gym.reward.gap import GapReward
from rwml_gym.statistics import bootstrap_interval, wilson_interval
from rwml_gym.transitions import Transition, Turn

START = Turn("", "You are in a room. You see a fridge 1 and a drawer 12.")


def _transition(next_state: str, action: str = "open fridge 1", task: str = "Find it.", game: str = "g") -> Transition:
    return Transition((START,), action, next_state, task, game=game)


def _predictions(rewards: list[float], games: list[str]) -> list[Prediction]:
    return [
        Prediction(g, "look", True, f"look {i}", "state", "prediction", r, 1 - r, False)
        for i, (r, g) in enumerate(zip(rewards, games, strict=True))
    ]


# Intervals


def test_an_interval_holds_its_mean():
    mean, low, high = bootstrap_interval([0, 1, 1, 0, 1, 1], ["a", "a", "b", "b", "c", "d"])
    assert mean == pytest.approx(4 / 6)
    assert 0 <= low < mean < high <= 1


def test_equal_values_leave_no_doubt():
    assert bootstrap_interval([0.3] * 7, list("aabbccd")) == pytest.approx((0.3, 0.3, 0.3))


def test_one_game_is_one_observation():
    assert bootstrap_interval([0, 1, 1], ["a"] * 3) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_more_games_make_it_narrower():
    rng = np.random.default_rng(0)

    def width(games: int) -> float:
        _, low, high = bootstrap_interval(rng.integers(0, 2, games).tolist(), [str(i) for i in range(games)])
        return high - low

    widths = [width(n) for n in (20, 200, 2_000)]
    assert widths == sorted(widths, reverse=True)
    # A mean of n fair coins has a 95 % interval of 2 · 1.96 · 0.5 / √n.
    assert widths == pytest.approx([1.96 / n**0.5 for n in (20, 200, 2_000)], rel=0.15)


def test_steps_of_one_game_do_not_count_as_independent():
    # 20 games of 50 steps that all come out alike are no surer than 20 steps.
    values = np.repeat(np.random.default_rng(1).integers(0, 2, 20), 50).tolist()
    games = np.repeat([str(i) for i in range(20)], 50).tolist()
    by_game, by_step = bootstrap_interval(values, games), bootstrap_interval(values, [str(i) for i in range(1_000)])
    assert by_game[2] - by_game[1] > 5 * (by_step[2] - by_step[1])


def test_a_long_game_weighs_as_much_as_its_steps():
    long, short = [f"long-{i}" for i in range(5)], [f"short-{i}" for i in range(5)]
    mean, low, high = bootstrap_interval([1.0] * 45 + [0.0] * 5, long * 9 + short)
    assert mean == pytest.approx(0.9)
    assert 0.6 < low < mean < high  # the mean of the games' means is 0.5


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    games = [str(i // 3) for i in range(120)]
    hits = 0
    for seed in range(100):
        _, low, high = bootstrap_interval(rng.normal(0.4, 1.0, 120).tolist(), games, seed)
        hits += low <= 0.4 <= high
    assert 85 <= hits <= 100


def test_an_interval_follows_from_its_seed():
    values, games = np.random.default_rng(3).random(30).tolist(), [str(i) for i in range(30)]
    assert (
        bootstrap_interval(values, games, 1)
        == bootstrap_interval(values, games, 1)
        != bootstrap_interval(values, games, 2)
    )


# Differences


def test_predictions_that_are_alike_do_not_prove_that_models_are():
    same = _predictions([1.0, 1.0], ["a", "b"])
    mean, low, high = paired_difference(same, same)
    assert mean == 0.0
    assert (-low, high) == pytest.approx((wilson_interval(0, 2)[1],) * 2)


def test_a_paired_difference_is_that_of_the_means():
    games = ["a", "a", "b", "c"]
    ours, others = _predictions([1, 1, 0, 1], games), _predictions([0, 1, 0, 0], games)
    mean, low, high = paired_difference(ours, others)
    assert mean == 0.5
    assert low <= 0.5 <= high
    assert paired_difference(others, ours)[0] == -0.5
    assert paired_difference(ours, others, lambda p: p.distance)[0] == -0.5


def test_pairing_takes_away_what_both_share():
    rng = np.random.default_rng(4)
    games = [str(i) for i in range(60)]
    difficulty = rng.random(60)
    ours = _predictions((difficulty + 0.1 + 0.01 * rng.random(60)).tolist(), games)
    others = _predictions(difficulty.tolist(), games)
    _, low, high = paired_difference(ours, others)
    alone = bootstrap_interval([p.reward for p in ours], games)
    assert high - low < 0.1 * (alone[2] - alone[1])
    assert low > 0


@pytest.mark.parametrize("change", [{"game": "other"}, {"action": "go"}, {"next_state": "other"}])
def test_other_transitions_are_not_compared(change):
    ours = _predictions([1, 0], ["a", "b"])
    with pytest.raises(ValueError, match="same transitions"):
        paired_difference(ours, [ours[0], replace(ours[1], **change)])
    with pytest.raises(ValueError, match="same transitions"):
        paired_difference(ours, ours[:1])
    with pytest.raises(ValueError, match="same transitions"):
        paired_difference(ours, ours[::-1])


# Scores


@pytest.mark.parametrize(
    ("next_state", "known"),
    [
        ("Nothing happens.", True),
        ("You open the fridge 1. The fridge 1 is open.", True),
        ("You open the fridge 1. In it, you see a apple 2.", False),
        ("You see the fridge 12.", False),
        ("You see the drawer 12.", True),
        ("You see the drawer 1.", False),
    ],
)
def test_names_nothing_new(next_state, known):
    assert names_nothing_new(_transition(next_state)) == known


def test_the_action_the_task_and_earlier_actions_name_things_too():
    assert names_nothing_new(_transition("A mug 7.", action="take mug 7"))
    assert names_nothing_new(_transition("A mug 7.", task="Bring mug 7."))
    history = (START, Turn("look at mug 7", "Nothing."))
    assert names_nothing_new(replace(_transition("A mug 7."), history=history))
    assert not names_nothing_new(_transition("A mug 7."))


@pytest.mark.parametrize(
    ("next_state", "known"),
    [
        ('tool: {"order_id": "#W1", "status": "pending"}', True),
        ('tool: {"order_id": "#W2"}', False),
        ('tool: {"price": 342.81}', False),
        ('tool: {"price": 12.5}', True),
        ("tool: Error: Order not found", True),
    ],
)
def test_in_tool_results_values_count(next_state, known):
    history = (Turn("", "user: The item of 12.5 dollars, please."),)
    transition = Transition(history, "get_order(order_id='#W1')", next_state, role="tool")
    assert names_nothing_new(transition) == known


def test_message_roles_are_told_apart():
    pytest.importorskip("rouge_score")
    history = (Turn("", "user: Hi."),)
    transitions = [
        Transition(history, "get_order(order_id='#W1')", "tool: Error: Order not found", role="tool"),
        Transition(history, "Could you wait?", "user: Yes.", role="user"),
        Transition(history, "get_order(1, 2)", "Error: too many", role="tool", invalid_action=True),
    ]
    gap = GapReward("hashing", threshold=0.1, measures={"tool": {"gap": "rouge", "shape": "continuous"}})
    result = evaluate_predictions(transitions, ["tool: Error: User not found", "user: Yes.", ""], gap)
    assert [(p.role, p.action_type) for p in result] == [
        ("tool", "get_order"),
        ("user", "(words)"),
        ("tool", "(invalid)"),
    ]
    assert [p.reward for p in result] == [0.75, 1, 0]


def test_predictions_are_scored():
    transitions = [
        _transition("The fridge 1 is open.", game="a"),
        _transition("A mug 7 and a pan 3.", "look", game="b"),
        _transition("Nothing happens.", "", game="c"),
        replace(_transition("Nothing happens.", "fly to mars"), invalid_action=True),
    ]
    texts = [" The fridge 1 is open.\n", "", "Something else altogether.", "Nothing happens."]
    first, second, third, fourth = evaluate_predictions(transitions, texts, GapReward("hashing", threshold=0.1))
    assert (first.reward, first.exact, first.action_type, first.names_nothing_new) == (1.0, True, "open", True)
    assert first.distance == pytest.approx(0, abs=1e-6)
    assert (second.reward, second.distance, second.exact, second.names_nothing_new) == (0.0, 1.0, False, False)
    assert (third.reward, third.action_type, third.game) == (0.0, "(none)", "c")
    assert third.distance > 0.1
    assert (fourth.reward, fourth.action_type) == (1.0, "(invalid)")


def test_as_many_predictions_as_transitions():
    with pytest.raises(ValueError, match=r"\S"):
        evaluate_predictions([_transition("a")], ["a", "b"], GapReward("hashing", threshold=0.1))


def test_predictions_survive_json():
    import json

    (prediction,) = evaluate_predictions([_transition("τ → 1")], ["τ"], GapReward("hashing", threshold=0.1))
    assert Prediction(**json.loads(json.dumps(prediction.to_json()))) == prediction
