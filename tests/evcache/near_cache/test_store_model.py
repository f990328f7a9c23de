"""The near cache's store against a model, in any order of calls."""

import itertools
import math
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evcache.near_cache.settings import MIN_BYTES, NearCache
from evcache.near_cache.store import ABSENT, NearStore
from evcache.results import RemovalCause
from tests.support.examples import examples
from tests.support.near import Clock, check, discarded, entries_of

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
        self.told = Counter()
        self.store = NearStore(self.settings, self.clock, lambda _, cause: self.told.update([cause]))
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

    @rule(key=KEYS, ttl=TTLS)
    def renew(self, key, ttl):
        held = self.store.peek(key)
        renewed = self.store.renew(key, ttl)
        assert renewed is (held is not None and ttl > 0)
        if renewed:
            self.model[key] = (held.value, held.version, self.clock.now + min(ttl, self.settings.ttl))
            assert self.store.get(key) is held
        elif held is not None:
            assert self.store.get(key) is None
            self.model.pop(key, None)

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
        expired = sum(entry.expires_at <= self.clock.now for entry in entries_of(self.store).values())
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
            stats = self.store.stats
            assert self.told[RemovalCause.CLEARED] == stats.cleared - discarded(self.store)
            for cause in (RemovalCause.EXPIRED, RemovalCause.EVICTED, RemovalCause.REPLACED, RemovalCause.INVALIDATED):
                assert self.told[cause] == getattr(stats, cause)


StoreAgainstModel.TestCase.settings = settings(max_examples=examples(0.3), stateful_step_count=60)
TestStoreAgainstModel = StoreAgainstModel.TestCase
