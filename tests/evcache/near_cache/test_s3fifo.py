"""What the near cache gives up when it is full."""

import itertools
import math
import random
from collections import OrderedDict

import pytest

from benchmarks import near_cache_traces
from evcache.near_cache import s3fifo
from evcache.near_cache.s3fifo import SHARDS, Entry, Ghosts
from evcache.near_cache.settings import MIN_BYTES
from tests.support.near import TTL, Clock, check, discarded, entries_of, keys_of, make


@pytest.fixture
def clock():
    return Clock()


def test_the_way_through_the_queues(clock):
    store = make(clock, max_entries=10)  # the small queue is to hold one
    values = store._values
    for number in range(10):
        store.put(b"%d" % number, number, 1, TTL)
    # while there was room, all but the share of the small queue moved on
    assert keys_of(values.main) == [b"%d" % number for number in range(9)]
    store.get(b"9")
    store.put(b"10", 10, 1, TTL)  # 9 was asked for once, which is not enough
    assert store.get(b"9") is None
    for _ in range(5):
        store.get(b"10")
    assert store.peek(b"10").frequency == 3
    store.put(b"11", 11, 1, TTL)  # 10 moves on, and the oldest of the main queue makes room
    assert keys_of(values.small) == [b"11"]
    assert keys_of(values.main) == [b"%d" % number for number in (1, 2, 3, 4, 5, 6, 7, 8, 10)]
    assert store.peek(b"10").frequency == 0
    store.put(b"9", "a ghost", 1, TTL)
    assert keys_of(values.main) == [b"%d" % number for number in (2, 3, 4, 5, 6, 7, 8, 10, 9)]
    assert store.stats.evicted == 3


def test_the_main_queue_spares_what_was_asked_for(clock):
    order = s3fifo.S3Fifo(max_entries=10, max_bytes=2**20)
    for number in range(9):
        entry = Entry(b"%d" % number, None, None, math.inf, 1, frequency=number % 3)
        order.main.append(entry)
    gone = [entry.key for _ in range(9) for entry in order.shrink(order.count - 1, 2**20, 0.0)]
    assert gone == [b"0", b"3", b"6", b"1", b"4", b"7", b"2", b"5", b"8"]
    assert len(order.ghosts) == 0


@pytest.mark.parametrize("main", [False, True])
def test_expired_entries_are_not_spared(clock, main):
    order = s3fifo.S3Fifo(max_entries=10, max_bytes=2**20)
    for number in range(4):
        (order.main if main else order.small).append(
            Entry(b"%d" % number, None, None, 5.0 if number == 2 else math.inf, 1, frequency=3)
        )
    assert [entry.key for entry in order.shrink(3, 2**20, 5.0)] == [b"2"]


def test_the_search_for_something_to_evict_ends_with_every_entry_in_demand(clock):
    entries = 3000
    store = make(clock, max_entries=entries)
    for number in range(entries):
        store.put(b"%d" % number, number, 1, TTL)
    for number in list(range(entries)) * 3:
        store.get(b"%d" % number)
    small, main = keys_of(store._values.small), keys_of(store._values.main)
    assert store.put(b"new", "v", 1, TTL)
    spared = s3fifo.SPARED_PER_CALL
    # one of the small queue, which moved on, then those of the main queue, one of which had to make room for it
    assert keys_of(store._values.small) == [*small[1:], b"new"]
    assert keys_of(store._values.main) == [*main[spared:], small[0], *main[: spared - 1]]
    assert len(store) == entries


def test_a_scan_does_not_push_out_what_is_in_demand(clock):
    store = make(clock, max_entries=1000)
    hot = [b"hot:%d" % number for number in range(700)]
    for _ in range(4):
        for key in hot:
            store.get(key) or store.put(key, "hot", 3, TTL)
    for number in range(50_000):
        store.put(b"scan:%d" % number, number, 1, TTL)
    assert all(store.get(key) for key in hot)


def test_large_values_make_room_by_bytes(clock):
    store = make(clock, max_entries=10_000, max_bytes=MIN_BYTES)
    for number in range(500):
        size = 5000 if number % 5 == 0 else 10
        assert store.put(b"%d" % number, number, size, TTL)
        assert store.get(b"%d" % number).value == number
        check(store, store._settings)
    assert store.stats.evicted > 0


def test_a_replaced_value_that_grew_may_have_to_give_way_itself(clock):
    store = make(clock, max_entries=10_000, max_bytes=MIN_BYTES)
    while not store.stats.evicted:
        store.put(b"%d" % store.stats.insertions, "v", 10, TTL)
    oldest = store._values.small.oldest.key
    assert not store.put(oldest, "larger", 5000, TTL)
    assert store.get(oldest) is None
    check(store, store._settings)


