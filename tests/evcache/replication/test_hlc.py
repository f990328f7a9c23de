"""Hybrid logical clock, and the form of versions on servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.replication.hlc import (
    COUNTER_BITS,
    MAX_AHEAD_MS,
    MAX_CAS,
    NOT_A_VERSION,
    WRITER_BITS,
    HybridLogicalClock,
    cas_of,
    counter_of,
    milliseconds_of,
    wall_clock_ms,
    writer_of,
)

NOW = 1_800_000_000_000


class Wall:
    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def version_at(ms: int, counter: int = 0, writer: int = 7) -> int:
    return (ms << COUNTER_BITS | counter) << WRITER_BITS | writer


@pytest.mark.parametrize(
    "moves",
    [
        pytest.param([0] * 2000, id="stops"),
        pytest.param([-1] * 2000, id="goes backwards"),
        pytest.param([-3_600_000, 0, 0, 3_599_999, 0, 1, 1], id="is set back an hour"),
        pytest.param([86_400_000, -86_400_000, 1, 0, 5], id="jumps ahead and back"),
        pytest.param([1] * 100, id="goes on"),
    ],
)
def test_versions_grow_whatever_the_clock_does(moves):
    """Each version is newer than the one before, also if more than 256 fall into one millisecond."""
    wall = Wall()
    clock = HybridLogicalClock(5, wall)
    versions = [clock.tick()]
    for move in moves:
        wall.now += move
        versions.append(clock.tick())
    assert versions == sorted(set(versions))
    assert {version & 2**WRITER_BITS - 1 for version in versions} == {5}


def test_a_version_holds_the_time_the_counter_and_the_writer():
    """44 bits of milliseconds, 8 of counter, 12 of writer."""
    clock = HybridLogicalClock(0xABC, Wall())
    first, second = clock.tick(), clock.tick()
    assert first == version_at(NOW, 0, 0xABC)
    assert second == version_at(NOW, 1, 0xABC)
    assert milliseconds_of(first) == milliseconds_of(second) == NOW


def test_a_full_counter_borrows_from_the_next_millisecond():
    """The 257th version of a millisecond is dated into the next, rather than repeating one."""
    clock = HybridLogicalClock(0, Wall())
    versions = [clock.tick() for _ in range(257)]
    assert milliseconds_of(versions[255]) == NOW
    assert versions[256] == version_at(NOW + 1, 0, 0)


def test_tick_after_observe_is_newer():
    """A version made after a read is newer than the version that was read, even if the reader's clock is behind."""
    clock = HybridLogicalClock(1, Wall())
    seen = version_at(NOW + 30_000, 255, 4095)
    assert clock.observe(cas_of(seen)) == seen
    assert clock.tick() > seen
    assert clock.refused == 0


@pytest.mark.parametrize("ahead", [-1, 30_000, 2 * MAX_AHEAD_MS])
def test_decode_moves_no_clock(ahead):
    """It returns a version that is too far ahead as well, and refuses none."""
    clock = HybridLogicalClock(1, Wall())
    version = version_at(NOW + ahead)
    assert clock.decode(cas_of(version)) == version
    assert clock.refused == 0
    assert clock.tick() == version_at(NOW, 0, 1)


def test_observe_of_an_older_version_leaves_the_clock():
    clock = HybridLogicalClock(1, Wall())
    before = clock.tick()
    assert clock.observe(cas_of(version_at(NOW - 5_000))) == version_at(NOW - 5_000)
    assert clock.tick() == before + (1 << WRITER_BITS)


@pytest.mark.parametrize(
    ("ahead", "believed"), [(MAX_AHEAD_MS - 1, True), (MAX_AHEAD_MS, False), (10 * MAX_AHEAD_MS, False)]
)
def test_observe_of_a_version_far_ahead_refuses_and_counts_it(ahead, believed):
    """The error of a broken clock does not spread: the item counts as one without a version."""
    clock = HybridLogicalClock(1, Wall())
    seen = version_at(NOW + ahead)
    assert clock.observe(cas_of(seen)) == (seen if believed else None)
    assert clock.refused == (not believed)
    assert (clock.tick() > seen) is believed
    assert milliseconds_of(clock.tick()) == (NOW + ahead if believed else NOW)


