"""The near cache's store, with a clock that the tests move."""

import itertools
import math
import random
from collections import OrderedDict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evcache import s3fifo
from evcache.near_cache import ABSENT, ENTRY_OVERHEAD, MIN_BYTES, SWEPT_PER_PUT, TTL_SECONDS, NearCache, NearStore
from evcache.s3fifo import Entry, Fifo, Ghosts
from zones.errors import InvalidArgument

TTL = 60.0  # seconds


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def make(clock, max_entries=100, max_bytes=2**30, ttl=TTL, negative_share=0.1):
    return NearStore(NearCache(max_bytes, max_entries, ttl, negative_share), clock)


def keys_of(queue):
    """From the oldest to the newest."""
    found = []
    entry = queue._end.newer
    while entry is not queue._end:
        assert entry.newer.older is entry
        found.append(entry.key)
        entry = entry.newer
    return found


def check(store, settings_):
    """What holds after every call."""
    queues = [store._values.small, store._values.main, store._absences]
    for queue in queues:
        keys = keys_of(queue)
        assert queue.count == len(keys)
        assert queue.bytes == sum(store._entries[key].size for key in keys)
        assert all(store._entries[key].queue is queue for key in keys)
    assert sum(queue.count for queue in queues) == len(store) <= settings_.max_entries
    assert store.bytes == sum(entry.size for entry in store._entries.values())
    assert store.bytes + store._discarded.bytes <= settings_.max_bytes
    assert store._absences.count <= settings_.max_entries * settings_.negative_share
    assert store._absences.bytes <= settings_.max_bytes * settings_.negative_share
    assert store.stats.insertions == len(store) + store.stats.removals


# ------------------------------------------------------------------------------------------------------------ settings


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
        ("negative_share", -0.1),
        ("negative_share", 0.6),
        ("negative_share", math.nan),
        ("negative_share", None),
        ("negative_share", False),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(argument, value):
    with pytest.raises(InvalidArgument) as caught:
        NearCache(**{argument: value})
    assert caught.value.argument == argument


def test_settings_have_defaults_and_smallest_values():
    assert NearCache() == NearCache(64 * 2**20, 100_000, TTL_SECONDS, 0.1)
    NearCache(max_bytes=MIN_BYTES, max_entries=1, ttl=0.001, negative_share=0)
    with pytest.raises(AttributeError):
        NearCache().ttl = 5


# -------------------------------------------------------------------------------------------------------- put and get


def test_what_was_put_is_there_the_same_object_until_it_expires(clock):
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
    store._turn = 1  # the sweep of the put looks elsewhere
    assert not store.put(b"k", "old", 3, 1.0, 4)
    assert store.get(b"k") is None


def test_a_value_that_can_not_be_kept_takes_the_one_that_it_makes_outdated_with_it(clock):
    store = make(clock, max_bytes=MIN_BYTES)
    largest = MIN_BYTES // 10 - ENTRY_OVERHEAD - len(b"k")
    assert store.put(b"k", "fits", largest, 9.0, 1)
    assert not store.put(b"k", "too large", largest + 1, 9.0, 2)
    assert store.get(b"k") is None
    assert store.put(b"k", "fits", largest, 9.0, 5)
    assert not store.put(b"k", "too large, but older", largest + 1, 9.0, 4)
    assert store.get(b"k").value == "fits"
    assert (store.stats.rejected, store.stats.replaced) == (2, 1)


def test_an_entry_in_the_hands_of_a_caller_stays_as_it_was(clock):
    store = make(clock)
    for number in range(3):
        store.put(b"%d" % number, number, 1, 9.0)
    entry = store.get(b"1")
    store.put(b"1", "new", 1, 9.0)
    assert entry.value == 1
    # and keeps neither its neighbours nor the store alive
    assert not any(hasattr(entry, link) for link in ("older", "newer", "queue"))


# ------------------------------------------------------------------------------------------------------------- absences


def test_absences_push_out_each_other_and_not_values(clock):
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


def test_absences_can_be_declined(clock):
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


# -------------------------------------------------------------------------------------------------- removal and causes


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


def test_what_was_cleared_is_let_go_bit_by_bit_and_counts_until_then(clock):
    store = make(clock, max_entries=10_000, max_bytes=MIN_BYTES)
    size = 100
    while not store.stats.evicted:
        store.put(b"%d" % store.stats.insertions, "v", size, 9.0)
    held = len(store)
    store.put_absence(b"absent", 9.0)
    store.clear()
    assert store._discarded.count >= held - 1
    store.clear()  # nothing to add
    left = store._discarded.count
    for number in itertools.count():
        assert store.put(b"new:%d" % number, "v", size, 9.0)
        check(store, store._settings)
        assert store._discarded.count <= left - SWEPT_PER_PUT or store._discarded.count == 0
        left = store._discarded.count
        if not left:
            break
    assert number <= held / SWEPT_PER_PUT + 1


def test_an_idle_store_lets_go_of_what_was_cleared_when_it_is_swept(clock):
    store = make(clock)
    for number in range(50):
        store.put(b"%d" % number, "v", 1, 9.0)
    store.clear()
    assert store.sweep(30) == 0  # counted as cleared already
    assert store._discarded.count == 20
    store.sweep(1000)
    assert (store._discarded.count, store._discarded.bytes) == (0, 0)


# --------------------------------------------------------------------------------------------------------------- expiry


