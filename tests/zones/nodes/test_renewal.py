"""Connections that are open and of no use: those that the network has forgotten, and those to an address that a name has left."""

import asyncio

import pytest

from evcache.zones.errors import InvalidArgument, NodeTimeout
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.renewal import INTERVAL_JITTER, LOOKUPS_BEFORE_MOVE
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.replies import Reply
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from tests.support.node_bench import TIMEOUT, Bench, answered, ask, bench_of, call, time_out
from tests.support.scripted import MemoryDialer
from tests.support.virtual_time import in_virtual_time, now, settle

CALM = CircuitLimits().calm


def transport_of(connection):
    return connection.streams.writer.transport if hasattr(connection, "streams") else connection._transport  # noqa: SLF001


def forget(bench):
    """Drop what is sent on the connections that there are, as a NAT does with those that were idle for too long."""
    for connection in bench.dialer.made:
        transport_of(connection).write = lambda _: None


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
        await asyncio.sleep(1)  # the check has ended in vain
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


@pytest.mark.parametrize("turns", range(40))
@in_virtual_time
async def test_close_at_any_moment_of_a_check_leaves_nothing(turns):
    async with bench_of() as bench:
        await bench.connected()
        forget(bench)
        waiter = await ask(bench)
        while not waiter.told:
            await asyncio.sleep(0.001)
        await settle(turns)
        await bench.node.close()
        await settle()
        open_ones = [connection for connection in bench.dialer.made if connection.is_open]
        assert open_ones == []


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


# Names that move.

INTERVAL = 30.0
LONGEST = INTERVAL * (1 + INTERVAL_JITTER)


class Names(MemoryDialer):
    """A dialer that connects to the server at the first address of a name."""

    def __init__(self):
        super().__init__()
        self.at = {}  # address -> server
        self.addresses_now = ["10.0.0.1"]
        self.error = None
        self.looked_up = []
        self.refused = set()

    async def addresses(self, endpoint):
        self.looked_up.append(now())
        if self.error is not None:
            raise self.error
        assert endpoint.host == "cache.example"
        return frozenset((address, endpoint.port) for address in self.addresses_now)

    async def __call__(self, endpoint, factory):
        address = self.addresses_now[0]
        self.attempts.append((address, now()))
        if address in self.refused:
            raise ConnectionRefusedError(111, "refused")
        transport, connection = await self.at[address].connect(factory)
        transport._extra["peername"] = (address, 11211)  # noqa: SLF001
        self.made.append(connection)
        return connection


class NamedBench(Bench):
    """A node that moves from one server to another."""

    def __init__(self, *, endpoint="cache.example", classic_only=False, **settings):
        self.server = FakeMemcached(classic_only=classic_only)
        self.new = FakeMemcached(classic_only=classic_only)
        self.loop = asyncio.get_running_loop()
        self.health = HealthCounters()
        self.changes = []
        self.dialer = Names()
        self.dialer.at = {"10.0.0.1": self.server, "10.0.0.2": self.new}
        settings = NodeSettings(**{"dialer": self.dialer, "lookup_interval": INTERVAL, **settings})
        self.node = Node(Endpoint.parse(endpoint), settings, self.health, on_change=self._on_change)

    async def __aexit__(self, *_):
        await super().__aexit__()
        assert self.new.connections == 0

    def move(self):
        self.dialer.addresses_now = ["10.0.0.2"]

    async def moved(self, within):
        """Use the node all the time until it has moved, or time is up; every call must be answered."""
        until = now() + within
        while self.server.connections and now() < until:
            assert isinstance(await call(self), Reply)
            await asyncio.sleep(0.05)
        return self.server.connections == 0


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("classic_only", [False, True], ids=["meta", "classic"])
@in_virtual_time
async def test_a_node_follows_its_name_without_a_failed_call(classic_only, connections):
    async with NamedBench(classic_only=classic_only, connections=connections) as bench:
        await bench.connected()
        await settle(200)
        bench.move()
        began = now()
        assert await bench.moved(within=200)
        assert now() - began <= LOOKUPS_BEFORE_MOVE * LONGEST + 0.1
        assert isinstance(await call(bench), Reply)
        await settle(200)
        assert bench.new.connections == (1 if classic_only else connections)
        assert bench.changes == []


@in_virtual_time
async def test_requests_under_way_while_the_node_moves_get_their_replies():
    async with NamedBench() as bench:
        connection = await bench.connected()
        transport = transport_of(connection)
        write = transport.write
        bench.move()
        transport.write = lambda data: bench.loop.call_later(3.0, write, data)
        waiters = []
        while bench.node.connection() is connection:
            waiters.append(await ask(bench, within=10.0))
            await asyncio.sleep(0.5)
        assert bench.new.connections == 1
        await asyncio.sleep(6)
        assert {waiter.told[0].status for waiter in waiters} == {b"EN"}
        assert bench.server.connections == 0


