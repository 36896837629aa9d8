"""The ROUGE-L distance, beside the library it stands for."""

from __future__ import annotations

import pytest
from gymnasium.error import DependencyNotInstalled
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.rouge import MAX_TOKENS, rouge_distance

pytest.importorskip("rouge_score")

# Few words, so that there is much to align; and texts of all kinds. Of other scripts the library reads nothing.
WORDS = st.lists(st.sampled_from(["a", "b", "c", '"id":', "W12", "{", "_x", "\x1f"]), max_size=40).map(" ".join)
TEXTS = WORDS | st.text(st.characters(codec="ascii"), max_size=60)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_it_is_one_minus_the_librarys_f1(prediction, truth):
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenize import tokenize

    distance = rouge_distance(prediction, truth)
    if tokenize(prediction, None) or tokenize(truth, None):
        assert distance == 1 - RougeScorer(["rougeL"]).score(truth, prediction)["rougeL"].fmeasure
    else:
        assert distance == float(prediction != truth)
    assert 0 <= distance <= 1
    assert rouge_distance(truth, prediction) == pytest.approx(distance)
    assert rouge_distance(truth, truth) == 0


@pytest.mark.parametrize(
    ("prediction", "truth", "distance"),
    [
        ('{"id": 1}', "ID=1!", 0),  # case and punctuation are nothing to it
        ("a b c d", "a c d b", 0.25),
        ("冰箱", "冰箱", 0),
        ("冰箱", "床", 1),
        ("🙂", "", 1),
        ("a", "冰箱", 1),
        ("open 冰箱", "open 床", 0.5),  # every script counts
        ("की", "का", 1),  # and its vowels that combine with a letter
        ("बंद दरवाज़ा", "बंद खिड़की", 0.5),
        ("हिन्दी", "हिन्दी", 0),
        ("1️⃣ ❤️", "1 ❤", 0),  # but no mark without a letter
        ("open", "open, 冰箱", 1 / 3),
        ("pending", "delivered", 1),
    ],
)
def test_known_distances(prediction, truth, distance):
    assert rouge_distance(prediction, truth) == pytest.approx(distance)


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_at_a_symmetric_distance(prediction, truth):
    assert 0 <= rouge_distance(prediction, truth) <= 1
    assert rouge_distance(truth, prediction) == pytest.approx(rouge_distance(prediction, truth))
    assert rouge_distance(truth, truth) == 0


def test_long_texts_are_aligned_in_part_and_counted_in_full():
    long = " ".join(f"w{i}" for i in range(3 * MAX_TOKENS))
    assert rouge_distance(long, long) == 0
    assert rouge_distance(f"x {long}", f"y {long}") == pytest.approx(1 / (3 * MAX_TOKENS + 1))
    # What is beyond the bound counts as wrong, never as right.
    other = f"x {long} x"
    assert rouge_distance(other, f"y {long} y") == pytest.approx(1 - (MAX_TOKENS - 1) / (3 * MAX_TOKENS + 2))
    assert rouge_distance("w " * 10, "w " * 90_000) > 0.999


def test_a_hundred_thousand_characters_do_not_hang():
    # The library's table would have 3 billion cells.
    assert 0 < rouge_distance("a b c 1 2 3 " * 9_000, "c a 1 3 b 9 " * 9_000) < 1


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install -e ".*\[tau2\]"'):
        GapReward("hashing", measures={"tool": {"gap": "rouge"}})
    GapReward("hashing")
