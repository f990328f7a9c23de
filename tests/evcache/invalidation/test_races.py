"""Both races between a fetch and what another client announces, through two clients: whoever has heard of a write keeps
nothing older than it, whatever the zones still answer.
"""

import asyncio
import contextlib

import pytest

from evcache import CacheUnavailable
from evcache.replication.hlc import MAX_CAS
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.memory_zones import TOMBSTONE, full, on_zones, pass_time
from tests.support.near import GRACE, KEY, OLD, PATIENT, Pair, heard, kept, near_client, settled


async def no_load():
    raise AssertionError("there is a value")


async def no_loads(keys):
    raise AssertionError(f"there are values: {keys}")


async def get(cache):
    return await cache.get(KEY)


async def get_item(cache):
    item = await cache.get_item(KEY)
    return None if item is None else item.value


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


# How the key is changed, what it is then, and whether those who hear of it are told a version.
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


async def keeps_what_is_new(pair, new, versioned):
    """A read finds the new value, and what is kept from then on is that."""
    assert await pair.reader.get(KEY) == new
    assert (kept(pair.reader, KEY) is not None) == versioned or new is None
    assert await pair.reader.get(KEY) == new
    await pass_time(GRACE + 0.1)
    assert await pair.reader.get(KEY) == new
    assert await pair.reader.get(KEY) == new


# (a) The announcement comes while the fetch is under way.


@each_write
@pytest.mark.parametrize("read", READS[:3], ids=lambda read: read.__name__)
@on_zones()
async def test_what_is_being_fetched_when_it_is_changed_is_not_kept(zones, write, new, versioned, read):
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
async def test_no_read_keeps_what_was_changed_while_it_was_fetched(zones, read):
    pair = await Pair.on(zones)
    reading = await pair.lands_late(read)
    await pair.writer.set(KEY, "new", consistency="all")
    await heard()
    assert await pair.arrives(reading) == OLD
    assert kept(pair.reader, KEY) is None
    assert await read(pair.reader) == "new"


@on_zones()
async def test_a_touch_while_a_fetch_is_under_way_keeps_its_time_to_live_out(zones):
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
async def test_a_touch_takes_away_what_is_held(zones):
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
async def test_a_value_that_is_renewed_while_it_is_changed_is_read_after_all(zones):
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


# (b) The announcement overtakes the write on its way to the reader's zone.


@each_write
@on_zones()
async def test_what_a_zone_still_has_when_it_was_changed_is_not_kept(zones, write, new, versioned):
    """A fetch that begins after the announcement finds the old value; each time, until its zone has the new one.

    Where the announcement has a version, the reader asks another zone then.
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
async def test_a_touch_that_is_overtaken_is_noticed_when_the_near_time_to_live_is_over(zones):
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
async def test_own_writes_are_not_followed_by_what_the_local_zone_still_has(zones):
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
async def test_an_own_write_that_wrote_nothing_does_not_let_older_values_in(zones):
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


# Writes of which nobody knows how they ended.


async def cancelled(pair, write):
    """Its caller has gone; the reader's zone has not got it."""
    pair.to_writer.requests["a"].hold()
    writing = asyncio.ensure_future(write(pair.writer, timeout=30.0))
    await pass_time(0.1)
    writing.cancel()
    await asyncio.wait([writing])


async def timed_out(pair, write):
    pair.to_writer.requests["a"].hold()
    with contextlib.suppress(CacheUnavailable):
        assert not await write(pair.writer, timeout=0.3)


@pytest.mark.parametrize("end", [cancelled, timed_out])
@pytest.mark.parametrize(
    ("write", "new"),
    [
        (lambda cache, timeout: cache.set(KEY, "new", consistency="all", timeout=timeout), "new"),
        (lambda cache, timeout: cache.delete(KEY, consistency="all", timeout=timeout), None),
    ],
    ids=["set", "delete"],
)
@on_zones()
async def test_an_uncertain_write_is_announced_all_the_same(zones, end, write, new):
    pair = await Pair.on(zones)
    assert await pair.reader.get(KEY) == OLD
    await end(pair, write)
    await heard()
    assert kept(pair.reader, KEY) is None
    assert await pair.reader.get(KEY) == new, "another zone has it"
    pair.to_writer.requests["a"].release()
    await pass_time(0.01)
    await keeps_what_is_new(pair, new, versioned=True)


