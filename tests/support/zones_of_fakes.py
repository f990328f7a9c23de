"""Zones of fake servers below the client, for what works on nodes."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

from evcache.admin.copying.key_files import ListedKeys
from evcache.zones.cluster import Cluster
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Topology

SETTINGS = NodeSettings(connect_timeout=5.0)


@dataclass
class FakeZones:
    """Running zones."""

    cluster: Cluster
    view: ClusterSnapshot
    servers: dict[str, list[FakeMemcached]]
    nodes: dict[str, list[str]]
    """Addresses of the nodes, as the argument `zones` of a client."""

    def pool(self, name):
        """Return the nodes of a zone."""
        return next(pool for pool in self.view.writers if pool.name == name)

    def items(self, name):
        """Return the items of all nodes of a zone, by key."""
        return {
            key: server.store.get(key)
            for server in self.servers[name]
            for key in list(server.store)
            if server.store.get(key)
        }

    def listed(self, namespace=None, **options):
        """Return the source of the keys that the servers list."""
        return ListedKeys(SETTINGS, namespace, **options)


@asynccontextmanager
async def fake_zones(**zones):
    """Run zones: for each name the options of its servers, in a list."""
    servers = {name: [FakeMemcached(**options) for options in of_zone] for name, of_zone in zones.items()}
    for of_zone in servers.values():
        for server in of_zone:
            await server.start()
    nodes = {name: [server.address for server in of_zone] for name, of_zone in servers.items()}
    cluster = Cluster(SETTINGS, None)
    try:
        yield FakeZones(cluster, cluster.apply(Topology.from_mapping(nodes)), servers, nodes)
    finally:
        await cluster.close(0)
        for of_zone in servers.values():
            for server in of_zone:
                await server.stop()
