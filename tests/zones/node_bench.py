"""A node of one fake server, for tests."""

import asyncio

from tests.virtual_time import now, settle
from tests.zones.scripted import MemoryDialer
from zones.circuit import CircuitLimits
from zones.loop_lag import LoopLag
from zones.node import Node, Tally
from zones.settings import NodeSettings
from zones.testing import FakeMemcached
from zones.topology import Endpoint

ENDPOINT = Endpoint.parse("host")
LIMITS = CircuitLimits()
FIRST_PAUSE = LIMITS.first_pause * (1 + LIMITS.jitter)  # at the most
LONGEST_PAUSE = LIMITS.longest_pause * (1 + LIMITS.jitter)


class Bench:
    """A node of one fake server, closed at the end."""

    def __init__(self, server=None, **settings):
        self.server = server or FakeMemcached()
        self.dialer = MemoryDialer(host=self.server)
        self.loop = asyncio.get_running_loop()
        self.tally = Tally()
        self.changes = []  # (state, whether it is down, time) at each call of `on_change`
        self.node = Node(
            ENDPOINT,
            NodeSettings(dialer=self.dialer, **settings),
            self.tally,
            lag=LoopLag(self.loop),
            on_change=self._on_change,
        )

    def _on_change(self, node):
        assert node is self.node
        self.changes.append((node.state, node.is_down, now()))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.node.close()
        await settle()
        assert self.server.connections == 0
        assert self.tally.unsettled == 0

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
        connection.request(b"mg %b v" % key, answer, self.loop.time() + within)
        return answer

    async def hang_up(self):
        """The server closes every connection, and takes new ones."""
        await self.server.stop()
        self.server.revive()
        await settle()
