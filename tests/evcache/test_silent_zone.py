"""Zones that stand still for a moment: reads move on within milliseconds, and calls try while every zone is out."""

import asyncio

import pytest

from evcache import CacheError, CircuitLimits
from tests.evcache.memory_zones import QUICK, Listener, on_zones, pass_time
from tests.virtual_time import now
from zones.errors import NodeSilent
from zones.limits import ConnectionLimits

NOTICED = ConnectionLimits().patience + 0.002
TIMEOUT = 0.1
CALLERS = 8


async def timed(call):
    """Return the seconds that a call took, and its result or error."""
    began = now()
    try:
        result = await call
    except CacheError as error:
        result = error
    return now() - began, result


async def filled(zones, **options):
    cache = await zones.ready(read_timeout=TIMEOUT, **options)
    await cache.set("k", "v", consistency="all")
    assert await cache.get("k") == "v"
    return cache


@pytest.mark.parametrize("how", ["get", "get_many"])
@on_zones()
async def test_no_read_waits_for_a_local_zone_that_stands_still(zones, how):
    """Those that wait move on together, later ones ask another zone at once, and the zone is back with its first byte."""
    listener = Listener()
    cache = await filled(zones, hooks=listener)
    reads = {"get": lambda: cache.get("k"), "get_many": lambda: cache.get_many(["k"])}
    value = {"get": "v", "get_many": {"k": "v"}}[how]
    zones.pause("a")
    first = await asyncio.gather(*(timed(reads[how]()) for _ in range(CALLERS)))
    assert [result for _, result in first] == [value] * CALLERS
    assert max(took for took, _ in first) <= NOTICED
    assert {type(error) for zone, error in listener.left if zone == "a"} == {NodeSilent}
    later = [await timed(reads[how]()) for _ in range(CALLERS)]
    assert later == [(0.0, value)] * CALLERS
    asked = zones.one("a").commands.total()
    zones.resume("a")
    await pass_time(0.01)
    listener.left.clear()
    assert await reads[how]() == value
    assert not listener.left
    assert zones.one("a").commands.total() > asked


@on_zones()
async def test_two_silent_zones_cost_twice_the_patience(zones):
    cache = await filled(zones)
    second = next(pool.name for pool in cache._cluster.view.readers if pool.name != "a")  # noqa: SLF001
    zones.pause("a", second)
    first = await asyncio.gather(*(timed(cache.get("k")) for _ in range(CALLERS)))
    assert [result for _, result in first] == ["v"] * CALLERS
    assert max(took for took, _ in first) <= 2 * NOTICED
    assert await timed(cache.get("k")) == (0.0, "v")


@pytest.mark.parametrize("zone_names", ["a", "abc"], ids=["one zone", "three zones"])
@pytest.mark.parametrize("how", ["get", "get_many"])
@pytest.mark.parametrize("stall", [0.02, 0.09])
def test_a_stall_of_all_zones_that_is_shorter_than_the_deadline_fails_no_read(zone_names, how, stall):
    """A read that no other zone answers goes back to the zone that fell silent."""

    @on_zones(zones=len(zone_names))
    async def scenario(zones):
        cache = await filled(zones)
        zones.pause(*zone_names)
        reads = [asyncio.create_task(cache.get_many(["k"]) if how == "get_many" else cache.get("k")) for _ in range(CALLERS)]
        await asyncio.sleep(stall)
        zones.resume(*zone_names)
        results = await asyncio.gather(*reads)
        assert results == [{"k": "v"} if how == "get_many" else "v"] * CALLERS

    scenario()


@pytest.mark.parametrize("names", ["a", "abc"], ids=["one zone", "three zones"])
@pytest.mark.parametrize("how", ["get", "get_many", "set", "incr"])
def test_calls_wait_for_zones_that_stand_still_while_every_zone_is_out(names, how):
    """All circuits are open. A call that begins within its deadline of the end of the stall is carried out."""

    @on_zones(zones=len(names))
    async def scenario(zones):
        cache = await filled(zones, write_timeout=TIMEOUT, hints=None)
        await cache.incr("n", initial=1, consistency="all")
        zones.pause(*names)
        for _ in range(5):
            await asyncio.gather(*(timed(cache.get("k")) for _ in range(CALLERS)))
        assert cache.stats().nodes_down == len(names)
        calls = {
            "get": lambda: cache.get("k"),
            "get_many": lambda: cache.get_many(["k"]),
            "set": lambda: cache.set("k", "v", consistency="one"),
            "incr": lambda: cache.incr("n", consistency="one"),
        }
        early = asyncio.create_task(timed(calls[how]()))
        await asyncio.sleep(1.5 * TIMEOUT)
        assert early.done()
        took, result = early.result()
        assert took == pytest.approx(TIMEOUT, abs=0.01)
        assert isinstance(result, CacheError) or not result
        call = asyncio.create_task(timed(calls[how]()))
        await asyncio.sleep(TIMEOUT / 2)
        zones.resume(*names)
        took, result = await call
        assert took == pytest.approx(TIMEOUT / 2, abs=0.005)
        assert result and not isinstance(result, CacheError)
        assert cache.stats().nodes_down == 0

    scenario()


@on_zones()
async def test_calls_fail_at_once_while_every_zone_refuses_connections(zones):
    """There is no server that could go on: to wait would only make the outage slower."""
    cache = await filled(zones)
    await zones.kill("a", "b", "c")
    await timed(cache.get("k"))
    for call in (cache.get("k"), cache.get_many(["k"])):
        took, error = await timed(call)
        assert took == 0.0
        assert isinstance(error, CacheError)


@on_zones()
async def test_calls_that_wait_for_a_silent_zone_cost_it_one_probe(zones):
    """A hundred callers wait. The server finds one probe when it goes on, and then their requests."""
    cache = await filled(zones, circuit=CircuitLimits(slow_start=0))
    zones.pause("a", "b", "c")
    await asyncio.gather(*(timed(cache.get("k")) for _ in range(CALLERS)))
    await pass_time(0.2)
    before = zones.one("a").commands["mg"]
    waiting = [asyncio.create_task(timed(cache.get("k"))) for _ in range(100)]
    await asyncio.sleep(TIMEOUT / 2)
    for task in waiting[:50]:
        task.cancel()
    zones.resume("a", "b", "c")
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all(task.result()[1] == "v" for task in waiting[50:])
    assert zones.one("a").commands["mg"] - before <= 2 * CALLERS + 50


@on_zones()
async def test_a_read_gets_back_the_time_for_which_this_process_stood_still(zones):
    """As if the process had not had the processor: the zones are well, and no read fails."""
    cache = await filled(zones, circuit=QUICK)
    loop = asyncio.get_running_loop()
    for _ in range(5):
        reads = [asyncio.create_task(cache.get("k")) for _ in range(CALLERS)]
        await asyncio.sleep(0)
        loop.advance(2 * TIMEOUT)
        assert await asyncio.gather(*reads) == ["v"] * CALLERS
        await asyncio.sleep(0.02)
    assert cache.stats().nodes_down == 0
