"""Revalidation: the client asks for the version of a large expired value, and fetches it only if that has changed."""

import asyncio

import pytest

from evcache import NearCache
from tests.support.memory_zones import PATIENT, full, on_zones, pass_time
from tests.support.near import follow_loop, kept, near_client, near_hit, near_of

LARGE = "x" * 20_000


async def just_expired(zones, **options):
    """A reader with an expired large value, and a writer that may have changed it."""
    writer = zones.client(local_zone="b")
    reader, wires = near_client(zones, **options)
    await writer.set("k", LARGE, consistency="all")
    assert await reader.get("k") == LARGE
    await pass_time(1.9)
    while kept(reader, "k") is not None:
        await pass_time(0.01)
    zones.forget()
    return reader, writer, wires


def bytes_moved(zones):
    """Values that zone a was asked for, and looks without one."""
    wire = zones.wire("a")
    lines = [line.split() for line in wire.splitlines() if line.startswith(b"mg ")]
    return sum(b"v" in line for line in lines), sum(b"v" not in line for line in lines)


@on_zones()
async def test_a_large_value_that_is_unchanged_is_not_moved_again(zones):
    """One look without the value, at one zone; then it is served for another while."""
    reader, _, _ = await just_expired(zones)
    assert await reader.get("k") == LARGE
    assert bytes_moved(zones) == (0, 1)
    assert zones.commands("b") == zones.commands("c") == {}
    assert reader.stats().near.renewed == 1
    assert await near_hit(zones, reader.get("k")) == LARGE
    await pass_time(1.9)
    assert await near_hit(zones, reader.get("k")) == LARGE


@pytest.mark.parametrize("limit", [None, 30_000])
@on_zones()
async def test_where_it_is_not_wanted_the_value_is_read_again(zones, limit):
    reader, _, _ = await just_expired(zones, near_cache=NearCache(revalidate_over=limit))
    assert await reader.get("k") == LARGE
    assert bytes_moved(zones) == (1, 0)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda writer: writer.set("k", "new", consistency="all"), "new"),
        (lambda writer: writer.delete("k", consistency="all"), None),
        (lambda writer: writer.append("k", "y", consistency="all"), LARGE + "y"),
    ],
    ids=["set", "delete", "append"],
)
@on_zones()
async def test_a_large_value_that_has_changed_is_read(zones, change, value):
    reader, writer, _ = await just_expired(zones)
    assert await change(writer)
    zones.forget()
    assert await reader.get("k") == value
    assert bytes_moved(zones) == (1, 1)
    assert reader.stats().near.renewed == 0


@on_zones()
async def test_a_value_that_the_zone_has_lost_is_read_elsewhere(zones):
    reader, _, _ = await just_expired(zones)
    zones.evict("k", "a")
    assert await reader.get("k") == LARGE
    assert await reader.get("k", fallback_on_miss=False) == LARGE


@pytest.mark.parametrize("trouble", ["down", "hanging"])
@on_zones()
async def test_a_zone_that_does_not_answer_does_not_keep_a_value_alive(zones, trouble):
    """It is read from the next one, within the time of a read."""
    reader, writer, _ = await just_expired(zones, circuit=PATIENT)
    await writer.set("k", "new", consistency="all")
    if trouble == "down":
        await zones.kill("a")
    else:
        zones.pause("a")
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await reader.get("k") == "new"
    assert loop.time() - began <= 0.1
    if trouble == "hanging":
        zones.resume("a")


@on_zones()
async def test_an_own_write_while_it_is_asked_for_has_it_read(zones):
    reader, _, wires = await just_expired(zones, read_timeout=30.0)
    wires.replies["a"].hold()
    reading = asyncio.ensure_future(reader.get("k"))
    await pass_time(0.01)
    assert await reader.set("k", "new", consistency="quorum")
    wires.replies["a"].release()
    assert await reading == "new"
    assert await near_hit(zones, reader.get("k")) == "new"


@on_zones()
async def test_a_zone_that_confirms_an_older_version_than_this_client_knows_is_not_believed(zones):
    """Another read has seen a newer one elsewhere."""
    reader, writer, _ = await just_expired(zones)
    old = zones.held("k", "a")
    await writer.set("k", "new", consistency="all")
    zones.put_back("k", old, "a")
    assert await reader.get("k", consistency="all") == "new"
    zones.put_back("k", old, "a")  # that read has had it repaired
    zones.forget()
    assert await reader.get("k") == "new"


@on_zones()
async def test_a_cancelled_revalidation_leaves_no_token(zones):
    reader, _, wires = await just_expired(zones, read_timeout=30.0)
    wires.replies["a"].hold()
    reading = asyncio.ensure_future(reader.get("k"))
    await pass_time(0.01)
    reading.cancel()
    await asyncio.wait([reading])
    wires.replies["a"].release()
    assert near_of(reader)._fetches == {}
    assert await reader.get("k") == LARGE


@on_zones()
async def test_a_large_value_waits_to_be_renewed_for_a_while(zones):
    """The sweeper leaves it for two seconds after its time; small ones it takes at once."""
    cache = await zones.ready(near_cache=NearCache(ttl=2, revalidate_over=16_384))
    follow_loop(cache)
    await cache.set_many({"large": b"v" * 20_000, "small": b"v"}, ttl=600, consistency="all")
    await pass_time(3.5)
    assert near_of(cache)._store.peek(full("small")) is None
    zones.forget()
    assert await cache.get("large") == b"v" * 20_000
    assert zones.wire("a").count(b"mg ") == 1
    assert b" v " not in zones.wire("a"), "its value was not moved"
    await pass_time(4.5)
    assert near_of(cache)._store.peek(full("large")) is None
