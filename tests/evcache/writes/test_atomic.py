"""Conditional writes: one zone decides, and the others get the decision."""

import asyncio
import math

import pytest

from evcache import (
    CacheUnavailable,
    DecodeError,
    InvalidArgument,
    Outcome,
)
from evcache.replication.hlc import MAX_CAS
from tests.support.memory_zones import TOMBSTONE, Stopwatch, full, on_zones, pass_time
from tests.support.written import NOWHERE, STORED, coordinator_of, everywhere

DAY = 86400


@on_zones()
async def test_add_stores_if_the_key_is_absent(zones):
    cache = await zones.ready()
    result = await cache.add("k", "first", ttl=70, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere("first")
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {70}
    refused = await cache.add("k", "second", consistency="all")
    assert not refused
    assert set(refused.zones.values()) == {Outcome.NOT_STORED}
    assert refused.version is None
    assert zones.values("k") == everywhere("first")


@on_zones()
async def test_add_over_a_tombstone_stores_the_value(zones):
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    deleted = await cache.delete("k", consistency="all")
    result = await cache.add("k", "new", ttl=500, consistency="all")
    assert result.zones == STORED
    assert result.version > deleted.version
    assert zones.values("k") == everywhere("new")
    assert {zones.held("k", zone).ttl for zone in "abc"} == {500}


@on_zones()
async def test_add_is_newer_than_a_tombstone_of_a_client_that_is_ahead(zones):
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    cache = await zones.ready()
    await ahead.delete("k", consistency="all")
    assert (await cache.add("k", "new", consistency="all")).zones == STORED
    assert zones.values("k") == everywhere("new")


@pytest.mark.parametrize("options", [{}, {"versions": "1.6.18"}])
def test_two_concurrent_adds_have_one_winner(options):
    """The clients are in different zones. All zones hold the value of the winner."""

    @on_zones(**options)
    async def main(zones):
        clients = [await zones.ready(local_zone=zone) for zone in "abc"]
        for number in range(20):
            key = f"k{number}"
            adds = [client.add(key, client_number, consistency="all") for client_number, client in enumerate(clients)]
            results = await asyncio.gather(*adds)
            assert sum(map(bool, results)) == 1
            await pass_time(0.1)
            assert zones.values(key) == everywhere(results.index(next(filter(None, results))))

    main()


@on_zones()
async def test_coordinator_is_the_same_for_all_clients_and_differs_by_key(zones):
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    used = set()
    for number in range(30):
        deciding = {await coordinator_of(zones, client, f"k{number}") for client in clients}
        assert len(deciding) == 1
        used |= deciding
    assert used == {"a", "b", "c"}


@on_zones()
async def test_next_zone_decides_while_the_coordinator_is_down(zones):
    """All clients choose the same next zone. The coordinator decides again after its recovery."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    first = await coordinator_of(zones, clients[0], "k")
    await zones.kill(first)
    await pass_time(0.01)
    second = {await coordinator_of(zones, client, "k") for client in clients}
    assert len(second) == 1
    assert second != {first}
    assert await clients[0].add("k", "v")
    assert not await clients[1].add("k", "w")
    zones.restart(first)
    await pass_time(10)
    await zones.connect(*clients)
    assert {await coordinator_of(zones, client, "other") for client in clients} <= {"a", "b", "c"}
    assert zones.held("k", first).value == "v", "what it missed was kept for it"
    await clients[0].delete("k", consistency="all")
    await pass_time(61)
    assert {await coordinator_of(zones, client, "k") for client in clients} == {first}


@pytest.mark.parametrize("operation", ["add", "replace", "append", "incr", "cas"])
@on_zones()
async def test_coordinator_that_hangs_is_unavailable(zones, operation):
    """It may have decided, so no other zone may decide. The call raises at its deadline."""
    cache = await zones.ready()
    key = "k"
    zone = await coordinator_of(zones, cache, key)
    before = await cache.set(key, "1", consistency="all")
    zones.pause(zone)
    arguments = {"add": (2,), "replace": (2,), "append": ("2",), "incr": (), "cas": (2, before.version)}[operation]
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable) as caught:
        await getattr(cache, operation)(key, *arguments, timeout=0.3)
    assert watch.seconds == pytest.approx(0.3)
    assert set(caught.value.failures) == {zone}


@on_zones()
async def test_replace_stores_if_the_key_is_present(zones):
    cache = await zones.ready()
    assert set((await cache.replace("k", "v")).zones.values()) == {Outcome.NOT_STORED}
    assert zones.values("k") == NOWHERE
    await cache.delete("k", consistency="all")
    assert not await cache.replace("k", "v")
    assert zones.values("k") == everywhere(TOMBSTONE)
    await cache.set("k", "old", consistency="all")
    result = await cache.replace("k", "new", ttl=11, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere("new")
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {11}


@pytest.mark.parametrize("form", ["version", "item", "item for update"])
@on_zones()
async def test_cas_stores_over_the_item_that_was_read(zones, form):
    cache = await zones.ready()
    await cache.set("k", 1, consistency="all")
    item = await cache.get_item("k", for_update=form == "item for update")
    expected = item.version if form == "version" else item
    result = await cache.cas("k", 2, expected, ttl=20, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere(2)
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {20}
    again = await cache.cas("k", 3, expected, consistency="all")
    assert not again
    assert set(again.zones.values()) == {Outcome.EXISTS}
    assert zones.values("k") == everywhere(2)
    assert await cache.cas("k", 3, result.version)


@on_zones()
async def test_cas_on_an_absent_or_deleted_key_is_not_found(zones):
    cache = await zones.ready()
    stored = await cache.set("k", 1, consistency="all")
    assert set((await cache.cas("other", 2, stored.version)).zones.values()) == {Outcome.NOT_FOUND}
    deleted = await cache.delete("k", consistency="all")
    assert set((await cache.cas("k", 2, stored.version)).zones.values()) == {Outcome.NOT_FOUND}
    assert zones.stored_versions("k") == everywhere(deleted.version)


@on_zones()
async def test_cas_treats_a_tombstone_as_absence_even_by_its_version(zones):
    """The version of a delete is not the version of a value."""
    cache = await zones.ready()
    deleted = await cache.delete("k", consistency="all")
    result = await cache.cas("k", "value", deleted.version, consistency="all")
    assert not result
    assert set(result.zones.values()) == {Outcome.NOT_FOUND}
    assert zones.values("k") == everywhere(TOMBSTONE)


@pytest.mark.parametrize("form", ["version", "item"])
@on_zones()
async def test_cas_is_newer_than_the_version_of_a_client_that_is_ahead(zones, form):
    """The client has not read that version. All zones hold the new value."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    cache = await zones.ready()
    theirs = await ahead.set("k", "theirs", consistency="all")
    expected = theirs.version if form == "version" else await ahead.get_item("k")
    result = await cache.cas("k", "ours", expected, consistency="all")
    assert result.version > theirs.version
    assert result.zones == STORED
    assert zones.values("k") == everywhere("ours")


@on_zones()
async def test_concurrent_cas_loses_no_update(zones):
    """Clients read, change and compare in a loop. Every change is in the last value."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].set("k", 0, consistency="all")

    async def count(client):
        for _ in range(10):
            while True:
                item = await client.get_item("k", for_update=True)
                if await client.cas("k", item.value + 1, item, consistency="all"):
                    break

    await asyncio.gather(*map(count, clients))
    await pass_time(0.1)
    assert zones.values("k") == everywhere(30)


@pytest.mark.parametrize(("options", "expected"), [({}, MAX_CAS), ({"interop": True}, 0)])
@on_zones()
async def test_cas_token_of_0_matches_no_item(zones, options, expected):
    """0 is compared with like any other number. It does not turn the compare off."""
    cache = await zones.ready(**options)
    zones.write_as_another_client("k", b"theirs", 0, *"abc")
    result = await cache.cas("k", "ours", expected)
    assert not result
    assert set(result.zones.values()) == {Outcome.EXISTS}
    assert zones.values("k") == everywhere("theirs")


@on_zones()
async def test_append_and_prepend_keep_the_ttl_and_make_a_version(zones):
    cache = await zones.ready()
    for key, parts in (("s", ("b", "c", "a")), ("b", (b"b", b"c", b"a"))):
        before = await cache.set(key, parts[0], ttl=100, consistency="all")
        await pass_time(10)
        assert (await cache.append(key, parts[1], consistency="all")).zones == STORED
        result = await cache.prepend(key, parts[2], consistency="all")
        assert result.zones == STORED
        assert result.version > before.version
        assert zones.values(key) == everywhere(parts[2] + parts[0] + parts[1])
        assert zones.stored_versions(key) == everywhere(result.version)
        decides = next(zone for zone in "abc" if zones.held(key, zone).ttl == 90)
        assert {zones.held(key, zone).ttl for zone in "abc" if zone != decides} == {88}, "no copy outlives what was decided"
    for absent in ("absent", "deleted"):
        if absent == "deleted":
            await cache.delete("deleted", consistency="all")
        assert set((await cache.append(absent, "x")).zones.values()) == {Outcome.NOT_STORED}
        assert set((await cache.prepend(absent, "x")).zones.values()) == {Outcome.NOT_STORED}


@on_zones()
async def test_append_to_an_item_without_ttl_adds_none(zones):
    cache = await zones.ready()
    await cache.set("k", "a", ttl=math.inf, consistency="all")
    await cache.append("k", "b", consistency="all")
    assert {zones.held("k", zone).ttl for zone in "abc"} == {None}


@pytest.mark.parametrize(("value", "extra"), [("s", b"b"), (b"b", "s"), (1, "s"), ([1], "s"), (None, b"b")])
@on_zones()
async def test_append_of_another_type_names_the_value_and_changes_nothing(zones, value, extra):
    cache = await zones.ready()
    await cache.set("k", value, consistency="all")
    for operation in (cache.append, cache.prepend):
        with pytest.raises(InvalidArgument) as caught:
            await operation("k", extra)
        assert caught.value.argument == "value"
    assert zones.values("k") == everywhere(value)


@on_zones()
async def test_append_to_an_undecodable_value_names_key_zone_and_flags(zones):
    cache = await zones.ready()
    zone = await coordinator_of(zones, cache, "k")
    zones.write_as_another_client("k", b"\xff", 0, *"abc")
    with pytest.raises(DecodeError) as caught:
        await cache.append("k", "x")
    assert (caught.value.key, caught.value.zone, caught.value.flags) == (full("k"), zone, 0)


@on_zones()
async def test_concurrent_appends_lose_nothing(zones):
    """Each append of ten clients is in the last value once."""
    clients = [await zones.ready(local_zone=zone) for zone in "abc"]
    await clients[0].set("k", "", consistency="all")
    letters = "abcdefghijklmnopqrstuvwxyz"
    appends = [clients[number % 3].append("k", letter, consistency="all") for number, letter in enumerate(letters)]
    assert all(await asyncio.gather(*appends))
    await pass_time(0.1)
    (value,) = set(zones.values("k").values())
    assert sorted(value) == sorted(letters)
