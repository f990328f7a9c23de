"""The near cache's settings, and what its store keeps under which key."""

import math
from datetime import timedelta

import pytest

from evcache.near_cache.settings import CHANNEL_TTL_SECONDS, ENTRY_OVERHEAD, MIN_BYTES, TTL_SECONDS, NearCache
from evcache.near_cache.store import ABSENT
from evcache.zones.errors import InvalidArgument
from tests.support.near import TTL, Clock, check, make


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_bytes", 64),
        ("max_bytes", MIN_BYTES - 1),
        ("max_bytes", 1e9),
        ("max_bytes", "64M"),
        ("max_bytes", True),
        ("max_entries", 0),
        ("max_entries", -1),
        ("max_entries", 1.5),
        ("max_entries", None),
        ("max_entries", True),
        ("ttl", 0),
        ("ttl", -1.0),
        ("ttl", math.nan),
        ("ttl", math.inf),
        ("ttl", "2"),
        ("ttl", True),
        ("ttl", timedelta(0)),
        ("ttl", timedelta(seconds=-1)),
        ("negative_share", -0.1),
        ("negative_share", 0.6),
        ("negative_share", math.nan),
        ("negative_share", None),
        ("negative_share", False),
        ("grace", 0),
        ("grace", math.inf),
        ("grace", math.nan),
        ("grace", None),
        ("grace", True),
        ("immutable", [str]),
        ("immutable", str),
        ("immutable", ("str",)),
        ("immutable", (str, tuple[int])),
        ("revalidate_over", -1),
        ("revalidate_over", 1e4),
        ("revalidate_over", True),
        ("hot_reads", 0),
        ("hot_reads", 1.5),
        ("hot_reads", True),
    ],
)
def test_invalid_settings_are_refused_by_name(argument, value):
    with pytest.raises(InvalidArgument) as caught:
        NearCache(**{argument: value})
    assert caught.value.argument == argument


def test_settings_have_defaults_and_smallest_values():
    """Bounds, and what else there is to choose, in this order; nothing of it changes afterwards."""
    assert NearCache() == NearCache(64 * 2**20, 100_000, None, 0.1, 5.0, (), 16_384, None)
    NearCache(MIN_BYTES, 1, 0.001, 0, 0.001, (frozenset,), 0, 1)
    NearCache(revalidate_over=None)
    with pytest.raises(AttributeError):
        NearCache().ttl = 5


@pytest.mark.parametrize(
    ("ttl", "seconds", "longest"),
    [(None, None, TTL_SECONDS), (9, 9, 9), (0.5, 0.5, 0.5), (timedelta(minutes=1), 60.0, 60.0)],
)
def test_the_ttl_is_what_a_store_begins_with(clock, ttl, seconds, longest):
    """It is a number or a timedelta. Without one, the TTL of a client without a channel applies."""
    assert NearCache(ttl=ttl).seconds == seconds
    store = make(clock, ttl=ttl)
    assert store.max_ttl == longest < CHANNEL_TTL_SECONDS + 1
    store.put(b"k", "v", 1, math.inf)
    assert store.get(b"k").expires_at == clock.now + longest


def test_a_value_is_the_same_object_until_it_expires(clock):
    store = make(clock)
    value = ["a"]
    assert store.get(b"k") is None
    assert store.put(b"k", value, 10, 5.0, 7)
    entry = store.get(b"k")
    assert entry.value is value
    assert (entry.key, entry.version, entry.expires_at, entry.size) == (b"k", 7, clock.now + 5, 1 + 10 + ENTRY_OVERHEAD)
    clock.now += 4.999
    assert store.get(b"k") is entry
    clock.now += 0.001
    assert store.get(b"k") is None
    assert (store.stats.hits, store.stats.misses, store.stats.insertions) == (2, 2, 1)


@pytest.mark.parametrize(
    ("asked", "got"), [(0.5, 0.5), (TTL, TTL), (TTL + 1, TTL), (math.inf, TTL), (0, None), (-1, None), (math.nan, None)]
)
def test_the_settings_limit_how_long_a_value_lives(clock, asked, got):
    for put in (lambda store: store.put(b"k", b"v", 1, asked), lambda store: store.put_absence(b"k", asked)):
        store = make(clock)
        assert put(store) is (got is not None)
        entry = store.get(b"k")
        assert (entry and entry.expires_at - clock.now) == got
        assert store.stats.rejected == (got is None)


