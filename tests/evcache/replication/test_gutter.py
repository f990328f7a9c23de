"""The gutter, on zones in memory: what stands in when no zone can serve a key, and is not there otherwise."""

import pytest

from evcache import CacheUnavailable, EVCache, Gutter, InvalidArgument, InvalidTopology, NearCache, Outcome
from evcache.replication.gutter import GUTTER
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones import Endpoint, Topology, Zone
from evcache.zones.testing import FakeMemcached
from tests.support.memory_zones import QUICK, Listener, Stopwatch, full, on_zones, pass_time
from tests.support.near import entry_of

READS = {
    "get": lambda cache, **options: cache.get("k", **options),
    "get_item": lambda cache, **options: value_of(cache.get_item("k", **options)),
    "get_many": lambda cache, **options: only(cache.get_many(["k"], **options)),
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS)


async def value_of(item):
    item = await item
    return None if item is None else item.value


async def only(found):
    return next(iter((await found).values()), None)


def add_gutter(zones, nodes=1):
    """Servers that belong to no zone; their endpoints."""
    endpoints = [Endpoint.parse(f"gutter{number}:11211") for number in range(nodes)]
    zones.sent[GUTTER] = []
    zones.servers[GUTTER] = []
    for endpoint in endpoints:
        fake = FakeMemcached(clock=zones._loop.time, wall_clock=zones.wall_clock)
        zones.servers[GUTTER].append(fake)
        zones._by_label[endpoint.label] = (GUTTER, fake)
    return endpoints


async def with_gutter(zones, *, nodes=1, ttl=10.0, **options):
    """A client with a gutter."""
    cache = await zones.ready(gutter=Gutter(add_gutter(zones, nodes), ttl), circuit=QUICK, **options)
    zones.forget()
    return cache


def in_gutter(zones, key="k"):
    """What the gutter holds: flags, value, seconds left."""
    for fake in zones.servers[GUTTER]:
        item = fake.store.get(full(key))
        if item is not None:
            return item.flags, item.value, fake.store.ttl_left(item)
    return None


@reads
@on_zones()
async def test_what_is_written_while_all_zones_are_dead_is_read(zones, read):
    """From the gutter, which is what the item and the hook say. The write is not met, and says where it is."""
    listener = Listener()
    cache = await with_gutter(zones, hooks=listener)
    await zones.kill(*"abc")
    result = await cache.set("k", "value", ttl=300)
    assert not result
    assert result.zones == dict.fromkeys("abc", Outcome.UNAVAILABLE) | {GUTTER: Outcome.STORED}
    assert await read(cache) == "value"
    assert listener.gutter == [True]
    item = await cache.get_item("k")
    assert (item.zone, item.source) == (GUTTER, "fallback")
    assert 0 < item.ttl <= 10


@on_zones()
async def test_set_many_and_delete_many(zones):
    """Calls for many keys too."""
    cache = await with_gutter(zones, nodes=3)
    await zones.kill(*"abc")
    values = {f"k{number}": number for number in range(30)}
    results = await cache.set_many(values)
    assert not any(results.values())
    assert all(result.zones[GUTTER] is Outcome.STORED for result in results.values())
    assert await cache.get_many([*values, "nothing"]) == values
    assert all(0 < len(fake.store) < 30 for fake in zones.servers[GUTTER])
    assert await cache.get("k7") == 7
    await cache.delete_many(list(values)[:10])
    assert await cache.get_many(list(values)) == dict(list(values.items())[10:])


@reads
@on_zones()
async def test_what_the_gutter_does_not_have_is_a_miss(zones, read):
    """It answers, so the cache is there; whoever asks computes the value, and may write it."""
    listener = Listener()
    cache = await with_gutter(zones, hooks=listener)
    await cache.set("k", "in the zones", consistency="all")
    await zones.kill(*"abc")
    assert await read(cache) is None
    assert listener.gutter == [False]


