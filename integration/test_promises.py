"""On real servers whose clocks tick apart: what outlives its time, what decisions are made on, and what counters come to."""

import asyncio
import time
from contextlib import AsyncExitStack, ExitStack

import pytest

from evcache import EVCache, LoadPolicy
from evcache.replication.hlc import MAX_CAS
from evcache.zones.routing.zone_order import coordinator_order
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from integration.conftest import LEAST_VERSION
from integration.patience import PATIENT
from integration.raw import item

NAMES = ("a", "b", "c")
TICKS_APART_SECONDS = 0.35  # a server counts seconds from its start
TTL = 3
TICK_SECONDS = 1.0  # what a server may add: it counts whole seconds


@pytest.fixture(scope="module")
def ticking_zones(servers):
    """Addresses of three zones of one node that were started one after the other."""
    with ExitStack() as stack:
        addresses = {}
        for name in NAMES:
            running = stack.enter_context(servers.best.local_zones({name: 1}).running())
            if tuple(map(int, running.version.split("."))) < LEAST_VERSION:
                pytest.skip(f"memcached {running.version} keeps no versions")
            addresses[name] = running.zones[name]
            time.sleep(TICKS_APART_SECONDS)
        yield addresses


COPIED_SECONDS = 5.0


def held(zones, namespace, key):
    """The bytes that each zone holds."""
    found = {name: item(nodes[0], f"{namespace}:{key}") for name, nodes in zones.items()}
    return {name: None if one is None else one[0] for name, one in found.items()}


async def until_held(zones, namespace, key, data):
    """Wait until every zone holds these bytes; fail if that takes longer than copies may."""
    async with asyncio.timeout(COPIED_SECONDS):
        while held(zones, namespace, key) != dict.fromkeys(NAMES, data):
            await asyncio.sleep(0.01)


async def clients(stack, zones, namespace, **options):
    made = {}
    for name in NAMES:
        cache = EVCache(namespace, zones, local_zone=name, **{**PATIENT, **options})
        made[name] = await stack.enter_async_context(cache)
    return made


def test_nothing_outlives_its_time_however_it_is_read(ticking_zones, namespace):
    """Values, tombstones and absences, read in every zone, in each way, while zones are compared after every read."""

    async def main():
        last = {}
        async with AsyncExitStack() as stack:
            caches = await clients(stack, ticking_zones, namespace, read_repair_chance=1.0, tombstone_ttl=TTL)
            for key in ("get", "get_many", "all", "for_update", "deleted"):
                assert await caches["a"].set(key, "value", ttl=TTL, consistency="all")
            await asyncio.sleep(0.01)
            assert await caches["b"].delete("deleted", consistency="all")

            async def loads_nothing():
                return None

            policy = LoadPolicy(negative_ttl=TTL, jitter=0)
            await caches["a"].get_or_load("absent", loads_nothing, policy=policy)
            began = time.monotonic()

            async def read(name, cache):
                while time.monotonic() - began < 3 * TTL:
                    reads = {
                        "get": lambda: cache.get("get"),
                        "get_many": lambda: cache.get_many(["get_many"]),
                        "all": lambda: cache.get("all", consistency="all"),
                        "for_update": lambda: cache.get_item("for_update", for_update=True),
                    }
                    for how, make in reads.items():
                        asked_at = time.monotonic() - began
                        if await make():
                            last[name, how] = asked_at
                    await cache.get("deleted")
                    await cache.get("absent")
                    for key in ("deleted", "absent"):
                        asked_at = time.monotonic() - began
                        if any(value is not None for value in held(ticking_zones, namespace, key).values()):
                            last["zones", key] = asked_at
                    await asyncio.sleep(0.05)

            await asyncio.gather(*(read(name, cache) for name, cache in caches.items()))
        assert len(last) == 4 * 3 + 2
        assert max(last.values()) <= TTL + TICK_SECONDS, last
        assert all(
            held(ticking_zones, namespace, key) == dict.fromkeys(NAMES) for key in ("get", "all", "deleted", "absent")
        )

    asyncio.run(main())


