"""Zones that stall for a moment: reads continue elsewhere within milliseconds. Calls wait while every zone is ejected."""

import asyncio

import pytest

from evcache import CacheError, CircuitLimits, Hedging
from evcache.zones.errors import NodeSilent
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.memory_zones import QUICK, Listener, on_zones, pass_time
from tests.support.virtual_time import now

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
    second = next(pool.name for pool in cache._runtime.cluster.view.readers if pool.name != "a")  # noqa: SLF001
    zones.pause("a", second)
    first = await asyncio.gather(*(timed(cache.get("k")) for _ in range(CALLERS)))
    assert [result for _, result in first] == ["v"] * CALLERS
    assert max(took for took, _ in first) <= 2 * NOTICED
    assert await timed(cache.get("k")) == (0.0, "v")


@pytest.mark.parametrize("zone_names", ["a", "abc"], ids=["one zone", "three zones"])
@pytest.mark.parametrize("how", ["get", "get_many"])
@pytest.mark.parametrize("stall", [0.02, 0.09])
def test_a_stall_of_all_zones_that_is_shorter_than_the_deadline_fails_no_read(zone_names, how, stall):
    """A read that no other zone answers returns to the zone that stopped sending."""

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


@pytest.mark.parametrize("calls", [1, 500])
@on_zones()
async def test_a_burst_on_a_client_without_connections_is_served(zones, calls):
    """The calls hold the event loop for longer than a read may take, before the first connection is open."""
    writer = await zones.ready()
    await writer.set("k", "v", consistency="all")
    cache = zones.client(read_timeout=TIMEOUT)
    await cache.__aenter__()
    reads = [asyncio.create_task(cache.get("k")) for _ in range(calls)]
    await asyncio.sleep(0)
    asyncio.get_running_loop().advance(5 * TIMEOUT)
    assert await asyncio.gather(*reads) == ["v"] * calls
    assert cache.stats().nodes_down == 0


@pytest.mark.parametrize("connections", [1, 2, 4])
@on_zones()
async def test_reads_leave_all_connections_of_a_silent_node(zones, connections):
    cache = await filled(zones, connections=connections)
    for _ in range(2 * connections):  # so that each connection has measured its round trip
        await cache.get("k")
        await asyncio.sleep(0.05)
    zones.pause("a")
    first = await asyncio.gather(*(timed(cache.get("k")) for _ in range(4 * connections)))
    assert [result for _, result in first] == ["v"] * 4 * connections
    assert max(took for took, _ in first) <= 2.5 * NOTICED


@on_zones()
async def test_hedged_reads_leave_a_silent_zone_too(zones):
    cache = await filled(zones, hedging=Hedging())
    zones.pause("a")
    first = await asyncio.gather(*(timed(cache.get("k")) for _ in range(CALLERS)))
    assert [result for _, result in first] == ["v"] * CALLERS
    assert max(took for took, _ in first) <= NOTICED


@pytest.mark.parametrize(("names", "stall"), [("ab", 0.03), ("abc", 0.01)])
@pytest.mark.parametrize("how", ["get", "get_many"])
def test_a_zone_that_goes_on_alone_is_asked_again_while_there_is_time(names, stall, how):
    """It answers the reads that left it, and is not taken to be down for those that came back too late."""

    @on_zones(zones=len(names))
    async def scenario(zones):
        cache = await filled(zones)
        zones.pause(*names)
        reads = [
            asyncio.create_task(timed(cache.get_many(["k"]) if how == "get_many" else cache.get("k"))) for _ in range(4)
        ]
        await asyncio.sleep(stall)
        zones.resume("a")
        results = await asyncio.gather(*reads)
        assert [result for _, result in results] == [{"k": "v"} if how == "get_many" else "v"] * 4
        assert max(took for took, _ in results) < TIMEOUT
        await pass_time(0.2)
        assert all(node.failure is None for (zone, _), node in cache._runtime.cluster.nodes.items() if zone == "a")  # noqa: SLF001

    scenario()


@pytest.mark.parametrize("round_trip", [0.0005, 0.005, 0.02])
@pytest.mark.parametrize("names", ["a", "abc"])
def test_zones_that_go_on_stay_up_under_the_calls_that_waited(names, round_trip):
    """Some of them send their requests with less than a round trip left, and time out. That is not the server's fault."""

    @on_zones(zones=len(names))
    async def scenario(zones):
        zones.latency = round_trip
        cache = await filled(zones)
        reads = []

        async def offer():
            while True:
                reads.append(asyncio.create_task(timed(cache.get("k"))))
                await asyncio.sleep(0.001)

        offering = asyncio.create_task(offer())
        await asyncio.sleep(0.1)
        zones.pause(*names)
        await asyncio.sleep(1)
        zones.resume(*names)
        resumed = now()
        await asyncio.sleep(1)
        offering.cancel()
        await asyncio.gather(*reads)
        assert now() - resumed < 1.2
        outages = [len(node.outages) for node in cache._runtime.cluster.nodes.values()]  # noqa: SLF001
        assert outages == [1] * len(names)

    scenario()
