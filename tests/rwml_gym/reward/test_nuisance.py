"""Arbitrary parts: they go out as they came in, are as many as asked for, and no prediction earns by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.reward.nuisance import nuisance_spans, pieces, with_nuisance, without_nuisance

STATE = "You arrive at drawer 1. The drawer 1 is open. In it, you see a pen 2, and a mug 1."
NEAR = "You arrive at drawer 1. The drawer 1 is open. In it, you see a pen 2."
# Texts that look like what is put in, or like what guards against that.
TEXTS = st.text(st.sampled_from("~\\ \n\ta1:-\u2003é\x1c")) | st.text()
SHARES = st.floats(0, 0.9)
LONGEST = 6  # pieces of an arbitrary word


@given(TEXTS, SHARES, st.integers())
def test_what_was_put_in_can_be_taken_out_of_any_text(text, share, seed):
    assert without_nuisance(with_nuisance(text, share, seed)) == text


@given(TEXTS, SHARES, st.integers())
def test_each_text_has_its_share_within_one_word(text, share, seed):
    marked = with_nuisance(text, 0.0, seed)  # with its backslashes
    wanted = pieces(marked) * share / (1 - share)
    assert abs(pieces(with_nuisance(text, share, seed)) - pieces(marked) - wanted) < LONGEST


@pytest.mark.parametrize("text", ["Nothing happens.", STATE])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_on_average_the_share_is_the_one_asked_for(text, share):
    counts = [pieces(with_nuisance(text, share, seed)) for seed in range(400)]
    assert 1 - pieces(text) * len(counts) / sum(counts) == pytest.approx(share, abs=0.03)


@given(TEXTS, SHARES, st.integers())
def test_the_spans_are_what_is_taken_out(text, share, seed):
    shown = with_nuisance(text, share, seed)
    for begin, end in reversed(nuisance_spans(shown)):
        shown = shown[:begin] + shown[end:]
    assert shown == with_nuisance(text, 0.0, seed)


def test_the_same_seed_puts_in_the_same_and_another_something_else():
    assert with_nuisance(STATE, 0.5, 1) == with_nuisance(STATE, 0.5, 1)
    assert len({with_nuisance(STATE, 0.5, seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InvalidConfigError, match="below 1"):
        with_nuisance(STATE, share, 0)


@pytest.mark.parametrize("name", ["cosine", "entities", "exact"])
@given(st.sampled_from([STATE, NEAR, "Nothing happens.", "You open the drawer 1."]), SHARES, SHARES, st.integers())
def test_no_prediction_gains_by_arbitrary_parts_of_its_own_or_without_them(name, prediction, ours, theirs, seed):
    gap = GapReward("hashing", 0.3, "continuous", gap=name, view="without-nuisance")
    truth = with_nuisance(STATE, theirs, seed)
    plain = GapReward("hashing", 0.3, "continuous", gap=name)([prediction], [STATE]).distances[0]
    shown = [with_nuisance(prediction, ours, seed + 1), prediction, f"~k7f ~9:15 {prediction} ~so"]
    assert gap(shown, [truth] * 3).distances.tolist() == [plain] * 3


@pytest.mark.parametrize("prediction", ["~k7f", " ~9:15 ~k7f\n~a", "~", "~k7f\n"])
def test_arbitrary_parts_alone_are_no_prediction(prediction):
    gap = GapReward("hashing", 2.0, view="without-nuisance")
    assert gap([prediction], [with_nuisance(STATE, 0.6, 0)]).rewards.tolist() == [0.0]


def test_a_message_with_a_role_keeps_it_at_its_beginning():
    gap = GapReward("hashing", 0.3, measures={"tool": {"gap": "exact"}}, view="without-nuisance")
    assert gap.measure("tool").view == "without-nuisance"
    assert gap(["5 euros"], [with_nuisance("tool: 5 euros", 0.8, 3)], ["tool"]).rewards.tolist() == [1.0]
