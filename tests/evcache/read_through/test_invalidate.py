"""`invalidate`: the value is stale from now on. With `stale_while_revalidate` it is served while a refresh runs."""

import math
import random
from datetime import timedelta

import pytest

from evcache import CacheUnavailable, InvalidArgument, NearCache
from evcache.load_policy import LoadPolicy
from evcache.values.envelope import unwrap
from evcache.values.flags import FLAG_ENVELOPE
from tests.support.memory_zones import TOMBSTONE, Stopwatch, full, on_zones, pass_time
from tests.support.near import follow_loop
from tests.support.sources import LoadListener, Source, assert_nothing_left, no_stubs, seen
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)
STALE = LoadPolicy(jitter=0, refresh_after=1, stale_while_revalidate=50)


@on_zones()
async def test_without_more_it_is_a_delete(zones):
    """No caller is served the old value."""
    cache, source = await zones.ready(), Source("new")
    await cache.set("k", "old")
    result = await cache.invalidate("k", consistency="all")
    assert result
    assert seen(zones, "k") == dict.fromkeys("abc", TOMBSTONE)
    assert await cache.get_or_load("k", source.load) == "new"


@pytest.mark.parametrize("near_cache", [None, NearCache()])
@pytest.mark.parametrize("stale_while_revalidate", [30, timedelta(seconds=30)])
@on_zones()
async def test_plain_reads_miss_and_loads_serve_the_old_value(zones, near_cache, stale_while_revalidate):
    """In every zone and process, until one has loaded the new one."""
    listener = LoadListener()
    cache, other = await zones.ready(near_cache=near_cache, hooks=listener), await zones.ready(local_zone="b")
    await cache.set("k", ["old"], ttl=1000)
    await pass_time(1)
    result = await cache.invalidate("k", stale_while_revalidate=stale_while_revalidate, consistency="all")
    assert result
    assert result.version is not None
    for client in (cache, other):
        assert await client.get("k", "default") == "default"
        assert await client.get_item("k") is None
        assert await client.get_many(["k"]) == {}
    assert seen(zones, "k") == dict.fromkeys("abc", ["old"])
    # As long as a delete is remembered: a load that is slow can't store what it has read before.
    assert zones.one("a").store.ttl_left(zones.one("a").store.get(full("k"))) == 60
    source = Source(["new"], seconds=1)
    watch = Stopwatch()
    for client in (cache, other, cache, other):
        assert await client.get_or_load("k", source.load) == ["old"]
    assert watch.seconds == 0
    assert listener.stale == [None, None]
    await pass_time(1.1)
    assert source.calls == 2, "one in each zone"
    for client in (cache, other):
        assert await client.get_or_load("k", source.load) == ["new"]
        assert await client.get("k") == ["new"]
    assert no_stubs(zones)
    await assert_nothing_left(cache, other)


@on_zones(zones=2)
async def test_after_its_time_the_old_value_is_not_served(zones):
    cache, source = await zones.ready(), Source("new")
    await cache.set("k", "old")
    await cache.invalidate("k", stale_while_revalidate=5)
    await pass_time(5.1)
    assert await cache.get_or_load("k", source.load) == "new"


@pytest.mark.parametrize("held", ["nothing", "deleted", "absence"])
@on_zones(zones=2)
async def test_where_there_is_nothing_to_serve_it_is_a_delete(zones, held):
    """A known absence is forgotten too."""
    cache, source = await zones.ready(), Source("born")
    if held == "deleted":
        await cache.set("k", "old")
        await cache.delete("k")
    elif held == "absence":
        await cache.get_or_load("k", Source(None).load)
    assert await cache.invalidate("k", stale_while_revalidate=30, consistency="all")
    assert seen(zones, "k") == {"a": TOMBSTONE, "b": TOMBSTONE}
    assert await cache.get_or_load("k", source.load) == "born"


