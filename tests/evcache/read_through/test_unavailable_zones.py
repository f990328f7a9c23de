"""Loads while zones are down, stall or are unknown: the loader is called, within the limit of concurrent loads."""

import asyncio

import pytest

from evcache import LocalZone, NearCache, UsageError
from evcache.errors import CacheUnavailable
from evcache.zones import Endpoint, Topology, Zone
from evcache.zones.errors import InvalidTopology
from tests.support.memory_zones import PATIENT, QUICK, Stopwatch, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import (
    LoadListener,
    Source,
    assert_nothing_left,
    no_stubs,
    on_releases,
    seen,
)

# The cache.


@on_zones()
async def test_without_zones_each_call_loads(zones):
    """One loader for a key at a time, all the same."""
    cache, source = await zones.ready(), Source(seconds=0.1)
    await zones.kill("a", "b", "c")
    assert await asyncio.gather(*(cache.get_or_load("k", source.load) for _ in range(100))) == ["v"] * 100
    assert source.calls == 1
    assert await cache.get_or_load("k", source.load) == "v"
    assert source.calls == 2
    assert await cache.get_or_load("none", Source(None).load) is None


@pytest.mark.parametrize("how", ["dead", "hanging"])
@on_zones()
async def test_without_zones_no_more_than_so_many_load_at_once(zones, how):
    """A thousand callers ask for a thousand keys. All callers are served."""
    listener = LoadListener()
    cache, source = await zones.ready(max_loads=32, hooks=listener), Source(seconds=0.1)
    if how == "dead":
        await zones.kill("a", "b", "c")
    else:
        zones.pause("a", "b", "c")
    watch = Stopwatch()
    calls = [cache.get_or_load(f"k{number}", source.load, timeout=60) for number in range(1000)]
    assert await asyncio.gather(*calls) == ["v"] * 1000
    assert (source.calls, source.most) == (1000, 32)
    assert listener.misses
    assert watch.seconds <= 1000 / 32 * 0.1 + 5
    await pass_time(1)
    stats = cache.stats().loads
    assert (stats.running, stats.waiting) == (0, 0)


@on_zones()
async def test_zones_that_hang_cost_what_a_read_may_a_few_times(zones):
    """For the read, for the lease, and for storing what was loaded: each as long as a read may take, and no longer."""
    cache, source = await zones.ready(circuit=PATIENT, read_timeout=0.3, write_timeout=0.4), Source()
    zones.pause("a", "b", "c")
    watch = Stopwatch()
    assert await cache.get_or_load("k", source.load) == "v"
    assert watch.seconds <= 3 * 0.3 + 0.001
    assert source.calls == 1
    zones.resume("a", "b", "c")


@on_zones()
async def test_when_the_zones_are_back_all_is_as_ever(zones):
    cache, source = await zones.ready(circuit=QUICK), Source()
    await zones.kill("a", "b", "c")
    await cache.get_or_load("k", source.load)
    zones.restart("a", "b", "c")
    await pass_time(5)
    calls = source.calls
    for _ in range(3):
        assert await cache.get_or_load("k2", source.load) == "v"
    assert source.calls == calls + 1
    assert seen(zones, "k2") == dict.fromkeys("abc", "v")
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones()
async def test_the_near_cache_keeps_it_for_a_moment_when_no_zone_can(zones):
    """The process does not load the same key on each call. The copy lives for at most two seconds, whatever its own TTL."""
    cache, source = await zones.ready(near_cache=NearCache(ttl=300)), Source([1])
    follow_loop(cache)
    await zones.kill("a", "b", "c")
    for _ in range(5):
        assert await cache.get_or_load("k", source.load) == [1]
        await pass_time(0.3)
    assert source.calls == 1
    await pass_time(0.6)
    assert await cache.get_or_load("k", source.load) == [1]
    assert source.calls == 2


class Lost:
    """A discovery that finds nothing."""

    def __init__(self, error=None):
        self.error = error
        self.asked = 0

    async def load(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        await asyncio.sleep(1000)

    async def watch(self):
        await asyncio.sleep(1000)
        yield


@pytest.mark.parametrize(
    "error", [None, OSError("no route"), RuntimeError("broken")], ids=["hangs", "OSError", "RuntimeError"]
)
@on_zones()
async def test_zones_that_are_not_known_are_no_reason_not_to_load(zones, error):
    """It costs the time that reads have; the near cache serves for a moment."""
    listener = LoadListener()
    cache = zones.client(zones=Lost(error), near_cache=NearCache(), hooks=listener)
    follow_loop(cache)
    source = Source([1])
    watch = Stopwatch()
    assert await cache.get_or_load("k", source.load) == [1]
    assert watch.seconds == (0.1 if error is None else 0)
    assert len(listener.misses) == 1
    assert isinstance(listener.misses[0], CacheUnavailable)
    assert await cache.get_or_load("k", source.load) == [1]
    assert await cache.get_or_load_many(["k"], source.load_many) == {"k": [1]}
    assert source.calls == 1
    await pass_time(3)
    assert await cache.get_or_load_many(["k"], source.load_many) == {"k": [1]}
    assert source.calls == 2
    await cache.close()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda zones: zones.client(zones=Lost(InvalidTopology("zones", "none are configured"))), InvalidTopology),
        (
            lambda zones: zones.client(
                zones=Found(Topology((Zone("x", (Endpoint.parse("x:1"),)),))), local_zone=LocalZone("a", strict=True)
            ),
            InvalidTopology,
        ),
    ],
    ids=["none", "another local zone"],
)
@on_zones()
async def test_zones_that_are_configured_wrongly_are_told(zones, make, error):
    """No cache will ever come of them."""
    cache, source = make(zones), Source()
    with pytest.raises(error):
        await cache.get_or_load("k", source.load)
    assert source.calls == 0
    await cache.close()


class Found(Lost):
    def __init__(self, topology):
        super().__init__()
        self.topology = topology

    async def load(self):
        return self.topology


@on_zones()
async def test_a_client_that_is_closed_says_so(zones):
    cache, source = await zones.ready(), Source()
    await cache.close()
    for call in (cache.get_or_load("k", source.load), cache.get_or_load_many(["k"], source.load_many)):
        with pytest.raises(UsageError):
            await call
    assert source.calls == 0


@on_releases("1.6.38", "1.6.18", zones=2)
async def test_a_lease_that_could_not_be_asked_for_is_done_without(zones):
    """The local zone hangs: the read falls back to the next one, and the load is not kept from being stored there."""
    cache, source = await zones.ready(circuit=PATIENT, read_timeout=0.2), Source()
    zones.pause("a")
    assert await cache.get_or_load("k", source.load) == "v"
    await pass_time(1)
    assert seen(zones, "k")["b"] == "v"
    zones.resume("a")
    await pass_time(1)
    assert seen(zones, "k")["a"] == "v"
    assert await cache.get_or_load("k", source.load) == "v"
    assert source.calls == 1
