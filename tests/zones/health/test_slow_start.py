"""A recovered node gets a tenth of its reads. It gets more as they hit, and all above nine hits of ten."""

import random

import pytest

from evcache.zones.health.slow_start import LEAST_SHARE, SlowStart


def share(slow_start, draws=10_000):
    """Of the numbers that may be drawn, how many admit a read."""
    admitted = 0
    for number in range(draws):
        slow_start._draw = lambda number=number: number / draws  # noqa: SLF001
        admitted += slow_start.admits()
    return admitted / draws


def test_it_begins_with_a_tenth():
    assert share(SlowStart()) == pytest.approx(LEAST_SHARE)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.89])
def test_it_admits_a_tenth_and_the_share_that_hits(rate):
    slow_start = SlowStart()
    slow_start.hit_rate = rate
    assert share(slow_start) == pytest.approx(0.1 + rate, abs=1e-3)


@pytest.mark.parametrize(("drawn", "admitted"), [(0.0, True), (0.0999, True), (0.1, False), (0.999, False)])
def test_a_read_is_admitted_by_what_is_drawn(drawn, admitted):
    assert SlowStart(lambda: drawn).admits() is admitted


@pytest.mark.parametrize(
    ("reads", "warm"),
    [
        ([True] * 44, False),
        ([True] * 45, True),
        ([False] * 1_000, False),
        ([True, False] * 1_000, False),
        ([True] * 8 + [False], False),
        (([True] * 8 + [False]) * 100, False),  # eight of nine
        ([True] * 1_000 + [False] * 10, False),  # what is newest counts most
        ([False] * 1_000 + [True] * 45, True),
    ],
    ids=lambda value: f"{len(value)} reads" if isinstance(value, list) else str(value),
)
def test_it_is_warm_when_more_than_nine_of_ten_hit(reads, warm):
    slow_start = SlowStart()
    for hit in reads:
        slow_start.record(hit=hit)
    assert slow_start.is_warm is warm


def test_it_never_warms_while_nothing_is_there_and_never_admits_less_than_a_tenth():
    slow_start = SlowStart()
    for _ in range(10_000):
        slow_start.record(hit=False)
    assert slow_start.hit_rate == 0.0
    assert share(slow_start) == pytest.approx(LEAST_SHARE)


@pytest.mark.parametrize("seed", range(5))
def test_the_rate_follows_what_hits(seed):
    """Within what chance makes of some twenty reads."""
    rng = random.Random(seed)
    slow_start = SlowStart(rng.random)
    rates = []
    for _ in range(5_000):
        slow_start.record(hit=rng.random() < 0.6)
        assert 0.0 <= slow_start.hit_rate <= 1.0
        rates.append(slow_start.hit_rate)
    assert sum(rates[1_000:]) / 4_000 == pytest.approx(0.6, abs=0.05)
