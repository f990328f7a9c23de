"""The gutter, on zones in memory: it serves reads and writes if no zone can, and only then."""

import pytest

from evcache import CacheUnavailable, EVCache, Gutter, InvalidArgument, InvalidTopology, NearCache, Outcome
from evcache.replication.gutter import GUTTER
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones import Endpoint, Topology, Zone
from tests.support.gutter import add_gutter
from tests.support.memory_zones import QUICK, Listener, Stopwatch, full, on_zones, pass_time
from tests.support.near import entry_of
from tests.support.read_calls import reads


async def with_gutter(zones, *, nodes=1, ttl=10.0, **options):
    """Return a client with a gutter."""
    cache = await zones.ready(gutter=Gutter(add_gutter(zones, nodes), ttl), circuit=QUICK, **options)
    zones.forget()
    return cache


def in_gutter(zones, key="k"):
    """Return flags, value and seconds left of an item in the gutter."""
    for fake in zones.servers[GUTTER]:
        item = fake.store.get(full(key))
        if item is not None:
            return item.flags, item.value, fake.store.ttl_left(item)
    return None


@reads
@on_zones()
async def test_a_write_while_all_zones_are_dead_is_read_from_the_gutter(zones, read):
    """The write is not acknowledged, and its result names the gutter. So do the item and the hook."""
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
async def test_the_gutter_serves_bulk_calls(zones):
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
async def test_a_miss_of_the_gutter_is_a_miss(zones, read):
    """The gutter answers, so the call raises nothing."""
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
async def test_an_item_lives_as_long_as_the_gutter_allows(zones, ttl, gutter_ttl, left):
    """And no longer than its own TTL."""
    cache = await with_gutter(zones, ttl=gutter_ttl)
    await zones.kill(*"abc")
    await cache.set("k", "value", ttl=ttl)
    assert in_gutter(zones)[2] == left
    await pass_time(left + 0.1)
    assert await cache.get("k") is None


@reads
@pytest.mark.parametrize("alive", ["a", "c"])
@on_zones()
async def test_while_any_zone_answers_the_gutter_is_not_used(zones, read, alive):
    """Neither after a miss nor for a write that a zone acknowledged."""
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
async def test_while_a_zone_is_stale_the_gutter_is_not_used(zones, read):
    """The zone did answer, and the gutter may hold nothing newer."""
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
async def test_items_of_the_gutter_are_never_copied_to_zones(zones, read):
    cache = await with_gutter(zones, hints=None, read_repair_chance=1.0)
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
async def test_hints_deliver_a_write_that_the_gutter_took(zones):
    """With its own TTL."""
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
async def test_a_delete_reaches_the_gutter(zones, read):
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
async def test_the_latest_version_wins_in_the_gutter(zones):
    """A write of a client with a slow clock is superseded, which is no failure."""
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
async def test_if_the_gutter_is_dead_too_the_cache_is_unavailable(zones, read):
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
async def test_if_the_gutter_hangs_the_call_ends_at_its_deadline(zones, read):
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
async def test_zones_that_hang_leave_time_for_the_gutter(zones, read):
    """Each attempt has its share of the time."""
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
async def test_reads_at_quorum_do_not_use_the_gutter(zones):
    """They require zones."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    await cache.set("k", "value")
    with pytest.raises(CacheUnavailable):
        await cache.get("k", consistency="quorum")
    with pytest.raises(CacheUnavailable):
        await cache.get_many(["k"], consistency="quorum")


@on_zones()
async def test_conditional_writes_do_not_use_the_gutter(zones):
    """They need a coordinator."""
    cache = await with_gutter(zones)
    await zones.kill(*"abc")
    with pytest.raises(CacheUnavailable):
        await cache.add("k", "value")
    with pytest.raises(CacheUnavailable):
        await cache.incr("k", initial=1)
    assert in_gutter(zones) is None


@on_zones()
async def test_the_near_cache_keeps_an_item_of_the_gutter_for_the_time_left_there(zones):
    cache = await with_gutter(zones, near_cache=NearCache(max_bytes=100_000, ttl=100))
    await zones.kill(*"abc")
    await cache.set("k", "value", ttl=300)
    assert await cache.get("k") == "value"
    left = cache._runtime.near.seconds_left(entry_of(cache._runtime.near, full("k")))
    assert left is not None
    assert left <= 10


def test_a_zone_with_the_name_of_the_gutter_is_refused():
    """Results could not tell them apart."""
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
def test_an_invalid_gutter_is_refused_by_its_setting(options, argument):
    with pytest.raises(InvalidArgument) as caught:
        Gutter(**options)
    assert argument is None or caught.value.argument == argument