@pytest.mark.parametrize("operation", ["add", "replace", "cas", "append", "incr"])
def test_a_zone_that_missed_the_last_write_does_not_decide_without_it(ticking_zones, namespace, operation):
    """The request to the deciding zone got lost. Only the writing client knows of the write, and it keeps no hint."""
    key = next(f"k{n}" for n in range(100) if coordinator_order(f"{namespace}:k{n}".encode(), NAMES)[0] == "a")
    old, new = (1, 100) if operation == "incr" else ("old", "new")

    async def main():
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(FaultProxy(ticking_zones["a"][0]))
            through = {**ticking_zones, "a": [proxy.address]}
            writer = await stack.enter_async_context(EVCache(namespace, through, local_zone="b", hints=None, **PATIENT))
            await writer.set(key, old, consistency="all")
            proxy.cut_requests_after(0)
            written = await writer.set(key, new)
            assert written
            assert held(ticking_zones, namespace, key)["a"] != held(ticking_zones, namespace, key)["b"]
            other = await stack.enter_async_context(EVCache(namespace, ticking_zones, local_zone="a", **PATIENT))
            match operation:
                case "add":
                    assert not await other.add(key, "x")
                    expected = "new"
                case "replace":
                    assert await other.replace(key, "x", consistency="all")
                    expected = "x"
                case "cas":
                    assert await other.cas(key, "x", written.version, consistency="all")
                    expected = "x"
                case "append":
                    assert await other.append(key, "+x", consistency="all")
                    expected = "new+x"
                case "incr":
                    assert await other.incr(key, consistency="all") == 101
                    expected = 101
            assert await other.get(key) == expected

    asyncio.run(main())


def test_counters_end_equal_though_copies_are_late(ticking_zones, namespace):
    """Three clients, each far from another zone, count the same keys. Then numbers lose digits, and a delete stays."""

    async def main():
        async with AsyncExitStack() as stack:
            caches = []
            for slow in NAMES:
                proxies = {
                    name: await stack.enter_async_context(FaultProxy(nodes[0])) for name, nodes in ticking_zones.items()
                }
                proxies[slow].delay_requests = 0.01
                addresses = {name: [proxy.address] for name, proxy in proxies.items()}
                caches.append(await stack.enter_async_context(EVCache(namespace, addresses, local_zone="a", **PATIENT)))
            keys = [f"n{number}" for number in range(3)]
            for key in keys:
                await caches[0].set(key, 0, consistency="all")

            async def count(cache, key):
                return [await cache.incr(key) for _ in range(40)]

            for key in keys:
                counted = await asyncio.gather(*(count(cache, key) for cache in caches))
                assert sorted(sum(counted, [])) == list(range(1, 121))
                assert await caches[1].get(key, consistency="all") == 120
                assert await caches[2].get(key, consistency="quorum") == 120
            for key in keys:
                await until_held(ticking_zones, namespace, key, b"120")
                assert await caches[0].decr(key, 21, consistency="all") == 99
                assert held(ticking_zones, namespace, key) == dict.fromkeys(NAMES, b"99")
                assert await caches[0].incr(key, consistency="all") == 100
                await caches[1].delete(key, consistency="all")
            for key in keys:
                await until_held(ticking_zones, namespace, key, b"")
                assert await caches[2].get(key, consistency="all") is None

    asyncio.run(main())


def test_a_counter_that_is_being_read_keeps_its_versions(ticking_zones, namespace):
    """memcached makes a new item of a number that it is sending to another connection, and chooses the CAS itself."""

    async def main():
        async with AsyncExitStack() as stack:
            caches = await clients(stack, ticking_zones, namespace)
            await caches["a"].set("n", 10**6, consistency="all")
            reading = True

            async def read(cache):
                while reading:
                    await asyncio.gather(*(cache.get("n") for _ in range(50)))

            readers = [asyncio.create_task(read(cache)) for cache in caches.values()]
            try:
                for _ in range(500):
                    await caches["b"].incr("n", consistency="all")
            finally:
                reading = False
                await asyncio.gather(*readers)
            assert held(ticking_zones, namespace, "n") == dict.fromkeys(NAMES, b"%d" % (10**6 + 500))
            versions = {MAX_CAS - item(nodes[0], f"{namespace}:n")[2] for nodes in ticking_zones.values()}
            assert len(versions) == 1

    asyncio.run(main())
