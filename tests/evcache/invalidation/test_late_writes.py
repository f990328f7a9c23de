"""Invalidations after uncertain writes, deliveries of hints and repairs: a zone may get a write late."""

import asyncio
import contextlib

import pytest

from evcache import CacheUnavailable
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.memory_zones import full, on_zones, pass_time
from tests.support.near import GRACE, KEY, OLD, PATIENT, Pair, heard, keeps_what_is_new, kept, near_client, settled
from tests.support.read_calls import get

# Writes with an unknown outcome.


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
async def test_an_uncertain_write_is_published(zones, end, write, new):
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
async def test_a_decision_with_a_lost_reply_is_published_as_unknown(zones, end, operation, write):
    """The deciding zone may have changed the key for any client, so nothing is stored for the grace time."""
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
async def test_a_delivered_hint_is_published(zones, write, new):
    """Later than the grace time. The reader remembers no versions, and has stored the value of its zone by then."""
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
async def test_a_delivered_hint_invalidates_a_fetch(zones):
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
async def test_a_repair_of_a_stale_zone_is_published(zones, how):
    """A near cache may have stored the old value when the version fences of the write had ended."""
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
async def test_the_removal_of_an_older_value_is_published(zones):
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
async def test_a_copy_to_an_empty_zone_is_not_published(zones):
    """Nothing older can have been read there; a zone that has come back empty would cause a flood."""
    pair = await Pair.on(zones)
    zones.evict(KEY, "b")
    before = pair.reader.stats().invalidation.received
    assert await pair.writer.get(KEY, consistency="all") == OLD
    await pass_time(0.5)
    assert zones.values(KEY)["b"] == OLD
    assert pair.reader.stats().invalidation.received == before
