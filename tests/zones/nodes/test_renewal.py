"""Connections that are open, and that the network has dropped."""

import asyncio

import pytest

from evcache.zones.errors import NodeTimeout
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.protocol.replies import Reply
from tests.support.node_bench import TIMEOUT, answered, ask, bench_of, call, forget, time_out, transport_of
from tests.support.virtual_time import in_virtual_time, now, settle

CALM = CircuitLimits().calm


@pytest.mark.parametrize("connections", [1, 3])
@in_virtual_time
async def test_a_forgotten_connection_costs_one_request_and_one_timeout(connections):
    async with bench_of(connections=connections) as bench:
        await bench.connected()
        await settle(200)
        forget(bench)
        began = now()
        assert isinstance(await call(bench), NodeTimeout)
        await settle(60)
        for _ in range(20):
            assert isinstance(await call(bench), Reply)
        assert now() - began == pytest.approx(TIMEOUT)
        await settle(200)
        assert bench.server.connections == connections
        assert bench.changes == []


@pytest.mark.parametrize("requests", [3, 50])
@in_virtual_time
async def test_requests_at_once_on_a_forgotten_connection_do_not_keep_the_node_down(requests):
    """Their timeouts open the circuit. The node is back as soon as a new connection has answered."""
    async with bench_of() as bench:
        await bench.connected()
        forget(bench)
        results = await asyncio.gather(*(call(bench) for _ in range(requests)))
        assert {type(result) for result in results} == {NodeTimeout}
        await settle(60)
        assert bench.node.state == "ready"
        assert await answered(bench)
        assert now() == pytest.approx(TIMEOUT)


@in_virtual_time
async def test_suspended_connections_that_are_forgotten_are_replaced_by_the_first_probe():
    """A new connection was tried shortly before, so that it is up to the probe."""
    async with bench_of(circuit=CircuitLimits(jitter=0.0, slow_start=0.0, probe_timeout=0.1)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench, 1)
        await asyncio.sleep(1)  # the check has ended without a replacement
        forget(bench)
        bench.server.resume()
        await time_out(bench, 2)
        assert bench.node.is_down
        down = now()
        while bench.node.is_down:
            await asyncio.sleep(0.01)
        assert now() - down <= 1 + 0.1 + 0.02
        assert await answered(bench)


@in_virtual_time
async def test_a_server_that_only_stood_still_keeps_its_connection():
    async with bench_of() as bench:
        connection = await bench.connected()
        bench.server.pause()
        await time_out(bench, 1)
        bench.server.resume()
        await settle(60)
        assert bench.node.connection() is connection
        assert bench.server.connections == 1
        assert await answered(bench)


@in_virtual_time
async def test_requests_on_a_connection_that_is_replaced_still_get_their_replies():
    """It may be slow and not forgotten."""
    async with bench_of() as bench:
        connection = await bench.connected()
        transport = transport_of(connection)
        write = transport.write
        transport.write = lambda data: bench.loop.call_later(0.5, write, data)
        patient = await ask(bench, within=2.0)
        await time_out(bench, 1)
        assert bench.node.connection() is not connection
        assert bench.server.connections == 2
        await asyncio.sleep(0.5)
        assert [reply.status for reply in patient.told] == [b"EN"]
        await settle()
        assert bench.server.connections == 1


@in_virtual_time
async def test_a_server_that_answers_handshakes_only_is_not_checked_again_and_again():
    """Each new connection works until the first request."""
    async with bench_of() as bench:
        await bench.connected()

        def refuse_after_handshake():
            for connection in bench.dialer.made:
                transport_of(connection).write = lambda _: None

        until = now() + 3 * CALM
        while now() < until:
            refuse_after_handshake()
            await call(bench)
            await asyncio.sleep(0.05)
        assert bench.node.is_down
        # Three checks, and the probes of an outage with pauses that double.
        assert bench.attempts < 15


@in_virtual_time
async def test_a_new_connection_that_is_not_needed_is_counted_nowhere():
    async with bench_of() as bench:
        await bench.connected()
        await answered(bench)
        bench.server.pause()
        before = bench.node.requests
        await time_out(bench, 1)
        bench.server.resume()
        await settle(60)
        assert bench.attempts == 2
        assert bench.node.requests == before + 1


@in_virtual_time
async def test_a_classic_node_loses_one_request_to_a_pool_of_forgotten_connections():
    """The others are idle for as long, or longer. One after another they would open the circuit."""
    async with bench_of(classic_only=True, transport="classic") as bench:
        await bench.connected()
        await asyncio.gather(*(call(bench) for _ in range(8)))
        assert bench.server.connections == 8
        forget(bench)
        began = now()
        assert isinstance(await call(bench), NodeTimeout)
        for _ in range(10):
            assert isinstance(await call(bench), Reply)
        assert now() - began == pytest.approx(TIMEOUT)


@in_virtual_time
async def test_probes_of_a_classic_node_do_not_go_through_a_pool_of_forgotten_connections():
    async with bench_of(classic_only=True, transport="classic") as bench:
        await bench.connected()
        await asyncio.gather(*(call(bench) for _ in range(8)))
        waiters = [await ask(bench) for _ in range(3)]
        forget(bench)
        waiters += [await ask(bench) for _ in range(3)]
        bench.server.pause()
        await asyncio.sleep(0.2)
        bench.server.resume()
        assert bench.node.is_down
        await asyncio.sleep(1.1)
        assert await answered(bench)
