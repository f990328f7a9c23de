"""The near cache in front of the zones: what is kept, what a write takes away, and both sides of the race between them."""

import asyncio
import itertools

import pytest

from evcache import CacheUnavailable, EVCache, NearCache
from evcache.near_cache.coherence import CoherentNearCache
from evcache.replication.commands.guarded_store import DeleteCommand, StoreCommand
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.replication.reconcile import ZoneHit
from evcache.zones.protocol.replies import Hit
from evcache.zones.routing.zone_order import coordinator_order
from evcache.zones.testing import FakeMemcached
from tests.support.memory_zones import full, on_zones, pass_time, pause_before_decisions
from tests.support.near import Clock, entry_of, kept

KEY = b"ns:key"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def near(clock):
    return CoherentNearCache(NearCache(ttl=2.0), clock, sweeps=False)


VERSIONS = HybridLogicalClock(writer=1, wall_ms=lambda: 1_800_000_000_000)


def found(value, version=None, ttl=100):
    return ZoneHit(Hit(value, 0, 5 if version is None else cas_of(version), ttl, False, False), "eu-1a", version)


def store(value, version, **options):
    return StoreCommand(VERSIONS, KEY, value, 0, ttl=100, version=version, **options)


def fetch(near, item):
    near.complete(near.begin_fetch(KEY), item)


def test_a_fetched_value_is_served_until_the_near_ttl_ends(near, clock):
    fetch(near, found(b"v"))
    assert entry_of(near, KEY).data == b"v"
    clock.now += 1.9
    assert entry_of(near, KEY) is not None
    clock.now += 0.2
    assert entry_of(near, KEY) is None


@pytest.mark.parametrize(("ttl", "kept"), [(-1, 2.0), (100, 2.0), (3, 2.0), (2, 1.0), (1, 0.0), (None, 0.0)])
def test_nothing_is_served_longer_than_the_item_has_left(near, clock, ttl, kept):
    """Servers count in whole seconds, so one second less than they say."""
    fetch(near, found(b"v", ttl=ttl))
    clock.now += kept - 0.01
    assert (entry_of(near, KEY) is not None) == (kept > 0)
    clock.now += 0.02
    assert entry_of(near, KEY) is None


def test_a_write_during_a_fetch_rejects_its_value(near):
    token = near.begin_fetch(KEY)
    near.begin_write(KEY, VERSIONS.tick())
    near.complete(token, found(b"old"))
    assert entry_of(near, KEY) is None


def test_the_end_of_a_write_invalidates_a_fetch_that_began_during_it(near):
    near.begin_write(KEY, VERSIONS.tick())
    token = near.begin_fetch(KEY)
    near.complete_uncertain_write(KEY, None, 0.0, everywhere=False)
    near.complete(token, found(b"old"))
    assert entry_of(near, KEY) is None


def test_an_acknowledged_write_stores_its_value_and_rejects_older_ones(near):
    """A slower zone may answer with the old value for a while."""
    new, old = VERSIONS.tick() + (1 << 20), VERSIONS.tick()
    near.begin_write(KEY, VERSIONS.tick())
    near.complete_write(KEY, store(b"new", new), "eu-1a", 0.0)
    assert entry_of(near, KEY).data == b"new"
    fetch(near, found(b"old", old))
    assert entry_of(near, KEY).data == b"new"


def test_the_grace_after_a_write_begins_when_it_ends(near, clock):
    """The slower zones get it then, or later; what has been kept of it may have given way to others."""
    old, new = VERSIONS.tick(), VERSIONS.tick()
    near.begin_write(KEY, new)
    clock.now += 4
    near.complete_write(KEY, store(b"new", new), "eu-1a", 0.0)
    clock.now += 4
    near.clear()
    fetch(near, found(b"old", old))
    assert entry_of(near, KEY) is None
    fetch(near, found(b"new", new))
    assert entry_of(near, KEY).data == b"new"


def test_an_older_write_that_ends_later_does_not_replace_a_newer_one(near):
    older, newer = VERSIONS.tick(), VERSIONS.tick()
    for version, value in ((newer, b"newer"), (older, b"older")):
        near.complete_write(KEY, store(value, version), "eu-1a", 0.0)
    assert entry_of(near, KEY).data == b"newer"


def test_an_acknowledged_delete_is_a_known_absence(near):
    near.complete_write(KEY, DeleteCommand(VERSIONS, KEY, ttl=60, version=VERSIONS.tick()), "eu-1a", 0.0)
    kept = entry_of(near, KEY)
    assert not kept.is_value


@pytest.mark.parametrize("version", [None, VERSIONS.tick()], ids=["unknown", "known"])
def test_an_uncertain_write_leaves_no_entry(near, version):
    fetch(near, found(b"old", VERSIONS.tick() - (1 << 40)))
    near.complete_uncertain_write(KEY, version, 0.0, everywhere=False)
    assert entry_of(near, KEY) is None


def unchanged(near, began):
    near.cancel_write(KEY, began)


def decided(near, began):
    near.complete_write(KEY, store(b"ours", VERSIONS.tick()), "eu-1a", began)


def everywhere(near, began):
    near.complete_uncertain_write(KEY, None, began, everywhere=True)