@pytest.mark.parametrize(
    ("ttl", "gutter_ttl", "left"),
    [(300, 10, 10), (3, 10, 1), (300, 2.9, 2), (300, 0.5, 1), (float("inf"), 10, 10), (90 * 86400, 10, 10)],
)
@on_zones()
async def test_nothing_stays_for_long(zones, ttl, gutter_ttl, left):
    """As long as the gutter's time, and no longer than the value itself."""
    cache = await with_gutter(zones, ttl=gutter_ttl)
    await zones.kill(*"abc")
    await cache.set("k", "value", ttl=ttl)
    assert in_gutter(zones)[2] == left
    await pass_time(left + 0.1)
    assert await cache.get("k") is None


@reads
@pytest.mark.parametrize("alive", ["a", "c"])
@on_zones()
async def test_while_any_zone_answers_it_is_not_used(zones, read, alive):
    """Neither for a miss nor for a write, which has been acknowledged somewhere."""
    listener = Listener()
    cache = await with_gutter(zones, hooks=listener)
    await zones.kill(*set("abc").difference(alive))
    await cache.set("k", "value", consistency="one")
    assert await read(cache) == "value"
    zones.evict("k", alive)
    assert await read(cache) is None
    assert zones.wire(GUTTER) == b""
    assert listener.gutter == []


@reads
@on_zones()
async def test_a_zone_that_is_behind_is_no_reason_either(zones, read):
    """It did answer, and nothing that the gutter has is known to be newer."""
    cache = await with_gutter(zones, hints=None)
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    await cache.set("k", "new", consistency="all")
    zones.put_back("k", old, "a")
    await zones.kill("b", "c")
    with pytest.raises(CacheUnavailable) as caught:
        await read(cache)
    assert set(caught.value.failures) == set("abc")
    assert zones.wire(GUTTER) == b""


@reads
@on_zones()
async def test_what_is_in_the_gutter_is_never_written_back(zones, read):
    """When the zones are back they are read, and they have what they have."""
    cache = await with_gutter(zones, hints=None, check_share=1.0)
    await zones.kill(*"abc")
    await cache.set("k", "value")
    assert await read(cache) == "value"
    zones.restart(*"abc")
    await pass_time(5)
    zones.forget()
    assert await read(cache) is None
    assert await cache.get("k", consistency="all") is None
    await pass_time()
    assert zones.values("k") == dict.fromkeys("abc")
    assert zones.wire(GUTTER) == b""


@on_zones()
async def test_the_zones_get_what_they_missed_all_the_same(zones):
    """Hints are kept as ever: the write itself is brought, with its own time to live."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    await cache.set("k", "value", ttl=300)
    zones.restart(*"abc")
    await pass_time(5)
    assert await cache.get("k") == "value"
    assert zones.values("k") == dict.fromkeys("abc", "value")
    assert zones.held("k", "a").ttl > 250


@reads
@on_zones()
async def test_a_delete_is_seen(zones, read):
    """What was written to the gutter is deleted there."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    await cache.set("k", "value")
    result = await cache.delete("k")
    assert result.zones[GUTTER] is Outcome.STORED
    assert await read(cache) is None
    flags, value, left = in_gutter(zones)
    assert (flags, value) == (FLAG_TOMBSTONE, b"")
    assert left <= 10


@on_zones()
async def test_the_newest_wins_there_too(zones):
    """A write of a client whose clock is behind is superseded, which is no failure."""
    endpoints = add_gutter(zones)
    ahead = await zones.ready(gutter=Gutter(endpoints), wall_clock=lambda: zones.wall_clock() + 30)
    cache = await zones.ready(gutter=Gutter(endpoints))
    await zones.kill(*"abc")
    await ahead.set("k", "newer")
    result = await cache.set("k", "older")
    assert result.zones[GUTTER] is Outcome.SUPERSEDED
    assert await cache.get("k") == "newer"


