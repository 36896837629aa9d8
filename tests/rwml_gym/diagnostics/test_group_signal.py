from __future__ import annotations

import numpy as np
import pytest

from rwml_gym.diagnostics.group_signal import expected_signal, group_signal
from rwml_gym.errors import InvalidConfigError
from rwml_gym.statistics import bootstrap_interval


def truth(p: np.ndarray, group_size: int) -> float:
    return float(np.mean(1 - p**group_size - (1 - p) ** group_size))


def draws(p: np.ndarray, samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((len(p), samples)) < p[:, None]).astype(float)


@pytest.mark.parametrize("samples", [8, 12])
@pytest.mark.parametrize("p", [0.0, 0.02, 0.1, 0.5, 0.97])
def test_with_as_many_samples_as_a_group_it_is_unbiased(p, samples):
    rates = np.full(4000, p)
    assert expected_signal(draws(rates, samples), 8).mean() == pytest.approx(truth(rates, 8), abs=0.025)


@pytest.mark.parametrize(
    "rates",
    [
        np.zeros(2000),
        np.repeat([0.0, 0.5], [1800, 200]),
        np.repeat([0.0, 0.5, 1.0], [700, 600, 700]),
        np.full(2000, 0.1),
        np.random.default_rng(1).beta(0.3, 2.0, 2000),
        np.random.default_rng(2).beta(2.0, 2.0, 2000),
    ],
    ids=["hopeless", "mostly hopeless", "mixed", "all alike", "hard", "medium"],
)
def test_with_fewer_samples_the_other_prompts_tell_which_rates_are_likely(rates):
    assert expected_signal(draws(rates, 4), 8).mean() == pytest.approx(truth(rates, 8), abs=0.08)


def test_a_fixed_prior_would_promise_signal_where_there_is_none():
    # Jeffreys' Beta(1/2, 1/2) after four wrong answers: 1 - B(0.5, 12.5) / B(0.5, 4.5), about 0.4 for every prompt.
    assert expected_signal(np.zeros((50, 4)), 8).max() < 0.01


def test_a_group_that_was_drawn_has_signal_or_not():
    pytest.importorskip("peft")
    from rwml_gym.agents.learning.grpo import has_signal

    rewards = np.random.default_rng(0).choice([0.0, 0.3, 1.0], p=[0.7, 0.2, 0.1], size=(200, 8))
    np.testing.assert_array_equal(expected_signal(rewards, 8), has_signal(rewards))


def test_continuous_rewards_differ_unless_they_are_the_same():
    rng = np.random.default_rng(0)
    rewards = np.vstack([rng.random(10), np.full(10, 0.4), np.repeat([0.4, 0.6], 5)])
    assert expected_signal(rewards, 5) == pytest.approx([1, 0, 1 - 2 / 252])
    assert expected_signal(rng.random((50, 4)), 8).min() > 0.9


def test_everything_is_told():
    rewards = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]])
    found = group_signal(rewards, 4, ["a", "a", "b", "b"])
    assert (found.prompts, found.samples, found.group_size) == (4, 4, 4)
    assert found.by_prompt == (0, 0, 1, 1)
    assert found.share == (0.5, 0.0, 1.0)  # the games are all that is resampled
    assert found.rates == (0, 1, 0.5, 0.25)
    assert (found.hopeless, found.perfect) == (0.25, 0.25)


def test_no_signal_in_a_few_games_is_not_certainty():
    share, low, high = group_signal(np.zeros((30, 8)), 8, [str(i % 10) for i in range(30)]).share
    assert (share, low) == (0, 0)
    assert 0.2 < high < 0.3  # 1 - 0.05 ** (1 / 10)


def test_intervals_resample_games():
    values, games = [0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50
    assert bootstrap_interval(values, games) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize(
    ("rewards", "group_size", "games", "fix"),
    [
        (np.zeros(4), 4, None, "n prompts by k samples"),
        (np.zeros((4, 0)), 4, None, "both at least 1"),
        (np.zeros((0, 4)), 4, None, "both at least 1"),
        (np.full((2, 4), np.nan), 4, None, "finite"),
        (np.zeros((2, 4)), 1, None, "group size of at least 2, actual: 1"),
        (np.zeros((2, 4)), 4, ["a"], "as many games as prompts"),
    ],
)
def test_bad_rewards_are_refused(rewards, group_size, games, fix):
    with pytest.raises(InvalidConfigError, match=fix):
        group_signal(rewards, group_size, games)


def test_one_sample_a_prompt_tells_nothing():
    with pytest.raises(InvalidConfigError, match=r"Expected at least 2 samples per prompt, actual: 1\. Take 8"):
        group_signal(np.ones((20, 1)), 8)


@pytest.mark.parametrize("games", [["a", "a"], ["a", "a", "b", "b"]])
def test_games_that_are_alike_leave_a_wide_interval(games):
    rewards = np.array([[1, 1, 1, 1], [0, 1, 0, 1]] * (len(games) // 2))
    mean, low, high = group_signal(rewards, 2, games).share
    assert mean == pytest.approx(1 / 3)
    assert low == 0
    assert high > 0.9
