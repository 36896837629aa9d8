"""Three ways to choose a threshold: as in the paper, by quantile, and (in test_calibration) by precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwml_gym.diagnostics.calibration_pairs import NoPairsError, pair_distances
from rwml_gym.diagnostics.calibration_report import calibrate_each, calibrations_table
from rwml_gym.diagnostics.thresholds import (
    attempts_by_retrieval,
    carried_threshold,
    paper_thresholds,
    share_easy,
    training_threshold,
)
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, TransitionDataset, Turn

# Of ten triplets three are easy: all attempts at them are near, or at one of them all but one.
NEAR, MIXED, FAR = [0.01, 0.02, 0.03, 0.04], [0.01, 0.02, 0.03, 0.9], [0.5, 0.6, 0.7, 0.8]
ATTEMPTS = np.array([NEAR, NEAR, MIXED, *[FAR] * 7])


@pytest.mark.parametrize(
    ("easy_rate", "filtering"),
    [
        (0.75, (0.03 + 0.04) / 2),  # below it three of four attempts at the three; above it also the fourth
        (1.0, (0.8 + 0.9) / 2),  # MIXED is easy last, so that the third is one of FAR
        (0.0, (0.01 + 0.5) / 2),  # one right attempt is enough
    ],
)
def test_the_filter_s_threshold_makes_three_in_ten_easy(easy_rate, filtering):
    threshold, training = paper_thresholds(ATTEMPTS, easy_rate)
    assert training == training_threshold(threshold)
    rates = (ATTEMPTS < threshold).mean(1)
    easy = (rates >= easy_rate) & (rates > 0)
    if easy_rate != 1.0:
        assert easy.mean() == pytest.approx(0.3)
        assert 0.01 < threshold < 0.5
    else:
        assert threshold == pytest.approx(filtering)


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_the_share_of_easy_triplets_is_what_was_asked_for(triplets, attempts, seed, rate):
    distances = np.random.default_rng(seed).random((triplets, attempts))  # without ties
    threshold, _ = paper_thresholds(distances, rate)
    rates = (distances < threshold).mean(1)
    easy = int(((rates >= rate - 1e-9) & (rates > 0)).sum())
    assert easy == max(1, round(0.3 * triplets))


@pytest.mark.parametrize(("filtering", "training"), [(0.1, 0.2), (0.15, 0.4), (0.0, 0.2), (0.02, 0.2), (0.3, 0.4)])
def test_the_paper_s_thresholds_for_training(filtering, training):
    assert training_threshold(filtering) == training


@pytest.mark.parametrize(
    ("distances", "settings"),
    [
        (np.zeros((0, 3)), {}),
        (np.zeros(3), {}),
        (np.full((2, 2), np.nan), {}),
        (ATTEMPTS, {"easy_rate": 1.1}),
        (ATTEMPTS, {"easy_share": 0}),
    ],
)
def test_attempts_that_are_none_are_refused(distances, settings):
    with pytest.raises(InvalidConfigError, match="Expected"):
        paper_thresholds(distances, **settings)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.floats(0.001, 2), st.integers(1, 9))
def test_a_threshold_is_carried_by_the_share_below_it(source, threshold, factor):
    """The second encoder's distances are the first one's in other units; what is below stays below."""
    target = [d * factor / 10 for d in source]
    carried = carried_threshold(threshold, np.array(source), np.array(target))
    assert carried > 0
    below, then = np.array(source) < threshold, np.array(target) < carried
    if len(set(target)) == len(target) == len(set(np.round(target, 8))) and min(target) > 1e-6:
        assert then.tolist() == below.tolist()
    assert not np.any(below & ~then & (np.array(target) > 0) & (np.array(target) < carried))


def test_pairs_of_other_number_are_refused():
    with pytest.raises(InvalidConfigError, match="actual: 2 and 1"):
        carried_threshold(0.2, np.array([0.1, 0.3]), np.array([0.1]))


def games(count: int = 12) -> TransitionDataset:
    start = (Turn("", "You are in the middle of a room."),)
    return TransitionDataset(
        Transition(
            start,
            f"go to drawer {n}",
            f"You arrive at drawer {n}. On the drawer {n}, you see a mug {g}, and a pen 2.",
            task="put a mug in sinkbasin",
            game=f"g{g}",
            step=n,
        )
        for g in range(count)
        for n in range(1, 6)
    )


def test_attempts_without_a_model_come_from_other_games():
    data = games()
    found = attempts_by_retrieval(data, GapReward("hashing"), attempts=4)
    assert found.shape == (30, 4)
    assert np.isfinite(found).all()
    assert np.array_equal(found, attempts_by_retrieval(data, GapReward("hashing"), attempts=4))
    assert len(np.unique(found.argsort(axis=1), axis=0)) > 1, "each attempt knows another tenth"
    with pytest.raises(NoPairsError, match="at least 2 games"):
        attempts_by_retrieval([t for t in data if t.game == "g0"], GapReward("hashing"))


def test_the_same_pairs_whatever_the_encoder():
    data = games()
    rows = [
        pair_distances(data, encoder, pairs=5) for encoder in ("hashing", lambda texts: np.eye(len(texts), 2) + 0.1)
    ]
    assert len(rows[0]) == len(rows[1]) > 20
    assert np.array_equal(rows[0], pair_distances(data, "hashing", pairs=5))
    assert len(pair_distances(data, "hashing", "entities", pairs=5)) == len(rows[0])


def test_every_choice_says_what_it_lets_pass():
    data = games()
    other = lambda texts: np.array([[len(text), text.count("e"), 1.0] for text in texts])  # noqa: E731
    found = [
        calibrate_each(data, "hashing", "cosine", (), 0.6, pairs_per_perturbation=5),
        calibrate_each(data, "hashing", "cosine", (), 0.6, pairs_per_perturbation=5, choose="paper"),
        calibrate_each(
            data, other, "cosine", (), 0.6, pairs_per_perturbation=5, choose="quantile", threshold=0.2, source="hashing"
        ),
        calibrate_each(data, "hashing", "cosine", (), 0.6, pairs_per_perturbation=5, threshold=0.3),
    ]
    assert [each.overall.chosen_by for each in found] == ["precision", "paper", "quantile", "given"]
    assert found[1].overall.threshold in (0.2, 0.4, 0.6, 0.8)
    assert found[3].overall.threshold == 0.3
    table = calibrations_table(found)
    assert table.count("Lets pass of other things: other number") == 4
    assert "30% of the triplets are easy for retrieval at" in table
    assert "as many pairs are below as below 0.2 with hashing" in " ".join(table.split())
    assert table.count("Ranked the wrong way") == 8
    with pytest.raises(InvalidConfigError, match="Give both"):
        calibrate_each(data, "hashing", "cosine", choose="quantile")
    with pytest.raises(InvalidConfigError, match="the range of the cosine gap"):
        calibrate_each(data, "hashing", "cosine", threshold=3.0)


def test_equal_distances_are_no_share_that_was_asked_for():
    """No threshold separates them, so the table says how many are easy indeed."""
    distances = np.array([[0.0], [0.5], [0.5], [0.5]])
    filtering, _ = paper_thresholds(distances, easy_share=0.5)
    assert share_easy(distances, filtering) == 1.0
    data = games()
    exact = calibrate_each(data, "hashing", "exact", (), pairs_per_perturbation=5, choose="paper")
    assert exact.overall.threshold == DISTANCES["exact"].threshold
    rouge = calibrate_each(data, "hashing", "rouge", (), pairs_per_perturbation=5, choose="paper", easy_rate=0.0)
    assert rouge.overall.threshold <= 1
