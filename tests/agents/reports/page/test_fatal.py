"""The first fatal step, on real games: known where the agent plays as the expert, and then wastes its budget."""

from __future__ import annotations

import gymnasium
import pytest

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.agents.reports.page.document import write_page
from rwml_gym.agents.reports.page.fatal import FatalStep, Replay, find_fatal
from tests.agents.reports.page.test_document import data_of
from tests.helpers.traces import header, play_alfworld

GAME = "generated_held_out/pick_clean_then_place_in_recep/0"
SPLIT = "generated_held_out"


def played(as_expert: int, looks: int) -> tuple[int, list[str], list[str]]:
    """How many steps the expert needs from the start; actions and answers of its first ones, then of looking around."""
    env = gymnasium.make("rwml_gym/ALFWorld-v0", split=SPLIT, expert=True)
    _, info = env.reset(options={"game": GAME})
    needs = 0
    while not info["won"]:
        info, needs = env.step(info["expert_action"])[4], needs + 1
    _, info = env.reset(options={"game": GAME})
    actions, answers = [], []
    for number in range(as_expert + looks):
        actions.append(info["expert_action"] if number < as_expert else "inventory")
        answer, _, _, _, info = env.step(actions[-1])
        answers.append(answer)
    return needs, actions, answers


def test_steps_are_wasted_after_a_good_start():
    needs, actions, answers = played(as_expert=4, looks=6)
    replay = Replay(header(env="alfworld", split=SPLIT, max_steps=needs + 2))
    found = replay.fatal(GAME, actions, answers)
    assert found.left[:5] == tuple(range(needs, needs - 5, -1))
    assert found.left[5:] == (needs - 4, needs - 4, None, None, None, None)
    assert found.step == 7  # two steps of the budget may be wasted, the third may not
    assert found.closest == (7, needs - 4)


def test_a_budget_that_is_too_small_is_lost_from_the_start():
    needs, actions, answers = played(as_expert=0, looks=3)
    replay = Replay(header(env="alfworld", split=SPLIT, max_steps=needs - 1))
    found = replay.fatal(GAME, actions, answers)
    assert found.step == 0
    assert found.closest is None


def test_an_episode_that_ends_before_its_budget_has_no_fatal_step():
    needs, actions, answers = played(as_expert=2, looks=1)
    found = Replay(header(env="alfworld", split=SPLIT, max_steps=50)).fatal(GAME, actions, answers)
    assert found.step is None
    assert found.closest == (4, needs - 2)


def test_another_game_is_noticed():
    _, actions, answers = played(as_expert=2, looks=0)
    replay = Replay(header(env="alfworld", split=SPLIT))
    assert "answered otherwise at step 2" in replay.fatal(GAME, actions, [answers[0], "something else"]).problem
    assert "could not be loaded" in replay.fatal("no/such game", actions, answers).problem


def test_being_lucky_later_is_no_end():
    assert find_fatal([3, None, 2]) == FatalStep((3, None, 2), None)
    assert find_fatal([5, 4, None, 3, None, None]).step == 4
    assert find_fatal([None, None]).step == 0


def test_the_page_names_it(tmp_path):
    folder = play_alfworld(tmp_path / "run", RandomAgent(0), games=3, budget=8)
    write_page([folder], tmp_path / "page.html")
    (run,) = data_of(tmp_path / "page.html")["evaluations"]
    lost = [line for line in run["episodes"] if line["outcome"] == "failed"]
    assert lost
    assert all(not line["fatal"]["problem"] and line["fatal"]["step"] is not None for line in lost)
    write_page([folder], tmp_path / "page.html", fatal=False)
    (run,) = data_of(tmp_path / "page.html")["evaluations"]
    assert not any("fatal" in line for line in run["episodes"])


def test_a_replay_that_is_not_possible_does_not_stop_the_page(tmp_path, monkeypatch):
    folder = play_alfworld(tmp_path / "run", RandomAgent(0), games=1, budget=3)
    text = (folder / "run.json").read_text().replace(SPLIT, "valid_unseen")
    (folder / "run.json").write_text(text)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    write_page([folder], tmp_path / "page.html")
    (run,) = data_of(tmp_path / "page.html")["evaluations"]
    assert "ALFWorld cannot be played here" in run["episodes"][0]["fatal"]["problem"]
