"""A cluster of fake servers, for tests."""

import asyncio

import pytest

from evcache.zones.cluster import Cluster
from evcache.zones.errors import NodeUnavailable
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.fields import Fields
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Topology
from tests.support.scripted import MemoryDialer
from tests.support.virtual_time import settle

HOSTS = ("h1", "h2", "h3", "h4", "h5", "h6", "h7")


def zones(text):
    return Topology.from_node_list(text)


class Bench:
    """A cluster of fake servers h1 to h7, closed at the end."""

    def __init__(self, text=None, local=None, *, gutter=None, guard=None, strict=False, **settings):
        self.servers = {host: FakeMemcached() for host in HOSTS}
        self.dialer = MemoryDialer(**self.servers)
        self.events = []  # (what, its name, whether it is down or out)
        self.cluster = Cluster(
            NodeSettings(dialer=self.dialer, **settings),
            local,
            events=self,
            gutter=None if gutter is None else zones(f"gutter={gutter}").zones[0],
            guard=guard,
            strict=strict,
        )
        if text is not None:
            self.cluster.apply(zones(text))

    def node_changed(self, zone, node, *, down, why):
        assert (why is not None) is down
        self.events.append(("node", f"{zone} {node.partition(':')[0]}", down))

    def zone_changed(self, zone, *, out):
        assert (zone in self.cluster.view.ejected) is out  # it is so by now
        self.events.append(("zone", zone, out))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for server in self.servers.values():
            server.resume()
        await self.cluster.close(0.0)
        await settle()
        assert {server.connections for server in self.servers.values()} == {0}

    def node(self, name):
        """By zone and host, as `a h1`."""
        (found,) = [node for (zone, endpoint), node in self.cluster.nodes.items() if name == f"{zone} {endpoint.host}"]
        return found

    @property
    def names(self):
        return sorted(f"{zone} {endpoint.host}" for zone, endpoint in self.cluster.nodes)

    @property
    def attempts(self):
        return [host for host, _ in self.dialer.attempts]

    @property
    def readers(self):
        return [pool.name for pool in self.cluster.view.readers]

    async def die(self, *hosts):
        """Stop the servers, and let each node notice it."""
        for host in hosts:
            self.dialer.servers.pop(host, None)
            await self.servers[host].stop()
        await settle()
        for node in [*self.cluster.nodes.values()]:
            if node.endpoint.host in hosts:
                with pytest.raises(NodeUnavailable):
                    await node.connected(asyncio.get_running_loop().time() + 1)

    async def live(self, *hosts):
        """They are there again, and found."""
        for host in hosts:
            self.servers[host].revive()
            self.dialer.servers[host] = self.servers[host]
        await asyncio.sleep(60)

    async def connect(self):
        for node in self.cluster.nodes.values():
            await node.connected(asyncio.get_running_loop().time() + 1)


def ask(node, key=b"k", within=60.0):
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    node.connection().get(key, Fields(b"k v"), answer, loop.time() + within)
    return answer


class ScriptedDiscovery:
    """A discovery that the test feeds: topologies, and exceptions to raise."""

    def __init__(self, first):
        self._first = first
        self._queue = asyncio.Queue()
        self.closed = False

    def put(self, item):
        self._queue.put_nowait(item)

    async def load(self):
        return self._first

    async def watch(self):
        try:
            while True:
                item = await self._queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True
