"""The failover budget: how many requests other zones get."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache import Failover, InvalidArgument
from evcache.reads.failover_budget import TokenBucket

ratios = st.sampled_from([0.0, 0.02, 0.5, 1.0, 2.0]) | st.floats(0, 10)
bursts = st.sampled_from([0.0, 1.0, 10.0, 32.0]) | st.floats(0, 100)
steps = st.lists(st.tuples(st.sampled_from(["read", "take", "spare"]), st.integers(1, 40)), max_size=60)


def take(budget, reads, wanted=1, **options):
    """What is granted when so many reads begin and each wants something."""
    granted = 0
    for _ in range(reads):
        budget.add_reads()
        granted += budget.try_take(wanted, **options)
    return granted


@given(ratios, bursts, steps)
def test_no_more_than_the_reads_brought_and_the_burst(ratio, burst, steps):
    """At no time were more requests allowed than `ratio` for each read and the burst, and one for the rounding."""
    budget = TokenBucket(ratio, burst)
    denied = reads = 0
    for step, count in steps:
        if step == "read":
            budget.add_reads(count)
            reads += count
        else:
            granted = budget.try_take(count, spare=step == "spare")
            assert 0 <= granted <= count
            denied += count - granted
        assert budget.taken <= ratio * reads + burst + 1
        assert budget.denied == denied


@given(ratios, bursts, steps)
def test_better_times_are_not_saved_up_beyond_the_burst(ratio, burst, steps):
    """After any history, and with no more reads, what can be had at once is the burst, what came last, and one."""
    budget = TokenBucket(ratio, burst)
    for step, count in steps:
        if step == "read":
            budget.add_reads(count)
        else:
            budget.try_take(count)
    budget.try_take(0)  # what the reads have brought is counted by now
    assert budget.try_take(10**6) <= burst + 1


@given(bursts, steps)
def test_what_can_be_spared_leaves_half_of_the_burst(burst, steps):
    """However much is asked for on top, the next that has to be asked for finds half of the bucket as it was."""
    budget = TokenBucket(1.0, burst)
    for step, count in steps:
        if step == "read":
            budget.add_reads(count)
        else:
            budget.try_take(count, spare=True)
    budget.try_take(10**6, spare=True)
    assert budget.try_take(10**6) >= int(burst / 2)


def test_with_ratio_1_every_read_gets_one():
    """With the own zone gone each read is served by another, for ever, and no read gets a second for as long."""
    budget = TokenBucket(1.0, 0.0)
    assert take(budget, 10_000) == 10_000
    assert budget.denied == 0
    assert take(budget, 100, wanted=2) == 100
    assert budget.denied == 100


def test_a_smaller_ratio_serves_its_share():
    """Once the burst is used up."""
    budget = TokenBucket(0.25, 10.0)
    assert take(budget, 10) == 10
    assert 245 <= take(budget, 1000) <= 255 + 10


def test_nothing_at_all():
    """Ratio and burst 0: the own zone or none."""
    budget = TokenBucket(0.0, 0.0)
    assert take(budget, 1000) == 0
    assert (budget.taken, budget.denied) == (0, 1000)


def test_a_call_for_many_keys_gets_as_many_as_there_are():
    """Of those wanted, as many as can be had, not all or none; and it may spend all that its own keys have brought."""
    budget = TokenBucket(1.0, 3.0)
    assert budget.try_take(10) == 3
    budget.add_reads(100)
    assert budget.try_take(100) == 100
    assert budget.try_take(1) == 0
    assert (budget.taken, budget.denied) == (103, 8)


def test_spare_requests_do_not_starve_the_next_read():
    """Reads that ask for a second one each, when there is one token a read, still get their first each."""
    budget = TokenBucket(1.0, 100.0)
    seconds = 0
    for _ in range(1000):
        budget.add_reads()
        assert budget.try_take() == 1
        seconds += budget.try_take(spare=True)
    assert seconds == 50


@pytest.mark.parametrize("name", ["ratio", "burst"])
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, True, "1", None, Decimal(1), [1]])
def test_what_is_no_number_from_0_is_refused(name, value):
    """The error names the setting. There is no such thing as an infinite bucket."""
    with pytest.raises(InvalidArgument) as caught:
        Failover(**{name: value})
    assert caught.value.argument == name


def test_the_defaults_serve_every_read():
    """Whoever sets nothing gets one request to another zone for each read, and four thousand beyond."""
    assert Failover() == Failover(ratio=1.0, burst=4000.0)
    assert Failover(ratio=0, burst=0).ratio == 0
