"""Monotonic reads: a zone with an older version than the client wrote or read counts as failed."""

import asyncio

import pytest

from evcache import CacheUnavailable, ConsistencyError, NearCache, Outcome
from evcache.errors import StaleReplica
from tests.support.memory_zones import PATIENT, TOMBSTONE, Listener, full, on_zones, pass_time
from tests.support.read_calls import ALL_READS, all_reads

levels = pytest.mark.parametrize("level", ["one", "quorum", "all_minus_one", "all"])


async def with_stale(zones, *names, delete=False, **options):
    """Return a client that wrote twice, or wrote and deleted, and the last result. These zones hold the first write only."""
    cache = await zones.ready(hints=None, **options)
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    newest = await (cache.delete("k", consistency="all") if delete else cache.set("k", "new", consistency="all"))
    zones.put_back("k", old, *names)
    zones.forget()
    return cache, newest


@all_reads
@levels
@on_zones()
async def test_a_stale_zone_is_not_believed(zones, read, level):
    """Another zone serves the read. The stale zone is repaired and reported."""
    listener = Listener()
    cache, newest = await with_stale(zones, "a", hooks=listener)
    assert await read(cache, consistency=level) == "new"
    await pass_time()
    assert zones.stored_versions("k") == dict.fromkeys("abc", newest.version)
    assert listener.behind == ["a"]
    assert listener.repairs == [("a", Outcome.STORED)]


@all_reads
@on_zones()
async def test_without_fallback_on_miss_a_stale_zone_is_not_believed(zones, read):
    """A stale item is no miss."""
    cache, _ = await with_stale(zones, "a", fallback_on_miss=False)
    assert await read(cache) == "new"


@all_reads
@levels
@on_zones()
async def test_a_deleted_value_is_not_returned(zones, read, level):
    """A zone that missed the delete is stale, and gets the tombstone."""
    cache, newest = await with_stale(zones, "a", delete=True)
    assert await read(cache, consistency=level) is None
    await pass_time()
    assert zones.values("k") == dict.fromkeys("abc", TOMBSTONE)
    assert zones.stored_versions("k")["a"] == newest.version


@all_reads
@levels
@on_zones()
async def test_if_every_zone_is_stale_the_read_is_a_miss(zones, read, level):
    """The later version is gone from all zones."""
    cache, _ = await with_stale(zones, *"abc")
    assert await read(cache, consistency=level) is None


@all_reads
@levels
@on_zones()
async def test_if_every_zone_is_stale_or_misses_the_read_is_a_miss(zones, read, level):
    """The older value is copied to no zone."""
    cache, _ = await with_stale(zones, "a")
    zones.evict("k", "b", "c")
    assert await read(cache, consistency=level) is None
    await pass_time()
    assert zones.values("k") == {"a": "old", "b": None, "c": None}


@all_reads
@levels
@on_zones()
async def test_if_one_zone_is_stale_and_the_others_fail_the_read_fails(zones, read, level):
    """The error names the versions. With `errors="miss"` the read returns the default."""
    cache, newest = await with_stale(zones, "a")
    old = zones.stored_versions("k")["a"]
    await zones.kill("b", "c")
    with pytest.raises(CacheUnavailable) as caught:
        await read(cache, consistency=level)
    assert set(caught.value.failures) == set("abc")
    reason = caught.value.failures["a"]
    assert isinstance(reason, StaleReplica)
    assert (reason.held, reason.known) == (old, newest.version)
    assert await read(cache, consistency=level, errors="miss") is None


@all_reads
@on_zones()
async def test_a_stale_answer_counts_for_no_level(zones, read):
    """Of three zones one is stale, one misses and one is dead. Two answers are required."""
    cache, _ = await with_stale(zones, "a")
    zones.evict("k", "b")
    await zones.kill("c")
    with pytest.raises(ConsistencyError) as caught:
        await read(cache, consistency="quorum")
    assert (caught.value.answered, caught.value.required) == (1, 2)
    assert isinstance(caught.value.failures["a"], StaleReplica)
    assert await read(cache, consistency="one") is None  # the second zone misses, which is an answer
    assert await read(cache, consistency="quorum", errors="miss") is None


@levels
@on_zones()
async def test_a_version_that_the_client_read_counts_like_a_written_one(zones, level):
    """Another client wrote it."""
    writer, _ = await with_stale(zones, "a")
    for first in ALL_READS.values():
        reader = await zones.ready(local_zone="b", hints=None, read_repair_chance=0)
        assert await first(reader, consistency=level) == "new"
        await pass_time()
        old = zones.held("k", "a")
        zones.forget()
        newest = await writer.set("k", "old", consistency="all")
        old = zones.held("k", "a")
        newer = await writer.set("k", "new", consistency="all")
        assert newer.version > newest.version
        assert await first(reader, consistency=level) == "new"
        zones.put_back("k", old, "b")
        assert await reader.get("k") == "new"
        await pass_time()


