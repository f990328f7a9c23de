"""The near cache as callers of a client meet it: what is served from it, in which form, and when zones are asked after all."""

import asyncio
import dataclasses

import pytest

from evcache import EVCache, LoadPolicy, NearCache, StandardCodec
from evcache.channels import LocalChannel
from tests.support.memory_zones import on_zones, pass_time
from tests.support.near import GRACE, follow_loop, kept, near_client, near_hit, near_of, settled
from tests.support.scripted_channel import ScriptedChannel

LARGE = "x" * 20_000
NOTHING = object()


async def fetched(zones, key, value, **near):
    """A client that has read a value which another has written, so that it is kept as it came."""
    writer = zones.client(local_zone="b")
    reader, _ = near_client(zones, near_cache=NearCache(**near))
    assert await writer.set(key, value, consistency="all")
    assert await reader.get(key, NOTHING) == value
    await pass_time(0.01)  # a write of another client in the same millisecond may be older
    return reader


# Values.


@pytest.mark.parametrize("value", [0, "", b"", False, None, 7, True, 1.5, "text", "ö" * 2000, b"\x00", {"a": [1]}, [], {}])
@on_zones()
async def test_every_read_gets_the_value_that_is_kept(zones, value):
    """Also when it is kept decoded, and when it is one that looks like nothing."""
    cache = await fetched(zones, "k", value)
    for _ in range(2):
        assert await near_hit(zones, cache.get("k", NOTHING)) == value
        assert type(await near_hit(zones, cache.get("k", NOTHING))) is type(value)
        item = await near_hit(zones, cache.get_item("k"))
        assert (item.value, item.source, item.zone, item.stale) == (value, "near", "a", False)
        assert await near_hit(zones, cache.get_many(["k", b"k"])) == {"k": value, b"k": value}


@on_zones()
async def test_what_can_be_changed_is_made_anew_for_each_caller(zones):
    cache = await fetched(zones, "k", {"a": [1]})
    many = await cache.get_many(["k", b"k"])
    values = [await cache.get("k"), await cache.get("k"), (await cache.get_item("k")).value, *many.values()]
    for value in values:
        value["a"].append(2)
        value["b"] = 3
    assert await near_hit(zones, cache.get("k")) == {"a": [1]}
    assert all(value == {"a": [1, 2], "b": 3} for value in values)


@pytest.mark.parametrize(
    ("value", "shared"),
    [("text" * 10, True), (b"bytes" * 10, True), (10**12, True), ("ö" * 2000, False), ([1], False)],
    ids=["str", "bytes", "int", "large text beyond ASCII", "list"],
)
@on_zones()
async def test_what_nobody_can_change_is_decoded_once(zones, value, shared):
    cache = await fetched(zones, "k", value)
    first, second = await cache.get("k"), await cache.get("k")
    assert (first is second) == shared
    assert (kept(cache, "k").data is None) == shared


class Codec(StandardCodec):
    """Knows of objects that msgpack does not."""

    def encode(self, value):
        return (b"%d" % value.number, 77) if isinstance(value, Point) else super().encode(value)

    def decode(self, data, flags):
        return Point(int(data)) if flags == 77 else super().decode(data, flags)


@dataclasses.dataclass(frozen=True)
class Point:
    number: int


@pytest.mark.parametrize("declared", [True, False])
@on_zones()
async def test_types_that_were_declared_immutable_are_shared(zones, declared):
    cache, _ = near_client(zones, near_cache=NearCache(immutable=(Point,) if declared else ()), codec=Codec())
    await cache.set("k", Point(7))
    first, second = await cache.get("k"), await cache.get("k")
    assert first == second == Point(7)
    assert (first is second) == declared
    assert (await cache.get_item("k")).value == Point(7)


# Absences.


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "loaded as nothing"])
@on_zones()
async def test_a_known_absence_is_served(zones, deleted):
    """The entry is served until a write of the key."""
    writer = zones.client(local_zone="b")
    cache, _ = near_client(zones)

    async def nothing():
        return None

    if deleted:
        await writer.delete("k", consistency="all")
    else:
        assert await writer.get_or_load("k", nothing) is None
        await pass_time(0.1)
    assert await cache.get("k", NOTHING) is NOTHING
    assert await near_hit(zones, cache.get("k", NOTHING)) is NOTHING
    assert await near_hit(zones, cache.get_item("k")) is None
    assert await near_hit(zones, cache.get_many(["k"])) == {}
    await cache.add("k", 1)
    assert await near_hit(zones, cache.get("k")) == 1
    await cache.delete("k")
    assert await near_hit(zones, cache.get("k", NOTHING)) is NOTHING


