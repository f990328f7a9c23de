"""How entries leave the near cache's store: removed, cleared, or expired and swept."""

import itertools

import pytest

from evcache.near_cache.s3fifo import Entry, Fifo
from evcache.near_cache.settings import MIN_BYTES
from evcache.near_cache.store import SWEPT_PER_PUT
from evcache.results import RemovalCause
from tests.support.near import TTL, Clock, check, discarded, entries_of, keys_of, make


@pytest.fixture
def clock():
    return Clock()


def test_remove_and_clear(clock):
    store = make(clock)
    assert not store.remove(b"k")
    store.put(b"k", "v", 1, 9.0)
    assert store.remove(b"k")
    assert not store.remove(b"k")
    assert store.get(b"k") is None
    store.put(b"k", "v", 1, 1.0)
    clock.now += 1
    assert not store.remove(b"k")  # nothing that would have been served
    store.put(b"k", "v", 1, 9.0)
    store.put_absence(b"l", 9.0)
    store.clear()
    assert (len(store), store.bytes, store.get(b"k"), store.get(b"l")) == (0, 0, None, None)
    stats = store.stats
    assert (stats.invalidated, stats.expired, stats.cleared, stats.insertions, stats.removals) == (1, 1, 2, 4, 4)


def test_a_removed_key_may_come_back_with_any_version(clock):
    store = make(clock)
    store.put(b"k", "v", 1, 9.0, 5)
    store.remove(b"k")
    assert store.put(b"k", "v", 1, 9.0, 4)


def test_cleared_entries_are_freed_in_steps_and_count_until_then(clock):
    store = make(clock, max_entries=10_000, max_bytes=MIN_BYTES)
    size = 100
    while not store.stats.evicted:
        store.put(b"%d" % store.stats.insertions, "v", size, 9.0)
    held = len(store)
    store.put_absence(b"absent", 9.0)
    store.clear()
    assert discarded(store) >= held - 1
    store.clear()  # nothing to add
    left = discarded(store)
    for number in itertools.count():
        assert store.put(b"new:%d" % number, "v", size, 9.0)
        check(store, store._settings)
        assert discarded(store) <= left - SWEPT_PER_PUT or discarded(store) == 0
        left = discarded(store)
        if not left:
            break
    assert number <= held / SWEPT_PER_PUT + 1


def test_a_sweep_frees_cleared_entries(clock):
    store = make(clock)
    for number in range(50):
        store.put(b"%d" % number, "v", 1, 9.0)
    store.clear()
    assert store.sweep(30) == 0  # counted as cleared already
    assert discarded(store) == 20
    store.sweep(1000)
    assert (discarded(store), store._discarded_bytes) == (0, 0)


