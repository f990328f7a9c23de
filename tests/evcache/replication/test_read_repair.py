"""Read repair: which zones receive what, which items are not copied, and the limits."""

import asyncio

import pytest

from evcache import Outcome
from evcache.replication.repair.read_repair import MAX_REPAIRS, MAX_REPAIRS_PER_SECOND
from tests.support.memory_zones import QUICK, TOMBSTONE, Listener, cut_off, full, on_zones, pass_time


def everywhere(value):
    return dict.fromkeys("abc", value)


# Checks of all zones.


@on_zones()
async def test_a_check_finds_what_no_read_has_shown(zones):
    """The zone that is read has the value; another lacks it. Of some reads all zones are compared."""
    cache = await zones.ready(read_repair_chance=1.0)
    written = await cache.set("k", "value", ttl=500, consistency="all")
    zones.evict("k", "c")
    for _ in range(3):
        assert await cache.get("k") == "value"
    await pass_time()
    assert zones.stored_versions("k") == everywhere(written.version)
    assert zones.held("k", "c").ttl in (497, 498)


@pytest.mark.parametrize("local", ["a", "c"])
@on_zones()
async def test_a_check_heals_a_zone_that_is_behind(zones, local):
    """Also the one that was read, by a client that knows of nothing newer."""
    writer = await zones.ready(hints=None)
    await writer.set("k", "old", consistency="all")
    await cut_off(zones, writer, "c")
    newest = await writer.set("k", "new")
    zones.resume("c")
    cache = await zones.ready(local_zone=local, read_repair_chance=1.0)
    for _ in range(3):
        assert await cache.get("k") == ("new" if local == "a" else "old")
    await pass_time()
    assert zones.stored_versions("k") == everywhere(newest.version)
    assert await cache.get("k") == "new"


@on_zones()
async def test_a_check_brings_a_delete_too(zones):
    """What one zone has missed; and its time to be remembered is what the others have left of it."""
    writer = await zones.ready(hints=None)
    await writer.set("k", "old", consistency="all")
    await cut_off(zones, writer, "c")
    await writer.delete("k")
    zones.resume("c")
    await pass_time(10)
    cache = await zones.ready(read_repair_chance=1.0)
    for _ in range(3):
        assert await cache.get("k") is None
    await pass_time()
    assert zones.values("k") == everywhere(TOMBSTONE)
    assert zones.held("k", "c").ttl <= 51


@on_zones(write_only="c")
async def test_a_check_includes_write_only_zones(zones):
    """They are to be filled."""
    cache = await zones.ready(read_repair_chance=1.0)
    await cache.set("k", "value", consistency="all")
    await pass_time()
    zones.evict("k", "c")
    for _ in range(3):
        await cache.get("k")
    await pass_time()
    assert zones.values("k") == everywhere("value")


@on_zones()
async def test_a_share_of_the_reads_is_checked(zones):
    """About as many as asked for, whatever the rhythm; a check costs each zone one look without the value."""
    cache = await zones.ready(read_repair_chance=0.1)
    await cache.set("k", b"x" * 1000, consistency="all")
    zones.forget()
    for _ in range(2000):
        await cache.get("k")
        await pass_time(0.001)
    await pass_time()
    assert 120 <= zones.commands("b")["mg"] <= 280
    assert zones.commands("a")["mg"] == 2000 + zones.commands("b")["mg"]
    assert b"x" * 100 not in zones.wire("b")


@pytest.mark.parametrize("options", [{"read_repair_chance": 0}, {"interop": True}, {"repair": False}], ids=str)
@on_zones()
async def test_nothing_is_checked_where_it_is_off(zones, options):
    """By a share of 0, or with repairs; and where there are no versions."""
    cache = await zones.ready(**{"read_repair_chance": 1.0, **options})
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "c")
    zones.forget()
    for _ in range(20):
        await cache.get("k")
    await pass_time()
    assert zones.wire("b") == zones.wire("c") == b""
    assert zones.held("k", "c") is None


@pytest.mark.parametrize("level", ["one", "all"])
@on_zones()
async def test_without_repair_nothing_is_brought(zones, level):
    """Neither what was missed in one zone nor what several zones differ in."""
    listener = Listener()
    cache = await zones.ready(repair=False, hooks=listener, read_repair_chance=1.0)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    assert await cache.get("k", consistency=level) == "value"
    assert await cache.get_many(["k"], consistency=level) == {"k": "value"}
    await pass_time()
    assert zones.held("k", "a") is None
    assert listener.repairs == []
    assert (cache.stats().repairs, cache.stats().repairs_skipped) == (0, 0)


# Values that may have been deleted.

LONG = 70  # longer than a tombstone lives
SHORT = 20


async def after_an_outage(zones, seconds, *, holders, written="before"):
    """Return a client in zone a, after zone c was out of its reach. These zones hold the key."""
    cache = await zones.ready(hints=None, circuit=QUICK, read_repair_chance=0, remember_versions=0)
    if written == "before":
        await cache.set("k", "value", ttl=1000, consistency="all")
    await cut_off(zones, cache, "c")
    await pass_time(seconds)
    zones.resume("c")
    await pass_time(3)
    assert cache.stats().nodes_down == 0
    if written == "after":
        await cache.set("k", "value", ttl=1000, consistency="all")
    zones.evict("k", *set("abc").difference(holders))
    return cache