@in_virtual_time
async def test_an_idle_node_follows_its_name_too():
    async with NamedBench() as bench:
        await bench.connected()
        bench.move()
        await asyncio.sleep(LOOKUPS_BEFORE_MOVE * LONGEST + 0.1)
        assert (bench.server.connections, bench.new.connections) == (0, 1)


STAYS = {
    "the same address": [["10.0.0.1"]] * 8,
    "another address beside it": [["10.0.0.1"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]] * 3,
    "one wrong answer": [["10.0.0.1"], ["10.0.0.2"]] * 4,
    "failed look-ups": [OSError("no name server")] * 8,
    "failed look-ups and one wrong answer": [OSError("no name server"), ["10.0.0.2"], ["10.0.0.1"]] * 3,
}


@pytest.mark.parametrize("name", STAYS)
@in_virtual_time
async def test_a_node_stays_where_its_name_may_still_mean(name):
    async with NamedBench() as bench:
        connection = await bench.connected()
        for answer in STAYS[name]:
            bench.dialer.error = answer if isinstance(answer, OSError) else None
            bench.dialer.addresses_now = ["10.0.0.1"] if isinstance(answer, OSError) else answer
            seen = len(bench.dialer.looked_up)
            while len(bench.dialer.looked_up) == seen:
                await asyncio.sleep(1)
        assert bench.node.connection() is connection
        assert bench.attempts == 1


@in_virtual_time
async def test_a_node_stays_until_the_new_address_can_be_connected_to():
    async with NamedBench() as bench:
        await bench.connected()
        bench.move()
        bench.dialer.refused.add("10.0.0.2")
        assert not await bench.moved(within=300)
        bench.dialer.refused.clear()
        assert await bench.moved(within=LONGEST + 0.1)


@in_virtual_time
async def test_look_ups_keep_their_distance():
    async with NamedBench() as bench:
        await bench.connected()
        await asyncio.sleep(100 * INTERVAL)
        times = bench.dialer.looked_up
        distances = [after - before for before, after in zip(times, times[1:], strict=False)]
        assert INTERVAL * (1 - INTERVAL_JITTER) <= min(distances) < max(distances) <= LONGEST
        assert len({round(distance, 3) for distance in distances}) > 20, "the processes of a service ask together"


@pytest.mark.parametrize(
    "settings",
    [{"lookup_interval": None}, {"lookup_interval": 0}, {"endpoint": "10.0.0.1:11211"}, {"endpoint": "[::1]:11211"}],
    ids=["None", "0", "IPv4", "IPv6"],
)
@in_virtual_time
async def test_no_look_ups_if_switched_off_and_for_addresses(settings):
    async with NamedBench(**settings) as bench:
        await bench.connected()
        await asyncio.sleep(10 * INTERVAL)
        assert bench.dialer.looked_up == []


@in_virtual_time
async def test_a_dialer_that_knows_no_names_is_not_asked():
    async with Bench() as bench:
        await bench.connected()
        await asyncio.sleep(10 * INTERVAL)
        assert isinstance(await call(bench), Reply)


@in_virtual_time
async def test_a_node_that_was_lost_connects_to_where_its_name_means_now():
    async with NamedBench() as bench:
        await bench.connected()
        bench.move()
        await bench.server.stop()
        await settle()
        assert isinstance(await call(bench), Reply)
        assert bench.new.connections == 1
        assert bench.dialer.looked_up == []


@pytest.mark.parametrize("turns", range(30))
@in_virtual_time
async def test_close_at_any_moment_of_a_move_leaves_nothing(turns):
    async with NamedBench() as bench:
        await bench.connected()
        bench.move()
        while len(bench.dialer.looked_up) < LOOKUPS_BEFORE_MOVE:
            await asyncio.sleep(0.01)
        await settle(turns)
        await bench.node.close()


@in_virtual_time
async def test_close_does_not_wait_for_a_look_up_that_hangs():
    async with NamedBench() as bench:
        hangs = asyncio.Event()

        async def addresses(_):
            hangs.set()
            await bench.loop.create_future()

        bench.dialer.addresses = addresses
        await bench.connected()
        await hangs.wait()
        began = now()
        await bench.node.close(1.0)
        assert now() == began


@pytest.mark.parametrize("interval", [-1, float("nan"), "30"])
def test_an_interval_that_makes_no_sense_is_an_argument_error(interval):
    with pytest.raises(InvalidArgument, match="lookup_interval"):
        NodeSettings(lookup_interval=interval)
