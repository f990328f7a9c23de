"""Reads of a client whose local zone follows a configuration endpoint that names dead nodes."""

import asyncio

import pytest

from evcache.zones.discovery.lookup import LOOKUP_SECONDS, LookupDiscovery, LookupZone
from tests.support.config_endpoints import ConfigServer, config, endpoint
from tests.support.memory_zones import QUICK, on_zones
from tests.support.virtual_time import settle

LOOK = 2 * LOOKUP_SECONDS  # seconds within which a change is found
KEYS = [f"key-{number}" for number in range(20)]


class Reads:
    """Reads of all keys, one after another, for as long as the scenario takes."""

    def __init__(self, cache):
        self.count = 0
        self.problems = []
        self._cache = cache

    async def __aenter__(self):
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _read(self):
        while True:
            for key in KEYS:
                self.count += 1
                try:
                    if await self._cache.get(key) != key:
                        self.problems.append((key, "missing"))
                except Exception as error:
                    self.problems.append((key, error))
                await asyncio.sleep(0.2)


def client(zones, server):
    """A client of the zones a to c, of which a has the nodes that the endpoint names. The nodes of d stand for dead ones."""
    fixed = {zone.name: zone.nodes for zone in zones.topology.zones}
    discovery = LookupDiscovery(
        [LookupZone("a", (endpoint(server),)), LookupZone("b", fixed["b"]), LookupZone("c", fixed["c"])]
    )
    return zones.client(zones=discovery, circuit=QUICK)


def nodes_of_a(cache):
    return [node.host for node in cache.topology.zone("a").nodes]


async def die(zones):
    """The nodes refuse connections."""
    await zones.kill("d")


async def hang(zones):
    """The nodes accept connections and answer nothing."""
    zones.pause("d")


either = pytest.mark.parametrize("fault", [die, hang])


@either
@pytest.mark.parametrize("dead", [["d0"], ["d0", "d1"], ["a0", "d0"]], ids=["one", "all", "one of two"])
@on_zones(zones=4, nodes=2)
async def test_no_read_fails_when_an_endpoint_begins_to_name_dead_nodes(zones, dead, fault):
    await fault(zones)
    server = ConfigServer(config(1, "a0", "a1"))
    async with client(zones, server) as cache:
        await cache.set_many({key: key for key in KEYS})
        async with Reads(cache) as reads:
            server.data = config(2, *dead)
            await asyncio.sleep(LOOK + 120)  # longer than the guard holds back the loss of both nodes
            assert nodes_of_a(cache) == dead
            server.data = config(3, "a0", "a1")
            await asyncio.sleep(LOOK + 120)
            assert nodes_of_a(cache) == ["a0", "a1"]
        assert reads.problems == []
        assert reads.count > 1000
    await settle()
    assert server.connections == 0


@either
@on_zones(zones=4, nodes=2)
async def test_no_read_fails_when_an_endpoint_names_only_dead_nodes_from_the_start(zones, fault):
    await fault(zones)
    server = ConfigServer(config(1, "d0", "d1"))
    async with client(zones, server) as cache:
        await cache.set_many({key: key for key in KEYS})
        async with Reads(cache) as reads:
            await asyncio.sleep(10)
        assert reads.problems == []
        assert reads.count > 30


@on_zones(zones=4, nodes=2)
async def test_no_read_fails_when_the_endpoint_itself_is_dead(zones):
    server = ConfigServer(config(1, "a0", "a1"))
    async with client(zones, server) as cache:
        await cache.set_many({key: key for key in KEYS})
        async with Reads(cache) as reads:
            await server.kill()
            await asyncio.sleep(10 * LOOK)
            assert nodes_of_a(cache) == ["a0", "a1"]
        assert reads.problems == []