def test_hits_of_zipf_requests_beat_lru(clock):
    """The figures of benchmarks/near_cache_traces.py, with a tenth of its keys: 1 % of them held."""
    universe, capacity, requests = 10_000, 100, 60_000
    weights = list(itertools.accumulate(1 / rank for rank in range(1, universe + 1)))
    store = make(clock, max_entries=capacity)
    lru = OrderedDict()
    hits = [0, 0]
    for place, key in enumerate(random.Random(1).choices(range(universe), cum_weights=weights, k=requests)):
        if place == requests // 5:
            hits = [0, 0]
        if store.get(b"%d" % key):
            hits[0] += 1
        else:
            store.put(b"%d" % key, None, 0, TTL)
        hits[1] += lru.pop(key, False)
        lru[key] = True
        if len(lru) > capacity:
            lru.popitem(last=False)
    ours, theirs = (count / (requests * 4 / 5) for count in hits)
    assert ours > 0.49
    assert ours - theirs > 0.08


def test_hits_are_those_of_the_prototype():
    """A column of `python -m benchmarks.near_cache_traces ratios`, the one in which LRU and SIEVE are furthest behind."""
    name = "drift"
    capacity = near_cache_traces.CAPACITIES[0]
    requests = list(near_cache_traces.TRACES[name]())
    hits = near_cache_traces.ratio(near_cache_traces.near_hits, requests, capacity, near_cache_traces.NEVER)
    assert abs(hits - near_cache_traces.expected(name, capacity)) <= near_cache_traces.TOLERANCE


@pytest.mark.parametrize(("points", "good"), [(0.0, True), (0.9, True), (-0.9, True), (1.1, False), (-1.1, False)])
def test_the_benchmark_notices_what_differs(monkeypatch, points, good):
    """In both directions: much better means that it measures something else."""
    monkeypatch.setattr(near_cache_traces, "TRACES", {"loop": lambda: iter([(b"k", True)])})
    monkeypatch.setattr(
        near_cache_traces,
        "ratio",
        lambda cache, trace, capacity, life: near_cache_traces.expected("loop", capacity) + points,
    )
    assert near_cache_traces.print_ratios() is good
    assert near_cache_traces.expected("expiring", 1000) is None


def test_ghosts_are_few_and_known_once():
    ghosts = Ghosts()
    for number in range(1000):
        ghosts.add(b"%d" % number, 10)
        assert len(ghosts) <= 10
    assert [ghosts.forget(b"%d" % number) for number in (989, 990, 999, 999)] == [False, True, True, False]
    for number in range(20):  # the limit fell: two leave for each that comes
        ghosts.add(b"more:%d" % number, 3)
    assert len(ghosts) == len(ghosts._order) == 3
    ghosts.add(b"more:19", 3)  # known already
    assert len(ghosts) == 3


# Shards: no dict and no set is so large that Python takes long to rebuild it.


ENTRIES = 16_000
ALIKE = {
    "at the end": b"user:%d:profile",
    "at the beginning": b"a long prefix of an application:%d",
    "at the end, which is padded": b"%d" + bytes(100),
    "nowhere": b"%016x",
}


def evenly(shards):
    """Whether none has more than half as much again as its share."""
    return max(map(len, shards)) < 1.5 * ENTRIES / SHARDS


@pytest.mark.parametrize("form", ALIKE.values(), ids=ALIKE)
def test_entries_are_spread_whatever_their_keys_have_in_common(form):
    store = make(Clock(), max_entries=ENTRIES)
    for number in range(ENTRIES):
        store.put(form % number, number, 1, TTL)
    assert len(store) == len(entries_of(store)) == ENTRIES
    assert evenly(store._shards)


@pytest.mark.parametrize("form", ALIKE.values(), ids=ALIKE)
def test_ghosts_are_spread_whatever_their_keys_have_in_common(form):
    ghosts = Ghosts()
    for number in range(2 * ENTRIES):
        ghosts.add(form % number, ENTRIES)
    assert len(ghosts) == sum(map(len, ghosts._shards)) == ENTRIES
    assert evenly(ghosts._shards)


def test_what_was_cleared_is_given_back_from_every_shard():
    """Also while others take its place, and when some shards have none."""
    store = make(Clock(), max_entries=ENTRIES)
    for entries in (SHARDS * 10, 3, 0, SHARDS * 10):
        for number in range(entries):
            store.put(b"%d:%d" % (entries, number), number, 1, TTL)
        store.clear()
        check(store, store._settings)
    assert discarded(store) == SHARDS * 10  # those of the last time: puts gave back the others
    while not store.is_empty:
        store.sweep(7)
        check(store, store._settings)
    assert store.stats.cleared == 2 * SHARDS * 10 + 3
