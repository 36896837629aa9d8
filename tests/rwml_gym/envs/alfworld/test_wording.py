"""Generated games in the published words: letter for letter those of the files, and for half of the games if mixed."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import pytest

pytest.importorskip("alfworld")

import rwml_gym  # noqa: F401  registers the environment
from rwml_gym.envs.alfworld.engine.game import TASK_TYPES
from rwml_gym.envs.alfworld.engine.grammar import without_goal
from rwml_gym.envs.alfworld.games.generator import verify
from rwml_gym.envs.alfworld.games.official import _release
from rwml_gym.envs.alfworld.games.sources import GeneratedGames, OfficialGames
from rwml_gym.envs.alfworld.games.wording import in_original_words, wording_of
from rwml_gym.errors import InvalidGameError
from tests.helpers.alfworld_data import official_data

NAMES = GeneratedGames().names[:200]


def test_domain_and_grammar_are_those_of_the_published_release():
    """The release is known by a hash of both."""
    game = GeneratedGames(grammar="original").load(NAMES[0])
    assert _release(game.data, game.task) == "json_2.1.1"
    assert game.data_version.endswith("in the words of json_2.1.1")


def test_they_are_those_of_a_published_file_letter_for_letter():
    games = OfficialGames(official_data(), "valid_seen", grammar="original")
    file, ours = games.load(games.names[0]).data, GeneratedGames(grammar="original").load(NAMES[0]).data
    assert ours["pddl_domain"] == file["pddl_domain"]
    assert without_goal(ours["grammar"])[0] == without_goal(file["grammar"])[0]


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_the_game_is_the_same_and_its_plan_in_the_published_words_wins_it(task_type):
    name = f"generated/{task_type}/5"
    new, old = (GeneratedGames(grammar=grammar).load(name) for grammar in ("installed", "original"))
    assert old.data["pddl_problem"] == new.data["pddl_problem"]
    assert old.task == new.task
    assert verify(old) == verify(new)
    assert not any(action.startswith("move ") for action in old.plan)


def test_a_player_reads_and_writes_the_published_words():
    env = gymnasium.make("rwml_gym/ALFWorld-v0", grammar="original", disable_env_checker=True)
    _, info = env.reset(options={"game": NAMES[0]})
    assert "help" not in info["admissible_actions"]
    plan = GeneratedGames(grammar="original").load(NAMES[0]).plan
    observations = [env.step(action)[0] for action in plan]
    assert observations[0].startswith("You arrive at loc ")
    assert observations[-1].startswith("You put the ")
    env.close()


def test_of_mixed_games_each_has_one_wording_by_its_name_and_half_have_each():
    words = [wording_of(name, "mixed") for name in NAMES]
    assert words == [wording_of(name, "mixed") for name in NAMES]
    assert 80 < words.count("original") < 120
    for name, wording in list(zip(NAMES, words, strict=True))[:4]:
        assert GeneratedGames(grammar="mixed").load(name) == GeneratedGames(grammar=wording).load(name)


def test_texts_of_another_alfworld_are_not_changed_by_guess():
    game = GeneratedGames().load(NAMES[0])
    other = replace(game, data={**game.data, "grammar": game.data["grammar"].replace("You move the", "You shove the")})
    with pytest.raises(InvalidGameError, match="Expected alfworld"):
        in_original_words(other)
