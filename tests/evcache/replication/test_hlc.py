"""The hybrid logical clock, and versions as servers keep them."""

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
    milliseconds_of,
    wall_clock_ms,
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
        pytest.param([0] * 2000, id="stands still"),
        pytest.param([-1] * 2000, id="goes backwards"),
        pytest.param([-3_600_000, 0, 0, 3_599_999, 0, 1, 1], id="is set back an hour"),
        pytest.param([86_400_000, -86_400_000, 1, 0, 5], id="jumps ahead and back"),
        pytest.param([1] * 100, id="goes on"),
    ],
)
def test_versions_grow_whatever_the_clock_does(moves):
    """Each version is newer than the one before, also while 256 of them fall into one millisecond."""
    wall = Wall()
    clock = HybridLogicalClock(5, wall)
    versions = [clock.next()]
    for move in moves:
        wall.now += move
        versions.append(clock.next())
    assert versions == sorted(set(versions))
    assert {version & 2**WRITER_BITS - 1 for version in versions} == {5}


def test_a_version_holds_the_time_the_counter_and_the_writer():
    """44 bits of milliseconds, 8 of counter, 12 of writer."""
    clock = HybridLogicalClock(0xABC, Wall())
    first, second = clock.next(), clock.next()
    assert first == version_at(NOW, 0, 0xABC)
    assert second == version_at(NOW, 1, 0xABC)
    assert milliseconds_of(first) == milliseconds_of(second) == NOW


def test_a_full_counter_borrows_from_the_next_millisecond():
    """The 257th version of a millisecond is dated into the next, rather than repeating one."""
    clock = HybridLogicalClock(0, Wall())
    versions = [clock.next() for _ in range(257)]
    assert milliseconds_of(versions[255]) == NOW
    assert versions[256] == version_at(NOW + 1, 0, 0)


def test_what_was_seen_is_in_the_past():
    """A version made after one that was read is newer, though the reader's clock is behind."""
    clock = HybridLogicalClock(1, Wall())
    seen = version_at(NOW + 30_000, 255, 4095)
    assert clock.version_of(cas_of(seen)) == seen
    assert clock.next() > seen
    assert clock.refused == 0


def test_an_older_version_does_not_set_the_clock_back():
    """Reading old items leaves the clock where it is."""
    clock = HybridLogicalClock(1, Wall())
    before = clock.next()
    assert clock.version_of(cas_of(version_at(NOW - 5_000))) == version_at(NOW - 5_000)
    assert clock.next() == before + (1 << WRITER_BITS)


@pytest.mark.parametrize(
    ("ahead", "believed"), [(MAX_AHEAD_MS - 1, True), (MAX_AHEAD_MS, False), (10 * MAX_AHEAD_MS, False)]
)
def test_a_version_far_ahead_is_refused_and_counted(ahead, believed):
    """A broken clock elsewhere does not become ours: its versions count as none, and the clock stays."""
    clock = HybridLogicalClock(1, Wall())
    seen = version_at(NOW + ahead)
    assert clock.version_of(cas_of(seen)) == (seen if believed else None)
    assert clock.refused == (not believed)
    assert (clock.next() > seen) is believed
    assert milliseconds_of(clock.next()) == (NOW + ahead if believed else NOW)


def test_what_was_refused_is_believed_once_its_time_has_come():
    """Being far ahead is no property of an item for ever."""
    wall = Wall()
    clock = HybridLogicalClock(1, wall)
    seen = version_at(NOW + 2 * MAX_AHEAD_MS)
    assert clock.version_of(cas_of(seen)) is None
    wall.now += 2 * MAX_AHEAD_MS
    assert clock.version_of(cas_of(seen)) == seen
    assert clock.refused == 1


@pytest.mark.parametrize("cas", [0, 1, 10**9, NOT_A_VERSION - 1, MAX_CAS, MAX_CAS - 1, MAX_CAS - NOT_A_VERSION + 1])
def test_numbers_of_servers_and_leases_are_no_versions(cas):
    """Small CAS numbers are a server's or another client's, the highest are lease stubs'; they move no clock."""
    clock = HybridLogicalClock(1, Wall())
    assert clock.version_of(cas) is None
    assert clock.refused == 0
    assert clock.next() == version_at(NOW, 0, 1)


@pytest.mark.parametrize("version", [NOT_A_VERSION, MAX_CAS - NOT_A_VERSION])
def test_the_ends_of_the_range_of_versions(version):
    """The lowest and the highest number that can be a version are."""
    assert HybridLogicalClock(1, Wall(2**44)).version_of(cas_of(version)) == version


@given(st.integers(NOT_A_VERSION, version_at(NOW)))
def test_cas_and_version_are_two_forms_of_one_thing(version):
    """`version_of` undoes `cas_of`, and a CAS has 64 bits."""
    assert 0 <= cas_of(version) <= MAX_CAS
    assert HybridLogicalClock(1, Wall()).version_of(cas_of(version)) == version


@given(st.integers(NOT_A_VERSION, MAX_CAS - NOT_A_VERSION), st.integers(NOT_A_VERSION, MAX_CAS - NOT_A_VERSION))
def test_newer_is_lower_on_servers(one, other):
    """The order of versions is the reverse of that of their CAS numbers."""
    assert (one < other) == (cas_of(one) > cas_of(other))


@given(st.lists(st.integers(-100_000, 100_000) | st.tuples(st.integers(-100_000, 100_000)), max_size=50))
def test_versions_grow_past_everything_made_or_believed(steps):
    """Any mix of clock jumps (numbers) and sightings (tuples, relative to the clock) keeps versions growing."""
    wall = Wall()
    clock = HybridLogicalClock(3, wall)
    newest = clock.next()
    for step in steps:
        if isinstance(step, int):
            wall.now += step
        else:
            newest = max(newest, clock.version_of(cas_of(version_at(wall.now + step[0], 9, 4))) or 0)
        made = clock.next()
        assert made > newest
        newest = made


@pytest.mark.parametrize(("given_as", "writer"), [(0, 0), (4095, 4095), (4096, 0), (5000, 904)])
def test_writers_have_12_bits(given_as, writer):
    """A larger writer id can't reach into the counter."""
    assert HybridLogicalClock(given_as, Wall()).next() & 0xFFF == writer


def test_writers_differ_unless_they_are_told():
    """Clients draw their id, so that two in one millisecond rarely make the same version."""
    assert len({HybridLogicalClock().next() % (1 << WRITER_BITS) for _ in range(200)}) > 100


def test_the_wall_clock_is_in_milliseconds():
    """The default clock gives unix time, after this test was written and before the 44 bits are full."""
    assert 1_700_000_000_000 < wall_clock_ms() < 2**44