@on_zones()
async def test_a_plain_miss_is_not_kept(zones):
    """A zone that has nothing may have lost it, or never got it: that says nothing about the next moment."""
    writer = zones.client(local_zone="b")
    cache, _ = near_client(zones)
    assert await cache.get("k") is None
    await writer.set("k", 1, consistency="all")
    assert await cache.get("k") == 1


@on_zones()
async def test_a_deleted_key_is_loaded_though_its_absence_is_kept(zones):
    cache, _ = near_client(zones)

    async def load():
        return "loaded"

    await cache.delete("k", consistency="all")
    assert await near_hit(zones, cache.get("k")) is None
    assert await cache.get_or_load("k", load) == "loaded"
    await pass_time(0.1)
    assert await cache.get("k") == "loaded"


# Envelopes.


@pytest.mark.parametrize("kept_for", [{"stale_while_revalidate": 1000}, {"stale_if_error": 1000}], ids=str)
@pytest.mark.parametrize("value", ["v", LARGE], ids=["small", "large"])
@on_zones()
async def test_what_is_kept_longer_than_it_is_fresh_is_served_while_it_is(zones, kept_for, value):
    """And not after that, though its server still has the same version."""
    cache, _ = near_client(zones, near_cache=NearCache(ttl=6))

    async def load():
        return value

    policy = LoadPolicy(jitter=0, refresh_after=1, **kept_for)
    loop = asyncio.get_running_loop()
    assert await cache.get_or_load("k", load, ttl=10, policy=policy) == value
    began = loop.time()
    await pass_time(0.5)
    assert await near_hit(zones, cache.get("k")) == value
    while (age := loop.time() - began) < 11:
        if abs(age - 10) > 0.01:  # its times are kept in milliseconds
            assert await cache.get("k") == (value if age < 10 else None), age
        await pass_time(0.03)
    assert await cache.get_item("k") is None
    assert await cache.get_many(["k"]) == {}
    assert kept(cache, "k") is None


# Looking past it.


@on_zones()
async def test_calls_that_look_past_it_see_what_is_newer(zones):
    """And what they have seen, later calls do not go behind."""
    reader = await fetched(zones, "k", "old", ttl=60)
    writer = zones.client(local_zone="b")
    for number, options in enumerate([{"near_cache": False}, {"consistency": "quorum"}, {"consistency": "all"}]):
        for read in ("get", "get_item", "get_many"):
            value = f"{read} {number}"
            assert await reader.get("k") != value
            assert kept(reader, "k") is not None
            await writer.set("k", value, consistency="all")
            match read:
                case "get":
                    assert await reader.get("k", **options) == value
                case "get_item":
                    item = await reader.get_item("k", **options)
                    assert (item.value, item.source) == (value, "local")
                case "get_many":
                    assert await reader.get_many(["k"], **options) == {"k": value}
            assert await reader.get("k") == value, "the older one was dropped"


@on_zones()
async def test_calls_that_look_past_it_leave_it_as_it_is(zones):
    """Their results are not stored, because the caller does not trust the near cache for this call."""
    writer = zones.client(local_zone="b")
    reader, _ = near_client(zones)
    await writer.set("k", 1, consistency="all")
    assert await reader.get("k", near_cache=False) == 1
    assert await reader.get("k", consistency="all") == 1
    assert await reader.get_many(["k"], near_cache=False) == {"k": 1}
    assert kept(reader, "k") is None


@on_zones()
async def test_for_update_always_asks_the_zone_that_decides(zones):
    reader = await fetched(zones, "k", "old")
    await zones.connect(reader)
    assert (await reader.get_item("k")).source == "near"
    zones.forget()
    assert (await reader.get_item("k", for_update=True)).source != "near"
    assert sorted(commands["mg"] for commands in zones.all_commands().values()) == [1, 1, 2], "all are looked at, one read"


@on_zones()
async def test_a_value_that_was_read_near_can_be_compared_and_set(zones):
    reader = await fetched(zones, "k", "old")
    item = await reader.get_item("k")
    assert item.source == "near"
    assert await reader.cas("k", "new", item, consistency="all")
    assert await near_hit(zones, reader.get("k")) == "new"
    assert not await reader.cas("k", "newer", item)


# The channel.


@on_zones()
async def test_without_a_channel_another_clients_write_is_seen_after_two_seconds(zones):
    reader = await fetched(zones, "k", "old")
    await zones.client(local_zone="b").set("k", "new", consistency="all")
    await pass_time(1.9)
    assert await near_hit(zones, reader.get("k")) == "old"
    await pass_time(0.2)
    assert await reader.get("k") == "new"