@pytest.mark.parametrize("end", [unchanged, decided, everywhere])
def test_the_end_of_an_own_write_keeps_the_block_of_an_invalidation(near, clock, end):
    """The other client's write may not have reached the local zone, whatever the outcome of the own write."""
    near.invalidate(KEY, None)
    clock.now += 1
    end(near, near.begin_write(KEY, None))
    near.drop(KEY)
    for passed, is_kept in ((0, False), (3.9, False), (0.2, True)):
        clock.now += passed
        fetch(near, found(b"read", VERSIONS.tick()))
        assert (entry_of(near, KEY) is not None) == is_kept


def test_two_own_writes_end_their_blocks_separately(near):
    """In whichever order: what is read while one is under way may be older than what it decides."""
    first, second = near.begin_write(KEY, None), near.begin_write(KEY, None)
    near.cancel_write(KEY, second)
    fetch(near, found(b"old", VERSIONS.tick()))
    assert entry_of(near, KEY) is None
    near.cancel_write(KEY, first)
    fetch(near, found(b"read", VERSIONS.tick()))
    assert entry_of(near, KEY).data == b"read"


def test_tokens_are_dropped_when_their_fetches_end(near):
    first, second = near.begin_fetch(KEY), near.begin_fetch(KEY)
    assert first is second
    near.abandon(first)
    near.complete(second, None)
    invalidated = near.begin_fetch(KEY)
    near.begin_write(KEY, VERSIONS.tick())
    fresh = near.begin_fetch(KEY)
    assert fresh is not invalidated
    near.complete(invalidated, found(b"old"))
    near.complete(fresh, found(b"new", VERSIONS.tick()))
    assert entry_of(near, KEY).data == b"new"
    assert near._fetches == {}


def test_every_order_of_a_fetch_and_a_write_leaves_the_new_value_or_nothing():
    """A fetch (begin, read the old or the new value, complete) and a write, in each order in which they can be."""
    old, new = VERSIONS.tick(), VERSIONS.tick()
    for order in set(itertools.permutations(["begin", "read", "complete", "begin write", "stored", "ended"])):
        place = {step: order.index(step) for step in order}
        if (
            not place["begin"] < place["read"] < place["complete"]
            or not place["begin write"] < place["stored"] < place["ended"]
        ):
            continue
        near, held, token, item = CoherentNearCache(NearCache(), sweeps=False), (b"old", old), None, None
        for step in order:
            match step:
                case "begin":
                    token = near.begin_fetch(KEY)
                case "read":
                    item = found(*held)
                case "complete":
                    near.complete(token, item)
                case "begin write":
                    near.begin_write(KEY, new)
                case "stored":
                    held = (b"new", new)
                case "ended":
                    near.complete_write(KEY, store(b"new", new), "eu-1a", 0.0)
        kept = entry_of(near, KEY)
        assert kept is None or kept.data == b"new", order


def test_through_the_client():
    """A near hit asks no server; own writes are seen at once; a call may look past it; QUORUM and ALL always do."""

    async def main():
        async with FakeMemcached() as a, FakeMemcached() as b:
            zones = {"eu-1a": [a.address], "eu-1b": [b.address]}
            async with EVCache("ns", zones, local_zone="eu-1a", near_cache=NearCache(), read_timeout=5) as cache:
                await cache.set("key", {"a": [1]}, consistency="all")
                asked = a.commands["mg"]
                first = await cache.get("key")
                first["a"].append(2)  # each caller has an object of its own
                assert await cache.get("key") == {"a": [1]}
                assert await cache.get_many(["key"]) == {"key": {"a": [1]}}
                item = await cache.get_item("key")
                assert (item.source, item.zone) == ("near", "eu-1a")
                assert 890 < item.ttl <= 900
                assert a.commands["mg"] == asked

                assert await cache.get("key", near_cache=False) == {"a": [1]}
                assert await cache.get("key", consistency="all") == {"a": [1]}
                assert (await cache.get_item("key", near_cache=False)).source == "local"
                assert a.commands["mg"] > asked

                await cache.set("key", 2)
                assert await cache.get("key") == 2
                await cache.delete("key")
                assert await cache.get("key") is None
                assert await cache.get_many(["key"]) == {}
                await cache.incr("n", initial=5)
                assert await cache.get("n") == 5
                await cache.incr("n")
                assert await cache.get("n") == 6
                await cache.set("text", "a")
                await cache.append("text", "b")
                assert await cache.get("text") == "ab"

    asyncio.run(main())


@on_zones()
async def test_an_uncertain_decision_leaves_no_entry(zones):
    """The counter may have moved: what a read kept while the coordinator did not answer is not served any more."""
    cache = zones.client(local_zone="a", near_cache=NearCache(ttl=60))
    await cache.set("warm", 1, consistency="all")
    name = next(f"n{number}" for number in range(100) if coordinator_order(full(f"n{number}"), "abc")[0] == "b")
    assert await cache.incr(name, initial=5, ttl=600, consistency="all") == 5
    pause_before_decisions(zones, cache, "b")
    counting = asyncio.ensure_future(cache.incr(name, timeout=0.5))
    await pass_time(0.1)
    assert await cache.get(name) == 5
    assert kept(cache, name) is None, "a read during the call does not keep it"
    with pytest.raises(CacheUnavailable):
        await counting
    assert await cache.get(name) == 5
    assert kept(cache, name) is None
    zones.resume("b")