@reads
@on_zones()
async def test_with_the_gutter_dead_too_the_cache_can_not_be_reached(zones, read):
    """The failures are those of the zones."""
    listener = Listener()
    cache = await with_gutter(zones, hooks=listener)
    await zones.kill(*"abc", GUTTER)
    with pytest.raises(CacheUnavailable) as caught:
        await cache.set("k", "value")
    assert set(caught.value.failures) == set("abc")
    with pytest.raises(CacheUnavailable) as caught:
        await read(cache)
    assert set(caught.value.failures) == set("abc")
    assert await read(cache, errors="miss") is None
    result = await cache.set("k", "value", errors="miss")
    assert result.zones[GUTTER] is Outcome.UNAVAILABLE
    with pytest.raises(CacheUnavailable):
        await cache.set_many({"k": 1, "l": 2})
    assert listener.gutter == []


@reads
@on_zones()
async def test_a_gutter_that_hangs_ends_in_time(zones, read):
    """It is the last of the places that a read may look in."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    zones.pause(GUTTER)
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await read(cache, timeout=0.4)
    assert watch.seconds <= 0.4 + 0.001
    zones.resume(GUTTER)


@reads
@on_zones()
async def test_zones_that_hang_leave_it_time_to_be_read(zones, read):
    """None of the places may use up the time of the next."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    await cache.set("k", "value", ttl=300)
    zones.restart(*"abc")
    await pass_time(4)
    for zone in "abc":
        if zones.held("k", zone) is not None:
            zones.evict("k", zone)
    zones.pause(*"abc")
    watch = Stopwatch()
    assert await read(cache, timeout=0.4) == "value"
    assert watch.seconds == pytest.approx(0.3)
    zones.resume(*"abc")


@on_zones()
async def test_reads_of_several_zones_do_not_use_it(zones):
    """They ask for zones, and it is none."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    await cache.set("k", "value")
    with pytest.raises(CacheUnavailable):
        await cache.get("k", consistency="quorum")
    with pytest.raises(CacheUnavailable):
        await cache.get_many(["k"], consistency="quorum")


@on_zones()
async def test_decisions_do_not_use_it(zones):
    """Nobody could say what was decided."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    with pytest.raises(CacheUnavailable):
        await cache.add("k", "value")
    with pytest.raises(CacheUnavailable):
        await cache.incr("k", initial=1)
    assert in_gutter(zones) is None


@on_zones()
async def test_the_near_cache_keeps_what_came_from_it_no_longer(zones):
    """Than it has left there."""
    cache = await with_gutter(zones, near_cache=NearCache(max_bytes=100_000, ttl=100))
    await zones.kill(*"abc")
    await cache.set("k", "value", ttl=300)
    assert await cache.get("k") == "value"
    left = cache._near.seconds_left(entry_of(cache._near, full("k")))
    assert left is not None
    assert left <= 10


def test_a_zone_of_that_name_is_refused():
    """Results could not say which is meant."""
    topology = Topology((Zone("a", (Endpoint.parse("a:1"),)), Zone(GUTTER, (Endpoint.parse("b:1"),))))
    with pytest.raises(InvalidTopology, match=GUTTER):
        EVCache("t", topology, gutter=Gutter(["c:1"]))
    EVCache("t", topology)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"nodes": []}, "nodes"),
        ({"nodes": "a:1"}, "nodes"),
        ({"nodes": ["a:1", "a:1"]}, None),
        ({"nodes": ["no port"]}, None),
        ({"nodes": ["a:1"], "ttl": 0}, "ttl"),
        ({"nodes": ["a:1"], "ttl": float("inf")}, "ttl"),
    ],
)
def test_a_gutter_that_can_not_be_is_refused(options, argument):
    """Where it is made; the error names what is wrong."""
    with pytest.raises(InvalidArgument) as caught:
        Gutter(**options)
    assert argument is None or caught.value.argument == argument