def test_a_refused_version_is_believed_when_its_time_has_come():
    wall = Wall()
    clock = HybridLogicalClock(1, wall)
    seen = version_at(NOW + 2 * MAX_AHEAD_MS)
    assert clock.observe(cas_of(seen)) is None
    wall.now += 2 * MAX_AHEAD_MS
    assert clock.observe(cas_of(seen)) == seen
    assert clock.refused == 1


@pytest.mark.parametrize("cas", [0, 1, 10**9, NOT_A_VERSION - 1, MAX_CAS, MAX_CAS - 1, MAX_CAS - NOT_A_VERSION + 1])
def test_cas_numbers_of_servers_and_leases_are_not_versions(cas):
    """Servers and other kinds of clients give low CAS numbers. The highest are lease stubs."""
    clock = HybridLogicalClock(1, Wall())
    assert clock.decode(cas) is None
    assert clock.observe(cas) is None
    assert clock.refused == 0
    assert clock.tick() == version_at(NOW, 0, 1)


@pytest.mark.parametrize("version", [NOT_A_VERSION, MAX_CAS - NOT_A_VERSION])
def test_the_ends_of_the_range_are_versions(version):
    assert HybridLogicalClock.decode(cas_of(version)) == version
    assert HybridLogicalClock(1, Wall(2**44)).observe(cas_of(version)) == version


@given(st.integers(NOT_A_VERSION, version_at(NOW)))
def test_decode_and_observe_reverse_cas_of(version):
    assert 0 <= cas_of(version) <= MAX_CAS
    assert HybridLogicalClock.decode(cas_of(version)) == version
    assert HybridLogicalClock(1, Wall()).observe(cas_of(version)) == version


@given(st.integers(NOT_A_VERSION, MAX_CAS - NOT_A_VERSION), st.integers(NOT_A_VERSION, MAX_CAS - NOT_A_VERSION))
def test_a_newer_version_has_a_lower_cas(one, other):
    assert (one < other) == (cas_of(one) > cas_of(other))


@given(st.lists(st.integers(-100_000, 100_000) | st.tuples(st.integers(-100_000, 100_000)), max_size=50))
def test_versions_grow_past_everything_made_or_believed(steps):
    """A number moves the wall clock. A tuple observes a version, relative to the wall clock."""
    wall = Wall()
    clock = HybridLogicalClock(3, wall)
    newest = clock.tick()
    for step in steps:
        if isinstance(step, int):
            wall.now += step
        else:
            newest = max(newest, clock.observe(cas_of(version_at(wall.now + step[0], 9, 4))) or 0)
        made = clock.tick()
        assert made > newest
        newest = made


@pytest.mark.parametrize(("given_as", "writer"), [(0, 0), (4095, 4095), (4096, 0), (5000, 904)])
def test_writers_have_12_bits(given_as, writer):
    """A larger writer id must not overwrite bits of the counter."""
    assert HybridLogicalClock(given_as, Wall()).tick() & 0xFFF == writer


def test_writer_ids_are_random():
    """Two clients that write in one millisecond rarely make the same version."""
    assert len({HybridLogicalClock().tick() % (1 << WRITER_BITS) for _ in range(200)}) > 100


def test_the_wall_clock_is_in_milliseconds():
    assert 1_700_000_000_000 < wall_clock_ms() < 2**44


@given(ms=st.integers(1, 2**44 - 1), counter=st.integers(0, 255), writer=st.integers(0, 4095))
def test_the_parts_of_a_version_are_those_it_was_made_of(ms, counter, writer):
    version = version_at(ms, counter, writer)
    assert (milliseconds_of(version), counter_of(version), writer_of(version)) == (ms, counter, writer)


def test_a_newer_version_of_another_client_with_the_same_writer_is_not_its_own():
    clock = HybridLogicalClock(7, Wall())
    own = clock.tick()
    others = version_at(NOW + 50)
    for _ in range(2):  # before and after the clock has passed the version
        assert [clock.has_made(cas_of(version)) for version in (own, others)] == [True, False]
        clock.observe(cas_of(others))
