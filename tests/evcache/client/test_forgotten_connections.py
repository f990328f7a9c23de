"""A NAT forgets every idle connection of a client at once.

What is lost are the requests of one timeout, and of the round trips that a new connection takes.
"""

import asyncio

import pytest

from evcache import CacheUnavailable
from tests.support.memory_zones import MemoryZones, pass_time
from tests.support.virtual_time import in_virtual_time


def forget(client):
    """Drop what the client sends on the connections that it has."""
    for node in client._runtime.cluster.nodes.values():  # noqa: SLF001
        for connection in node.in_use():
            connection._transport.write = lambda _: None  # noqa: SLF001


@pytest.mark.parametrize("connections", [1, 2, 4])
@pytest.mark.parametrize("number", [1, 3])
@in_virtual_time
async def test_a_single_read_is_lost(number, connections):
    """With several connections, a first request on another one does not make that one look alive."""
    zones = MemoryZones(zones=number)
    try:
        client = await zones.ready(connections=connections)
        for _ in range(connections):
            await client.set("k", 1, consistency="all")
            await pass_time(1)
        await pass_time(600)
        forget(client)
        failed = []
        for call in range(100):
            try:
                assert await client.get("k") == 1
            except CacheUnavailable:
                failed.append(call)
            await asyncio.sleep(0.05)
        assert failed == list(range(len(failed)))
        assert len(failed) <= min(connections, 3)
        assert client.stats().nodes_down == 0
    finally:
        await zones.close_clients()
        await pass_time()


@in_virtual_time
async def test_a_single_write_is_lost_and_kept_for_every_zone():
    zones = MemoryZones()
    try:
        client = await zones.ready()
        await client.set("k", "before", consistency="all")
        await pass_time(600)
        forget(client)
        with pytest.raises(CacheUnavailable):
            await client.set("k", "lost")
        await pass_time(0.01)  # a new connection and its handshake
        assert await client.set("j", "after", consistency="all")
        await pass_time(5)
        assert zones.values("k") == dict.fromkeys(zones.names, "lost"), "delivered as a hint"
    finally:
        await zones.close_clients()
        await pass_time()
