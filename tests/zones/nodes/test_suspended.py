"""Connections of a node with an open circuit: suspended, used again, or replaced."""

import asyncio

import pytest

from evcache.zones.transport.classic.pool import PoolLimits
from tests.support.node_bench import FIRST_PAUSE, LONGEST_PAUSE, TIMEOUT, answered, ask, bench_of, kinds, time_out
from tests.support.virtual_time import in_virtual_time, now, settle

# Coming back.


@kinds
@in_virtual_time
async def test_after_a_return_timeouts_are_counted_from_the_beginning(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert not bench.node.is_down
        bench.server.pause()
        await time_out(bench, 2)
        assert not bench.node.is_down
        await time_out(bench, 1)
        assert bench.node.is_down


@in_virtual_time
async def test_after_a_return_timeouts_are_counted_anew_on_each_connection():
    """Also on the one that was not probed."""
    async with bench_of(connections=2) as bench:
        await bench.connected()
        await settle(100)
        bench.server.pause()
        while not bench.node.is_down:
            await time_out(bench, 1)
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert not bench.node.is_down
        bench.server.pause()
        await time_out(bench, 2)
        assert not bench.node.is_down


@pytest.mark.parametrize("connections", [1, 3])
@in_virtual_time
async def test_all_connections_are_suspended_and_all_of_them_come_back(connections):
    async with bench_of(connections=connections) as bench:
        await bench.connected()
        await settle(200)
        made = set(bench.dialer.made)
        assert len(made) == connections
        bench.server.pause()
        while not bench.node.is_down:
            await time_out(bench, 1)
        assert all(connection.is_open for connection in made)
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert {bench.node.connection() for _ in range(10)} == made
        assert bench.server.connections == connections


@in_virtual_time
async def test_of_several_suspended_connections_those_that_were_lost_are_replaced():
    async with bench_of(connections=3) as bench:
        await bench.connected()
        await settle(200)
        bench.server.pause()
        while not bench.node.is_down:
            await time_out(bench, 1)
        bench.dialer.made[0].abort()
        bench.dialer.made[2].abort()
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        used = {bench.node.connection() for _ in range(10)}
        assert len(used) == 3
        assert used & set(bench.dialer.made[:3]) == {bench.dialer.made[1]}


@in_virtual_time
async def test_a_circuit_that_opens_while_another_connection_is_refused_is_probed_after_its_own_pause():
    """The attempts to have one more connection may be half a minute apart by then."""
    async with bench_of(connections=2) as bench:
        await bench.connected()
        await settle(100)
        bench.refuse()
        bench.dialer.made[0].abort()
        bench.node.connection()  # which asks for another
        await asyncio.sleep(200)
        bench.server.pause()
        await time_out(bench)
        assert bench.node.is_down
        bench.server.resume()
        await asyncio.sleep(FIRST_PAUSE)
        assert not bench.node.is_down
        bench.accept()
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert bench.server.connections == 2


@in_virtual_time
async def test_a_circuit_that_opens_while_another_connection_is_made_pauses_before_its_probe():
    async with bench_of(connections=2, connect_timeout=5.0) as bench:
        await bench.connected()
        await settle(100)
        bench.dialer.gate = asyncio.Event()
        bench.dialer.made[0].abort()
        bench.node.connection()
        bench.server.pause()
        await time_out(bench)
        assert bench.node.circuit == "open"
        bench.dialer.gate.set()
        await asyncio.sleep(0.5)
        assert bench.node.circuit == "open"
        await asyncio.sleep(FIRST_PAUSE - 0.45)
        assert bench.node.circuit == "half-open"
        bench.server.resume()
        await settle(20)
        assert bench.node.circuit == "closed"
        await asyncio.sleep(FIRST_PAUSE)
        assert bench.server.connections == 2


@kinds
@in_virtual_time
async def test_each_change_is_told_once_when_it_is_so(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        assert bench.changes == []
        for _ in range(2):
            bench.server.pause()
            await time_out(bench)
            await asyncio.sleep(20)  # several probes
            bench.server.resume()
            await asyncio.sleep(LONGEST_PAUSE)
        assert [(state, down) for state, down, _ in bench.changes] == [("down", True), ("ready", False)] * 2


@in_virtual_time
async def test_outages_are_remembered_with_their_beginning_and_end():
    async with bench_of() as bench:
        await bench.connected()
        assert bench.node.outages == []
        for _ in range(2):
            bench.server.pause()
            await time_out(bench)
            bench.server.resume()
            assert len(bench.changes) == 2 * len(bench.node.outages) + 1  # while it lasts it is not among them
            await asyncio.sleep(60)
        times = [time for _, _, time in bench.changes]
        outages = [(outage.began, outage.ended) for outage in bench.node.outages]
        start = bench.loop.time() - now()
        assert outages == [
            (pytest.approx(start + began), pytest.approx(start + ended))
            for began, ended in zip(times[::2], times[1::2], strict=True)
        ]


@in_virtual_time
async def test_requests_that_still_have_time_when_it_opens_are_answered():
    """They were on their way, with a later deadline."""
    async with bench_of() as bench:
        await bench.connected()
        bench.server.pause()
        patient = await ask(bench, within=5)
        await time_out(bench)
        assert bench.node.is_down
        assert not patient.told
        bench.server.resume()
        await settle()
        assert patient.told[0].status == b"EN"


@in_virtual_time
async def test_a_pool_that_is_exhausted_by_a_silent_server_is_probed_too():
    async with bench_of(classic_only=True, classic=PoolLimits(connections=2, acquire=60.0)) as bench:
        await bench.connected()
        bench.server.pause()
        for _ in range(4):
            await ask(bench)
        await asyncio.sleep(1.1 * TIMEOUT)
        assert bench.node.is_down
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert await answered(bench)
