"""A client does not go back in time: a zone that answers with less than it wrote or saw has as good as not answered."""

import asyncio

import pytest

from evcache import CacheUnavailable, ConsistencyError, NearCache, Outcome
from evcache.errors import StaleReplica
from tests.support.memory_zones import PATIENT, TOMBSTONE, Listener, full, on_zones, pass_time

READS = {
    "get": lambda cache, **options: cache.get("k", **options),
    "get_item": lambda cache, **options: value_of(cache.get_item("k", **options)),
    "get_many": lambda cache, **options: only(cache.get_many(["k"], **options)),
    "get_and_touch": lambda cache, **options: cache.get_and_touch("k", 500, **options),
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS)
levels = pytest.mark.parametrize("level", ["one", "quorum", "all_minus_one", "all"])


async def value_of(item):
    item = await item
    return None if item is None else item.value


async def only(found):
    return (await found).get("k")


async def behind(zones, *names, delete=False, **options):
    """A client that has written twice (or deleted), of which these zones hold the first only; and that write's result."""
    cache = await zones.ready(hints=None, **options)
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    newest = await (cache.delete("k", consistency="all") if delete else cache.set("k", "new", consistency="all"))
    zones.put_back("k", old, *names)
    zones.forget()
    return cache, newest


@reads
@levels
@on_zones()
async def test_a_zone_that_is_behind_is_not_believed(zones, read, level):
    """The value comes from another zone, the one that was behind is brought it, and the hook is told."""
    listener = Listener()
    cache, newest = await behind(zones, "a", hooks=listener)
    assert await read(cache, consistency=level) == "new"
    await pass_time()
    assert zones.stored_versions("k") == dict.fromkeys("abc", newest.version)
    assert listener.behind == ["a"]
    assert listener.repairs == [("a", Outcome.STORED)]


@reads
@on_zones()
async def test_without_fallback_on_miss_too(zones, read):
    """It is no miss: something is there, and it is not the newest."""
    cache, _ = await behind(zones, "a", fallback_on_miss=False)
    assert await read(cache) == "new"


@reads
@levels
@on_zones()
async def test_what_was_deleted_is_not_seen(zones, read, level):
    """A zone that has missed the delete is behind as one that has missed a value."""
    cache, newest = await behind(zones, "a", delete=True)
    assert await read(cache, consistency=level) is None
    await pass_time()
    assert zones.values("k") == dict.fromkeys("abc", TOMBSTONE)
    assert zones.stored_versions("k")["a"] == newest.version


@reads
@levels
@on_zones()
async def test_when_every_zone_is_behind_it_is_a_miss(zones, read, level):
    """What was newer is gone everywhere: that is an answer, and no reason to go back."""
    cache, _ = await behind(zones, *"abc")
    assert await read(cache, consistency=level) is None


@reads
@levels
@on_zones()
async def test_when_every_zone_is_behind_or_misses_it_is_a_miss(zones, read, level):
    """The same."""
    cache, _ = await behind(zones, "a")
    zones.evict("k", "b", "c")
    assert await read(cache, consistency=level) is None
    await pass_time()
    assert zones.values("k") == {"a": "old", "b": None, "c": None}  # it is brought to nobody


@reads
@levels
@on_zones()
async def test_behind_and_the_others_out_of_reach(zones, read, level):
    """Then nobody knows: no zone has answered. The reasons are given; and the default, where errors are misses."""
    cache, newest = await behind(zones, "a")
    old = zones.stored_versions("k")["a"]
    await zones.kill("b", "c")
    with pytest.raises(CacheUnavailable) as caught:
        await read(cache, consistency=level)
    assert set(caught.value.failures) == set("abc")
    reason = caught.value.failures["a"]
    assert isinstance(reason, StaleReplica)
    assert (reason.held, reason.known) == (old, newest.version)
    assert await read(cache, consistency=level, errors="miss") is None


@reads
@on_zones()
async def test_behind_counts_for_no_level(zones, read):
    """Two zones answer, one of them with what is too old, and two are needed."""
    cache, _ = await behind(zones, "a")
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
async def test_a_version_that_was_read_counts_as_one_that_was_written(zones, level):
    """Whoever wrote it."""
    writer, _ = await behind(zones, "a")
    for first in READS.values():
        reader = await zones.ready(local_zone="b", hints=None, check_share=0)
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
async def test_other_clients_may_see_what_is_behind(zones):
    """At `ONE`, those that know of nothing newer: this is no promise of the zones, but of each client."""
    await behind(zones, "a")
    other = await zones.ready()
    assert await other.get("k") == "old"
    assert await other.get("k", consistency="all") == "new"
    await pass_time()
    assert await other.get("k") == "new"


@reads
@on_zones()
async def test_nothing_is_remembered_where_it_is_off(zones, read):
    """Then `ONE` is what it says."""
    cache, _ = await behind(zones, "a", remember_versions=0)
    assert await read(cache) == "old"


@on_zones()
async def test_a_failed_write_is_not_remembered(zones):
    """Too few zones have it: remembered, every zone would look behind, and the key be lost to this client."""
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
    """One of the two that it takes has it; when that one dies, the older value of the others is read."""
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
    """For a write that waits for none: once one has."""
    cache = await zones.ready(hints=None)
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    await cache.set("k", "new", consistency=level)
    await pass_time()
    zones.put_back("k", old, "a")
    assert await cache.get("k") == "new"


@pytest.mark.parametrize("operation", ["add", "cas", "replace", "append"])
@on_zones()
async def test_a_decision_is_remembered(zones, operation):
    """Like any other write, for as few zones as it asks for."""
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
async def test_a_read_is_held_to_what_was_known_when_it_began(zones):
    """A write that is sent after a read, and answered first elsewhere, does not make the read's own answer too old."""
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
async def test_the_near_cache_returns_nothing_that_is_too_old(zones):
    """What a read that passes by it has seen counts for it too."""
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
async def test_the_near_cache_keeps_nothing_that_is_behind(zones):
    """What was not returned is not kept either."""
    cache, _ = await behind(zones, *"abc", near_cache=NearCache(max_bytes=100_000, ttl=100))
    cache._near.clear()
    assert await cache.get("k") is None
    assert await cache.get_many(["k"]) == {}
    assert (await cache.get_item("k")) is None


@on_zones(versions="1.6.18")
async def test_where_there_are_no_versions_nothing_is_behind(zones):
    """There the zones are believed, as ever."""
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    await cache.set("k", "new", consistency="all")
    zones.write_as_another_client("k", b"other", 0, "a")
    assert await cache.get("k") is not None


@on_zones()
async def test_an_item_of_another_kind_of_client_is_not_behind(zones):
    """It has no version: it neither wins nor loses."""
    cache = await zones.ready()
    await cache.set("k", "ours", consistency="all")
    for zone in "abc":
        zones.one(zone).store.delete(full("k"))
    zones.write_as_another_client("k", b"theirs", 0, *"abc")
    assert await cache.get_item("k") is not None
