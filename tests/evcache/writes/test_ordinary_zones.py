"""Connections of ordinary writes, if nodes have several, or none."""

from unittest import mock

import pytest

from tests.support.memory_zones import MemoryZones, pass_time
from tests.support.virtual_time import run


@pytest.mark.parametrize("lost", ["", "c"])
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_writes_take_the_connections_of_a_node_in_turn(lost, general, at_once):
    """Also if a write looks at the node and takes the general way, because a later zone has no connection."""

    async def scenario():
        zones = MemoryZones(3)
        cache = await zones.ready(telemetry=None, connections=2, hints=None)
        try:
            await cache.set("k", b"v", ttl=60, consistency="all")
            await pass_time()
            if lost:
                await zones.kill(lost)
            await cache.set("k", b"v", ttl=60, consistency="one")
            await pass_time(1)
            (node,) = cache._runtime.cluster.view.writers[0].nodes  # noqa: SLF001
            ready = list(node.connections.ready)
            before = [connection.requests for connection in ready]
            for first in range(0, 100, at_once):
                values = {f"k{number}": b"v" for number in range(first, first + at_once)}
                if at_once == 1:
                    await cache.set(f"k{first}", b"v", ttl=60, consistency="one")
                else:
                    await cache.set_many(values, ttl=60, consistency="one")
            assert [connection.requests - count for connection, count in zip(ready, before, strict=True)] == [50, 50]
        finally:
            await zones.close_clients()

    if not general:
        run(scenario())
        return
    with (
        mock.patch("evcache.writes.writer.ordinary_zones", return_value=None),
        mock.patch("evcache.writes.bulk_write.ordinary_zones", return_value=None),
    ):
        run(scenario())
