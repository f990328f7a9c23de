"""Limit of a rate, on a clock of the test."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.admin.copying.pace import BURST_SECONDS, Pace


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 0.5)), min_size=1, max_size=50))
def test_the_rate_is_kept_over_the_whole_run(steps):
    pace, now, units = Pace(1000), 0.0, 0
    for number, work in steps:
        now += work
        units += number
        now += pace.pause_after(number, now)
    assert units <= 1000 * (now + BURST_SECONDS) + 1e-6


def test_a_pause_is_as_long_as_the_units_take():
    pace = Pace(100)
    assert pace.pause_after(50, 10.0) == pytest.approx(0.5 - BURST_SECONDS)
    assert pace.pause_after(50, 10.5) == pytest.approx(0.5 - BURST_SECONDS)


def test_a_long_pause_of_the_work_is_not_caught_up_with():
    pace = Pace(100)
    pace.pause_after(1, 0.0)
    assert pace.pause_after(100, 1000.0) == pytest.approx(1.0 - BURST_SECONDS)


def test_no_limit_is_no_pause():
    pace = Pace(math.inf)
    assert [pace.pause_after(10**9, 0.0) for _ in range(3)] == [0.0] * 3
