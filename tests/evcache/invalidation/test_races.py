"""Both races between a fetch and the write of another client, through two clients. A reader that knows of a write stores no
older value, whatever the zones still return.
"""

import asyncio

import pytest

from evcache.replication.hlc import MAX_CAS
from tests.support.memory_zones import TOMBSTONE, full, on_zones, pass_time
from tests.support.near import GRACE, KEY, OLD, Pair, heard, keeps_what_is_new, kept
from tests.support.read_calls import get, get_item


async def no_load():
    raise AssertionError("there is a value")


async def no_loads(keys):
    raise AssertionError(f"there are values: {keys}")


async def get_many(cache):
    return (await cache.get_many([KEY, "other"])).get(KEY)


async def get_or_load(cache):
    return await cache.get_or_load(KEY, no_load)


async def get_or_load_many(cache):
    return (await cache.get_or_load_many([KEY], no_loads)).get(KEY)


READS = [get, get_item, get_many, get_or_load, get_or_load_many]


async def cas(cache):
    return await cache.cas(KEY, "new", await cache.get_item(KEY, for_update=True), consistency="all")


async def write_through(cache):
    async def to_source(value):
        await asyncio.sleep(0)

    return await cache.write_through(KEY, "new", to_source, consistency="all")


# The write, the value after it, and if its invalidation has a version.
WRITES = {
    "set": (lambda cache: cache.set(KEY, "new", consistency="all"), "new", True),
    "set_many": (lambda cache: cache.set_many({KEY: "new", "more": 1}, consistency="all"), "new", True),
    "delete": (lambda cache: cache.delete(KEY, consistency="all"), None, True),
    "delete_many": (lambda cache: cache.delete_many([KEY, "more"], consistency="all"), None, True),
    "invalidate": (lambda cache: cache.invalidate(KEY, consistency="all"), None, True),
    "invalidate, served stale": (
        lambda cache: cache.invalidate(KEY, stale_while_revalidate=100, consistency="all"),
        None,
        True,
    ),
    "write_through": (write_through, "new", True),
    "replace": (lambda cache: cache.replace(KEY, "new", consistency="all"), "new", True),
    "cas": (cas, "new", True),
    "append": (lambda cache: cache.append(KEY, "new", consistency="all"), "1new", True),
    "prepend": (lambda cache: cache.prepend(KEY, "new", consistency="all"), "new1", True),
    "incr": (lambda cache: cache.incr(KEY, 4, consistency="all"), 5, True),
    "decr": (lambda cache: cache.decr(KEY, consistency="all"), 0, True),
    "set in order of arrival": (lambda cache: cache.set(KEY, "new", ordering="arrival", consistency="all"), "new", False),
}


def old_for(new):
    """The value before the write: a counter is an int from the start."""
    return 1 if isinstance(new, int) else OLD


each_write = pytest.mark.parametrize(("write", "new", "versioned"), WRITES.values(), ids=WRITES)


def old_version(held):
    return MAX_CAS - held.raw.cas


# (a) The invalidation arrives during the fetch.


@each_write
@pytest.mark.parametrize("read", READS[:3], ids=lambda read: read.__name__)
@on_zones()
async def test_a_fetch_during_an_invalidation_is_not_stored(zones, write, new, versioned, read):
    """Its caller gets it, who asked before; the next one does not."""
    pair = await Pair.on(zones, old=old_for(new))
    reading = await pair.lands_late(read)
    assert await write(pair.writer) is not False
    await heard()
    assert await pair.arrives(reading) == old_for(new)
    assert kept(pair.reader, KEY) is None
    await keeps_what_is_new(pair, new, versioned)


@pytest.mark.parametrize("read", READS, ids=lambda read: read.__name__)
@on_zones()
async def test_no_kind_of_read_stores_a_fetch_during_an_invalidation(zones, read):
    pair = await Pair.on(zones)
    reading = await pair.lands_late(read)
    await pair.writer.set(KEY, "new", consistency="all")
    await heard()
    assert await pair.arrives(reading) == OLD
    assert kept(pair.reader, KEY) is None
    assert await read(pair.reader) == "new"


@on_zones()
async def test_a_fetch_during_a_touch_is_not_stored_with_the_old_ttl(zones):
    """What was fetched believes to have fifteen minutes left, and the item has two seconds."""
    pair = await Pair.on(zones)
    reading = await pair.lands_late(get)
    assert await pair.writer.touch(KEY, 2, consistency="all")
    await heard()
    assert await pair.arrives(reading) == OLD
    assert kept(pair.reader, KEY) is None
    assert await pair.reader.get(KEY) == OLD
    await pass_time(2)
    assert await pair.reader.get(KEY) is None