def test_a_sweep_looks_at_no_more_than_it_was_told_and_comes_round(clock):
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
    assert all(entry.expires_at > clock.now for entry in store._entries.values())
    clock.now += TTL / 2
    left = len(store)
    assert sum(store.sweep(limit) for _ in range(left // limit + 2)) == left
    assert (len(store), store.bytes, store.sweep(limit)) == (0, 0, 0)
    check(store, store._settings)


@pytest.mark.parametrize("limit", [0, 1, 3, 1000])
def test_sweeping_next_to_nothing(clock, limit):
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
    assert all(entry.expires_at > clock.now for entry in store._entries.values())


def test_the_sweep_goes_on_where_it_was_when_entries_come_and_go(clock):
    queue = Fifo()
    entries = [Entry(b"%d" % number, None, None, 0.0, 1) for number in range(6)]
    for entry in entries[:5]:
        queue.append(entry)
    assert queue.next_in_turn() is None  # a round begins
    assert queue.next_in_turn() is entries[0]
    queue.remove(entries[1])  # the next one
    assert queue.next_in_turn() is entries[2]
    queue.swap(entries[3], replacement := Entry(b"3", None, None, 0.0, 2))
    assert queue.next_in_turn() is replacement
    queue.append(entries[5])
    assert [queue.next_in_turn() for _ in range(4)] == [entries[4], entries[5], None, entries[0]]
    assert (queue.count, queue.bytes) == (5, 6)


def test_a_value_in_demand_keeps_its_place_when_it_expires_and_is_fetched_again(clock):
    store = make(clock)
    for name in (b"a", b"b", b"c"):
        store.put(name, name, 1, 10.0)
    for _ in range(2):
        store.get(b"b")
    clock.now += 10
    assert store.get(b"b") is None
    store._turn = 1  # the sweep of the put looks elsewhere
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
    assert store._entries[b"wanted"].queue is store._values.main
    assert store._entries[b"not"].queue is store._values.small


# ------------------------------------------------------------------------------------------------------------- eviction


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
    assert store._entries[b"10"].frequency == 3
    store.put(b"11", 11, 1, TTL)  # 10 moves on, and the oldest of the main queue makes room
    assert keys_of(values.small) == [b"11"]
    assert keys_of(values.main) == [b"%d" % number for number in (1, 2, 3, 4, 5, 6, 7, 8, 10)]
    assert store._entries[b"10"].frequency == 0
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


def test_ghosts_are_few_and_known_once():
    ghosts = Ghosts()
    for number in range(1000):
        ghosts.add(b"%d" % number, 10)
        assert len(ghosts) <= 10
    assert [ghosts.take(b"%d" % number) for number in (989, 990, 999, 999)] == [False, True, True, False]
    for number in range(20):  # the limit fell: two leave for each that comes
        ghosts.add(b"more:%d" % number, 3)
    assert len(ghosts) == len(ghosts._order) == 3
    ghosts.add(b"more:19", 3)  # known already
    assert len(ghosts) == 3


# ---------------------------------------------------------------------------------------------------------------- model

KEYS = st.integers(0, 30).map(lambda number: b"key:%d" % number)
VERSIONS = st.none() | st.integers(1, 10)
TTLS = st.sampled_from([0.0, 0.5, 2.0, 10.0, math.inf])
SIZES = st.sampled_from([0, 10, 3000, 6000, 10_000])


class StoreAgainstModel(RuleBasedStateMachine):
    """The model remembers what was admitted last, for as long as it may be served, and evicts nothing."""

    @initialize(max_entries=st.sampled_from([1, 2, 12, 50]), share=st.sampled_from([0.0, 0.1, 0.5]))
    def begin(self, max_entries, share):
        self.clock = Clock()
        self.settings = NearCache(MIN_BYTES, max_entries, 5.0, share)
        self.store = NearStore(self.settings, self.clock)
        self.model = {}  # key -> value, version, end
        self.values = itertools.count()

    def put_one(self, key, ttl, version, put, value):
        held = self.store.get(key)
        rejected = self.store.stats.rejected
        admitted = put()
        if held and held.version is not None and version is not None and version < held.version:
            assert not admitted
            assert self.store.get(key) is held
        elif admitted:
            self.model[key] = (value, version, self.clock.now + min(ttl, self.settings.ttl))
            assert self.store.get(key).value is value
        else:
            assert self.store.get(key) is None
            known = self.model.get(key)
            if self.store.stats.rejected == rejected or known is None or known[2] > self.clock.now:
                self.model.pop(key, None)

    @rule(key=KEYS, size=SIZES, ttl=TTLS, version=VERSIONS)
    def put(self, key, size, ttl, version):
        value = f"value {next(self.values)}"
        self.put_one(key, ttl, version, lambda: self.store.put(key, value, size, ttl, version), value)

    @rule(key=KEYS, ttl=TTLS, version=VERSIONS)
    def put_absence(self, key, ttl, version):
        self.put_one(key, ttl, version, lambda: self.store.put_absence(key, ttl, version), ABSENT)

    @rule(key=KEYS)
    def get(self, key):
        entry = self.store.get(key)
        known = self.model.get(key)
        live = known is not None and self.clock.now < known[2]
        if entry is not None:
            assert live
            assert (entry.value, entry.version, entry.expires_at) == known
        elif live:
            assert self.store.stats.evicted > 0

    @rule(key=KEYS)
    def remove(self, key):
        there = self.store.get(key) is not None
        assert self.store.remove(key) is there
        assert self.store.get(key) is None
        self.model.pop(key, None)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.9, 5.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(limit=st.integers(0, 60))
    def sweep(self, limit):
        expired = sum(entry.expires_at <= self.clock.now for entry in self.store._entries.values())
        assert self.store.sweep(limit) <= min(limit, expired)

    @precondition(lambda self: len(self.store) > 5)
    @rule()
    def clear(self):
        self.store.clear()
        self.model.clear()

    @invariant()
    def holds(self):
        if hasattr(self, "store"):
            check(self.store, self.settings)


StoreAgainstModel.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestStoreAgainstModel = StoreAgainstModel.TestCase
