"""A node that is back gets its reads little by little; the health counts it until it has all of them."""

import asyncio

import pytest

from evcache.zones.errors import NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.health.node_health import MAX_OUTAGES
from tests.support.node_bench import Bench
from tests.support.virtual_time import in_virtual_time, settle

WARM_READS = 45  # hits that make a node warm which begins with nothing


async def returned(bench):
    """The node goes down, and comes back."""
    bench.refuse()
    if bench.node.connection() is not None:
        bench.dialer.made[-1].abort()
        await settle(40)
    with pytest.raises(NodeUnavailable):
        await bench.connected()
    bench.accept()
    while bench.node.is_down:
        await asyncio.sleep(0.01)
    return bench


def warming(bench):
    return bench.node.is_warming, bench.health.unhealthy


def timers_of(bench, name):
    """Timers of the loop that will call something of that name."""
    return [timer for timer in bench.loop._scheduled if not timer.cancelled() and name in repr(timer)]  # noqa: SLF001


@in_virtual_time
async def test_a_node_that_was_never_down_has_all_of_its_reads():
    async with Bench() as bench:
        assert all(bench.node.admits_read() for _ in range(100))
        await bench.connected()
        assert all(bench.node.admits_read() for _ in range(100))
        bench.node.record_read(hit=False)
        assert warming(bench) == (False, 0)
        assert bench.node.outages == []


@in_virtual_time
async def test_a_node_that_is_back_gets_a_share_until_it_is_warm():
    async with Bench() as bench:
        await returned(bench)
        assert warming(bench) == (True, 1)
        admitted = sum(bench.node.admits_read() for _ in range(2_000))
        assert 100 < admitted < 320  # a tenth
        for _ in range(WARM_READS - 1):
            bench.node.record_read(hit=True)
        assert warming(bench) == (True, 1)
        bench.node.record_read(hit=True)
        assert warming(bench) == (False, 0)
        assert all(bench.node.admits_read() for _ in range(100))
        assert timers_of(bench, "_end_slow_start") == []
        bench.node.record_read(hit=False)  # an answer that was on its way
        assert warming(bench) == (False, 0)


@pytest.mark.parametrize("seconds", [5.0, 60.0])
@in_virtual_time
async def test_a_node_that_stays_cold_has_all_of_its_reads_after_a_while(seconds):
    async with Bench(circuit=CircuitLimits(slow_start=seconds)) as bench:
        await returned(bench)
        for _ in range(100):
            bench.node.record_read(hit=False)
        await asyncio.sleep(0.9 * seconds)
        assert warming(bench) == (True, 1)
        await asyncio.sleep(0.2 * seconds)
        assert warming(bench) == (False, 0)


@in_virtual_time
async def test_without_a_slow_start_it_has_all_of_its_reads_at_once():
    async with Bench(circuit=CircuitLimits(slow_start=0)) as bench:
        await returned(bench)
        assert warming(bench) == (False, 0)
        assert all(bench.node.admits_read() for _ in range(100))
        assert timers_of(bench, "_end_slow_start") == []


@in_virtual_time
async def test_the_end_of_a_slow_start_is_no_change_of_the_node():
    async with Bench(circuit=CircuitLimits(slow_start=5)) as bench:
        await returned(bench)
        changes = list(bench.changes)
        await asyncio.sleep(60)
        assert bench.changes == changes
        assert len(changes) == 2


@in_virtual_time
async def test_a_node_that_goes_down_again_while_it_warms_up_begins_anew():
    """With one timer, and counted once."""
    async with Bench(circuit=CircuitLimits(slow_start=60)) as bench:
        for outages in (1, 2, 3):
            await returned(bench)
            for _ in range(30):
                bench.node.record_read(hit=True)
            assert warming(bench) == (True, 1)
            assert len(timers_of(bench, "_end_slow_start")) == 1
            assert len(bench.node.outages) == outages
            await asyncio.sleep(10)
        bench.refuse()
        bench.dialer.made[-1].abort()
        await settle()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        assert warming(bench) == (False, 1)
        assert timers_of(bench, "_end_slow_start") == []
        await asyncio.sleep(600)  # the time of all those slow starts passes
        assert warming(bench) == (False, 1)


@pytest.mark.parametrize("end", ["retire", "close"])
@in_virtual_time
async def test_a_node_that_is_closed_while_it_warms_up_leaves_no_timer(end):
    async with Bench() as bench:
        await returned(bench)
        if end == "retire":
            bench.node.retire()
        else:
            await bench.node.close()
        assert warming(bench) == (False, 0)
        assert timers_of(bench, "_end_slow_start") == []


@in_virtual_time
async def test_one_connection_of_several_that_is_lost_and_made_anew_is_no_return():
    async with Bench(connections=2) as bench:
        await bench.connected()
        await settle(100)
        bench.dialer.made[0].abort()
        bench.node.connection()
        await settle(100)
        assert bench.server.connections == 2
        assert (warming(bench), bench.changes, bench.node.outages) == ((False, 0), [], [])


@in_virtual_time
async def test_an_idle_connection_that_ends_is_no_outage():
    async with Bench() as bench:
        for _ in range(5):
            await bench.connected()
            await bench.hang_up()
            await asyncio.sleep(600)
        assert (warming(bench), bench.changes, bench.node.outages) == ((False, 0), [], [])


@in_virtual_time
async def test_many_outages_become_few_and_none_is_forgotten():
    """The oldest become one, from the beginning of the first to the end of the last."""
    async with Bench(circuit=CircuitLimits(slow_start=0, calm=1)) as bench:
        times = []
        for _ in range(3 * MAX_OUTAGES):
            await returned(bench)
            times.append(bench.node.outages[-1])
            await asyncio.sleep(100)
        outages = bench.node.outages
        assert len(outages) == MAX_OUTAGES
        assert outages[1:] == times[-MAX_OUTAGES + 1 :]
        assert outages[0] == (times[0].began, times[-MAX_OUTAGES].ended)
        assert all(outage.began < outage.ended for outage in outages)


@in_virtual_time
async def test_requests_are_those_that_were_asked_for_on_all_connections_ever():
    """Neither first words nor probes."""
    async with Bench() as bench:
        await bench.connected()
        assert bench.node.requests == 0
        for count in range(1, 6):
            assert (await (await bench.ask())).status == b"EN"
            assert bench.node.requests == count
            await bench.hang_up()
            assert bench.node.requests == count
        await returned(bench)
        assert bench.node.requests == 5
