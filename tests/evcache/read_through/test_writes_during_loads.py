"""Writes during a load: the loaded value is older, so it is stored in no zone and in no near cache."""

import asyncio

import pytest

from evcache import NearCache
from evcache.load_policy import LoadPolicy
from tests.support.memory_zones import PATIENT, TOMBSTONE, on_zones, pass_time
from tests.support.near import GRACE, KEY, Pair, heard, kept
from tests.support.sources import Source, assert_nothing_left, no_stubs, on_releases, one_and_many, outcomes, seen, started
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=5)
ALONE = LoadPolicy(jitter=0, lease=False, xfetch_beta=0)

WRITES = {"set": ("set", "k", "written"), "delete": ("delete", "k"), "invalidate": ("invalidate", "k")}


# Writes of this process and of others.


@pytest.mark.parametrize("who", ["this", "another"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("policy", [EXACT, ALONE, STALE], ids=["lease", "alone", "stale"])
@on_zones()
async def test_a_load_hides_a_write_in_no_zone(zones, write, who, policy):
    """Callers that waited get the loaded value. A caller that asks this client after its own write does not."""
    cache, other = await zones.ready(near_cache=NearCache()), await zones.ready(local_zone="b")
    source = Source("loaded", seconds=1)
    waiting = [asyncio.create_task(cache.get_or_load("k", source.load, policy=policy)) for _ in range(2)]
    await started(source)
    await pass_time(0.5)
    name, *arguments = WRITES[write]
    await getattr(cache if who == "this" else other, name)(*arguments)
    source.value = "after"
    late = asyncio.create_task(cache.get_or_load("k", source.load, policy=policy))
    assert await asyncio.gather(*waiting) == ["loaded"] * 2
    await settle()
    assert "loaded" not in seen(zones, "k").values()
    assert await other.get("k") == ("written" if write == "set" else None)
    assert await cache.get("k") == ("written" if write == "set" else None)
    if who == "this" or write == "set":
        assert await late == ("written" if write == "set" else "after")
    await outcomes(late)
    await pass_time(3)
    assert "loaded" not in seen(zones, "k").values()
    await assert_nothing_left(cache, other)


@on_zones(versions="1.6.18")
async def test_a_load_hides_no_write_on_servers_without_versions(zones):
    """The lease decides there: an item that is not the stub was written."""
    for number, write in enumerate(WRITES):
        cache, other = await zones.ready(), await zones.ready(local_zone="b")
        source = Source("loaded", seconds=1)
        key = f"k{number}"
        waiting = asyncio.create_task(cache.get_or_load(key, source.load))
        await started(source)
        name, _, *arguments = WRITES[write]
        await getattr(other, name)(key, *arguments)
        assert await waiting == "loaded"
        await pass_time(1)
        assert "loaded" not in seen(zones, key).values()


@on_zones(versions="1.6.18")
async def test_a_load_hides_no_own_write_without_versions_and_leases(zones):
    """This client knows its own writes."""
    cache = await zones.ready()
    source = Source("loaded", seconds=1)
    waiting = asyncio.create_task(cache.get_or_load("k", source.load, policy=ALONE))
    await started(source)
    await cache.set("k", "written")
    assert await waiting == "loaded"
    assert seen(zones, "k") == dict.fromkeys("abc", "written")


@pytest.mark.parametrize("write", ["set", "delete"])
@on_zones()
async def test_a_load_hides_no_write_that_reaches_the_local_zone_late(zones, write):
    """The local zone stalls while the others store the write. The loaded value is in none of them, and leaves the local
    zone when the write reaches it.
    """
    cache, other = await zones.ready(), await zones.ready(local_zone="b")
    source = Source("loaded", seconds=1)
    waiting = asyncio.create_task(cache.get_or_load("k", source.load))
    await started(source)
    await pass_time(0.1)
    zones.pause("a")
    await (other.set("k", "written") if write == "set" else other.delete("k"))
    await pass_time(0.8)
    zones.resume("a")
    assert await waiting == "loaded"
    await pass_time(5)
    assert "loaded" not in seen(zones, "k").values()


@on_zones(zones=2)
async def test_a_touch_during_a_load_does_not_prevent_its_store(zones):
    """A touch writes no value that a load could hide."""
    cache, source = await zones.ready(), Source("loaded", seconds=1)
    waiting = asyncio.create_task(cache.get_or_load("k", source.load))
    await started(source)
    await cache.touch("k", 100)
    assert await waiting == "loaded"
    assert seen(zones, "k") == {"a": "loaded", "b": "loaded"}


# Writes that have expired by the end of the load.


@pytest.mark.parametrize("policy", [EXACT, ALONE], ids=["lease", "alone"])
@on_releases("1.6.38", "1.6.18", zones=2)
async def test_an_own_write_that_expires_during_a_load_prevents_its_store(zones, policy):
    """No server holds the write at the end of the load, but this client remembers it."""
    cache = await zones.ready()
    source = Source("loaded", seconds=5)
    waiting = asyncio.create_task(cache.get_or_load("k", source.load, policy=policy))
    await started(source)
    await pass_time(0.1)
    await cache.set("k", "written", ttl=1)
    assert await waiting == "loaded"
    assert seen(zones, "k") == {"a": None, "b": None}
    await assert_nothing_left(cache)


@pytest.mark.parametrize("write", ["set", "invalidate"])
@on_zones()
async def test_a_write_of_another_process_that_expires_during_a_load_prevents_its_store(zones, write):
    """The write replaced the stub, which is gone before its time. An invalidation lasts as long as a tombstone."""
    loading, other = await zones.ready(local_zone="a"), await zones.ready(local_zone="b")
    source = Source("loaded", seconds=5)
    waiting = asyncio.create_task(loading.get_or_load("k", source.load))
    await pass_time(0.5)
    await other.set("k", "written", ttl=1, consistency="all")
    if write == "invalidate":
        await other.invalidate("k", stale_while_revalidate=1, consistency="all")
    assert await waiting == "loaded", "the caller asked before the write"
    await pass_time(1)
    assert set(seen(zones, "k").values()) <= {None, TOMBSTONE, "written"}
    assert await other.get("k") is None
    assert await loading.get("k") is None
    assert await other.get_or_load("k", Source("newer").load) == "newer"


# Leases that end during the load.


@pytest.mark.parametrize("write", ["set", "delete", None])
@on_zones()
async def test_a_write_wins_against_a_load_that_outlives_its_lease(zones, write):
    """A second process loads too. The write is newer than both loads."""
    first, second = await zones.ready(), await zones.ready()
    slow, quick = Source("slow", seconds=5), Source("quick", seconds=1)
    policy = LoadPolicy(lease_seconds=2)
    tasks = [asyncio.create_task(first.get_or_load("k", slow.load, policy=policy))]
    await pass_time(3)
    tasks.append(asyncio.create_task(second.get_or_load("k", quick.load, policy=policy)))
    await started(quick)
    await pass_time(0.1)
    if write is not None:
        await (second.set("k", "written") if write == "set" else second.delete("k"))
    assert await asyncio.gather(*tasks) == ["slow", "quick"]
    await pass_time(1)
    stored = {"set": "written", "delete": None, None: "quick"}[write]  # without a write, the load that began later
    assert await first.get("k") == stored
    assert "slow" not in seen(zones, "k").values()
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_a_load_that_outlives_its_lease_is_stored_without_a_write(zones):
    cache = await zones.ready()
    assert await cache.get_or_load("k", Source("v", seconds=5).load, policy=LoadPolicy(lease_seconds=2)) == "v"
    assert seen(zones, "k") == {"a": "v", "b": "v"}


@pytest.mark.parametrize("seconds", [0.5, 1.5])
@on_zones(zones=2)
async def test_a_load_over_an_item_that_expires_during_the_load_is_stored(zones, seconds):
    """At the end of a refresh, the old value may be there, or may have expired."""
    cache = await zones.ready()
    await cache.set("k", "old", ttl=10)
    await pass_time(9)
    source = Source("new", seconds=seconds)
    assert await cache.get_or_load("k", source.load, ttl=10, policy=EXACT) == "old"
    await pass_time(2)
    assert seen(zones, "k") == {"a": "new", "b": "new"}


@on_zones(zones=2)
async def test_a_load_replaces_a_value_of_a_stale_zone(zones):
    """The zone holds an older value than this client wrote, and all other copies are gone."""
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    old = zones.held("k", "a")
    await pass_time(0.1)
    await cache.set("k", "written", consistency="all")
    zones.put_back("k", old, "a")
    zones.evict("k", "b")
    assert await cache.get_or_load("k", Source("loaded").load) == "loaded"
    await settle()
    assert seen(zones, "k") == {"a": "loaded", "b": "loaded"}
    assert no_stubs(zones)


# Reads that are in flight when a load ends.


@one_and_many
@on_zones()
async def test_a_read_that_outlasts_a_load_finds_its_value(zones, load):
    """The read waits for a zone that stalls, and misses. The caller reads again, and does not load."""
    cache = await zones.ready(read_timeout=1, write_timeout=0.1, circuit=PATIENT)
    source = Source("v", seconds=0.01)
    first = asyncio.create_task(load(cache, source, policy=ALONE))
    await started(source)
    zones.pause("b", "c")
    late = asyncio.create_task(load(cache, source, policy=ALONE))
    assert await first == "v"
    assert not late.done()
    assert await late == "v"
    assert source.calls == 1


@on_zones()
async def test_a_read_that_outlasts_a_failed_load_loads_again(zones):
    """The late caller does not get an error of a load that ended before its own could begin."""
    cache = await zones.ready(read_timeout=1, write_timeout=0.1, circuit=PATIENT)
    source = Source("v", seconds=0.01, error=ValueError("down"))
    first = asyncio.create_task(cache.get_or_load("key", source.load, policy=ALONE))
    await started(source)
    zones.pause("b", "c")
    late = asyncio.create_task(cache.get_or_load("key", source.load, policy=ALONE))
    with pytest.raises(ValueError, match="down"):
        await first
    source.error = None
    assert await late == "v"
    assert source.calls == 2
    await pass_time()


# Invalidation messages that arrive during a load.


MESSAGES = {
    "set": (lambda cache: cache.set(KEY, "new", consistency="all"), "new"),
    "set in the reader's zone last": (lambda cache: cache.set(KEY, "new"), "new"),
    "add": (lambda cache: cache.add(KEY, "new", consistency="all"), "new"),
    "delete": (lambda cache: cache.delete(KEY, consistency="all"), TOMBSTONE),
    "incr": (lambda cache: cache.incr(KEY, initial=7, consistency="all"), 7),
}


async def _without_tombstone(zones):
    """Return two clients with near caches and a channel. No zone and no near cache remembers a delete of the key."""
    pair = await Pair.on(zones)
    await pair.writer.delete(KEY, consistency="all")
    zones.evict(KEY, "a", "b", "c")
    await pass_time(GRACE + 1)
    return pair


@one_and_many
@pytest.mark.parametrize(("write", "new"), MESSAGES.values(), ids=MESSAGES)
@on_zones()
async def test_an_invalidation_message_detaches_the_running_load(zones, load, write, new):
    """Callers that waited get the loaded value. A caller that asks after the message does not, and no zone holds it."""
    pair = await _without_tombstone(zones)
    source, later = Source("loaded before", seconds=1), Source("loaded after")
    waiting = asyncio.create_task(load(pair.reader, source, KEY))
    await started(source)
    await write(pair.writer)
    await heard()
    late = asyncio.create_task(load(pair.reader, later, KEY))
    await pass_time(0.1)
    assert not waiting.done()
    assert await waiting == "loaded before"
    answer = await late
    await pass_time(0.1)
    values = zones.values(KEY)
    if new == TOMBSTONE:
        assert answer == "loaded after"
        assert set(values.values()) <= {TOMBSTONE, "loaded after"}
    else:
        assert answer == new
        assert set(values.values()) == {new}
    assert await pair.reader.get(KEY) != "loaded before"
    await pass_time(GRACE + 1)
    assert await pair.reader.get(KEY) != "loaded before"


@on_zones()
async def test_a_load_that_began_before_a_gap_is_not_in_the_near_cache(zones):
    """An invalidation message of the key may have been lost."""
    pair = await _without_tombstone(zones)
    source = Source("before", seconds=1)
    waiting = asyncio.create_task(pair.reader.get_or_load(KEY, source.load))
    await started(source)
    pair.reader._runtime.dispatcher.invalidate_all("test")
    assert await waiting == "before"
    assert kept(pair.reader, KEY) is None


@on_zones()
async def test_an_own_write_during_a_load_replaces_it_in_the_near_cache(zones):
    pair = await Pair.on(zones)
    await pair.reader.delete(KEY, consistency="all")
    source = Source("loaded", seconds=1)
    waiting = asyncio.create_task(pair.reader.get_or_load(KEY, source.load))
    await started(source)
    assert await pair.reader.set(KEY, "written", consistency="all")
    assert await waiting == "loaded"
    await pass_time(0.1)
    assert await pair.reader.get(KEY) == "written"
    assert set(zones.values(KEY).values()) == {"written"}
