"""Touch: values get a new TTL, and other items keep theirs. A zone that misses a touch gets it later."""

import asyncio
from contextlib import suppress

import pytest

from evcache import LoadPolicy, Outcome
from evcache.replication.commands.node_requests import count_and_peek, peek
from evcache.values.flags import FLAG_ABSENT
from evcache.zones.errors import QueueFull
from evcache.zones.protocol.fields import READ_FIELDS
from tests.support.memory_zones import PATIENT, QUICK, TOMBSTONE, cut_off, full, on_zones, pass_time


async def touch(cache, ttl):
    return await cache.touch("k", ttl, consistency="all")


async def touch_at_none(cache, ttl):
    assert await cache.touch("k", ttl, consistency="none")
    await pass_time(0.1)


async def get_and_touch(cache, ttl):
    await cache.get_and_touch("k", ttl)
    await pass_time(0.1)


each_touch = pytest.mark.parametrize("touches", [touch, touch_at_none, get_and_touch], ids=lambda how: how.__name__)


def times(zones):
    """Return the seconds that are left in each zone."""
    stores = {zone: zones.one(zone).store for zone in "abc"}
    items = {zone: store.get(full("k")) for zone, store in stores.items()}
    return {zone: None if item is None else stores[zone].ttl_left(item) for zone, item in items.items()}


