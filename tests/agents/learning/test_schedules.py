"""Learning rates rise, stay and fall as they should, and as those of `transformers` do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from rwml_gym.agents.learning.schedules import constant_with_warmup, linear_to, warmup_linear
from rwml_gym.errors import InvalidConfigError

COUNTS = st.integers(0, 40)


def _theirs(make, steps: int, *arguments: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, *arguments)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@given(COUNTS, COUNTS)
def test_constant_is_that_of_transformers_a_step_later(warmup, steps):
    factor = constant_with_warmup(warmup)
    theirs = _theirs(get_constant_schedule_with_warmup, steps + 1, warmup)[1:]
    assert [factor(number) for number in range(steps)] == pytest.approx(theirs)


@given(COUNTS, COUNTS)
def test_linear_falls_as_that_of_transformers_and_rises_a_step_earlier(warmup, steps):
    assume(warmup < steps)
    factor = warmup_linear(warmup, steps)
    theirs = _theirs(get_linear_schedule_with_warmup, steps, warmup, steps)
    assert [factor(number) for number in range(warmup)] == pytest.approx(theirs[1 : warmup + 1])
    assert [factor(number) for number in range(warmup, steps)] == pytest.approx(theirs[warmup:])


@given(COUNTS, COUNTS)
def test_every_step_trains_and_the_peak_is_reached(warmup, steps):
    assume(warmup < steps)
    for schedule in (constant_with_warmup(warmup), warmup_linear(warmup, steps)):
        factors = [schedule(number) for number in range(steps)]
        assert all(0 < factor <= 1 for factor in factors)
        assert max(factors) == 1
        assert factors[: warmup + 1] == sorted(factors[: warmup + 1])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert warmup_linear(warmup, steps)(steps) == 0


@pytest.mark.parametrize(("make", "arguments"), [(constant_with_warmup, (-1,)), (warmup_linear, (-1, 3))])
def test_a_negative_warmup_is_refused(make, arguments):
    with pytest.raises(InvalidConfigError, match="at least 0"):
        make(*arguments)


def test_a_warmup_without_an_end_is_refused():
    with pytest.raises(InvalidConfigError, match="below the 4 steps"):
        warmup_linear(4, 4)


@given(st.floats(0.01, 1), COUNTS, st.integers(1, 40))
def test_a_rate_ends_at_its_share_and_never_rises_after_the_warm_up(share, warmup, steps):
    factor = linear_to(share, warmup, steps)
    rates = [factor(number) for number in range(steps)]
    assert rates[:warmup] == pytest.approx([constant_with_warmup(warmup)(number) for number in range(steps)][:warmup])
    assert all(later <= sooner + 1e-12 for sooner, later in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    if warmup < steps:
        assert rates[-1] == pytest.approx(share)
    assert [linear_to(1.0, warmup, steps)(n) for n in range(steps)] == [
        constant_with_warmup(warmup)(n) for n in range(steps)
    ]
