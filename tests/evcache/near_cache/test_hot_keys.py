"""Which keys count as hot, with a clock that the tests move."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.near_cache.hot_keys import COUNTED_KEYS, WINDOW_SECONDS, HotKeys
from tests.support.near import Clock


@pytest.fixture
def clock():
    return Clock()


def steady(hot, clock, rate, seconds, key=b"k"):
    """Return the answers for a key that is read at this rate."""
    said = []
    for _ in range(int(rate * seconds)):
        clock.now += 1 / rate
        said.append(hot.count(key))
    return said


def test_a_key_is_hot_from_the_read_that_reaches_the_threshold(clock):
    """Each key for itself."""
    hot = HotKeys(3, clock)
    assert [hot.count(b"a") for _ in range(5)] == [False, False, True, True, True]
    assert not hot.count(b"b")


def test_with_a_threshold_of_one_every_key_is_hot(clock):
    """Also those for which there is no room."""
    hot = HotKeys(1, clock, limit=2)
    assert all(hot.count(b"%d" % number) for number in range(10))


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.99])
def test_a_key_that_stays_hot_stays_admitted(clock, offset):
    """Wherever the windows begin."""
    hot = HotKeys(100, clock)
    clock.now += offset
    said = steady(hot, clock, rate=110, seconds=10)
    first = said.index(True)
    assert first < 2 * 110  # in the first two windows: of the first one it has been there for a part only
    assert all(said[first:])


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.99])
def test_a_key_below_the_threshold_is_never_hot(clock, offset):
    """The reads of two windows do not add up."""
    hot = HotKeys(100, clock)
    clock.now += offset
    assert not any(steady(hot, clock, rate=90, seconds=10))


@pytest.mark.parametrize(
    ("pause", "still"), [(0.0, True), (0.4, True), (0.9, False), (1.5, False), (2.5, False), (1000.25, False)]
)
def test_a_key_cools_down(clock, pause, still):
    """Reads of a second ago count less and less, and for nothing after two."""
    hot = HotKeys(100, clock)
    steady(hot, clock, rate=200, seconds=1.0)
    clock.now += pause
    assert hot.count(b"k") is still


@pytest.mark.parametrize("start", [0.1, 1000.0, 2.0**31 + 0.7])
def test_windows_turn_at_any_time_of_a_clock(start):
    """Rounding makes no window of less than nothing."""
    clock = Clock()
    clock.now = start
    hot = HotKeys(10, clock)
    for _ in range(2000):
        clock.now += 0.1
        hot.count(b"k")
        assert hot._began <= clock.now < hot._began + WINDOW_SECONDS


def test_a_hot_key_is_found_among_keys_that_come_once(clock):
    """Ten times as many as there is room for, in every second: it is counted a few reads short."""
    limit, rate, threshold = 100, 2000, 50
    hot = HotKeys(threshold, clock, limit)
    said, others = [], 0
    for number in range(rate * 5):
        clock.now += 1 / rate
        if number % 25 == 0:
            said.append(hot.count(b"hot"))  # 80 a second
        else:
            others += hot.count(b"once:%d" % number)
        assert len(hot) <= 2 * limit
    first = said.index(True)
    assert first <= threshold + rate / limit
    assert all(said[first:])
    assert others == 0


def test_no_more_keys_are_remembered_than_there_is_room_for(clock):
    """Also when every one of them was read several times, so that taking a read from each makes no room."""
    hot = HotKeys(3, clock, limit=4)
    for _ in range(2):
        for number in range(4):
            hot.count(b"%d" % number)
    assert len(hot) == 4
    assert not hot.count(b"new")  # has no place; each of the others has one read less
    assert len(hot) == 4
    assert not hot.count(b"newer")
    assert len(hot) == 1
    assert not hot.count(b"0")
    assert len(HotKeys(3)) == 0
    assert COUNTED_KEYS >= 1000  # error of a count at 10,000 reads a second: 10


@given(
    reads=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.5, 1.0, 3.0])), max_size=300),
    threshold=st.integers(1, 8),
)
def test_what_is_said_lies_between_the_last_second_and_the_last_two(reads, threshold):
    """With space for all keys, the answer lies between the counts of this window and of the last two."""
    clock = Clock()
    hot = HotKeys(threshold, clock)
    start = clock.now
    times = {}
    for key, pause in reads:
        clock.now += pause
        mine = times.setdefault(key, [])
        mine.append(clock.now)
        said = hot.count(b"%d" % key)
        window = start + int(clock.now - start)
        if sum(time >= window for time in mine) >= threshold:
            assert said
        if sum(time > clock.now - 2 * WINDOW_SECONDS - 1e-6 for time in mine) < threshold:
            assert not said


def test_a_count_is_never_more_than_the_reads_and_short_by_few(clock):
    """Within a window, a count is too low by at most one for each limit of reads."""
    limit, reads = 50, 5000
    rng = random.Random(1)
    hot = HotKeys(10**9, clock, limit)
    truth = {}
    for number in rng.choices(range(1000), weights=[1 / rank for rank in range(1, 1001)], k=reads):
        key = b"%d" % number
        truth[key] = truth.get(key, 0) + 1
        hot.count(key)
    for key, count in truth.items():
        assert count - reads / limit <= hot._now.get(key, 0) <= count
