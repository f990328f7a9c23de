"""Zones that follow configuration endpoints. An endpoint that hangs, lies or restarts changes nothing."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from evcache.zones.discovery.lookup import (
    LOOKUP_SECONDS,
    LOOKUP_TIMEOUT_SECONDS,
    NOT_FOUND,
    RETRY_SECONDS,
    LookupDiscovery,
    LookupZone,
)
from evcache.zones.discovery.lookups.cluster_config import CONTRADICTION_SECONDS
from evcache.zones.discovery.lookups.config_endpoint import ConfigEndpoint
from evcache.zones.discovery.polling import JITTER
from evcache.zones.errors import DiscoveryError
from evcache.zones.topology.model import Topology
from tests.support.config_endpoints import ConfigServer, config, reply
from tests.support.scripted import MemoryDialer
from tests.support.virtual_time import in_virtual_time, now, settle

NEXT_LOOK = LOOKUP_SECONDS * (1 + JITTER)
# Two looks take time: one that has begun before a change, and the one after the pause.
NEXT_RETRY = RETRY_SECONDS * (1 + JITTER) + 2 * LOOKUP_TIMEOUT_SECONDS


class Clusters:
    """Configuration endpoints of the zones a and b, and what a discovery of both reports."""

    def __init__(self):
        self.a, self.b = ConfigServer(config(1, "a1", "a2")), ConfigServer(config(1, "b1"))
        dialer = MemoryDialer(a=self.a, b=self.b)
        self.discovery = LookupDiscovery(
            [LookupZone(zone, (ConfigEndpoint(f"{zone}:11211", dialer=dialer),)) for zone in ("a", "b")]
        )
        self.reported = []

    @property
    def status(self):
        return self.discovery.status

    @asynccontextmanager
    async def watched(self):
        """Load the topology, and collect the reports on its changes."""
        self.reported = [await self.discovery.load()]
        watching = asyncio.create_task(self._collect())
        yield self
        watching.cancel()
        await asyncio.wait([watching])
        assert watching.cancelled()
        for server in (self.a, self.b):
            server.resume()
        await settle()
        assert self.a.connections == self.b.connections == 0

    async def _collect(self):
        async for topology in self.discovery.watch():
            self.reported.append(topology)


def zones(text):
    return Topology.from_node_list(text)


FIRST = zones("a=a1,a2;b=b1")


@in_virtual_time
async def test_zones_follow_their_endpoints():
    async with Clusters().watched() as clusters:
        assert clusters.reported == [FIRST]
        clusters.a.data = config(2, "a3", "a1", "a2")
        await asyncio.sleep(NEXT_LOOK)
        clusters.b.data = config(2, "b2")
        await asyncio.sleep(NEXT_LOOK)
        assert clusters.reported == [FIRST, zones("a=a1,a2,a3;b=b1"), zones("a=a1,a2,a3;b=b2")]


@in_virtual_time
async def test_the_same_nodes_in_another_order_are_no_change():
    async with Clusters().watched() as clusters:
        clusters.a.data = config(2, "a2", "a1")
        await asyncio.sleep(3 * NEXT_LOOK)
        assert clusters.reported == [FIRST]


def hang(server):
    server.pause()


def say(data):
    def lie(server):
        server.says = data

    return lie


def close(server):
    server.says, server.closes = b"", True


def lose_its_nodes(server):
    server.data = config(2)


def forget_its_cluster(server):
    server.data = None


def go_back(server):
    server.data = config(0, "a9")


FAULTS = [
    pytest.param(hang, "no reply in 4 s", id="hangs"),
    pytest.param(close, "the connection ended before the reply was complete", id="closes"),
    pytest.param(lose_its_nodes, "version 2 of the configuration names no nodes", id="names no nodes"),
    pytest.param(forget_its_cluster, "the server has no cluster configuration", id="has no configuration"),
    pytest.param(go_back, "stale configuration: version 0 after version 1", id="goes back"),
    pytest.param(say(b"<html></html>\r\n"), "unexpected reply: '<html></html>'", id="HTML"),
    pytest.param(say(reply(config(2, "a9"), length=5)), "it does not end after 5 bytes", id="wrong length"),
    pytest.param(say(reply(b"2\na9\n")), r"'a9' is not host|ip|port", id="malformed node"),
]


@pytest.mark.parametrize(("fault", "problem"), FAULTS)
@in_virtual_time
async def test_an_endpoint_that_fails_keeps_the_last_topology(fault, problem, caplog):
    async with Clusters().watched() as clusters:
        confirmed_at = clusters.status.confirmed_at
        fault(clusters.a)
        await asyncio.sleep(4 * NEXT_LOOK)
        assert clusters.reported == [FIRST]
        assert clusters.status.confirmed_at == confirmed_at
        assert clusters.status.error.startswith("lookup of zones: zone a: configuration endpoint a:11211: ")
        assert problem in clusters.status.error
        (record,) = caplog.records
        assert record.getMessage() == f"topology update failed: {clusters.status.error}; keeping the previous topology"


@pytest.mark.parametrize(("fault", "problem"), FAULTS)
@in_virtual_time
async def test_an_endpoint_that_fails_does_not_hold_up_the_other_zone(fault, problem):
    async with Clusters().watched() as clusters:
        fault(clusters.a)
        await asyncio.sleep(NEXT_LOOK)
        clusters.b.data = config(2, "b1", "b2")
        await asyncio.sleep(NEXT_RETRY)
        assert clusters.reported == [FIRST, zones("a=a1,a2;b=b1,b2")]
        assert problem in clusters.status.error


@in_virtual_time
async def test_an_endpoint_that_restarts_is_followed_again(caplog):
    async with Clusters().watched() as clusters:
        await clusters.a.kill()
        await asyncio.sleep(2 * NEXT_LOOK)
        assert clusters.reported == [FIRST]
        clusters.a.revive()
        clusters.a.data = config(2, "a1", "a3")
        await asyncio.sleep(NEXT_RETRY)
        assert clusters.reported == [FIRST, zones("a=a1,a3;b=b1")]
        assert clusters.status.error is None
        assert len(caplog.records) == 1


@in_virtual_time
async def test_a_cluster_that_was_created_again_is_followed_after_a_while():
    async with Clusters().watched() as clusters:
        clusters.a.data = config(9, "a1", "a2", "a3")
        await asyncio.sleep(NEXT_LOOK)
        clusters.a.data = config(1, "a4")
        await asyncio.sleep(CONTRADICTION_SECONDS - LOOKUP_SECONDS)
        assert clusters.reported[-1] == zones("a=a1,a2,a3;b=b1")
        await asyncio.sleep(LOOKUP_SECONDS + NEXT_LOOK + NEXT_RETRY)
        assert clusters.reported[-1] == zones("a=a4;b=b1")
        assert clusters.status.error is None


@in_virtual_time
async def test_a_zone_is_down_until_its_endpoint_first_answers():
    clusters = Clusters()
    hang(clusters.a)
    without_a = zones(f"a={NOT_FOUND};b=b1")
    async with clusters.watched():
        assert now() < 5
        assert clusters.reported == [without_a]
        clusters.a.resume()
        await asyncio.sleep(NEXT_RETRY)
        assert clusters.reported == [without_a, FIRST]


@in_virtual_time
async def test_endpoints_that_all_fail_at_the_start_are_named():
    clusters = Clusters()
    clusters.a.data = None
    clusters.b.says = b"SERVER_ERROR busy\r\n"
    with pytest.raises(DiscoveryError) as caught:
        await clusters.discovery.load()
    assert "zone a: configuration endpoint a:11211: the server has no cluster configuration" in caught.value.problem
    assert "zone b: configuration endpoint b:11211: unexpected reply: 'SERVER_ERROR busy'" in caught.value.problem
