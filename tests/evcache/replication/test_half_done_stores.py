"""Guarded stores whose connection ends inside the packet: the view of other clients, and the end after a repeated store."""

import asyncio

import pytest

from evcache import NearCache, Outcome
from evcache.replication.hlc import GUARD_STUB_CAS
from evcache.zones.protocol.operations import STUB_SECONDS, THREE_COPIES_MAX_BYTES
from tests.support.memory_zones import Stopwatch, full, on_zones, pass_time
from tests.support.sources import Source

SIZES = {"one copy": THREE_COPIES_MAX_BYTES + 1, "three copies": 10}


class Cutter:
    """Fault that ends the connection to zone a inside the packet of the next guarded store."""

    def __init__(self, zones):
        self._dial = zones.dial
        self.commands = None  # number of the packet's commands that arrive; None for all
        zones.dial = self.dial

    async def dial(self, endpoint, factory):
        connection = await self._dial(endpoint, factory)
        if endpoint.host.startswith("a"):
            transport = connection._transport
            write = transport.write
            transport.write = lambda data: self._write(transport, write, bytes(data))
        return connection

    def _write(self, transport, write, data):
        if self.commands is None:
            write(data)
            return
        for _ in range(self.commands):
            line, _, rest = data.partition(b"\r\n")
            size = 0 if not line.startswith(b"ms ") else int(line.split()[2]) + 2
            write(line + b"\r\n" + rest[:size])
            data = rest[size:]
        self.commands = None
        write(data[: len(data) // 2])
        transport.abort()


@pytest.mark.parametrize("before", [None, b"older"])
@pytest.mark.parametrize("arrived", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [SIZES["one copy"], SIZES["three copies"]], ids=["one copy", "three copies"])
@on_zones()
async def test_hint_completes_a_store_whose_connection_ended_in_the_middle(zones, size, arrived, before):
    """In the end the zone has the value with its own TTL, and neither a stub nor a stale mark."""
    cutter = Cutter(zones)
    cache = await zones.ready()
    if before is not None:
        await cache.set("k", before, ttl=1000, consistency="all")
    cutter.commands = min(arrived, 2) if size == SIZES["three copies"] else arrived
    result = await cache.set("k", b"x" * size, ttl=60)
    assert (result.zones["b"], result.zones["c"]) == (Outcome.STORED, Outcome.STORED)
    await pass_time(5)
    assert zones.one("a").connections_total == 2
    assert zones.values("k") == dict.fromkeys("abc", b"x" * size)
    assert zones.stored_versions("k") == dict.fromkeys("abc", result.version)
    assert not zones.held("k", "a").raw.stale
    assert 50 < zones.held("k", "a").ttl <= 60
    assert cache.stats().hints == 0


def leave_stub(zones, *names):
    """Make the stub of a writer whose connection ended after the first command of its packet."""
    for zone in names:
        line = b"mg %b N%d E%d\r\n" % (full("k"), STUB_SECONDS, GUARD_STUB_CAS)
        assert zones.one(zone).session().receive(line) == b"HD W\r\n"


@on_zones()
async def test_stub_is_a_miss_to_all_reads(zones):
    cache = await zones.ready(near_cache=NearCache(ttl=60))
    leave_stub(zones, *"abc")
    assert await cache.get("k") is None
    assert await cache.get_item("k") is None
    assert await cache.get("k", consistency="all") is None
    assert await cache.get_many(["k"]) == {}
    assert not await cache.replace("k", "v")
    assert await cache.add("k", "v", consistency="all")
    assert zones.values("k") == dict.fromkeys("abc", "v")


@on_zones()
async def test_stub_of_the_local_zone_does_not_hide_the_value_of_another(zones):
    cache = await zones.ready()
    await cache.set("k", "v", consistency="all")
    zones.evict("k", "a")
    leave_stub(zones, "a")
    assert await cache.get("k") == "v"


@on_zones()
async def test_stub_left_behind_delays_a_load_for_its_seconds_at_most(zones):
    """Readers take the writer for a process that loads. When the stub is gone, the next reader gets the lease, and stores."""
    cache = await zones.ready()
    leave_stub(zones, *"abc")
    source = Source()
    clock = Stopwatch()
    assert await cache.get_or_load("k", source.load) == "v"
    assert clock.seconds <= STUB_SECONDS + 0.5
    assert source.calls == 1
    await pass_time(1)
    assert await cache.get_or_load("k", source.load) == "v"
    assert await asyncio.gather(*(cache.get_or_load("k", source.load) for _ in range(10))) == ["v"] * 10
    assert source.calls <= 2


@pytest.mark.parametrize(("size", "left"), [(300_000, None), (700_000, "older")])
@on_zones(max_bytes=200_000)
async def test_value_without_memory_on_the_server_is_not_stored(zones, size, left):
    """The server first removes the item that is there, unless it keeps the large value in chunks."""
    cache = await zones.ready()
    await cache.set("k", "older", consistency="all")
    connections = zones.connections_made()
    result = await cache.set("k", b"x" * size, consistency="all")
    assert result.zones == dict.fromkeys("abc", Outcome.NOT_STORED)
    assert not result
    assert await cache.get("k") == left
    assert zones.values("k") == dict.fromkeys("abc", left)
    assert zones.connections_made() == connections
    assert cache.stats().hints == 0


@on_zones(max_bytes=200_000)
async def test_refused_value_leaves_no_stub_for_longer_than_its_seconds(zones):
    cache = await zones.ready()
    result = await cache.set("k", b"x" * 700_000, consistency="all")
    assert result.zones == dict.fromkeys("abc", Outcome.NOT_STORED)
    assert await cache.get("k") is None
    await pass_time(STUB_SECONDS)
    assert zones.values("k") == dict.fromkeys("abc")
