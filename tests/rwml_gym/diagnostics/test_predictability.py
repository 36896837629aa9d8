from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rwml_gym.diagnostics.predictability import (
    Repeats,
    names_nothing_new,
    nearest_elsewhere,
    repeated_situations,
    type_of,
    unseen_names,
)
from rwml_gym.transitions import Transition, Turn
from tests.helpers.webshop import is_results_page, webshop


def at(state: str, action: str, next_state: str, game: str = "a", **more: object) -> Transition:
    return Transition((Turn("", state),), action, next_state, game=game, **more)  # type: ignore[arg-type]


def unseen(transition: Transition, *others: Transition) -> tuple[str, ...]:
    return unseen_names([transition, *others])[0]


def test_random_ids_prices_and_numbered_things_are_unseen_until_they_are_named():
    page = at("A shop.", "search[shirt]", "A shop: B09KP78G37 for $25.99, shirt 2.")
    assert unseen(page) == ("shirt 2", "b09kp78g37", "25.99", "for")
    assert unseen(at(page.next_state, "click[b09kp78g37]", "A shop: shirt 2, B09KP78G37, $25.99."), page) == ()


def test_a_code_of_known_parts_is_new():
    rows = "Seat 12A and seat 14C are free."
    assert not names_nothing_new(at(rows, "book", "You get seat 12F."))
    assert names_nothing_new(at(rows, "book", "You get seat 14C."))


def test_the_task_and_earlier_turns_count_as_seen():
    transition = at("A room.", "look", "apple 7", task="Take apple 7.")
    assert unseen(transition) == ()
    window = (Turn("", "There is apple 7."), Turn("go", "A room."))
    assert unseen(Transition(window, "look", "apple 7", game="a")) == ()


def test_what_every_answer_in_other_games_says_is_the_template():
    pages = [at("A shop.", "search[x]", f"Page 1 (results: {i + 20})", game=f"g{i}") for i in range(12)]
    assert unseen_names(pages) == [(str(i + 20),) for i in range(12)]
    # Fewer than ten answers are no template, nor are those of the same game.
    assert unseen_names(pages[:8])[0] == ("page 1", "20")
    alone = [at("A shop.", "search[x]", "Page 1", game="a") for _ in range(12)]
    assert unseen_names(alone)[0] == ("page 1", "page")


def test_one_action_may_have_a_template_of_its_own():
    buys = [at("A page.", "click[Buy]", "Score of 100", game=f"g{i}") for i in range(12)]
    others = [at("A page.", f"click[{i}{j}]", "A page.", game=f"g{i}") for i in range(12) for j in range(5)]
    assert not any(unseen_names([*buys, *others]))


def test_words_of_the_world_are_known_and_rare_ones_are_not():
    games = [at("Door.", "go", "The cupboard is open.", game=f"g{i}") for i in range(30)]
    assert unseen(at("Door.", "go", "The cupboard is Valorishly open.", game="x"), *games) == ("valorishly",)
    assert unseen(at("Door.", "go", "The cupboard is open.", game="x"), *games) == ()


@pytest.mark.parametrize("text", ["", "?", "冷蔵庫 1", "\x1b[2J", "#", "$$$", "٣٤٥ 12"])
def test_any_text_is_taken(text):
    assert isinstance(unseen(at(text, text, text)), tuple)
    assert not unseen(at(text, text, text)), "what the state says is seen"


def test_result_pages_of_a_shop_cannot_be_known():
    data = webshop()
    found = unseen_names(data)
    pages = [not names for names, t in zip(found, data, strict=True) if is_results_page(t)]
    rest = [not names for names, t in zip(found, data, strict=True) if not is_results_page(t)]
    assert len(pages) / len(data) == pytest.approx(0.53, abs=0.02), "as in the public attempt"
    assert not any(pages)
    assert sum(rest) / len(rest) > 0.9


def test_the_same_situation_with_other_outcomes_is_chance():
    same = [at("A room.", "roll", state) for state in ("one", "one", "one", "two")]
    found = repeated_situations([*same, at("A hall.", "roll", "three")])
    assert found.transitions == 4
    assert found.agreement == 3 / 6
    assert math.isnan(repeated_situations(same[:1]).agreement)
    # With another task, or after another window, it is another situation.
    other = [replace(same[3], task="Win."), replace(same[3], history=(Turn("", "A hall."), *same[3].history))]
    assert repeated_situations([*same[:3], *other]) == Repeats(transitions=3, agreement=1.0)


def test_the_nearest_answer_is_never_of_the_same_game():
    states = {"a": "The fridge is open.", "b": "The fridge is shut.", "c": "Snow falls."}
    data = [at("s", "a", state, game) for game, state in states.items()]
    assert nearest_elsewhere(data, [*data, *data])[:2] == [states["b"], states["a"]]
    assert nearest_elsewhere(data[:1], data[:1]) == [""]
    assert nearest_elsewhere([], data) == []


def test_words_to_a_user_are_one_type():
    assert type_of(at("s", "Could you?", "user: Yes.", role="user")) == "(words)"
    assert type_of(at("s", "get_order(id=1)", "tool: {}", role="tool")) == "get_order"