@pytest.mark.parametrize("read", ["get", "all", "many", "check"])
@pytest.mark.parametrize(
    ("seconds", "holders", "written", "brought"),
    [
        (LONG, "c", "before", False),  # it may have been deleted, and the tombstone has expired
        (LONG, "bc", "before", True),  # zone b was reachable and has it, so it was not deleted
        (SHORT, "c", "before", True),  # the tombstone would be there still
        (LONG, "c", "after", True),  # the outage was over
        (LONG, "b", "before", True),  # this zone was not cut off
    ],
)
@on_zones()
async def test_what_may_have_been_deleted_during_an_outage(zones, seconds, holders, written, brought, read):
    """An item of a zone that missed deletes for longer than a tombstone lives is copied to no zone by read repair. Reads return
    it."""
    cache = await after_an_outage(zones, seconds, holders=holders, written=written)
    if read == "check":
        cache._runtime.repair.start_comparison(cache._runtime.cluster.view, full("k"))
    elif read == "many":
        assert await cache.get_many(["k"]) == {"k": "value"}
    else:
        assert await cache.get("k", consistency="all" if read == "all" else "one") == "value"
    await pass_time()
    assert (zones.values("k")["a"] == "value") == brought


@on_zones()
async def test_what_was_deleted_during_an_outage_stays_deleted(zones):
    """The whole story: a zone is cut off, the key is deleted, the delete is forgotten, and the zone comes back."""
    cache = await zones.ready(hints=None, circuit=QUICK, remember_versions=0, read_repair_chance=1.0)
    await cache.set("k", "value", ttl=1000, consistency="all")
    await cut_off(zones, cache, "c")
    await cache.delete("k")
    await pass_time(LONG)
    zones.resume("c")
    await pass_time(3)
    for level in ("one", "quorum", "all"):
        await cache.get("k", consistency=level)
        await pass_time()
    assert zones.values("k") == {"a": None, "b": None, "c": "value"}


# How many.


@on_zones()
async def test_no_more_repairs_run_at_once_than_allowed(zones):
    """What is not repaired now is left to a later read, and counted."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    keys = [f"k{number}" for number in range(MAX_REPAIRS + 50)]
    await cache.set_many(dict.fromkeys(keys, "value"), consistency="all")
    for key in keys:
        zones.evict(key, "a")
    assert len(await cache.get_many(keys)) == len(keys)
    stats = cache.stats()
    assert (stats.repairs_running, stats.repairs_skipped) == (MAX_REPAIRS, 50)
    await pass_time()
    assert listener.repairs == [("a", Outcome.STORED)] * MAX_REPAIRS
    stats = cache.stats()
    assert (stats.repairs_running, stats.repairs) == (0, MAX_REPAIRS)
    assert len(await cache.get_many(keys)) == len(keys)
    await pass_time()
    assert cache.stats().repairs == len(keys)
    assert all(zones.values(key)["a"] == "value" for key in keys)


@on_zones()
async def test_no_more_repairs_in_a_second_than_allowed(zones):
    """A zone that comes back empty is not sent everything at once."""
    cache = await zones.ready()
    keys = [f"k{number}" for number in range(2 * MAX_REPAIRS_PER_SECOND)]
    await cache.set_many(dict.fromkeys(keys, "value"), consistency="all")
    for key in keys:
        zones.evict(key, "a")
    before = zones.commands("a").get("ms", 0)
    start = zones._loop.time()
    for key in keys:
        await cache.get(key)
        await pass_time(0.0001)
    assert zones._loop.time() - start < 1
    assert zones.commands("a")["ms"] - before == MAX_REPAIRS_PER_SECOND
    assert cache.stats().repairs_skipped == MAX_REPAIRS_PER_SECOND
    await pass_time()
    assert await cache.get(keys[-1]) == "value"
    await pass_time()
    assert zones.held(keys[-1], "a").value == "value"


@on_zones()
async def test_a_key_is_repaired_once_at_a_time(zones):
    """However many reads notice."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "a")
    await asyncio.gather(*(cache.get("k", consistency="all") for _ in range(5)))
    await pass_time()
    assert listener.repairs == [("a", Outcome.STORED)]


@on_zones()
async def test_a_repair_whose_zone_hangs_ends(zones):
    """No caller waits for it, and it is counted. The next read may try again."""
    listener = Listener()
    cache = await zones.ready(hooks=listener, fallback_on_miss=True)
    await cache.set("k", "value", consistency="all")
    zones.evict("k", "c")
    cache._runtime.repair.start_comparison(cache._runtime.cluster.view, full("k"))
    for _ in range(12):
        await pass_time(0)
    zones.pause("c")
    await pass_time(3)
    assert cache.stats().repairs_running == 0
    zones.resume("c")
    await pass_time(5)
    assert await cache.get("k", consistency="all") == "value"
    await pass_time()
    assert zones.held("k", "c").value == "value"
