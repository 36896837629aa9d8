"""`rwml-gym play`: real games with commands from a pipe."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from rwml_gym.agents.cli import main as cli
from rwml_gym.agents.cli.play import _Game
from rwml_gym.envs.toy import ToyHouseEnv


def play(monkeypatch, capsys, lines: str, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    status = cli.main(["play", "--env", "toy", *words])
    return status, *capsys.readouterr()


def winning(game: str) -> str:
    env = ToyHouseEnv(expert=True)
    _, info = env.reset(options={"game": game})
    actions = []
    while not info["won"]:
        actions.append(info["expert_action"])
        *_, info = env.step(actions[-1])
    return "".join(f"{action}\n" for action in actions)


def test_a_game_is_won_and_summed_up(monkeypatch, capsys):
    status, out, err = play(monkeypatch, capsys, winning("house-3"), "--game", "house-3")
    assert (status, err) == (0, "")
    assert out.startswith("Game: house-3\nTask: Put the ")
    assert "> take " in out
    assert "The game was won: 4 steps, 0 invalid, reward 1." in out or "0 invalid, reward 1." in out
    assert "predicted" not in out


def test_the_actions_are_listed_and_the_end_of_the_input_ends_the_game(monkeypatch, capsys):
    _, out, _ = play(monkeypatch, capsys, "?\n\n??\nfly", "--seed", "1")
    assert "\n  look\n" in out
    assert "There are no rules to show." in out
    assert "Nothing happens." in out
    assert "The game was left before its end: 1 steps, 1 invalid, reward 0." in out


def test_predictions_and_gaps_are_shown_after_each_step(monkeypatch, capsys):
    words = ("--game", "house-3", "--predict", "nothing-changes", "--gap", "exact")
    _, out, _ = play(monkeypatch, capsys, "look\nfly\nquit\nlook\n", *words)
    assert "gap 0.000 (exact match, τ_d 0.5): right" in out
    assert "gap 1.000 (exact match, τ_d 0.5): wrong" in out
    assert "Predictions: 1 of 2 right, mean gap 0.500." in out
    assert out.count("> ") == 3


def test_a_model_that_learns_knows_nothing_at_first(monkeypatch, capsys):
    words = ("--predict", "most-frequent", "--encoder", "hashing", "--threshold", "0.1")
    _, out, _ = play(monkeypatch, capsys, "fly\nfly\n", *words)
    assert out.index("predicted: nothing") < out.index("predicted: Nothing happens.\n  gap 0.000")
    assert "Predictions: 1 of 1 right" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gap", "exact"], "Expected --predict with --gap, actual: none"),
        (["--encoder", "hashing", "--history", "2"], "Expected --predict with --history, --encoder, actual: none"),
        (["--predict", "nothing-changes", "--gap", "rouge", "--encoder", "hashing"], "--gap cosine or entities with"),
        (["--predict", "learned"], "which predicts vectors"),
        (["--predict", "retrieval", "--adapter", "x"], "Expected a language model with --adapter"),
        (["--predict", "most-frequnt"], "Did you mean 'most-frequent'?"),
        (["--predict", "nothing-changes", "--gap", "exact", "--threshold", "7"], "Expected `threshold` in (0, 1]"),
        (["--game", "nowhere"], "Expected a game such as"),
        (["--split", "nowhere"], "nowhere"),
        (["--max-steps", "0"], "max_steps of at least 1"),
        (["--domain", "retail"], "Expected options of the environment 'toy'"),
    ],
)
def test_bad_input_is_said_in_one_line(monkeypatch, capsys, words, message):
    status, out, err = play(monkeypatch, capsys, "look\n", *words)
    assert (status, out) == (2, "")
    assert err.startswith("rwml-gym: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_service_lists_its_calls(monkeypatch, capsys):
    pytest.importorskip("tau2")
    monkeypatch.setattr("sys.stdin", io.StringIO("?\nget_users()\ndone()\n"))
    words = ["--env", "tau2", "--domain", "mock", "--split", "base", "--predict", "nothing-changes", "--gap", "exact"]
    assert cli.main(["play", *words]) == 0
    out = capsys.readouterr().out
    assert "\n  create_task(user_id, title, description)" in out
    assert "user_1" in out
    assert "Checks: DB " in out


def test_a_language_model_predicts(monkeypatch, capsys, tiny_folder):
    words = ("--predict", str(tiny_folder), "--encoder", "hashing", "--max-new-tokens", "5")
    status, out, _ = play(monkeypatch, capsys, "look\n", *words)
    assert status == 0
    assert "  predicted: " in out


def test_completions_are_what_is_admissible_and_cannot_control_the_terminal():
    env = ToyHouseEnv()
    observation, info = env.reset(options={"game": "house-3"})
    game = _Game(env, observation, info, None)
    assert game.completions() == info["admissible_actions"]
    game.info = {"admissible_actions": ["look", "\x1b[2J", "two\nlines"]}
    assert game.completions() == ["look"]
    game.info = {"tools": [{"function": {"name": "get_users", "parameters": {}}}]}
    assert game.completions() == ["get_users("]


def test_playing_without_a_model_imports_no_torch():
    program = (
        "import sys; from rwml_gym.agents.cli.main import main\n"
        "main(['play', '--env', 'toy', '--predict', 'nothing-changes', '--gap', 'exact'])\n"
        "sys.exit(' '.join({'torch', 'transformers', 'sentence_transformers', 'datasets'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], input="look\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
