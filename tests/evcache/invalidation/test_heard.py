"""Versions of other clients' writes: no later read of the key accepts an older value of a zone."""

import pytest

from evcache import NearCache
from evcache.channels import LocalChannel
from tests.support.memory_zones import Listener, full, on_zones, pass_time
from tests.support.near import KEY, OLD, Pair, follow_loop, heard, kept
from tests.support.read_calls import get, get_and_touch, get_item
from tests.support.sources import Source, seen


async def get_many(cache):
    return (await cache.get_many(["k", "nothing"])).get("k")


async def get_at_quorum(cache):
    return await cache.get("k", consistency="quorum")


async def get_many_at_quorum(cache):
    return (await cache.get_many(["k", "nothing"], consistency="quorum")).get("k")


async def get_or_load(cache):
    return await cache.get_or_load("k", Source("loaded").load)


async def get_or_load_many(cache):
    return (await cache.get_or_load_many(["k", "nothing"], Source("loaded").load_many)).get("k")


async def cached(cache):
    @cache.cached(key="k")
    async def load():
        return "loaded"

    return await load()


READS = [get, get_item, get_and_touch, get_many, get_at_quorum, get_many_at_quorum]
LOADS = [get_or_load, get_or_load_many, cached]

WRITES = {
    "set": (lambda cache: cache.set("k", "new"), "new"),
    "set_many": (lambda cache: cache.set_many({"k": "new", "more": 1}), "new"),
    "replace": (lambda cache: cache.replace("k", "new"), "new"),
    "append": (lambda cache: cache.append("k", "new"), "oldnew"),
    "delete": (lambda cache: cache.delete("k"), None),
    "delete_many": (lambda cache: cache.delete_many(["k", "more"]), None),
    "invalidate": (lambda cache: cache.invalidate("k"), None),
}
writes = pytest.mark.parametrize(("write", "new"), WRITES.values(), ids=WRITES)


async def two_clients(zones, **options):
    """Make a writer in zone b and a reader in zone a that hear each other, and a value in every zone."""
    channel = LocalChannel()
    clients = [await zones.ready(local_zone=zone, invalidation=channel, **options) for zone in "ba"]
    for client in clients:
        if client._runtime.near is not None:
            follow_loop(client)
    await pass_time(6)
    assert await clients[0].set("k", "old", consistency="all")
    await pass_time(6)
    return clients


@writes
@pytest.mark.parametrize("read", READS + LOADS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("read_before", [True, False], ids=["read before", "not read before"])
@pytest.mark.parametrize("near", [None, NearCache()], ids=["no near cache", "near cache"])
@on_zones()
async def test_a_zone_without_a_published_version_serves_no_read(zones, write, new, read, read_before, near):
    """The local zone gets the write late, so another zone serves it, or the client calls the loader."""
    writer, reader = await two_clients(zones, near_cache=near, hints=None)
    old = zones.held("k", "a")
    if read_before:
        assert await reader.get("k") == "old"
    assert await write(writer)
    zones.put_back("k", old, "a")
    await heard()
    for _ in range(3):
        assert await read(reader) == ("loaded" if new is None and read in LOADS else new)
    assert reader.stats().invalidation.received > 0


@on_zones()
async def test_a_zone_without_a_published_version_is_repaired(zones):
    """The client repairs the zone, as after its own writes, and calls the hook."""
    listener = Listener()
    writer, reader = await two_clients(zones, hooks=listener, hints=None)
    old = zones.held("k", "a")
    newest = await writer.set("k", "new", consistency="all")
    zones.put_back("k", old, "a")
    await heard()
    assert await reader.get("k") == "new"
    await pass_time()
    assert listener.behind == ["a"]
    assert zones.stored_versions("k") == dict.fromkeys("abc", newest.version)


@on_zones()
async def test_a_value_loaded_after_a_published_delete_is_stored(zones):
    """The local zone lacks the delete, and the clock of the deleting client is ahead. The load began after the delete."""
    writer, reader = await two_clients(zones, hints=None)
    ahead = await zones.ready(
        local_zone="b", invalidation=writer._runtime.bus._channel, hints=None, wall_clock=lambda: zones.wall_clock() + 30
    )
    old = zones.held("k", "a")
    assert await ahead.delete("k", consistency="all")
    zones.put_back("k", old, "a")
    await heard()
    source = Source("loaded")
    assert await reader.get_or_load("k", source.load) == "loaded"
    assert seen(zones, "k") == dict.fromkeys("abc", "loaded")
    assert await reader.get_or_load("k", source.load) == "loaded"
    assert await ahead.get("k") == "loaded"
    assert source.calls == 1


@pytest.mark.parametrize("write", ["set", "delete", "set, not waited for"])
@on_zones()
async def test_a_write_that_no_zone_took_makes_no_zone_look_stale(zones, write):
    """A zone may have it, so the client publishes the key without a version. The old value is still the latest."""
    pair = await Pair.on(zones, hints=None, errors="miss", write_timeout=0.3)
    for zone in "abc":
        pair.to_writer.requests[zone].hold()
    if write == "delete":
        assert not await pair.writer.delete(KEY)
    else:
        await pair.writer.set(KEY, "new", consistency="none" if "not" in write else "one")
    await heard()
    assert pair.reader.stats().invalidation.received > 0
    assert await pair.reader.get(KEY) == OLD
    assert await pair.reader.get_many([KEY]) == {KEY: OLD}
    assert kept(pair.reader, KEY) is None


@on_zones()
async def test_a_published_version_too_far_ahead_is_ignored(zones):
    """A wrong clock must not make every zone look behind."""
    _, reader = await two_clients(zones)
    reader._runtime.dispatcher.invalidate(full("k"), (int(zones.wall_clock() * 1000) + 3_600_000) << 20)
    assert reader.stats().versions_refused == 1
    assert await reader.get("k") == "old"


@pytest.mark.parametrize("version", [None, 0])
@on_zones()
async def test_a_change_without_a_version_changes_no_read(zones, version):
    _, reader = await two_clients(zones)
    reader._runtime.dispatcher.invalidate(full("k"), version)
    assert await reader.get("k") == "old"


@on_zones()
async def test_no_published_version_is_remembered_if_that_is_off(zones):
    writer, reader = await two_clients(zones, remember_versions=0, hints=None)
    old = zones.held("k", "a")
    assert await writer.delete("k", consistency="all")
    zones.put_back("k", old, "a")
    await heard()
    assert await reader.get("k") == "old"


@on_zones(zones=2)
async def test_a_flood_of_published_versions_evicts_no_own_version(zones):
    """The client has written one key, and another process writes many."""
    writer, reader = await two_clients(zones, remember_versions=10, hints=None)
    assert await reader.set("own", "first", consistency="all")
    old = zones.held("own", "a")
    assert await reader.set("own", "second", consistency="all")
    zones.put_back("own", old, "a")
    await writer.set_many({f"k{number}": number for number in range(500)})
    await heard()
    assert reader.stats().invalidation.received >= 500
    assert await reader.get("own") == "second"
