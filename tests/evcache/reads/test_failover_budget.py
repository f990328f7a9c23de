"""The failover budget: the number of requests to remote zones."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache import Failover, InvalidArgument
from evcache.reads.failover.budget import TokenBucket

ratios = st.sampled_from([0.0, 0.02, 0.5, 1.0, 2.0]) | st.floats(0, 10)
bursts = st.sampled_from([0.0, 1.0, 10.0, 32.0]) | st.floats(0, 100)
steps = st.lists(st.tuples(st.sampled_from(["read", "take", "spare"]), st.integers(1, 40)), max_size=60)


def take(budget, reads, wanted=1, **options):
    """Return the number of requests granted if each of the reads wants some."""
    granted = 0
    for _ in range(reads):
        budget.add_reads()
        granted += budget.try_take(wanted, **options)
    return granted


@given(ratios, bursts, steps)
def test_requests_never_exceed_the_tokens_of_reads_and_the_burst(ratio, burst, steps):
    """At any time, the client sent at most `ratio` requests for each read, the burst, and one for the rounding."""
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
def test_unused_tokens_are_saved_up_to_the_burst(ratio, burst, steps):
    """After any history, a call without further reads gets the burst, the fraction of a token, and no more."""
    budget = TokenBucket(ratio, burst)
    for step, count in steps:
        if step == "read":
            budget.add_reads(count)
        else:
            budget.try_take(count)
    budget.try_take(0)  # applies the limit
    assert budget.try_take(10**6) <= burst + 1


@given(bursts, steps)
def test_spare_requests_leave_half_of_the_burst(burst, steps):
    """The next request that is no spare one finds half of the bucket, whatever was taken before."""
    budget = TokenBucket(1.0, burst)
    for step, count in steps:
        if step == "read":
            budget.add_reads(count)
        else:
            budget.try_take(count, spare=True)
    budget.try_take(10**6, spare=True)
    assert budget.try_take(10**6) >= int(burst / 2)


def test_a_ratio_of_1_grants_each_read_one_request():
    """Without a limit in time, and no read gets a second one."""
    budget = TokenBucket(1.0, 0.0)
    assert take(budget, 10_000) == 10_000
    assert budget.denied == 0
    assert take(budget, 100, wanted=2) == 100
    assert budget.denied == 100


def test_a_lower_ratio_grants_its_share_of_the_reads():
    """The burst is used up first."""
    budget = TokenBucket(0.25, 10.0)
    assert take(budget, 10) == 10
    assert 245 <= take(budget, 1000) <= 255 + 10


def test_without_ratio_and_burst_no_request_is_granted():
    budget = TokenBucket(0.0, 0.0)
    assert take(budget, 1000) == 0
    assert (budget.taken, budget.denied) == (0, 1000)


def test_a_bulk_call_gets_part_of_the_requests_that_it_wants():
    """It may take all the tokens that its own keys added."""
    budget = TokenBucket(1.0, 3.0)
    assert budget.try_take(10) == 3
    budget.add_reads(100)
    assert budget.try_take(100) == 100
    assert budget.try_take(1) == 0
    assert (budget.taken, budget.denied) == (103, 8)


def test_spare_requests_do_not_starve_the_next_read():
    """Each read wants a second request, and there is one token for each read. Every first request is granted."""
    budget = TokenBucket(1.0, 100.0)
    seconds = 0
    for _ in range(1000):
        budget.add_reads()
        assert budget.try_take() == 1
        seconds += budget.try_take(spare=True)
    assert seconds == 50


@pytest.mark.parametrize("name", ["ratio", "burst"])
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, True, "1", None, Decimal(1), [1]])
def test_a_setting_that_is_no_number_of_at_least_0_is_refused(name, value):
    """The error names the setting. An infinite bucket is refused too."""
    with pytest.raises(InvalidArgument) as caught:
        Failover(**{name: value})
    assert caught.value.argument == name


def test_the_defaults_grant_every_read_a_request():
    """One request for each read, and 4,000 more."""
    assert Failover() == Failover(ratio=1.0, burst=4000.0)
    assert Failover(ratio=0, burst=0).ratio == 0
