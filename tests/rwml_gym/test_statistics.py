"""Intervals and tests have the values of printed tables."""

from __future__ import annotations

import numpy as np
import pytest

from rwml_gym.statistics import difference_interval, paired_interval, sign_test, student_interval


@pytest.mark.parametrize(
    ("runs", "quantile"), [(2, 12.706), (16, 2.1314), (17, 2.1199), (21, 2.0860), (31, 2.0423), (121, 1.9799)]
)
def test_students_t_is_that_of_the_table_for_any_number_of_runs(runs, quantile):
    values = np.random.default_rng(0).normal(size=runs)
    mean, low, high = student_interval(values.tolist())
    error = np.std(values, ddof=1) / runs**0.5
    assert (high - mean) / error == pytest.approx(quantile, abs=5e-4)
    assert (mean - low) / error == pytest.approx(quantile, abs=5e-4)


def test_the_interval_of_pairs_agrees_with_the_sign_test():
    for differ in (*range(1, 30), 400):
        for more in range(differ + 1):
            low, high = paired_interval(more, differ - more, 500)
            assert low <= (2 * more - differ) / 500 <= high
            assert (low > 0 or high < 0) == (sign_test(more, differ - more) < 0.05)


@pytest.mark.parametrize("difference", [-1.5, -1.0, 0.0, 0.5, 1.5])
def test_a_difference_that_all_games_share_is_not_certain(difference):
    mean, low, high = difference_interval([difference] * 4, list("abcd"))
    assert low <= mean == difference <= high
    assert low < high
