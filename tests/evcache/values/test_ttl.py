"""Times to live: what callers may say, and what servers are sent."""

import math
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache import InvalidArgument
from evcache.values.ttl import MAX_RELATIVE_SECONDS, exptime_of_copy, exptime_sent_again, seconds_to_live, to_exptime

NOW = 1_800_000_000.75
DAY = 24 * 60 * 60


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (1, 1),
        (0.25, 0.25),
        (timedelta(minutes=5), 300),
        (timedelta(milliseconds=1), 0.001),
        (math.inf, math.inf),
        (10**12, 10**12),
        (5e-324, 5e-324),
    ],
)
def test_seconds_and_timedeltas(ttl, seconds):
    """Any span over 0 is taken, without end too."""
    assert seconds_to_live(ttl) == seconds


@pytest.mark.parametrize(
    "ttl",
    [0, 0.0, -0.0, -1, -math.inf, math.nan, True, False, timedelta(0), timedelta(seconds=-1), "60", None, Decimal(5), b"1"],
)
def test_what_is_no_time_to_live_is_refused(ttl):
    """0 means "never expires" to servers and "expired" to readers. The error names the argument."""
    with pytest.raises(InvalidArgument) as caught:
        seconds_to_live(ttl, "tombstone_ttl")
    assert caught.value.argument == "tombstone_ttl"


@pytest.mark.parametrize(
    ("seconds", "wire"),
    [
        (1, 1),
        (0.001, 1),
        (1.5, 2),
        (300, 300),
        (30 * DAY, 30 * DAY),
        (30 * DAY + 1, 1_800_000_000 + 30 * DAY + 1),
        (30 * DAY - 0.5, 30 * DAY),
        (30 * DAY + 0.5, 1_800_000_000 + 30 * DAY + 1),
        (365 * DAY, 1_800_000_000 + 365 * DAY),
        (10**12, 2**31 - 1),
        (1e300, 2**31 - 1),
        (math.inf, 0),
    ],
)
def test_on_the_wire(seconds, wire):
    """Whole seconds, rounded up. Above 30 days a unix time that fits 31 bits. 0 never expires."""
    assert to_exptime(seconds, NOW) == wire


@given(st.floats(min_value=5e-324, max_value=10**8))
def test_an_item_never_lives_for_ever_or_dies_at_once_by_rounding(seconds):
    """No finite TTL becomes 0, which never expires, or a unix time in the past."""
    wire = to_exptime(seconds, NOW)
    if wire <= MAX_RELATIVE_SECONDS:
        assert max(1, seconds) <= wire <= seconds + 1
    else:
        assert wire > NOW
        assert abs(wire - NOW - seconds) <= 1 or wire == 2**31 - 1


@pytest.mark.parametrize(
    ("remaining", "spent", "exptime"),
    [
        (-1, 0, 0),
        (-1, 1e9, 0),
        (0, 0, None),
        (1, 0, None),
        (2, 0, 1),
        (2, 0.001, None),
        (3, 0.001, 1),
        (3, 1, 1),
        (90, 0.5, 88),
        (90, 1.1, 87),
        (90, -5, 89),
        (30 * DAY, 1, 30 * DAY - 2),
        (31 * DAY, 1, 1_800_000_000 + 31 * DAY - 2),
    ],
)
def test_copies(remaining, spent, exptime):
    """A copy has a second less than its original and the time on the way; what is about to expire is not copied."""
    assert exptime_of_copy(remaining, spent, NOW) == exptime


@given(
    st.integers(1, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 3),
    st.floats(0, 3),
)
def test_no_copy_outlives_its_original_wherever_both_clocks_stand(remaining, phase, other_phase, before, after):
    """Two servers whose clocks tick once a second with any phases; `before` and `after` pass around the look."""
    looked_at = before
    ends = math.floor(looked_at + phase) + remaining - phase  # when the original's server ticks to its end
    exptime = exptime_of_copy(remaining, before + after, NOW)
    if exptime is None:
        return
    arrives = looked_at + after
    copy_ends = math.floor(arrives + other_phase) + exptime - other_phase
    assert copy_ends <= ends + 1e-6


@pytest.mark.parametrize(
    ("exptime", "spent", "left"),
    [
        (60, 0, 59),
        (60, 0.25, 58),
        (60, 10, 49),
        (60, 58, 1),
        (60, 58.001, None),
        (60, 1e9, None),
        (1, 0, None),
        (0, 0, 0),
        (0, 1e9, 0),
        (30 * DAY, 1, 30 * DAY - 2),
        (1_800_000_000, 0, 1_800_000_000),
        (1_800_000_000, 5000, 1_800_000_000),
        (60, -5, 59),
        (30 * DAY, -1, 30 * DAY - 1),
    ],
)
def test_what_is_sent_again_ends_no_later(exptime, spent, left):
    """An expired item has None, not 0, which never expires. Unix times are unchanged. A clock step back adds nothing."""
    assert exptime_sent_again(exptime, spent) == left


@given(st.integers(1, MAX_RELATIVE_SECONDS), st.floats(-1e6, 1e7))
def test_what_is_sent_again_is_never_longer_than_before(exptime, spent):
    """Whatever the clock does, no exptime grows, becomes a unix time, or never expires."""
    left = exptime_sent_again(exptime, spent)
    assert left is None or 1 <= left < exptime