@on_zones()
async def test_a_touch_drops_the_entry(zones):
    pair = await Pair.on(zones)
    assert await pair.reader.get(KEY) == OLD
    assert await pair.writer.touch(KEY, 2, consistency="all")
    await heard()
    assert kept(pair.reader, KEY) is None
    assert await pair.reader.get(KEY) == OLD
    assert kept(pair.reader, KEY) is not None, "it is the same value: sessions are touched all the time"
    await pass_time(2)
    assert await pair.reader.get(KEY) is None


@on_zones()
async def test_a_revalidation_during_an_invalidation_reads_the_value(zones):
    """The zone has confirmed the old version, and then the write comes."""
    pair = await Pair.on(zones)
    large = "x" * 20_000
    await pair.writer.set(KEY, large, consistency="all")
    await heard()
    assert await pair.reader.get(KEY) == large
    await pass_time(59.9)
    while kept(pair.reader, KEY) is not None:
        await pass_time(0.01)
    assert pair.reader._runtime.zone_reader.may_renew(full(KEY))
    reading = await pair.lands_late(get)
    await pair.writer.set(KEY, "new", consistency="all")
    await heard()
    assert await pair.arrives(reading) == "new"
    await keeps_what_is_new(pair, "new", versioned=True)


# (b) The invalidation arrives before the write is in the reader's zone.


@each_write
@on_zones()
async def test_a_fetch_of_a_zone_without_the_write_is_not_stored(zones, write, new, versioned):
    """A fetch after the invalidation reads the old value, each time, until its zone has the new one.

    If the invalidation has a version, the reader asks another zone then.
    """
    pair = await Pair.on(zones, old=old_for(new), repair=False)
    assert await pair.reader.get(KEY) == old_for(new)
    old = pair.in_zone()
    await write(pair.writer)
    fresh = pair.in_zone()
    pair.set_zone(old)
    await heard()
    for wait in (0, GRACE - 1):
        await pass_time(wait)
        for read in READS[:3]:
            assert await read(pair.reader) == (new if versioned else old_for(new))
            assert kept(pair.reader, KEY) is None or (versioned and kept(pair.reader, KEY).version > old_version(old))
    pair.set_zone(fresh)
    await keeps_what_is_new(pair, new, versioned)


@on_zones()
async def test_an_overtaken_touch_applies_when_the_near_ttl_ends(zones):
    """The version is the same: no floor can tell the old time to live from the new one."""
    pair = await Pair.on(zones)
    old = pair.in_zone()
    assert await pair.writer.touch(KEY, 2, consistency="all")
    pair.set_zone(old)
    await heard()
    assert await pair.reader.get(KEY) == OLD
    zones.evict(KEY, "a", "b", "c")
    await pass_time(61)
    assert await pair.reader.get(KEY) is None


@on_zones()
async def test_own_writes_are_not_followed_by_older_values_of_the_local_zone(zones):
    """They have returned when two zones have them, and the local one, which is read next, is the third."""
    pair = await Pair.on(zones)
    assert await pair.reader.get(KEY) == OLD
    pair.to_reader.requests["a"].hold()
    assert await pair.reader.set(KEY, "new", consistency="quorum")
    assert kept(pair.reader, KEY) is not None
    assert await pair.reader.get(KEY) == "new"
    assert await pair.reader.delete(KEY, consistency="quorum")
    assert await pair.reader.get(KEY) is None
    pair.to_reader.requests["a"].release()
    await pass_time()
    assert zones.values(KEY) == {"a": TOMBSTONE, "b": TOMBSTONE, "c": TOMBSTONE}
    assert await pair.reader.get(KEY) is None


@on_zones()
async def test_an_own_write_without_effect_admits_no_older_values(zones):
    """Another client moved the counter; ours found that it need not be made, and the local zone is behind still."""
    pair = await Pair.on(zones, old=1)
    old = pair.in_zone()
    assert await pair.writer.incr(KEY, consistency="all") == 2
    pair.set_zone(old)
    await heard()
    zones.pause("a")  # so that another zone decides
    adding = asyncio.ensure_future(pair.reader.add(KEY, "0"))
    await pass_time(0.1)
    zones.resume("a")
    assert not await adding
    for read in READS[:3]:
        assert await read(pair.reader) == 2, "the look of the zones has seen it"