def test_a_sweep_visits_at_most_its_limit_in_rounds(clock):
    entries, limit = 10_000, 100
    store = make(clock, max_entries=entries)
    for number in range(entries // 20):
        store.put_absence(b"absent:%d" % number, TTL)
    for number in range(entries - entries // 20):
        store.put(b"%d" % number, "v", 1, TTL if number % 3 else TTL / 2)
        if number % 2:
            store.get(b"%d" % number)
            store.get(b"%d" % number)  # to be found in both queues
    clock.now += TTL / 2
    dropped = [store.sweep(limit) for _ in range(entries // limit + 1)]
    assert max(dropped) <= limit
    assert sum(dropped) == store.stats.expired
    assert all(entry.expires_at > clock.now for entry in entries_of(store).values())
    clock.now += TTL / 2
    left = len(store)
    assert sum(store.sweep(limit) for _ in range(left // limit + 2)) == left
    assert (len(store), store.bytes, store.sweep(limit)) == (0, 0, 0)
    check(store, store._settings)


@pytest.mark.parametrize("limit", [0, 1, 3, 1000])
def test_a_sweep_of_almost_no_entries(clock, limit):
    store = make(clock)
    assert store.sweep(limit) == 0
    store.put(b"k", "v", 1, 1.0)
    assert store.sweep(limit) == 0
    clock.now += 1
    assert sum(store.sweep(limit) for _ in range(5)) == (1 if limit else 0)


def test_mass_expiry_costs_each_put_a_few_entries_only(clock):
    entries = 5000
    store = make(clock, max_entries=entries)
    for number in range(entries):
        store.put(b"%d" % number, "v", 1, TTL)
    clock.now += TTL
    for number in range(2 * entries):
        before = store.stats.removals
        assert store.put(b"new:%d" % number, "v", 1, TTL)
        # those that it sweeps, and the one that makes room for it
        assert store.stats.removals - before <= SWEPT_PER_PUT + 1
    assert all(entry.expires_at > clock.now for entry in entries_of(store).values())


def test_the_sweep_goes_on_where_it_was_when_entries_come_and_go(clock):
    queue = Fifo()
    entries = [Entry(b"%d" % number, None, None, 0.0, 1) for number in range(6)]
    for entry in entries[:5]:
        queue.append(entry)
    assert queue.advance() is None  # a round begins
    assert queue.advance() is entries[0]
    queue.remove(entries[1])  # the next one
    assert queue.advance() is entries[2]
    queue.replace(entries[3], replacement := Entry(b"3", None, None, 0.0, 2))
    assert queue.advance() is replacement
    queue.append(entries[5])
    assert [queue.advance() for _ in range(4)] == [entries[4], entries[5], None, entries[0]]
    assert (queue.count, queue.bytes) == (5, 6)


def test_a_value_in_demand_keeps_its_place_when_it_expires_and_is_fetched_again(clock):
    store = make(clock)
    for name in (b"a", b"b", b"c"):
        store.put(name, name, 1, 10.0)
    for _ in range(2):
        store.get(b"b")
    clock.now += 10
    assert store.get(b"b") is None
    store._sweep_queue = 1  # the sweep of the put looks elsewhere
    store.put(b"b", "again", 5, 10.0)
    assert keys_of(store._values.small) == [b"a", b"b", b"c"]
    assert store.get(b"b").frequency == 3
    assert (store.stats.expired, store.stats.replaced) == (1, 0)


def test_a_value_in_demand_comes_back_to_the_main_queue_when_the_sweep_was_faster(clock):
    store = make(clock)
    for name in (b"wanted", b"not"):
        store.put(name, name, 1, 10.0)
    for number in range(20):
        store.put(b"%d" % number, number, 1, TTL)
    store.get(b"wanted")
    clock.now += 10
    store.sweep(100)
    assert store.stats.expired == 2
    store.put(b"wanted", "again", 5, 10.0)
    store.put(b"not", "again", 5, 10.0)
    assert store.peek(b"wanted").queue is store._values.main
    assert store.peek(b"not").queue is store._values.small


def told(clock, **options):
    """A store, and what it says has gone."""
    gone = []
    store = make(clock, on_remove=lambda key, cause: gone.append((key, cause)), **options)
    return store, gone


def test_each_removal_is_reported_with_its_cause(clock):
    """Once, by the call that lets it go; hits and renewals let nothing go."""
    store, gone = told(clock, max_entries=3, negative_share=0.4)

    def new():
        found = gone.copy()
        gone.clear()
        return found

    store.put(b"a", 1, 1, 5.0)
    store.get(b"a")
    store.renew(b"a", 6.0)
    assert new() == []
    store.put(b"a", 2, 1, 5.0)
    assert new() == [(b"a", RemovalCause.REPLACED)]
    store.put_absence(b"a", 5.0)
    assert new() == [(b"a", RemovalCause.REPLACED)]
    store.put_absence(b"b", 5.0)  # there is room for one
    assert new() == [(b"a", RemovalCause.EVICTED)]
    store.put(b"b", 1, 2**30, 5.0)
    assert new() == [(b"b", RemovalCause.REPLACED)]
    store.put(b"c", 1, 1, 5.0)
    store.remove(b"c")
    store.remove(b"c")
    assert new() == [(b"c", RemovalCause.INVALIDATED)]
    for number in range(4):
        store.put(b"%d" % number, number, 1, 5.0)
    assert new() == [(b"2", RemovalCause.EVICTED)]
    clock.now += 5
    while len(store):
        store.sweep(2)
    assert sorted(new()) == [(b"0", RemovalCause.EXPIRED), (b"1", RemovalCause.EXPIRED), (b"3", RemovalCause.EXPIRED)]
    store.put(b"d", 1, 1, 5.0)
    clock.now += 5
    store.remove(b"d")
    assert new() == [(b"d", RemovalCause.EXPIRED)]
    assert [str(cause) for cause in RemovalCause] == ["expired", "evicted", "replaced", "invalidated", "cleared"]


def test_cleared_entries_are_reported_when_they_are_freed(clock):
    """Never all at once; also of several clears, and when the key is held again by then."""
    store, gone = told(clock, max_entries=1000)
    for _ in range(2):
        for number in range(100):
            store.put(b"%d" % number, "v", 1, TTL)
        gone.clear()
        store.clear()
        assert gone == []
    store.put(b"5", "again", 1, TTL)
    assert [cause for _, cause in gone] == [RemovalCause.CLEARED] * SWEPT_PER_PUT
    left = discarded(store)
    store.sweep(30)
    assert discarded(store) == left - 30
    assert len(gone) == 30 + SWEPT_PER_PUT
    gone.clear()
    store.sweep(1000)
    assert len(gone) == left - 30
    assert store.get(b"5").value == "again"
    store.clear()
    store.sweep(1000)
    assert gone[-1] == (b"5", RemovalCause.CLEARED)
    assert store.is_empty


def test_a_callback_may_use_the_store(clock):
    """It finds the store as the call leaves it. Removals by the callback are reported after the earlier ones."""
    order = []

    def on_remove(key, cause):
        check(store, store._settings)
        order.append((key, cause, key in entries_of(store)))
        if key == b"a" and cause is RemovalCause.INVALIDATED:
            assert store.get(b"a") is None
            store.put(b"a", "again", 1, TTL)
            store.remove(b"b")
            order.append("end of the first")

    store = make(clock, on_remove=on_remove)
    for key in (b"a", b"b"):
        store.put(key, "v", 1, TTL)
    assert store.remove(b"a")
    assert order == [(b"a", RemovalCause.INVALIDATED, False), "end of the first", (b"b", RemovalCause.INVALIDATED, False)]
    assert store.get(b"a").value == "again"


def test_a_callback_that_clears_the_store_ends(clock):
    """Later calls report the cleared entries."""
    calls = []
    store = make(clock, on_remove=lambda key, cause: (calls.append(cause), store.clear()))
    for number in range(50):
        store.put(b"%d" % number, "v", 1, TTL)
    store.remove(b"0")
    assert calls == [RemovalCause.INVALIDATED]
    assert len(store) == 0
    while not store.is_empty:
        store.sweep(10)
    assert calls == [RemovalCause.INVALIDATED] + [RemovalCause.CLEARED] * 49


def test_a_callback_that_raises_stops_no_other_report(clock, caplog):
    """The call that removed an entry succeeds, and the other removals are reported."""
    seen = []

    def on_remove(key, cause):
        seen.append(key)
        raise ZeroDivisionError

    store = make(clock, on_remove=on_remove)
    for number in range(5):
        store.put(b"%d" % number, "v", 1, 1.0)
    clock.now += 1
    assert store.sweep(100) == 5
    assert seen == [b"%d" % number for number in range(5)]
    assert {record.levelname for record in caplog.records} == {"ERROR"}
    assert store.put(b"k", "v", 1, 1.0)


def test_removals_after_an_interrupted_callback_are_reported_later(clock):
    """An interrupt is no error of the callback, and propagates."""
    seen = []

    def on_remove(key, cause):
        seen.append(key)
        if len(seen) == 1:
            raise KeyboardInterrupt

    store = make(clock, on_remove=on_remove)
    for number in range(3):
        store.put(b"%d" % number, "v", 1, 1.0)
    clock.now += 1
    with pytest.raises(KeyboardInterrupt):
        store.sweep(100)
    assert len(store) == 0
    store.put(b"k", "v", 1, 1.0)
    store.remove(b"k")
    assert seen == [b"0", b"1", b"2", b"k"]