@on_zones(zones=2)
async def test_a_value_in_an_envelope_keeps_its_flags_and_bytes(zones):
    """It is put into another, and not into the one that it has."""
    cache, source = await zones.ready(), Source({"a": [1]})
    await cache.get_or_load("k", source.load, ttl=100, policy=STALE)
    await pass_time(1)
    await cache.invalidate("k", stale_while_revalidate=30)
    assert await cache.get("k") is None
    assert await cache.get_or_load("k", source.load, policy=STALE) == {"a": [1]}


@on_zones(zones=2)
async def test_invalidating_again_does_not_make_the_old_value_last(zones):
    """The value is served for `stale_while_revalidate` after the first call. Later calls do not extend that time."""
    cache, source = await zones.ready(), Source(error=LookupError("down"))
    await cache.set("k", "old")
    await cache.invalidate("k", stale_while_revalidate=10)
    for _ in range(2):
        await pass_time(4)
        await cache.invalidate("k", stale_while_revalidate=10)
        assert await cache.get_or_load("k", source.load) == "old"
    await pass_time(2.5)
    assert await cache.get("k") is None
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load)
    await cache.invalidate("k", stale_while_revalidate=10)
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load)


@on_zones(zones=2)
async def test_what_is_kept_for_when_its_loader_fails_is_not_served_more_freely(zones):
    """A value that was out of date already is not made one that is served without trying."""
    cache, source = await zones.ready(), Source("old")
    await cache.get_or_load("k", source.load, ttl=10, policy=LoadPolicy(jitter=0, stale_if_error=100))
    await pass_time(30)
    await cache.invalidate("k", stale_while_revalidate=15)
    source.value = "new"
    assert await cache.get_or_load("k", source.load, ttl=10) == "new"


@on_zones(zones=2)
async def test_a_load_that_began_before_is_not_stored_over_it(zones):
    """What it loaded may be what was invalidated."""
    cache, other = await zones.ready(), await zones.ready(local_zone="b")
    source = Source("loaded before", seconds=1)
    await cache.set("k", "old", ttl=10)
    await pass_time(8.5)
    assert await cache.get_or_load("k", source.load, ttl=10, policy=EXACT) == "old"
    await pass_time(0.5)
    await other.invalidate("k", stale_while_revalidate=30)
    await pass_time(1)
    assert seen(zones, "k") == {"a": "old", "b": "old"}
    assert await cache.get("k") is None
    source.value = "loaded after"
    assert await cache.get_or_load("k", source.load) == "old"
    await pass_time(1.1)
    assert await other.get("k") == "loaded after"
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_a_write_after_it_is_fresh(zones):
    cache, source = await zones.ready(), Source()
    await cache.set("k", "old")
    await cache.invalidate("k", stale_while_revalidate=30)
    await cache.set("k", "new")
    assert await cache.get("k") == "new"
    assert await cache.get_or_load("k", source.load) == "new"
    assert source.calls == 0


@on_zones(zones=2)
async def test_the_near_cache_lets_go_of_it(zones):
    cache, source = await zones.ready(near_cache=NearCache(ttl=100)), Source("old")
    follow_loop(cache)
    await cache.get_or_load("k", source.load)
    assert await cache.get("k") == "old"
    await cache.invalidate("k", stale_while_revalidate=30)
    assert await cache.get("k") is None
    source.value = "new"
    assert await cache.get_or_load("k", source.load) == "old"
    await settle()
    assert await cache.get_or_load("k", source.load) == "new"
    assert await cache.get("k") == "new"


@on_zones(zones=2)
async def test_a_value_that_is_served_out_of_date_is_not_served_for_longer(zones):
    """A shorter time applies if the call asks for it."""
    cache, source = await zones.ready(), Source("old", error=None)
    await cache.get_or_load("k", source.load, ttl=10, policy=STALE)  # until 60 s
    await pass_time(20)
    source.error = LookupError("down")
    await cache.invalidate("k", stale_while_revalidate=1000)
    assert unwrap(zones.one("a").store.get(full("k")).value).stale_until - zones.wall_clock() == pytest.approx(40, abs=0.01)
    await cache.invalidate("k", stale_while_revalidate=5)
    await pass_time(4)
    assert await cache.get_or_load("k", source.load, policy=STALE) == "old"
    await pass_time(1.1)
    with pytest.raises(LookupError):
        await cache.get_or_load("k", source.load, policy=STALE)


