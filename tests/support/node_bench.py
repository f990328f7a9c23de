"""A node of one fake server, for tests."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from evcache.zones.errors import NodeError
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.classic.connection import ClassicConnection
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.scripted import FAR, MemoryDialer, Notes
from tests.support.virtual_time import now, settle

ENDPOINT = Endpoint.parse("host")
LIMITS = CircuitLimits()
FIRST_PAUSE = LIMITS.first_pause * (1 + LIMITS.jitter)  # upper bound
LONGEST_PAUSE = LIMITS.longest_pause * (1 + LIMITS.jitter)
TIMEOUT = 0.1  # seconds that requests wait
PATIENT = ConnectionLimits(silence=FAR)  # a connection is not given up for being silent
EXACT = CircuitLimits(jitter=0.0, slow_start=0.0)
kinds = pytest.mark.parametrize("classic_only", [False, True], ids=["meta", "classic"])


class Bench:
    """A node of one fake server, closed at the end."""

    def __init__(self, server=None, **settings):
        self.server = server or FakeMemcached()
        self.dialer = MemoryDialer(host=self.server)
        self.loop = asyncio.get_running_loop()
        self.health = HealthCounters()
        self.traffic = ByteCounter()
        self.changes = []  # (state, whether it is down, time) at each call of `on_change`
        self.node = Node(
            ENDPOINT,
            NodeSettings(dialer=self.dialer, **settings),
            self.health,
            lag=LoopLag(self.loop),
            on_change=self._on_change,
            traffic=self.traffic,
        )

    def _on_change(self, node):
        assert node is self.node
        self.changes.append((node.state, node.is_down, now()))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.node.close()
        self.server.resume()  # a stalled server does not notice that its clients are gone
        await settle()
        assert self.server.connections == 0
        assert self.health.unhealthy == 0

    @property
    def attempts(self):
        return len(self.dialer.attempts)

    def refuse(self):
        self.dialer.servers.clear()

    def accept(self):
        self.dialer.servers["host"] = self.server

    async def connected(self, within=10.0):
        return await self.node.connected(self.loop.time() + within)

    async def ask(self, key=b"k", within=10.0):
        """A future of the reply to a read."""
        answer = self.loop.create_future()
        connection = await self.connected(within)
        connection.get(key, READ_FIELDS, answer, self.loop.time() + within)
        return answer

    def reset(self):
        """The server resets every connection, and takes new ones at once."""
        for transport in list(self.server._memory):  # noqa: SLF001
            transport.hang_up(ConnectionResetError(104, "reset"))

    async def hang_up(self):
        """The server closes every connection, and takes new ones a little later."""
        await self.server.stop()
        self.server.revive()
        await settle()


def bench_of(classic_only=False, circuit=EXACT, **settings):
    settings = {"limits": PATIENT, **settings}
    return Bench(FakeMemcached(classic_only=classic_only), circuit=circuit, **settings)


async def time_out(bench, requests=3):
    """Send this number of requests in turn, and let each time out."""
    for _ in range(requests):
        await ask(bench)
        await asyncio.sleep(1.1 * TIMEOUT)


async def ask(bench, within=TIMEOUT):
    """A request is made; who waits for it."""
    connection = await bench.connected()
    waiter = Notes()
    connection.get(b"k", READ_FIELDS, waiter, bench.loop.time() + within)
    return waiter


async def answered(bench):
    """Whether a request is answered."""
    waiter = await ask(bench)
    await settle(40)
    return bool(waiter.told) and waiter.told[0].status == b"EN"


async def call(bench):
    """What a caller gets who wants to read: a reply or an error."""
    answer = bench.loop.create_future()
    try:
        connection = await bench.node.connected(bench.loop.time() + 10)
        connection.get(b"k", READ_FIELDS, answer, bench.loop.time() + TIMEOUT)
        return await answer
    except NodeError as error:
        return error


async def lose(bench, requests):
    """Send this number of requests together, and lose them with their connections."""
    connection = await bench.connected()
    if isinstance(connection, ClassicConnection):  # each on a connection of its own
        async with AsyncExitStack() as lent:
            for _ in range(requests):
                await lent.enter_async_context(connection._client._pool.lend())
    bench.server.pause()
    for _ in range(requests):
        await ask(bench)
    await settle(20)
    bench.reset()
    bench.server.resume()
    await settle(100)


def transport_of(connection):
    return connection.streams.writer.transport if hasattr(connection, "streams") else connection._transport  # noqa: SLF001


def forget(bench):
    """Drop what is sent on the connections that there are, as a NAT does with those that were idle for too long."""
    for connection in bench.dialer.made:
        transport_of(connection).write = lambda _: None
