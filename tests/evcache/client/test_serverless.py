"""Clients of servers with the restrictions of Amazon ElastiCache Serverless: every operation works as with memcached."""

import pytest

from evcache import EVCache, NodeSettings
from tests.support.memory_zones import NAMESPACE, MemoryZones, pass_time
from tests.support.virtual_time import in_virtual_time


async def use_everything(client):
    """Call each operation that an application has, and return what came of it."""
    seen = []

    async def keep(call):
        result = await call
        seen.append(bool(result) if hasattr(result, "zones") else result)

    await keep(client.set("key", "value", ttl=100))
    await keep(client.get("key"))
    await keep(client.add("key", "other"))
    await keep(client.replace("key", "new"))
    await keep(client.touch("key", 50))
    await keep(client.get_and_touch("key", 60))
    await keep(client.incr("counter", 2, initial=5))
    await keep(client.decr("counter"))
    await keep(client.cas("key", "newer", await client.get_item("key", for_update=True)))
    await keep(client.set("joined", b"b"))
    await keep(client.append("joined", b"c"))
    await keep(client.prepend("joined", b"a"))
    await keep(client.get("joined", consistency="all"))
    # Keys of the greatest length that is not hashed, and more of them than one line of `gets` may hold.
    keys = [f"{number:0200}" for number in range(300)]
    assert all((await client.set_many(dict.fromkeys(keys, 1))).values())
    await keep(client.get_many(keys))
    assert all((await client.delete_many(keys[::2])).values())
    await keep(client.get_many(keys))

    async def load():
        return "loaded"

    await keep(client.get_or_load("loaded", load))
    await keep(client.get("loaded"))
    await keep(client.delete("key"))
    await keep(client.get("key"))
    return seen


async def used_on(transport, **server):
    zones = MemoryZones(**server)
    settings = NodeSettings(dialer=zones.dial, transport=transport)
    client = EVCache(
        NAMESPACE, zones.topology, local_zone="a", wall_clock=zones.wall_clock, nodes=settings, write_consistency="all"
    )
    try:
        return await use_everything(client), [node.capabilities for node in client._runtime.cluster.nodes.values()]  # noqa: SLF001
    finally:
        await client.close(0)
        await pass_time()


@pytest.mark.parametrize("transport", ["auto", "meta", "classic"])
@in_virtual_time
async def test_every_operation_ends_as_on_memcached(transport):
    here, capabilities = await used_on(transport, serverless=True)
    there, usual = await used_on(transport)
    assert here == there
    assert capabilities == usual
    assert {known.versions for known in capabilities} == {transport != "classic"}