def test_how_long_values_live_can_be_changed_while_there_are_some(clock):
    """It is for what comes: what is held keeps the end that it has."""
    store = make(clock, ttl=None)
    store.put(b"before", "v", 1, math.inf)
    store.limit_ttl(CHANNEL_TTL_SECONDS)
    store.put(b"after", "v", 1, math.inf)
    store.put_absence(b"absent", math.inf)
    store.put(b"short", "v", 1, 3.0)
    left = {key: store.get(key).expires_at - clock.now for key in (b"before", b"after", b"absent", b"short")}
    assert left == {b"before": TTL_SECONDS, b"after": CHANNEL_TTL_SECONDS, b"absent": CHANNEL_TTL_SECONDS, b"short": 3.0}


@pytest.mark.parametrize(
    ("held", "put", "admitted"),
    [
        (5, 4, False),
        (5, 5, True),  # the same write, seen again
        (5, 6, True),
        (5, None, True),
        (None, 4, True),
        (None, None, True),
    ],
)
@pytest.mark.parametrize("first_absent", [False, True])
@pytest.mark.parametrize("then_absent", [False, True])
def test_an_older_version_never_replaces_a_newer_one(clock, held, put, admitted, first_absent, then_absent):
    store = make(clock)

    def insert(version, value, absent):
        return store.put_absence(b"k", 9.0, version) if absent else store.put(b"k", value, 3, 9.0, version)

    assert insert(held, "old", first_absent)
    assert insert(put, "new", then_absent) is admitted
    entry = store.get(b"k")
    if admitted:
        assert (entry.value, entry.version) == (ABSENT if then_absent else "new", put)
    else:
        assert (entry.value, entry.version) == (ABSENT if first_absent else "old", held)
    assert (store.stats.replaced, store.stats.rejected) == (int(admitted), int(not admitted))
    check(store, store._settings)


def test_a_newer_version_keeps_older_ones_out_even_after_it_expired(clock):
    store = make(clock)
    store.put(b"k", "new", 3, 1.0, 5)
    clock.now += 2
    store._sweep_queue = 1  # the sweep of the put looks elsewhere
    assert not store.put(b"k", "old", 3, 1.0, 4)
    assert store.get(b"k") is None


def test_a_rejected_value_removes_the_older_entry(clock):
    store = make(clock, max_bytes=MIN_BYTES)
    largest = MIN_BYTES // 10 - ENTRY_OVERHEAD - len(b"k")
    assert store.put(b"k", "fits", largest, 9.0, 1)
    assert not store.put(b"k", "too large", largest + 1, 9.0, 2)
    assert store.get(b"k") is None
    assert store.put(b"k", "fits", largest, 9.0, 5)
    assert not store.put(b"k", "too large, but older", largest + 1, 9.0, 4)
    assert store.get(b"k").value == "fits"
    assert (store.stats.rejected, store.stats.replaced) == (2, 1)


def test_a_replaced_entry_of_a_caller_stays_unchanged(clock):
    store = make(clock)
    for number in range(3):
        store.put(b"%d" % number, number, 1, 9.0)
    entry = store.get(b"1")
    store.put(b"1", "new", 1, 9.0)
    assert entry.value == 1
    # and keeps neither its neighbours nor the store alive
    assert not any(hasattr(entry, link) for link in ("older", "newer", "queue"))


def test_peek_returns_entries_expired_or_not(clock):
    """Looking counts for nothing: not as a hit, nor as a reason to keep it."""
    store = make(clock)
    assert store.peek(b"k") is None
    store.put(b"k", "v", 1, 5.0, 7)
    entry = store.peek(b"k")
    assert (entry.value, entry.version, entry.frequency) == ("v", 7, 0)
    clock.now += 5
    assert store.peek(b"k") is entry
    assert (store.stats.hits, store.stats.misses) == (0, 0)
    store.remove(b"k")
    assert store.peek(b"k") is None