@pytest.mark.parametrize(("size", "served"), [(1100, True), (1900, False)])
@on_zones(zones=2, item_size_max=2000)
async def test_a_value_that_does_not_fit_with_its_times_is_deleted(zones, size, served):
    """Better than that it stays as it is."""
    cache, source, value = await zones.ready(), Source("new"), random.Random(1).randbytes(size)
    assert await cache.set("k", value, consistency="all")
    assert await cache.invalidate("k", stale_while_revalidate=30, consistency="all")
    assert await cache.get("k") is None
    assert await cache.get_or_load("k", source.load) == (value if served else "new")


@on_zones(zones=2)
async def test_a_value_that_cannot_be_read_is_deleted(zones):
    """An envelope of a later release, or damage."""
    cache = await zones.ready()
    zones.write_as_another_client("k", b"damaged", FLAG_ENVELOPE, "a", "b")
    assert await cache.invalidate("k", stale_while_revalidate=30, consistency="all")
    assert await cache.get_or_load("k", Source("new").load) == "new"


@pytest.mark.parametrize("stale_while_revalidate", [None, 30])
@on_zones(zones=2)
async def test_zones_that_cannot_be_reached_are_told_as_by_a_delete(zones, stale_while_revalidate):
    cache = await zones.ready()
    await cache.set("k", "old")
    await zones.kill("a", "b")
    with pytest.raises(CacheUnavailable):
        await cache.invalidate("k", stale_while_revalidate=stale_while_revalidate)


@on_zones()
async def test_a_zone_that_hangs_hears_of_it_later(zones):
    """The call ends within its timeout. Hinted handoff delivers the missing write to the zone."""
    cache, source = await zones.ready(), Source("new", seconds=10)
    await cache.set("k", "old", consistency="all")
    zones.pause("a")
    watch = Stopwatch()
    assert await cache.invalidate("k", stale_while_revalidate=30, timeout=1)
    assert watch.seconds <= 1
    zones.resume("a")
    await pass_time(5)
    assert seen(zones, "k") == dict.fromkeys("abc", "old")
    for zone in "abc":
        reader = await zones.ready(local_zone=zone)
        assert await reader.get("k") is None
        assert await reader.get_or_load("k", source.load) == "old"


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("stale_while_revalidate", {"stale_while_revalidate": 0}),
        ("stale_while_revalidate", {"stale_while_revalidate": -1}),
        ("stale_while_revalidate", {"stale_while_revalidate": math.nan}),
        ("stale_while_revalidate", {"stale_while_revalidate": "5"}),
        ("timeout", {"timeout": 0}),
        ("consistency", {"consistency": "most"}),
    ],
)
@on_zones(zones=2)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(zones, argument, given):
    cache = await zones.ready()
    with pytest.raises(InvalidArgument) as caught:
        await cache.invalidate("k", **given)
    assert caught.value.argument == argument
    assert zones.wire("a") == b""


@on_zones(zones=2)
async def test_where_other_clients_read_nothing_is_served_on(zones):
    """They would take what is out of date for fresh. Without `stale_while_revalidate` it is a delete."""
    cache = await zones.ready(interop=True)
    await cache.set("k", "old")
    zones.forget()
    with pytest.raises(InvalidArgument) as caught:
        await cache.invalidate("k", stale_while_revalidate=30)
    assert caught.value.argument == "stale_while_revalidate"
    assert zones.wire("a") == b""
    assert await cache.invalidate("k")
    assert seen(zones, "k") == {"a": None, "b": None}
