"""Calls of all operations with their results, to compare clients with and without telemetry."""

import asyncio

import pytest

from evcache import CacheUnavailable, LoadPolicy, WriteResult
from tests.support.memory_zones import MemoryZones, pass_time
from tests.support.sources import Source
from tests.support.virtual_time import settle


async def use(cache):
    """Make calls of each kind, some of which fail, and return their results."""
    source, failing = Source("loaded"), Source(error=LookupError("no"))
    calls = [
        lambda: cache.set("k", 1),
        lambda: cache.get("k"),
        lambda: cache.get("nothing"),
        lambda: cache.get_many(["k", "nothing"]),
        lambda: cache.set_many({"l": 2, "m": 3}),
        lambda: cache.get_and_touch("l", 50),
        lambda: cache.add("k", 1),
        lambda: cache.incr("n", initial=1),
        lambda: cache.touch("k", 60),
        lambda: cache.get_or_load("x", source.load),
        lambda: cache.get_or_load("x", source.load),
        lambda: cache.get_or_load("y", failing.load),
        lambda: cache.get_or_load_many(["x", "z"], source.load_many),
        lambda: cache.write_through("w", 1, source.write),
        lambda: cache.invalidate("w", stale_while_revalidate=5),
        lambda: cache.delete("k"),
        lambda: cache.delete_many(["l", "m"]),
        lambda: cache.get("k", timeout=-1),
        lambda: cache.get("bad key"),
        lambda: cache.get_many("k"),
    ]
    results = []
    for make in calls:
        try:
            result = await make()
        except Exception as error:
            result = repr(error)
        results.append(without_version(result))
    return results


async def without_telemetry():
    zones = MemoryZones(2)
    results = await use(await zones.ready(telemetry=None))
    await zones.close_clients()
    return results


def without_version(result):
    if isinstance(result, dict):
        return {name: without_version(one) for name, one in result.items()}
    return (result.met, result.zones) if isinstance(result, WriteResult) else result


async def go_through(zones, cache):
    """Make calls as `use` does, then cause a refresh, a repair, a delivery of a hint and an outage. Return the results."""
    results = [await use(cache)]
    policy = LoadPolicy(jitter=0)
    source = Source("old")
    await cache.get_or_load("due", source.load, ttl=100, policy=policy)
    await pass_time(81)
    source.value = "new"
    results.append(await cache.get_or_load("due", source.load, ttl=100, policy=policy))
    await pass_time()
    results.append(await cache.get_or_load("due", source.load, ttl=100, policy=policy))
    await cache.set("k", 1, consistency="all")
    zones.evict("k", "a")
    results.append(await cache.get("k"))
    await pass_time()
    results.append(zones.values("k"))
    await zones.kill("b")
    await cache.set("k", 2, consistency="one")
    zones.restart("b")
    await pass_time(20)
    results.append(zones.values("k"))
    await zones.kill("a", "b")
    results.append(await cache.get("k", "default", errors="miss"))
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    reading = asyncio.ensure_future(cache.get_or_load("slow", Source(seconds=60).load))
    await settle()
    reading.cancel()
    results.append(type((await asyncio.gather(reading, return_exceptions=True))[0]))
    return results


EXPECTED = ["old", "new", 1, {"a": 1, "b": 1}, {"a": 2, "b": 2}, "default", asyncio.CancelledError]