@pytest.mark.parametrize("end", [cancelled, timed_out])
@pytest.mark.parametrize(
    ("operation", "write"),
    [
        ("incr", lambda cache, timeout: cache.incr(KEY, 4, timeout=timeout)),
        ("append", lambda cache, timeout: cache.append(KEY, "new", timeout=timeout)),
        ("replace", lambda cache, timeout: cache.replace(KEY, "new", timeout=timeout)),
    ],
    ids=["incr", "append", "replace"],
)
@on_zones()
async def test_a_decision_whose_answer_got_lost_is_announced_as_unknown(zones, end, operation, write):
    """The deciding zone may have changed the key, and may be anyone's: nothing is kept for a while."""
    pair = await Pair.on(zones, old=1 if operation == "incr" else OLD)
    decides = coordinator_order(full(KEY), "abc")[0]
    assert await pair.reader.get(KEY) == (1 if operation == "incr" else OLD)
    look = pair.writer._runtime.coordinator.look

    async def looks_and_hears_no_more(*arguments, **options):
        seen = await look(*arguments, **options)
        pair.to_writer.replies[decides].hold()
        return seen

    pair.writer._runtime.coordinator.look = looks_and_hears_no_more
    if end is timed_out:
        with pytest.raises(CacheUnavailable):
            await write(pair.writer, timeout=0.3)
    else:
        writing = asyncio.ensure_future(write(pair.writer, timeout=0.3))
        await pass_time(0.1)
        writing.cancel()
        await pass_time(0.3)
    await heard()
    assert kept(pair.reader, KEY) is None
    await pair.reader.get(KEY)
    assert kept(pair.reader, KEY) is None
    pair.to_writer.replies[decides].release()


# Writes that a zone gets late.


@pytest.mark.parametrize(("write", "new"), [("set", "new"), ("delete", None)])
@on_zones()
async def test_a_write_that_a_zone_missed_is_announced_again_when_it_has_it(zones, write, new):
    """Longer after than floors last: by then the reader, which remembers no versions, has kept what its zone had."""
    pair = await Pair.on(zones, write_timeout=0.3, remember_versions=0)
    pair.to_writer.requests["a"].hold()
    await (pair.writer.set(KEY, "new") if write == "set" else pair.writer.delete(KEY))
    await pass_time(GRACE + 2)
    assert await pair.reader.get(KEY) == OLD
    assert kept(pair.reader, KEY) is not None, "nobody can know better"
    pair.to_writer.requests["a"].release()
    await pass_time(10)
    assert pair.writer.stats().hints == 0
    assert pair.writer.stats().hints_delivered > 0
    assert kept(pair.reader, KEY) is None
    assert await pair.reader.get(KEY) == new


@on_zones()
async def test_a_delivery_also_spoils_what_is_being_fetched(zones):
    pair = await Pair.on(zones, write_timeout=0.3, remember_versions=0)
    pair.to_writer.requests["a"].hold()
    await pair.writer.set(KEY, "new")
    await pass_time(GRACE + 2)
    reading = await pair.lands_late(get)
    pair.to_writer.requests["a"].release()
    await pass_time(4)
    assert pair.writer.stats().hints == 0
    assert await pair.arrives(reading) == OLD
    assert kept(pair.reader, KEY) is None
    await keeps_what_is_new(pair, "new", versioned=True)


# Repairs.


@pytest.mark.parametrize("how", ["all", "quorum", "get_many", "check"])
@on_zones()
async def test_a_repair_of_a_zone_that_was_behind_is_announced(zones, how):
    """A near cache may have kept what the zone held, longer after the write was announced than floors last."""
    pair = await Pair.on(zones, remember_versions=0)
    other, _ = near_client(zones, "b", invalidation=pair.channel, read_repair_chance=1.0 if how == "check" else 0, **PATIENT)
    await settled(zones, other)
    old = pair.in_zone()
    await pair.writer.set(KEY, "new", consistency="all")
    await heard()
    pair.set_zone(old)
    await pass_time(GRACE + 1)
    assert await pair.reader.get(KEY) == OLD
    assert kept(pair.reader, KEY) is not None
    match how:
        case "get_many":
            await other.get_many([KEY], consistency="all")
        case "check":
            await other.get(KEY, near_cache=False)
        case _:
            await other.get(KEY, consistency="all")
    await pass_time(0.5)
    assert zones.values(KEY)["a"] == "new"
    assert kept(pair.reader, KEY) is None
    assert await pair.reader.get(KEY) == "new"


@on_zones()
async def test_the_removal_of_an_older_value_is_announced(zones):
    """What is about to expire is not copied, and a zone that holds an older value loses that instead."""
    pair = await Pair.on(zones, remember_versions=0)
    other, _ = near_client(zones, "b", invalidation=pair.channel, read_repair_chance=0, **PATIENT)
    await settled(zones, other)
    old = pair.in_zone()
    await pair.writer.set(KEY, "new", ttl=GRACE + 4, consistency="all")
    await heard()
    pair.set_zone(old)
    await pass_time(GRACE + 2)
    assert await pair.reader.get(KEY) == OLD
    assert kept(pair.reader, KEY) is not None
    assert await other.get(KEY, consistency="all") == "new"
    await pass_time(0.5)
    assert zones.values(KEY)["a"] is None
    assert kept(pair.reader, KEY) is None


@on_zones()
async def test_a_copy_to_a_zone_that_holds_nothing_is_not_announced(zones):
    """Nothing older can have been read there; a zone that has come back empty would cause a flood."""
    pair = await Pair.on(zones)
    zones.evict(KEY, "b")
    before = pair.reader.stats().invalidation.received
    assert await pair.writer.get(KEY, consistency="all") == OLD
    await pass_time(0.5)
    assert zones.values(KEY)["b"] == OLD
    assert pair.reader.stats().invalidation.received == before
