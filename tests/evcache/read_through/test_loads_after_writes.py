"""After a write or a delete the first reader loads the key at once and stores the value.

Loads that began before, in this process or another, make no difference.
"""

import asyncio
import copy

import pytest

from evcache import LoadPolicy, NearCache
from evcache.channels import LocalChannel
from tests.support.memory_zones import Held, Stopwatch, full, on_zones, pass_time
from tests.support.sources import Source, assert_nothing_left, no_stubs, on_releases, outcomes, seen, started
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=60)
FAIL_SAFE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=600)
ALONE = LoadPolicy(jitter=0, lease=False, xfetch_beta=0, stale_while_revalidate=60)
POLICIES = {"refresh_after": EXACT, "stale_while_revalidate": STALE, "stale_if_error": FAIL_SAFE}
policies = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)

DELETES = {
    "delete": lambda cache: cache.delete("k"),
    "delete_many": lambda cache: cache.delete_many(["k", "other"]),
    "invalidate": lambda cache: cache.invalidate("k"),
}
deletes = pytest.mark.parametrize("delete", DELETES.values(), ids=DELETES)


async def load(cache, source, policy):
    return await cache.get_or_load("k", source.load, ttl=10, policy=policy)


async def load_many(cache, source, policy):
    return (await cache.get_or_load_many(["k"], source.load_many, ttl=10, policy=policy)).get("k")


loads = pytest.mark.parametrize("read", [load, load_many], ids=["get_or_load", "get_or_load_many"])


async def failed_refresh(cache, policy):
    """Store a value, let its refresh fail, and return the value's source, which works again."""
    source = Source("old")
    assert await load(cache, source, policy) == "old"
    await pass_time(8.6 if policy is EXACT else 11)
    source.error = OSError("hiccup")
    assert await load(cache, source, policy) == "old"
    await settle()
    assert source.calls == 2
    source.error, source.value = None, "new"
    return source


@loads
@policies
@deletes
@pytest.mark.parametrize("deleter", [0, 1], ids=["this process deletes", "another process deletes"])
@pytest.mark.parametrize("reader", [0, 1], ids=["this process reads", "another process reads"])
def test_after_a_delete_a_failed_refresh_is_forgotten(read, policy, delete, deleter, reader):
    """All processes of the zone forget it, whichever deletes or reads first, also in zones without versions."""

    async def check(zones):
        caches = [await zones.ready() for _ in range(2)]
        source = await failed_refresh(caches[0], policy)
        await delete(caches[deleter])
        watch = Stopwatch()
        assert await read(caches[reader], source, policy) == "new"
        assert watch.seconds == 0
        assert source.calls == 3
        assert seen(zones, "k") == {"a": "new", "b": "new"}
        assert await read(caches[1 - reader], source, policy) == "new"
        assert source.calls == 3
        await assert_nothing_left(*caches)

    old, new = "1.6.18", "1.6.38"
    for releases in (new, old, {"a": old, "b": new}, {"a": new, "b": old}):
        on_zones(zones=2, versions=releases)(check)()


@on_releases("1.6.38", "1.6.18", zones=2)
async def test_without_a_write_a_failed_refresh_holds(zones):
    """The pause lasts `failure_backoff` seconds for every process of the zone."""
    caches = [await zones.ready() for _ in range(2)]
    source = await failed_refresh(caches[0], STALE)
    for cache in caches:
        for _ in range(3):
            assert await load(cache, source, STALE) == "old"
            await pass_time(1)
    assert source.calls == 2
    await pass_time(30)
    assert await load(caches[1], source, STALE) == "old"
    await settle()
    assert source.calls == 3
    assert await load(caches[1], source, STALE) == "new"


@on_zones(zones=2)
async def test_a_touch_does_not_end_the_time_for_which_a_loader_is_left_alone(zones):
    """A touch writes nothing, and a service may touch a key with every read."""
    cache = await zones.ready()
    source = await failed_refresh(cache, ALONE)
    await cache.touch("k", 100)
    assert await load(cache, source, ALONE) == "old"
    await settle()
    assert source.calls == 2


@policies
@pytest.mark.parametrize("invalidator", [0, 1], ids=["this process", "another process"])
@pytest.mark.parametrize("channel", [True, False], ids=["heard", "not heard"])
@on_zones(zones=2)
async def test_after_invalidate_with_stale_for_the_first_reader_has_it_loaded(zones, policy, invalidator, channel):
    """The load runs in the background. Without a channel, a reader of the invalidating process begins it."""
    options = {"invalidation": LocalChannel()} if channel else {}
    caches = [await zones.ready(**options) for _ in range(2)]
    source = await failed_refresh(caches[0], policy)
    assert await caches[invalidator].invalidate("k", stale_while_revalidate=20)
    await pass_time(0.02)
    reader = caches[0 if channel else invalidator]
    read = await load(reader, source, policy)
    assert read == ("new" if policy is FAIL_SAFE else "old")
    await settle()
    assert source.calls == 3
    assert seen(zones, "k") == {"a": "new", "b": "new"}


