"""Failover of reads: the budget, the shares of the time, silent zones, and nodes that have recovered."""

import asyncio

import pytest

from evcache import CacheUnavailable, CircuitLimits, Failover
from evcache.errors import FailoverDenied
from evcache.zones.errors import NodeUnavailable
from evcache.zones.health.slow_start import SlowStart
from tests.support.memory_zones import PATIENT, QUICK, Listener, Stopwatch, cut_off, full, on_zones, pass_time
from tests.support.read_calls import reads

NOTHING = Failover(ratio=0, burst=0)
JUST_ENOUGH = Failover(ratio=1, burst=0)


def mg(zones, zone):
    """Return the number of reads that reached a zone since `forget`."""
    return zones.commands(zone).get("mg", 0)


# The failover budget.


@reads
@on_zones()
async def test_without_a_budget_no_remote_zone_is_asked(zones, read):
    """The local zone is read. If it fails, the hook reports the refusal, and the failures name it."""
    listener = Listener()
    cache = await zones.ready(hooks=listener, failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    assert await read(cache, "k") == "value"
    assert listener.denied == []
    await zones.kill("a")
    zones.forget()
    with pytest.raises(CacheUnavailable) as caught:
        await read(cache, "k")
    assert (mg(zones, "b"), mg(zones, "c")) == (0, 0)
    assert isinstance(caught.value.failures["a"], NodeUnavailable)
    assert {type(caught.value.failures[zone]) for zone in "bc"} == {FailoverDenied}
    assert "budget" in str(caught.value)
    assert len(listener.denied) == 1  # once for each read
    assert await read(cache, "k", errors="miss") is None
    stats = cache.stats()
    assert (stats.failovers, stats.failovers_denied) == (0, 2)


@reads
@on_zones()
async def test_without_a_budget_a_miss_of_the_local_zone_is_a_miss(zones, read):
    """One answer is enough."""
    cache = await zones.ready(failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    assert await read(cache, "k") is None


@reads
@on_zones()
async def test_a_budget_of_one_request_per_read_serves_every_read(zones, read):
    """The local zone is dead, and the next one serves each read. No tokens are saved."""
    cache = await zones.ready(failover=JUST_ENOUGH)
    await cache.set("k", "value", consistency="all")
    await zones.kill("a")
    for _ in range(300):
        assert await read(cache, "k") == "value"
    stats = cache.stats()
    assert (stats.failovers, stats.failovers_denied) == (300, 0)


@reads
@on_zones()
async def test_with_two_zones_dead_the_third_serves_every_read(zones, read):
    """A zone that is known to be down costs the budget nothing."""
    cache = await zones.ready(failover=JUST_ENOUGH)
    await cache.set("k", "value", consistency="all")
    assert cache.stats().failovers == 0
    second = [pool.name for pool in cache._runtime.cluster.view.readers][1]
    await cut_off(zones, cache, "a", second)
    for _ in range(100):
        assert await read(cache, "k") == "value"
    assert cache.stats().failovers_denied == 0


@reads
@on_zones(nodes=4)
async def test_a_node_that_is_down_costs_the_budget_nothing(zones, read):
    """The node of the key is down in the first two zones, and neither zone is ejected. The third zone serves the key."""
    cache = await zones.ready(failover=JUST_ENOUGH)
    await cache.set("k", "value", consistency="all")
    for pool in cache._runtime.cluster.view.readers[:2]:
        (holder,) = [fake for fake in zones.servers[pool.name] if fake.store.get(full("k")) is not None]
        await holder.kill()
    await cache.set("k", "value", errors="miss")  # the client finds out
    await pass_time()
    assert cache.stats().zones_out == ()
    assert cache.stats().nodes_down == 2
    await cache.get_many([])
    for _ in range(20):
        assert await read(cache, "k") == "value"
    assert cache.stats().failovers_denied == 0


@reads
@on_zones()
async def test_misses_do_not_double_the_load_of_a_zone(zones, read):
    """The local zone is dead, and the second one misses. Requests to the third zone are spare ones."""
    cache = await zones.ready(failover=Failover(ratio=1, burst=40))
    await zones.kill("a")
    await read(cache, "k")
    zones.forget()
    for _ in range(500):
        assert await read(cache, "k") is None
    second, third = sorted((mg(zones, "b"), mg(zones, "c")), reverse=True)
    assert second == 500
    assert third <= 40


@reads
@on_zones()
async def test_a_ratio_below_1_serves_its_share_of_the_reads(zones, read):
    """The other reads fail, and remote zones get no further requests."""
    cache = await zones.ready(failover=Failover(ratio=0.25, burst=10))
    await cache.set("k", "value", consistency="all")
    await zones.kill("a")
    zones.forget()
    served = 0
    for _ in range(400):
        served += await read(cache, "k", errors="miss") == "value"
    assert 100 <= served <= 111
    assert mg(zones, "b") + mg(zones, "c") == served


@on_zones()
async def test_a_bulk_read_serves_as_many_keys_as_the_budget_allows(zones):
    """The error of the call says that the other keys were not asked for."""
    cache = await zones.ready(failover=Failover(ratio=0, burst=7))
    values = {f"k{number}": number for number in range(20)}
    await cache.set_many(values, consistency="all")
    await zones.kill("a")
    with pytest.raises(CacheUnavailable) as caught:
        await cache.get_many(list(values))
    assert 4 <= len(caught.value.found) <= 7
    assert caught.value.found.items() <= values.items()


@on_zones()
async def test_without_a_local_zone_the_preferred_zone_costs_nothing(zones):
    cache = await zones.ready(local_zone=None, failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    for _ in range(10):
        assert await cache.get("k") == "value"
    assert cache.stats().failovers_denied == 0


@on_zones()
async def test_reads_at_quorum_cost_the_budget_nothing(zones):
    """They ask every zone in any case. The budget limits requests that a failure causes."""
    cache = await zones.ready(failover=NOTHING)
    await cache.set("k", "value", consistency="all")
    await zones.kill("a")
    assert await cache.get("k", consistency="quorum") == "value"
    assert await cache.get_many(["k"], consistency="quorum") == {"k": "value"}


# The share of the time.


@reads
@on_zones()
async def test_a_zone_that_is_down_gets_no_share_of_the_time(zones, read):
    """The first zone hangs for its third. The second may answer until the deadline, because the third is known to be down."""
    cache = await zones.ready(circuit=PATIENT, hints=None)
    await cache.set("k", "value", consistency="all")
    _, second, third = (pool.name for pool in cache._runtime.cluster.view.readers)
    await zones.kill(third)
    assert not await cache.set("k", "value", consistency="all")  # the client notices
    await pass_time()
    zones.pause("a", second)
    asyncio.get_running_loop().call_later(0.25, zones.resume, second)
    watch = Stopwatch()
    assert await read(cache, "k", timeout=0.3) == "value"
    assert watch.seconds == pytest.approx(0.25)


@reads
@pytest.mark.parametrize("index", [0, 1, 2])
@on_zones()
async def test_a_silent_zone_is_asked_again_at_the_end(zones, read, index):
    """All zones become silent, and one of them resumes before the deadline. Reads leave a zone only if several wait on it."""
    cache = await zones.ready(circuit=PATIENT)
    await cache.set("k", "value", consistency="all")
    resumed = [pool.name for pool in cache._runtime.cluster.view.readers][index]
    zones.pause("a", "b", "c")
    calls = [asyncio.create_task(read(cache, "k", timeout=0.1)) for _ in range(8)]
    await asyncio.sleep(0.03)
    zones.resume(resumed)
    assert await asyncio.gather(*calls) == ["value"] * 8


# Ejected zones, and zones that have recovered.


class Draws:
    """Replaces the random draws of slow start."""

    def __init__(self, monkeypatch, value):
        self.value = value
        original = SlowStart.__init__
        monkeypatch.setattr(SlowStart, "__init__", lambda slow_start: original(slow_start, lambda: self.value))


@reads
@on_zones()
async def test_an_ejected_zone_is_read_last(zones, read):
    """Its nodes are not asked. When they have recovered, it is first again."""
    cache = await zones.ready(circuit=QUICK)
    await cache.set("k", "value", consistency="all")
    await cut_off(zones, cache, "a")
    assert cache.stats().zones_out == ("a",)
    zones.forget()
    assert await read(cache, "k") == "value"
    assert mg(zones, "a") == 0
    zones.resume("a")
    await pass_time(5)
    assert cache.stats().zones_out == ()
    zones.forget()
    assert await read(cache, "k") == "value"
    assert (mg(zones, "a"), mg(zones, "b"), mg(zones, "c")) == (1, 0, 0)


async def recovered(zones, **options):
    """Return a client whose local zone was cut off and has recovered. It warms up for 60 s."""
    cache = await zones.ready(circuit=CircuitLimits(longest_pause=1.0, slow_start=60.0), hints=None, repair=False, **options)
    await cache.set_many({f"k{number}": number for number in range(10)}, ttl=10_000, consistency="all")
    await cut_off(zones, cache, "a")
    zones.resume("a")
    await pass_time(5)
    assert cache.stats().nodes_down == 0
    zones.forget()
    return cache


@reads
@on_zones()
async def test_a_zone_that_recovered_gets_a_tenth_of_the_reads(zones, read, monkeypatch):
    """The next zone serves the others. The warming zone is asked for them only after a miss."""
    listener = Listener()
    draws = Draws(monkeypatch, 0.2)
    cache = await recovered(zones, hooks=listener)
    for number in range(10):
        assert await read(cache, f"k{number}") == number
    assert mg(zones, "a") == 0
    assert {zone for zone, _ in listener.left[-10:]} == {"a"}
    draws.value = 0.05
    assert await read(cache, "k0") == 0
    assert mg(zones, "a") == 1


@on_zones()
async def test_a_warming_zone_is_asked_last_and_not_never(zones, monkeypatch):
    Draws(monkeypatch, 0.99)
    cache = await recovered(zones)
    zones.evict("k1", "b", "c")
    assert await cache.get("k1") == 1
    assert await cache.get_many(["k1"]) == {"k1": 1}
    await zones.kill("b", "c")
    assert await cache.get("k2") == 2
    assert await cache.get_many(["k2"]) == {"k2": 2}


@reads
@on_zones()
async def test_the_share_of_a_warming_zone_grows_with_its_hits(zones, read, monkeypatch):
    """It is warm after about fifty hits, and gets every read then."""
    draws = Draws(monkeypatch, 0.05)
    cache = await recovered(zones)
    for _ in range(60):
        assert await read(cache, "k1") == 1
    draws.value = 0.999999
    zones.forget()
    assert await read(cache, "k2") == 2
    assert (mg(zones, "a"), mg(zones, "b"), mg(zones, "c")) == (1, 0, 0)


@reads
@on_zones()
async def test_misses_keep_a_warming_zone_at_a_tenth_until_slow_start_ends(zones, read, monkeypatch):
    """A node that recovered without data gets a tenth of the reads for a minute."""
    draws = Draws(monkeypatch, 0.05)
    cache = await recovered(zones)
    for _ in range(100):
        assert await read(cache, "nothing") is None
    draws.value = 0.2
    zones.forget()
    assert await read(cache, "k1") == 1
    assert mg(zones, "a") == 0
    await pass_time(60)
    assert await read(cache, "k1") == 1
    assert mg(zones, "a") == 1


@on_zones()
async def test_a_warming_zone_gets_every_write(zones, monkeypatch):
    """Writes fill a node that recovered without data."""
    Draws(monkeypatch, 0.99)
    cache = await recovered(zones)
    assert await cache.set("k", "value", consistency="all")
    assert zones.held("k", "a").value == "value"
