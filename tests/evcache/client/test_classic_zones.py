"""Clients of servers that support the classic text protocol only. Calls are the same, and missing features are errors."""

import asyncio
import math

import pytest

from evcache import (
    CacheUnavailable,
    InvalidArgument,
    NearCache,
    NodeSettings,
    Outcome,
    ServerError,
    StandardCodec,
    Unsupported,
)
from evcache.client import EVCache
from evcache.replication.commands.node_requests import peek
from tests.support.memory_zones import MemoryZones, full, on_zones, pass_time
from tests.support.virtual_time import in_virtual_time

classic_zones = on_zones(classic_only=True)

VALUES = [b"", b"END\r\n\x00\xff", "", "text \u00e9", 0, -1, 2**63, 1.5, True, None, [1, {"a": [2.5]}], b"x" * 100_000]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
@classic_zones
async def test_values_come_back_as_they_went(zones, value):
    client = await zones.ready(write_consistency="all")
    written = await client.set("key", value)
    assert (bool(written), written.version) == (True, None)
    missing = object()
    assert await client.get("key", missing) == value
    assert await client.get("key", missing, consistency="all") == value
    assert (await client.get_many(["key", "other"])) == {"key": value}
    assert (await client.get_item("key")).value == value


@classic_zones
async def test_what_an_item_does_not_tell(zones):
    client = await zones.ready(write_consistency="all")
    await client.set("key", 1, ttl=100)
    item = await client.get_item("key")
    assert (item.version, item.ttl, item.stale, item.zone, item.source) == (None, None, False, "a", "local")
    assert {zones.held("key", zone).ttl for zone in zones.names} == {100}


@classic_zones
async def test_writes_that_depend_on_what_is_there(zones):
    client = await zones.ready(write_consistency="all")
    assert not await client.replace("key", 1)
    assert await client.add("key", 2)
    assert set((await client.add("key", 3)).zones.values()) == {Outcome.NOT_STORED}
    assert await client.replace("key", 4)
    item = await client.get_item("key", for_update=True)
    assert await client.cas("key", 5, item)
    assert set((await client.cas("key", 6, item)).zones.values()) == {Outcome.EXISTS}
    assert set((await client.cas("key", 6, 0)).zones.values()) == {Outcome.EXISTS}
    assert zones.values("key") == dict.fromkeys(zones.names, 5)
    assert await client.delete("key")
    assert set((await client.cas("key", 6, item)).zones.values()) == {Outcome.NOT_FOUND}
    assert zones.values("key") == dict.fromkeys(zones.names)
    assert not await client.touch("key", 5)
    assert await client.add("key", 7)
    assert zones.values("key") == dict.fromkeys(zones.names, 7)


@classic_zones
async def test_an_item_of_another_zone_can_not_be_compared_with(zones):
    client = await zones.ready(write_consistency="all")
    for key in (f"key-{number}" for number in range(20)):
        await client.set(key, 1)
        item = await client.get_item(key)
        decides = (await client.get_item(key, for_update=True)).zone
        if decides != item.zone:
            with pytest.raises(InvalidArgument, match="for_update"):
                await client.cas(key, 2, item)
            return
    raise AssertionError("zone a decides about every key")


@classic_zones
async def test_the_deciding_zone_keeps_the_time_of_what_is_joined_and_copies_get_the_clients(zones):
    client = await zones.ready(write_consistency="all", ttl=300)
    assert not await client.append("key", "b")
    await client.set("key", "b", ttl=100)
    decides = (await client.get_item("key", for_update=True)).zone
    await asyncio.sleep(10)
    zones.forget()
    assert await client.append("key", "c")
    assert await client.prepend("key", "a")
    assert zones.values("key") == dict.fromkeys(zones.names, "abc")
    assert {zone: zones.held("key", zone).ttl for zone in zones.names} == {
        zone: 90 if zone == decides else 300 for zone in zones.names
    }
    assert zones.commands(decides) == {"gets": 6, "append": 1, "prepend": 1}
    with pytest.raises(InvalidArgument, match="value"):
        await client.append("key", b"bytes")


@classic_zones
async def test_nothing_is_joined_to_a_compressed_value(zones):
    client = await zones.ready(write_consistency="all", codec=StandardCodec(compress_over=100))
    await client.set("key", "a" * 1_000)
    for join in (client.append, client.prepend):
        with pytest.raises(Unsupported, match="does not support joining to a compressed value") as caught:
            await join("key", "b")
        assert caught.value.node.endswith("0:11211")
    assert zones.values("key") == dict.fromkeys(zones.names, "a" * 1_000)
    await client.set("short", b"a")
    assert await client.append("short", b"b" * 1_000), "what is joined may be long: it is not compressed alone"
    assert zones.values("short") == dict.fromkeys(zones.names, b"a" + b"b" * 1_000)


@on_zones(classic_only=True, item_size_max=2_048)
async def test_what_would_grow_over_the_limit_stays_as_it_is(zones):
    client = await zones.ready(write_consistency="all")
    await client.set("key", "a" * 1_000)
    assert set((await client.append("key", "b" * 1_000)).zones.values()) == {Outcome.NOT_STORED}
    assert zones.values("key") == dict.fromkeys(zones.names, "a" * 1_000)