@on_zones(zones=2)
async def test_a_set_ends_the_time_for_which_a_loader_is_left_alone(zones):
    """The client refreshes a value that was set, like any other value, when it is due."""
    cache = await zones.ready()
    source = await failed_refresh(cache, EXACT)
    await cache.set("k", "set", ttl=10)
    await pass_time(8.6)
    assert await load(cache, source, EXACT) == "set"
    await settle()
    assert source.calls == 3
    assert seen(zones, "k") == {"a": "new", "b": "new"}


@on_zones(zones=2)
async def test_missed_announcements_end_it_for_every_key(zones):
    cache = await zones.ready()
    source = await failed_refresh(cache, STALE)
    assert cache._runtime.read_through._loader.is_in_backoff(b"t:k")
    cache._runtime.dispatcher.invalidate_all("a test")
    assert not cache._runtime.read_through._loader.is_in_backoff(b"t:k")
    assert source.calls == 2


@pytest.mark.parametrize("write", ["delete", "invalidate", "lost track"])
@on_zones(zones=2)
async def test_a_load_that_fails_after_a_write_says_nothing_about_the_next_one(zones, write):
    """It began before it."""
    cache = await zones.ready()
    source = Source("old")
    await load(cache, source, STALE)
    await pass_time(11)
    source.error, source.seconds = OSError("hiccup"), 1.0
    assert await load(cache, source, STALE) == "old"
    await started(source, 2)
    if write == "lost track":
        cache._runtime.dispatcher.invalidate_all("a test")
    else:
        await (cache.delete("k") if write == "delete" else cache.invalidate("k", stale_while_revalidate=60))
    await pass_time(1.1)
    assert not cache._runtime.read_through._loader.is_in_backoff(b"t:k")
    source.error, source.seconds, source.value = None, 0, "new"
    if write != "lost track":
        assert await load(cache, source, STALE) == ("new" if write == "delete" else "old")
        await settle()
        assert seen(zones, "k") == {"a": "new", "b": "new"}


@deletes
@pytest.mark.parametrize("before", ["nothing", "due", "stale"])
@on_releases("1.6.38", "1.6.18", zones=2)
async def test_a_load_of_the_old_state_does_not_hold_up_loads_of_the_new_one(zones, delete, before):
    """The first process still loads and was not notified of the delete. One of the later readers loads at once."""
    caches = [await zones.ready() for _ in range(4)]
    policy = STALE if before == "stale" else EXACT
    slow, quick = Source("old", seconds=0.0), Source("new", seconds=0.5)
    if before != "nothing":
        await load(caches[0], slow, policy)
        await pass_time(11 if before == "stale" else 8.6)
    slow.seconds, slow.value = 5.0, "slow"
    first = asyncio.create_task(load(caches[0], slow, policy))
    await started(slow, 1 if before == "nothing" else 2)
    await pass_time(0.1)
    await delete(caches[1])
    watch = Stopwatch()
    calls = [load(cache, quick, policy) for cache in caches[1:] for _ in range(3)]
    assert await asyncio.gather(*calls) == ["new"] * 9
    assert watch.seconds <= 1.0  # and not `lease_wait`, nor until the slow one has ended
    assert quick.calls == 1
    await pass_time(5)
    await outcomes(first)
    assert seen(zones, "k") == {"a": "new", "b": "new"}
    assert no_stubs(zones)
    await assert_nothing_left(*caches)


@pytest.mark.parametrize("who", ["own", "heard"])
@pytest.mark.parametrize("arrives", [True, False], ids=["arrives during the load", "does not arrive"])
@policies
@on_zones()
async def test_in_a_zone_that_lacks_the_delete_too(zones, policy, arrives, who):
    """The other zones acknowledged it, and the local zone still has the value whose refresh failed."""
    channel = LocalChannel()
    cache, other = [await zones.ready(local_zone=zone, invalidation=channel, hints=None, repair=False) for zone in "ab"]
    source = await failed_refresh(cache, policy)
    store = zones.one("a").store
    old = copy.copy(store.get(full("k")))
    assert await (cache if who == "own" else other).delete("k", consistency="all")
    tombstone = zones.held("k", "b")
    zones.put_back("k", Held(None, None, 500, old), "a")
    await pass_time(0.02)
    source.seconds = 0.5
    loading = asyncio.ensure_future(load(cache, source, policy))
    await pass_time(0.2)
    if arrives:
        zones.put_back("k", tombstone, "a")
    watch = Stopwatch()
    assert await loading == "new"
    assert watch.seconds == pytest.approx(0.3)
    assert source.calls == 3
    assert seen(zones, "k") == dict.fromkeys("abc", "new")
    assert await load(other, source, policy) == "new"
    assert source.calls == 3


@deletes
@on_zones(zones=2)
async def test_after_the_delete_of_an_absence_the_first_reader_loads(zones, delete):
    """A remembered absence is an item like any other."""
    caches = [await zones.ready(near_cache=NearCache()) for _ in range(2)]
    source = Source(None)
    assert await load(caches[0], source, EXACT) is None
    source.value = "new"
    await delete(caches[0])
    watch = Stopwatch()
    assert await load(caches[0], source, EXACT) == "new"
    assert await load(caches[1], source, EXACT) == "new"
    assert (watch.seconds, source.calls) == (0, 2)
    assert seen(zones, "k") == {"a": "new", "b": "new"}
