"""The warning of an agent that does what it can predict."""

from __future__ import annotations

from rwml_gym.agents.reports.dark_room import dark_room


def rows(accuracies, successes):
    return [{"gap_reward": a, "success": s} for a, s in zip(accuracies, successes, strict=True)]


RISING = [0.2, 0.25, 0.2, 0.22, 0.21, 0.5, 0.55, 0.6, 0.58, 0.52]
FALLING = [0.6, 0.62, 0.58, 0.61, 0.6, 0.3, 0.28, 0.2, 0.25, 0.22]


def test_it_warns_with_numbers_where_accuracy_rises_and_success_falls():
    text = dark_room(rows(RISING, FALLING))
    assert "0.216 to 0.550" in text
    assert "0.602 to 0.250" in text
    assert dark_room(rows([0.9] * 5 + RISING, [0.1] * 5 + FALLING)) == text  # only the last updates count


def test_it_is_silent_otherwise():
    assert dark_room(rows(RISING, FALLING)[:9]) == ""
    assert dark_room(rows(RISING, RISING)) == ""
    assert dark_room(rows(FALLING, FALLING)) == ""
    assert dark_room(rows([0.5] * 10, [0.5] * 10)) == ""
    noise = [0.1, 0.9, 0.2, 0.8, 0.3, 0.2, 0.9, 0.3, 0.9, 0.2]
    assert dark_room(rows(noise, noise[::-1])) == ""


def test_where_nobody_says_who_won_the_tasks_reward_counts():
    unjudged = [{**row, "success": 0.0, "judged": 0.0, "reward": row["success"]} for row in rows(RISING, FALLING)]
    assert dark_room(unjudged) == dark_room(rows(RISING, FALLING)).replace("success", "the task reward")