@classic_zones
async def test_counters_and_how_long_their_copies_live(zones):
    client = await zones.ready(write_consistency="all", ttl=300)
    assert await client.incr("n") is None
    assert await client.incr("n", initial=99, ttl=50) == 99
    decides = (await client.get_item("n", for_update=True)).zone
    await asyncio.sleep(10)
    assert await client.incr("n") == 100
    assert await client.decr("n", 2) == 98
    assert await client.decr("n", 1_000) == 0
    assert {zone: zones.held("n", zone).ttl for zone in zones.names} == {
        zone: 40 if zone == decides else 300 for zone in zones.names
    }
    assert await client.incr("n", 2**64 - 1) == 2**64 - 1
    assert await client.incr("n", ttl=math.inf) == 0
    await client.set("text", "abc")
    with pytest.raises(ServerError, match="not a counter"):
        await client.incr("text")


@classic_zones
async def test_looking_at_an_item_tells_all_but_its_time(zones):
    client = await zones.ready(write_consistency="all")
    await client.set("key", b"value", ttl=50)
    node = next(iter(client._runtime.cluster.nodes.values()))
    seen = await peek(node, full("key"), asyncio.get_running_loop().time() + 1)
    assert (seen.ttl, seen.absent) == (None, False)
    assert seen.cas == zones.held("key", "a").raw.cas


@classic_zones
async def test_touch_and_get_and_touch(zones):
    client = await zones.ready(write_consistency="all")
    await client.set("key", 1, ttl=10)
    assert await client.touch("key", 100)
    assert {zones.held("key", zone).ttl for zone in zones.names} == {100}
    assert await client.get_and_touch("key", 200) == 1
    await pass_time()
    assert {zones.held("key", zone).ttl for zone in zones.names} == {199}
    assert await client.get_and_touch("none", 5, "default") == "default"


@classic_zones
async def test_a_near_cache_keeps_nothing_whose_time_is_not_known(zones):
    client = await zones.ready(write_consistency="all", near_cache=NearCache(max_bytes=100_000, ttl=10))
    await client.set("key", 1)
    zones.forget()
    for _ in range(3):
        assert await client.get("key") == 1
    assert zones.commands("a") == {"gets": 3}


@classic_zones
async def test_the_value_of_most_zones_holds(zones):
    client = await zones.ready(write_consistency="all")
    await client.set("key", "new")
    zones.write_as_another_client("key", b"old", 0, "a")
    assert await client.get("key") == "old"
    assert await client.get("key", consistency="all") == "new"
    await pass_time()
    assert zones.values("key")["a"] == "old", "nothing says which is newer, so nothing is repaired"


@classic_zones
async def test_reads_fall_back_and_a_zone_comes_back(zones):
    client = await zones.ready(write_consistency="all_minus_one")
    await client.set("key", 1, consistency="all")
    await zones.kill("a")
    assert await client.get("key") == 1
    assert await client.set("key", 2)
    zones.restart("a")
    await pass_time(10)
    assert await client.get("key", fallback_on_miss=False) is None
    assert await client.set("key", 3, consistency="all")
    assert zones.values("key") == dict.fromkeys(zones.names, 3)
    await zones.kill(*zones.names)
    with pytest.raises(CacheUnavailable):
        await client.get("key")


@on_zones(classic_only=True, cas_enabled=False)
async def test_servers_without_cas(zones):
    client = await zones.ready(write_consistency="all")
    await client.set("key", "a")
    assert await client.append("key", "b"), "a server joins without comparing"
    for call in (client.replace("key", 1), client.cas("key", 1, 5)):
        with pytest.raises(Unsupported, match="without CAS"):
            await call


@on_zones(classic_only=True)
async def test_a_transport_that_is_forced(zones):
    client = zones.client(transport="meta")
    with pytest.raises(CacheUnavailable, match="does not support the meta protocol"):
        await client.set("key", 1)
    client = zones.client(transport="classic")
    assert await client.set("key", 1)
    assert zones.one("a").commands["mn"] == 1


@pytest.mark.parametrize("name", ["binary", "", 1])
@in_virtual_time
async def test_a_transport_that_there_is_not(name):
    with pytest.raises(InvalidArgument, match="transport"):
        EVCache("ns", {"a": ["a0"]}, transport=name)


@in_virtual_time
async def test_the_clients_transport_comes_before_that_of_its_nodes():
    zones = MemoryZones(1)
    settings = NodeSettings(dialer=zones.dial, transport="meta")
    for transport, expected in ((None, "meta"), ("classic", "classic"), ("auto", "meta")):
        async with EVCache("ns", zones.topology, nodes=settings, transport=transport) as client:
            await client.get("key")
            assert [node.transport for node in client._runtime.cluster.nodes.values()] == [expected]


@on_zones(twemproxy=True)
async def test_twemproxy_serves_what_it_has_commands_for(zones):
    """It closes on any other command, `version`, `stats` and `touch` among them."""
    client = await zones.ready(write_consistency="all", transport="classic")
    assert await client.set("key", b"value", ttl=100)
    assert await client.get("key") == b"value"
    assert not await client.add("key", 1)
    item = await client.get_item("key", for_update=True)
    assert await client.cas("key", "other", item)
    await client.set_many({f"key-{number}": number for number in range(300)})
    assert await client.get_many([f"key-{number}" for number in range(300)]) == {f"key-{n}": n for n in range(300)}
    assert await client.incr("key-1", 2) == 3
    assert await client.append("key", "s")
    assert await client.delete("key")
    assert await client.get("key") is None