@on_zones()
async def test_other_clients_may_read_a_stale_zone(zones):
    """Monotonic reads are a promise to each client. At `ONE`, a client that knows no newer version reads the older one."""
    await with_stale(zones, "a")
    other = await zones.ready()
    assert await other.get("k") == "old"
    assert await other.get("k", consistency="all") == "new"
    await pass_time()
    assert await other.get("k") == "new"


@all_reads
@on_zones()
async def test_with_remember_versions_0_a_stale_zone_is_believed(zones, read):
    cache, _ = await with_stale(zones, "a", remember_versions=0)
    assert await read(cache) == "old"


@on_zones()
async def test_a_failed_write_is_not_remembered(zones):
    """Too few zones have it. If it were remembered, every zone would look stale and the key would be lost to this client."""
    cache = await zones.ready(hints=None)
    await cache.set("k", "old", consistency="all")
    zones.pause(*"abc")
    with pytest.raises(CacheUnavailable):
        await cache.set("k", "new", timeout=0.1)
    await pass_time()
    old = zones.held("k", "a")
    zones.resume(*"abc")
    await pass_time(5)
    zones.put_back("k", old, *"abc")  # the requests got lost
    assert await cache.get("k") == "old"


@on_zones()
async def test_a_write_that_too_few_zones_have_is_not_remembered(zones):
    """One of two required zones has it. When that zone dies, the older value is read."""
    cache = await zones.ready(hints=None, local_zone="b")
    await cache.set("k", "old", consistency="all")
    await zones.kill("c")
    old = zones.held("k", "a")
    result = await cache.set("k", "new", consistency="all")
    assert not result
    zones.put_back("k", old, "a", "b")
    assert await cache.get("k") == "old"


@pytest.mark.parametrize("level", ["none", "one"])
@on_zones()
async def test_a_write_is_remembered_once_enough_zones_have_it(zones, level):
    """A write that waits for no zone is remembered after the first acknowledgement."""
    cache = await zones.ready(hints=None)
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    await cache.set("k", "new", consistency=level)
    await pass_time()
    zones.put_back("k", old, "a")
    assert await cache.get("k") == "new"


@pytest.mark.parametrize("operation", ["add", "cas", "replace", "append"])
@on_zones()
async def test_a_conditional_write_is_remembered(zones, operation):
    """At the level that the call asks for."""
    cache = await zones.ready(hints=None)
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    options = {"consistency": "one"}
    if operation == "add":
        await cache.delete("k", consistency="all")
        assert await cache.add("k", "new", **options)
    elif operation == "cas":
        assert await cache.cas("k", "new", await cache.get_item("k"), **options)
    elif operation == "append":
        assert await cache.append("k", "new", **options)
    else:
        assert await cache.replace("k", "new", **options)
    await pass_time()
    zones.put_back("k", old, "a")
    assert await cache.get("k") in ("new", "oldnew")


@on_zones()
async def test_a_read_may_return_the_version_known_when_it_began(zones):
    """A write is sent during the read, and another zone acknowledges it first."""
    cache = await zones.ready(circuit=PATIENT)
    await cache.set("k", "old", consistency="all")
    zones.pause("a")
    reading = asyncio.create_task(cache.get("k", timeout=3))
    await pass_time(0.1)
    assert await cache.set("k", "new")
    zones.resume("a")
    assert await reading == "old"
    assert await cache.get("k") == "new"


@on_zones()
async def test_the_near_cache_returns_no_older_version_than_the_client_read(zones):
    """A read past the near cache counts too."""
    writer = await zones.ready(local_zone="b", hints=None)
    cache = await zones.ready(near_cache=NearCache(max_bytes=100_000, ttl=100))
    await writer.set("k", "old", consistency="all")
    assert await cache.get("k") == "old"
    await writer.set("k", "new", consistency="all")
    assert await cache.get("k") == "old"
    assert await cache.get("k", consistency="all") == "new"
    assert await cache.get("k") == "new"
    assert (await cache.get_item("k")).value == "new"
    assert await cache.get_many(["k"]) == {"k": "new"}


@on_zones()
async def test_the_near_cache_keeps_no_stale_item(zones):
    cache, _ = await with_stale(zones, *"abc", near_cache=NearCache(max_bytes=100_000, ttl=100))
    cache._runtime.near.clear()
    assert await cache.get("k") is None
    assert await cache.get_many(["k"]) == {}
    assert (await cache.get_item("k")) is None


@on_zones(versions="1.6.18")
async def test_without_versions_no_zone_is_stale(zones):
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    await cache.set("k", "new", consistency="all")
    zones.write_as_another_client("k", b"other", 0, "a")
    assert await cache.get("k") is not None


@on_zones()
async def test_an_item_without_a_version_is_not_stale(zones):
    """It neither wins nor loses against a version."""
    cache = await zones.ready()
    await cache.set("k", "ours", consistency="all")
    for zone in "abc":
        zones.one(zone).store.delete(full("k"))
    zones.write_as_another_client("k", b"theirs", 0, *"abc")
    assert await cache.get_item("k") is not None
