"""Time to live is a promise: no copy of an item, in any zone or in the near cache, outlives the item."""

import asyncio

import pytest

from evcache import LoadPolicy, NearCache, Outcome
from tests.support.memory_zones import QUICK, cut_off, on_zones, pass_time
from tests.support.near import kept, near_client, settled

TTL = 3
TICK = 1.0  # what a server's clock may add

# Reads continue for many lifetimes of the item. A copy that gets the rounded-up rest would be copied forever.
READ_FOR_SECONDS = 20.0


async def get(cache):
    return await cache.get("k", timeout=1)


async def get_item(cache):
    item = await cache.get_item("k", timeout=1)
    return None if item is None else item.value


async def get_many(cache):
    return (await cache.get_many(["k"], timeout=1)).get("k")


async def get_all(cache):
    return await cache.get("k", consistency="all", timeout=1)


async def for_update(cache):
    item = await cache.get_item("k", for_update=True, timeout=1)
    return None if item is None else item.value


READS = [get, get_item, get_many, get_all, for_update]


async def last_seen(zones, clients, read, seconds=READ_FOR_SECONDS):
    """Return when each client last read a value, in seconds from now."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    last = dict.fromkeys(clients, 0.0)

    async def keep_reading(name, cache):
        while loop.time() - began < seconds:
            if await read(cache) is not None:
                last[name] = loop.time() - began
            await asyncio.sleep(0.05)

    await asyncio.gather(*(keep_reading(name, cache) for name, cache in clients.items()))
    return last


async def client_in_each_zone(zones, **options):
    return {zone: await zones.ready(local_zone=zone, read_repair_chance=1.0, **options) for zone in "abc"}


@pytest.mark.parametrize("missing", ["", "a", "b", "c", "bc"])
@pytest.mark.parametrize("read", READS, ids=lambda read: read.__name__)
@on_zones(ticking=True)
async def test_an_item_that_is_read_in_every_zone_is_gone_when_its_time_is_over(zones, read, missing):
    """This holds for any zones without the item at first, although every read compares and repairs the zones."""
    clients = await client_in_each_zone(zones)
    assert await clients["a"].set("k", "value", ttl=TTL, consistency="all")
    if missing:
        zones.evict("k", *missing)
    last = await last_seen(zones, clients, read)
    assert max(last.values()) <= TTL, last
    assert min(last.values()) > TTL - 1.5, "it was there for its time: a copy loses a second, and a tick"
    assert zones.values("k") == dict.fromkeys("abc")


@on_zones(ticking=True)
async def test_a_tombstone_is_gone_when_its_time_is_over(zones):
    """A tombstone is copied too, and must not be copied forever."""
    clients = await client_in_each_zone(zones, tombstone_ttl=TTL)
    await clients["a"].set("k", "value", ttl=600, consistency="all")
    await pass_time(0.01)
    await clients["b"].delete("k", consistency="all")
    zones.evict("k", "a", "c")
    await last_seen(zones, clients, get, TTL + TICK)
    assert zones.values("k") == dict.fromkeys("abc")
    await last_seen(zones, clients, get)
    assert zones.values("k") == dict.fromkeys("abc")


@on_zones(ticking=True)
async def test_a_remembered_absence_is_gone_when_its_time_is_over(zones):
    """The loader is asked again: what was not there may be there by now."""
    clients = await client_in_each_zone(zones)
    policy = LoadPolicy(negative_ttl=TTL, jitter=0)
    loop = asyncio.get_running_loop()
    loaded_at = []

    async def loader():
        loaded_at.append(loop.time())

    async def load(cache):
        return await cache.get_or_load("k", loader, policy=policy)

    await last_seen(zones, clients, load)
    pauses = [later - earlier for earlier, later in zip(loaded_at, loaded_at[1:], strict=False)]
    assert len(loaded_at) >= READ_FOR_SECONDS / (TTL + TICK + 0.1)
    assert max(pauses) <= TTL + TICK + 0.1


@pytest.mark.parametrize("ttl", [5, 6, 7, 10])
@on_zones(ticking=True)
async def test_a_write_that_is_delivered_late_ends_with_the_others(zones, ttl):
    """Its hint says when it was sent."""
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    loop = asyncio.get_running_loop()
    sent_at = loop.time()
    assert await cache.set("k", "value", ttl=ttl)
    await pass_time(ttl - 4.5)
    zones.resume("c")
    seen = False
    while loop.time() < sent_at + ttl:
        await pass_time(0.05)
        seen = seen or zones.held("k", "c") is not None
    assert seen
    assert zones.held("k", "c") is None
    assert cache.stats().hints == 0


@on_zones(ticking=True)
async def test_a_counter_that_is_moved_all_the_time_ends(zones):
    """Rate limits count in windows: no step may give the counter more time, nor take any."""
    clients = await client_in_each_zone(zones)
    loop = asyncio.get_running_loop()
    await clients["a"].incr("n", initial=0, ttl=10, consistency="all")
    began, expected = loop.time(), 0
    while loop.time() - began < 8.9:
        for cache in clients.values():
            expected += 1
            assert await cache.incr("n") == expected
        await pass_time(0.1)
    assert expected > 100
    while loop.time() - began < 11.1:
        await clients["b"].incr("n")
        await pass_time(0.1)
    assert await clients["b"].incr("n") is None
    assert zones.values("n") == dict.fromkeys("abc")


@on_zones(ticking=True)
async def test_what_is_appended_to_all_the_time_ends(zones):
    """An append keeps the time to live, exactly where it is decided, and for less in the other zones."""
    clients = await client_in_each_zone(zones)
    loop = asyncio.get_running_loop()
    await clients["a"].set("k", "", ttl=10, consistency="all")
    began = loop.time()
    while loop.time() - began < 8.9:
        assert await clients["b"].append("k", "x")
        await pass_time(0.1)
    while loop.time() - began < 11.1:
        await clients["b"].append("k", "x")
        await pass_time(0.1)
    assert zones.values("k") == dict.fromkeys("abc")


@pytest.mark.parametrize("ttl", [1, 2, 3])
@on_zones(ticking=True)
async def test_a_short_life_is_one_in_every_zone(zones, ttl):
    """A count, or more text, in the last seconds of a life: what was there before is not taken from the other zones."""
    cache = await zones.ready()
    for number in range(4):
        assert await cache.incr("n", initial=0, ttl=ttl, consistency="all") == number
    assert zones.values("n") == dict.fromkeys("abc", 3)
    await cache.set("k", "a", ttl=ttl, consistency="all")
    assert (await cache.append("k", "b", consistency="all")).zones == dict.fromkeys("abc", Outcome.STORED)
    assert zones.values("k") == dict.fromkeys("abc", "ab")
    await cache.touch("n", 60, consistency="all")
    await cache.touch("k", 60, consistency="all")
    await pass_time(5)
    assert zones.values("n") == dict.fromkeys("abc", 3)
    assert zones.values("k") == dict.fromkeys("abc", "ab")


@pytest.mark.parametrize("slow", [0.0, 0.4])
@pytest.mark.parametrize("how", ["get", "get_many", "set", "get_or_load"])
@on_zones(ticking=True)
async def test_a_near_entry_ends_before_its_item(zones, how, slow):
    """This holds after a slow call, too: the time left that the zone reported counts from the request."""
    cache, _ = near_client(zones, near_cache=NearCache(ttl=60), read_timeout=5, write_timeout=5)
    await settled(zones, cache)
    loop = asyncio.get_running_loop()
    if how in ("get", "get_many"):
        assert await zones.client(local_zone="b").set("k", "value", ttl=TTL, consistency="all")
    sent_at = loop.time()
    if slow:
        zones.pause(*"abc")
        loop.call_later(slow, zones.resume, *"abc")
    match how:
        case "set":
            await cache.set("k", "value", ttl=TTL, consistency="all")
        case "get_or_load":

            async def loader():
                return "value"

            await cache.get_or_load("k", loader, ttl=TTL, policy=LoadPolicy(jitter=0))
        case _:
            await {"get": get, "get_many": get_many}[how](cache)
    assert kept(cache, "k") is not None
    last = 0.0
    while loop.time() - sent_at < 2 * TTL:
        if kept(cache, "k") is not None:
            last = loop.time() - sent_at
            assert set(zones.values("k").values()) == {"value"}
        await pass_time(0.02)
    assert TTL - 2 * TICK - slow <= last <= TTL
