"""Node with a host name that moves from one server to another."""

import asyncio

from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.renewal import INTERVAL_JITTER
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.replies import Reply
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from tests.support.node_bench import Bench, call
from tests.support.scripted import MemoryDialer
from tests.support.virtual_time import now

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
