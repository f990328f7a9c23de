"""Probes of a node with an open circuit: one at a time, and never by a caller."""

import asyncio
from collections import Counter

import pytest

from evcache.zones.errors import NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.node_bench import FIRST_PAUSE, LONGEST_PAUSE, answered, bench_of, call, kinds, time_out
from tests.support.virtual_time import in_virtual_time, now, settle


@kinds
@in_virtual_time
async def test_an_open_circuit_meets_many_callers_and_the_server_meets_one_probe(classic_only):
    """Their calls fail at once all the time, while the circuit is open and while it is half-open."""
    async with bench_of(classic_only, circuit=CircuitLimits(jitter=0.0, probe_timeout=0.5)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        connections = bench.server.connections_total
        sent = bench.server.commands.copy()
        states = set()
        until = now() + 1.4  # one pause, and most of a probe's time
        while now() < until:
            began = now()
            results = await asyncio.gather(*(call(bench) for _ in range(50)))
            assert {type(result) for result in results} == {NodeUnavailable}
            assert now() == began
            states.add(bench.node.circuit)
            await asyncio.sleep(0.01)
        assert states == {"open", "half-open"}
        bench.server.resume()
        await settle(60)
        # A server reads the requests that timed out after its stall ends. So it also gets the probe, and the handshake of
        # the connection that the node tried after the first timeout.
        handshake = {"mg": 1, "mn": 1, "version": 1, "stats": 1}
        expected = Counter({"gets": 4}) if classic_only else Counter({"mg": 3, "mn": 1}) + Counter(handshake)
        assert bench.server.commands - sent == expected
        assert bench.server.connections_total - connections == (1 if classic_only else 0)
        assert bench.node.state == "ready"


@pytest.mark.parametrize("callers", [1, 50])
@in_virtual_time
async def test_each_pause_ends_with_exactly_one_probe(callers):
    """However many calls there are."""
    async with bench_of(circuit=CircuitLimits(jitter=0.0, probe_timeout=0.1)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        before = bench.server.commands["mn"]
        for _ in range(880):  # pauses of 1, 2, and 4 seconds, and probes of 0.6 seconds
            await asyncio.gather(*(call(bench) for _ in range(callers)))
            await asyncio.sleep(0.01)
        assert bench.node.is_down
        bench.server.resume()
        await settle(40)
        # Each on the old connection, and on a new one; another new one after the first timeout.
        assert bench.server.commands["mn"] - before == 3 * 2 + 1
        assert bench.node.is_down  # they were answered too late


@kinds
@in_virtual_time
async def test_pauses_begin_with_the_first_and_double(classic_only):
    async with bench_of(classic_only, circuit=CircuitLimits(jitter=0.0, probe_timeout=0.1)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        opened = now()
        begun, state = [], "open"
        while len(begun) < 5:
            await asyncio.sleep(0.005)
            if state != bench.node.circuit == "half-open":
                begun.append(now() - opened)
            state = bench.node.circuit
        # Each probe takes its 0.1 s, and 0.5 s for a new connection. A pool replaces its connections itself.
        takes = 0.1 if classic_only else 0.6
        assert begun == [pytest.approx(2**n - 1 + (n - 1) * takes, abs=0.05) for n in (1, 2, 3, 4, 5)]


@in_virtual_time
async def test_a_server_that_goes_on_is_asked_on_the_same_connection():
    """Its late replies make the client probe at once, on the same connection."""
    async with bench_of() as bench:
        connection = await bench.connected()
        bench.server.pause()
        await time_out(bench)
        assert bench.node.pending == 3
        assert connection.is_open
        bench.server.resume()
        assert bench.node.is_down  # until its probe is answered
        await settle(20)
        assert bench.node.pending == 0
        assert bench.node.connection() is connection
        assert await answered(bench)
        assert bench.server.connections == 1


@pytest.mark.parametrize("when", [0.0, 0.5, 1.05], ids=["at once", "in the pause", "in the probe"])
@kinds
@in_virtual_time
async def test_a_connection_that_is_lost_meanwhile_is_replaced(classic_only, when):
    async with bench_of(classic_only) as bench:
        connection = await bench.connected()
        bench.server.pause()
        await time_out(bench)
        await asyncio.sleep(when)
        await bench.hang_up()
        await asyncio.sleep(4 * FIRST_PAUSE)
        assert bench.node.state == "ready"
        if not classic_only:  # whose pool had lost them all to the timeouts
            assert bench.node.connection() is not connection
        assert await answered(bench)


@in_virtual_time
async def test_a_connection_that_stays_silent_is_given_up_and_the_next_probe_connects():
    async with bench_of(limits=ConnectionLimits(silence=5.0)) as bench:
        connection = await bench.connected()
        bench.server.pause()
        await time_out(bench)
        await asyncio.sleep(2)
        assert connection.is_open
        await asyncio.sleep(10)
        assert not connection.is_open
        assert bench.node.is_down
        bench.server.resume()
        await asyncio.sleep(LONGEST_PAUSE)
        assert await answered(bench)
        assert bench.server.connections == 1


@pytest.mark.parametrize(("slow", "back"), [(0.05, True), (0.2, False)])
@in_virtual_time
async def test_a_server_that_answers_probes_too_late_stays_down(slow, back):
    """The server is up, but slower than the timeout of reads. A new connection does not help."""
    async with bench_of(circuit=CircuitLimits(jitter=0.0, slow_start=0.0, probe_timeout=0.1)) as bench:
        latency = 0.0
        connect = bench.server.connect

        async def connect_far(factory):
            transport, connection = await connect(factory)
            write = transport.write
            transport.write = lambda data: bench.loop.call_later(latency, write, data)
            return transport, connection

        bench.server.connect = connect_far
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        latency = slow
        bench.server.resume()
        await asyncio.sleep(100)
        assert bench.node.is_down is not back
        assert len([1 for connection in bench.dialer.made if connection.is_open]) == 1


@in_virtual_time
async def test_without_a_time_of_its_own_a_probe_has_that_of_a_connect():
    async with bench_of(connect_timeout=0.4) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        await asyncio.sleep(1.7)  # the pause, a probe, and not yet a new connection
        assert bench.node.circuit == "half-open"
        await asyncio.sleep(0.2)
        assert bench.node.circuit == "open"


@in_virtual_time
async def test_a_node_that_is_back_after_a_refusal_is_probed_on_its_new_connection():
    """A server may let itself be connected to and answer nothing that matters."""
    async with bench_of() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        bench.accept()
        await asyncio.sleep(FIRST_PAUSE)
        assert bench.server.commands["mn"] == 2  # the first words begin with one
        assert bench.node.state == "ready"