@pytest.mark.parametrize("waited", [1.0, 5.0, 500.0])
@pytest.mark.parametrize("absent", [False, True])
def test_an_entry_can_be_renewed_expired_or_not(clock, waited, absent):
    """It is the same entry, in the same place, for as long from now on as a put would have it."""
    store = make(clock)
    if absent:
        store.put_absence(b"k", 5.0, 7, ["why"])
    else:
        store.put(b"k", ["value"], 1, 5.0, 7)
    entry = store.peek(b"k")
    clock.now += waited
    assert store.renew(b"k", 3.0)
    assert store.get(b"k") is entry
    clock.now += 3.0
    assert store.get(b"k") is None
    assert store.renew(b"k", math.inf)
    assert store.get(b"k").expires_at == clock.now + TTL
    stats = store.stats
    assert (stats.renewed, stats.insertions, stats.removals) == (2, 1, 0)
    check(store, store._settings)


def test_a_removed_entry_cannot_be_renewed(clock):
    """Nor one that was swept just before."""
    store = make(clock)
    assert not store.renew(b"k", 3.0)
    store.put(b"k", "v", 1, 5.0)
    clock.now += 5
    while len(store):
        store.sweep(10)
    assert not store.renew(b"k", 3.0)
    assert store.stats.renewed == 0


@pytest.mark.parametrize("ttl", [0, -1, math.nan, -math.inf])
def test_an_entry_without_remaining_ttl_is_not_served(clock, ttl):
    """As one that is put with nothing left is not."""
    store = make(clock)
    store.put(b"k", "v", 1, 5.0)
    assert not store.renew(b"k", ttl)
    assert store.get(b"k") is None
    clock.now += 9
    assert not store.renew(b"k", ttl)
    assert store.peek(b"k").expires_at == clock.now - 9
    assert (store.stats.renewed, store.stats.removals) == (0, 0)


def test_an_absence_has_a_value_of_its_putters(clock):
    """Absences are of several kinds; they count as absences all the same."""
    store = make(clock, max_entries=100)
    why = ("deleted", 7)
    assert store.put_absence(b"k", 5.0, 7, value=why)
    assert store.get(b"k").value is why
    assert store.get(b"k").queue is store._absences
    assert store.put(b"k", "v", 1, 5.0, 8)
    assert store.get(b"k").value == "v"
    check(store, store._settings)


def test_absences_evict_absences_and_no_values(clock):
    store = make(clock, max_entries=100, negative_share=0.1)
    for number in range(85):
        store.put(b"value:%d" % number, number, 1, TTL)
    for number in range(1000):
        assert store.put_absence(b"absent:%d" % number, 9.0)
    assert len(store) == 95
    assert all(store.get(b"value:%d" % number).value == number for number in range(85))
    assert [store.get(b"absent:%d" % number) is not None for number in (989, 990, 999)] == [False, True, True]
    assert store.get(b"absent:999").value is ABSENT
    assert repr(ABSENT) == "ABSENT"
    check(store, store._settings)


def test_absences_take_their_share_of_a_full_store(clock):
    store = make(clock, max_entries=100)
    for number in range(200):
        store.put(b"value:%d" % number, number, 1, TTL)
    for number in range(200):
        store.put_absence(b"absent:%d" % number, 9.0)
    assert (store._values.count, store._absences.count) == (90, 10)
    for number in range(200, 400):
        assert store.put(b"value:%d" % number, number, 1, TTL)
    assert (store._values.count, store._absences.count) == (90, 10)


def test_absences_can_be_disabled(clock):
    store = make(clock, negative_share=0)
    store.put(b"k", "value", 5, 9.0)
    assert not store.put_absence(b"k", 9.0)
    assert store.get(b"k") is None  # the value is outdated all the same
    assert store.stats.rejected == 1


def test_an_absence_has_to_fit_too(clock):
    store = make(clock, max_bytes=MIN_BYTES)
    assert not store.put_absence(bytes(MIN_BYTES // 10), 9.0)
    for number in range(100):
        assert store.put_absence(b"%04d" % number + bytes(2000), 9.0)
        check(store, store._settings)