@pytest.mark.parametrize("ttl", [2, 5000])
@each_touch
@on_zones()
async def test_touch_leaves_the_ttl_of_a_tombstone(zones, touches, ttl):
    """A shorter one would forget the delete."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    await cache.delete("k", consistency="all")
    await pass_time(10)
    result = await touches(cache, ttl)
    assert not result
    assert times(zones) == dict.fromkeys("abc", 50)


@on_zones()
async def test_touch_without_a_reply_leaves_the_ttl_of_a_tombstone(zones):
    """The touch is not sent before the reply to the look has arrived."""
    cache = await zones.ready()
    await cache.delete("k", consistency="all")
    zones.pause(*"abc")
    await cache.touch("k", 1, timeout=0.1, errors="miss")
    zones.resume(*"abc")
    await pass_time(5)
    assert times(zones) == dict.fromkeys("abc", 55)


@each_touch
@on_zones()
async def test_touch_leaves_the_ttl_of_a_known_absence(zones, touches):
    """The source may have the value when it ends."""
    cache = await zones.ready()
    row = None

    async def loader():
        return row

    policy = LoadPolicy(negative_ttl=3, jitter=0)
    assert await cache.get_or_load("k", loader, policy=policy) is None
    assert not await touches(cache, 900)
    assert times(zones) == dict.fromkeys("abc", 3)
    row = "there"
    await pass_time(4)
    assert await cache.get_or_load("k", loader, policy=policy) == "there"


@each_touch
@on_zones()
async def test_touch_leaves_the_ttl_of_a_lease(zones, touches):
    """If its process has died, no other could load the key for that time."""
    cache = await zones.ready()
    other = await zones.ready()

    async def never():
        await asyncio.Event().wait()

    loading = asyncio.ensure_future(cache.get_or_load("k", never, policy=LoadPolicy(lease_seconds=3)))
    await pass_time(0.5)
    before = times(zones)
    assert not await touches(other, 900)
    assert times(zones)["a"] <= before["a"] <= 3
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)


@each_touch
@on_zones()
async def test_touch_moves_all_times_of_an_envelope(zones, touches):
    """The value is fresh for the new time, then stale for as long as before."""
    cache = await zones.ready()
    loads = 0

    async def loader():
        nonlocal loads
        loads += 1
        return f"value {loads}"

    policy = LoadPolicy(stale_while_revalidate=20, refresh_after=1.0, jitter=0)
    assert await cache.get_or_load("k", loader, ttl=10, policy=policy) == "value 1"
    await pass_time(5)
    result = await touches(cache, 100)
    assert result is None or result
    assert (await cache.get_item("k")).ttl in (99, 100)
    await pass_time(90)
    assert await cache.get("k") == "value 1", "fresh for as long as the touch said"
    assert loads == 1
    await pass_time(15)
    assert await cache.get("k") is None
    assert await cache.get_or_load("k", loader, policy=policy) == "value 1", "stale, and being loaded"
    await pass_time(1)
    assert await cache.get("k") == "value 2"


@on_zones()
async def test_touch_does_not_refresh_a_stale_envelope(zones):
    """Plain reads miss, so there is no value to touch."""
    cache = await zones.ready()

    async def loader():
        return "value"

    await cache.get_or_load("k", loader, ttl=10, policy=LoadPolicy(stale_while_revalidate=100, jitter=0))
    await pass_time(20)
    result = await cache.touch("k", 100)
    assert not result
    assert set(result.zones.values()) == {Outcome.NOT_FOUND}
    assert await cache.get("k") is None


@pytest.mark.parametrize("options", [{}, {"versions": "1.6.18"}], ids=["versions", "none"])
def test_touch_keeps_bytes_flags_and_version(options):
    """No stale mark is left, which would make other readers load the key."""

    @on_zones(**options)
    async def main(zones):
        cache = await zones.ready()
        await cache.set("k", {"v": 1}, ttl=10, consistency="all")
        before = {zone: zones.held("k", zone).raw for zone in "abc"}
        before = {zone: (raw.value, raw.flags, raw.cas) for zone, raw in before.items()}
        assert await cache.touch("k", 500, consistency="all")
        after = {zone: zones.held("k", zone).raw for zone in "abc"}
        assert times(zones) == dict.fromkeys("abc", 500)
        assert not any(raw.stale or raw.win_sent for raw in after.values())
        if not options:
            assert {zone: (raw.value, raw.flags, raw.cas) for zone, raw in after.items()} == before

    main()


@on_zones()
async def test_write_between_the_look_and_the_touch_is_looked_at_again(zones):
    cache = await zones.ready()
    await cache.set("k", "value", ttl=10, consistency="all")
    touching = asyncio.ensure_future(cache.touch("k", 500, consistency="all"))
    await asyncio.sleep(0)
    await cache.delete("k", consistency="all")
    await touching
    await pass_time(0.1)
    assert zones.values("k") == dict.fromkeys("abc", TOMBSTONE)
    assert times(zones) == dict.fromkeys("abc", 60)


@on_zones(versions="1.6.18")
async def test_absence_written_between_the_look_and_the_touch_is_not_found(zones):
    """Without versions the touch does not compare, but its reply shows the flags."""
    cache = await zones.ready()
    await cache.set("k", "value", ttl=10, consistency="all")

    async def look_then_write(node, key, deadline):
        seen = await peek(node, key, deadline)
        zones.write_as_another_client("k", b"", FLAG_ABSENT, *"abc")
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evcache.replication.commands.touch.peek", look_then_write)
        result = await cache.touch("k", 500, consistency="all")
    assert result.zones == dict.fromkeys("abc", Outcome.NOT_FOUND)


# A zone that misses a touch.


@pytest.mark.parametrize("ttl", [300, 20])
@each_touch
@on_zones()
async def test_zone_that_missed_a_touch_gets_it(zones, touches, ttl):
    """Longer or shorter, with the time that is left by then."""
    cache = await zones.ready(circuit=QUICK)
    await cache.set("k", "value", ttl=100, consistency="all")
    await cut_off(zones, cache, "c")
    await touches(cache, ttl)
    await pass_time(0.1)
    assert cache.stats().hints == 1
    await pass_time(10)
    zones.resume("c")
    await pass_time(5)
    left = times(zones)
    assert left["a"] - 4 <= left["c"] < left["a"] == left["b"]
    assert not zones.held("k", "c").raw.stale
    assert cache.stats().hints == 0


@each_touch
@on_zones()
async def test_value_touched_to_an_early_end_does_not_return_with_its_zone(zones, touches):
    """The other zones no longer have the value, and a zone that missed the touch returns with it."""
    cache = await zones.ready(circuit=QUICK)
    reader = await zones.ready(circuit=QUICK, local_zone="c", hints=None)
    await cache.set("k", "value", ttl=600, consistency="all")
    await cut_off(zones, cache, "c")
    await touches(cache, 2)
    await pass_time(5)
    zones.resume("c")
    await pass_time(5)
    assert zones.values("k") == dict.fromkeys("abc")
    assert await reader.get("k") is None


@on_zones()
async def test_late_touch_leaves_a_value_written_since(zones):
    """It names the version that was touched."""
    cache = await zones.ready(circuit=QUICK)
    other = await zones.ready(hints=None)
    await cache.set("k", "value", ttl=100, consistency="all")
    held = zones.held("k", "a")
    await cut_off(zones, cache, "c")
    await cache.touch("k", 10)
    zones.resume("c")
    await other.set("k", "newer", ttl=500, consistency="all")
    await pass_time(5)
    assert held.value == "value"
    assert zones.values("k") == dict.fromkeys("abc", "newer")
    assert set(times(zones).values()) == {495}


@on_zones()
async def test_zone_that_missed_value_and_touch_gets_both(zones):
    cache = await zones.ready(circuit=QUICK)
    await cut_off(zones, cache, "c")
    await cache.set("k", "value", ttl=20)
    await cache.touch("k", 300)
    assert cache.stats().hints == 1
    zones.resume("c")
    await pass_time(5)
    assert zones.values("k") == dict.fromkeys("abc", "value")
    left = times(zones)
    assert left["a"] - 4 <= left["c"] < left["a"]


@on_zones()
async def test_touch_sends_no_value(zones):
    """For a value of any size, each zone gets two small packets."""
    cache = await zones.ready()
    await cache.set("k", b"x" * 50_000, consistency="all")
    zones.forget()
    assert await cache.touch("k", 500, consistency="all")
    assert all(len(zones.wire(zone)) < 300 for zone in "abc")
    assert full("k") in zones.wire("a")


@on_zones(zones=1)
async def test_the_queue_has_room_for_the_first_of_two_requests_only(zones):
    """The first request has no receiver for its reply or timeout, and asyncio does not report it as lost."""
    cache = await zones.ready(circuit=PATIENT)
    view, _ = await cache._runtime.open(cache._config.defaults.write(None, None, None))
    node = view.readers[0].node(view.ring_position(full("k")))
    connection = node.connection()
    loop = asyncio.get_running_loop()
    zones.pause("a")
    waiting = []
    with suppress(QueueFull):
        while True:
            reply = loop.create_future()
            connection.get(b"t:k", READ_FIELDS, reply, loop.time() + 0.2)
            waiting.append(reply)
    zones.resume("a")
    await asyncio.gather(*waiting)
    zones.pause("a")
    for number in range(len(waiting) - 1):
        waiting[number] = loop.create_future()
        connection.get(b"t:k", READ_FIELDS, waiting[number], loop.time() + 0.2)
    with pytest.raises(QueueFull):
        await count_and_peek(node, b"t:k", 1, loop.time() + 0.1, decrement=False, compare=1, cas=2)
    await asyncio.gather(*waiting, return_exceptions=True)
    zones.resume("a")