async def seconds_served(cache, key):
    """For how long what the near cache holds is served."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while kept(cache, key) is not None:
        await pass_time(0.05)
    return loop.time() - began


@on_zones()
async def test_the_near_time_to_live_follows_the_channel(zones):
    """A minute while the channel is up, two seconds while it is down, and nothing for the grace time in between."""
    channel = ScriptedChannel()
    cache, _ = near_client(zones, invalidation=channel)
    await settled(zones, cache)
    await cache.set("k", 1)
    assert await seconds_served(cache, "k") == pytest.approx(60, abs=0.1)
    await cache.set("k", 2)
    channel.refuse_to_subscribe = ConnectionError("gone")
    channel.lose()
    await pass_time(0.001)
    assert kept(cache, "k") is None
    await cache.set("k", 3)
    assert kept(cache, "k") is None
    await pass_time(GRACE)
    await cache.set("k", 4)
    assert await seconds_served(cache, "k") == pytest.approx(2, abs=0.1)
    channel.refuse_to_subscribe = None
    await pass_time(30)
    await cache.set("k", 5)
    assert await seconds_served(cache, "k") == pytest.approx(60, abs=0.1)


@on_zones()
async def test_two_namespaces_on_one_channel_do_not_hear_of_each_other(zones):
    channel = LocalChannel()
    cache, _ = near_client(zones, invalidation=channel)
    other, _ = near_client(zones, invalidation=channel, namespace="other")
    await settled(zones, cache, other)
    await cache.set("k", 1)
    await other.set("k", 2)
    await pass_time(0.1)
    assert await near_hit(zones, cache.get("k")) == 1
    assert cache.stats().invalidation.received == 0


# Hot keys, other servers, the end.


@on_zones()
async def test_a_key_that_is_read_rarely_is_not_stored(zones):
    writer = zones.client(local_zone="b")
    reader, _ = near_client(zones, near_cache=NearCache(hot_reads=3))
    await writer.set("cold", 2, consistency="all")
    for _ in range(5):
        assert await reader.get("cold") == 2
        assert await reader.get_many(["cold"]) == {"cold": 2}
        await pass_time(2)
    assert kept(reader, "cold") is None


@on_zones()
async def test_a_hot_key_is_stored_and_stays_after_its_near_ttl(zones):
    """The third read within a second makes a key hot. The next read renews an expired entry, at any time."""
    writer, cache = await zones.ready(), await zones.ready(near_cache=NearCache(ttl=2, hot_reads=3))
    follow_loop(cache)
    near_of(cache).clear()
    await writer.set("k", "v", ttl=600, consistency="all")
    for is_stored in (False, False, True):
        assert await cache.get("k") == "v"
        assert (cache.stats().near_entries == 1) == is_stored
    await pass_time(0.5)
    zones.forget()
    assert await cache.get("k") == "v"
    assert zones.wire("a") == b""
    near_of(cache)._sweeper.stop()  # the expired entry is still there, as between two sweeps
    await pass_time(2.0)
    assert await cache.get("k") == "v"
    assert zones.wire("a") != b""
    zones.forget()
    assert await cache.get("k") == "v"
    assert zones.wire("a") == b"", "one read has renewed it"


@on_zones(versions="1.6.18")
async def test_on_servers_without_versions_writes_are_followed_all_the_same(zones):
    """Own writes are visible at once. They have no version, so nothing is stored for the grace time."""
    writer = zones.client(local_zone="b")
    cache, _ = near_client(zones)
    await writer.set("k", "old", consistency="all")
    assert await cache.get("k") == "old"
    assert await near_hit(zones, cache.get("k")) == "old"
    await cache.set("k", "new", consistency="all")
    assert kept(cache, "k") is None
    assert await cache.get("k") == "new"
    await cache.delete("k", consistency="all")
    assert await cache.get("k") is None
    await cache.set("k", "newer", consistency="all")
    await pass_time(GRACE)
    assert await cache.get("k") == "newer"
    assert await near_hit(zones, cache.get("k")) == "newer"


@on_zones()
async def test_a_read_that_ends_after_the_client_was_closed_leaves_no_timer(zones):
    """It was on its way while the near cache was closed."""
    reader, wires = near_client(zones, read_timeout=30.0)
    await zones.client(local_zone="b").set("k", 1, consistency="all")
    await zones.connect(reader)
    wires.replies["a"].hold()
    reading = asyncio.ensure_future(reader.get("k"))
    await pass_time(0.1)
    closing = asyncio.ensure_future(reader.close(1.0))
    await pass_time(0.1)
    wires.replies["a"].release()
    await asyncio.wait([reading, closing])
    assert near_of(reader)._sweeper._timer is None


def test_follow_loop_reaches_every_clock():
    """The tests above would wait for the machine's clock otherwise."""

    async def main():
        cache = EVCache("ns", {"a": ["h:1"]}, near_cache=NearCache(hot_reads=1))
        follow_loop(cache)
        near = near_of(cache)
        assert near._clock == near._store._clock == near._hot._clock == asyncio.get_running_loop().time

    asyncio.run(main())
