"""Unconditional writes: the content of each zone, the results and the bytes on the wire."""

import math
from datetime import timedelta

import pytest

from evcache import (
    EncodeError,
    Outcome,
    WriteResult,
)
from evcache.replication.hlc import MAX_CAS, cas_of
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES
from evcache.zones.protocol.packet import LARGE_BYTES
from tests.support.memory_zones import TOMBSTONE, WALL_START, Listener, full, on_zones, pass_time
from tests.support.written import NOWHERE, STORED, everywhere

DAY = 86400


@on_zones()
async def test_set_stores_in_every_zone(zones):
    """Every zone holds the value, one version, and the TTL."""
    cache = await zones.ready()
    result = await cache.set("k", {"a": 1}, ttl=90, consistency="all")
    assert result == WriteResult(met=True, version=result.version, zones=STORED)
    assert result
    assert zones.values("k") == everywhere({"a": 1})
    assert zones.stored_versions("k") == everywhere(result.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {90}
    assert not any(zones.held("k", zone).raw.stale for zone in "abc")


@on_zones()
async def test_versions_of_one_client_grow(zones):
    """All zones hold the last write."""
    cache = await zones.ready()
    versions = [(await cache.set("k", number, consistency="all")).version for number in range(50)]
    assert versions == sorted(set(versions))
    assert zones.values("k") == everywhere(49)
    assert zones.stored_versions("k") == everywhere(versions[-1])


@on_zones()
async def test_store_of_any_size_is_one_packet(zones):
    """Up to the bound three stores with the value each. Above it four commands, of which one carries the value."""
    cache = await zones.ready()
    for size, commands in [
        (0, {"ms": 3}),
        (THREE_COPIES_MAX_BYTES, {"ms": 3}),
        (THREE_COPIES_MAX_BYTES + 1, {"mg": 1, "ms": 2, "md": 1}),
        (LARGE_BYTES, {"mg": 1, "ms": 2, "md": 1}),
        (1_000_000, {"mg": 1, "ms": 2, "md": 1}),
    ]:
        for ttl in (90, 60):  # where nothing is, and over an older value
            zones.forget()
            result = await cache.set(f"k{size}", b"x" * size, ttl=ttl, consistency="all")
            assert result.zones == STORED
            assert zones.all_commands() == everywhere(commands)
            assert zones.values(f"k{size}") == everywhere(b"x" * size)
            assert zones.stored_versions(f"k{size}") == everywhere(result.version)
            assert {zones.held(f"k{size}", zone).ttl for zone in "abc"} == {ttl}
            assert not any(zones.held(f"k{size}", zone).raw.stale for zone in "abc")
        copies = 3 if commands == {"ms": 3} else 1
        for packets in zones.sent.values():
            sent = sum(map(len, packets))
            assert copies * size <= sent < copies * size + 500


@on_zones()
async def test_set_many_takes_values_of_any_size(zones):
    """Each key's packet is in the form that suits its value, over older ones of another size too."""
    cache = await zones.ready()
    sizes = [0, 1, THREE_COPIES_MAX_BYTES, THREE_COPIES_MAX_BYTES + 1, 5000, LARGE_BYTES - 1, LARGE_BYTES, 300_000]
    for turned in (sizes, sizes[::-1]):
        values = {f"k{number}": b"x" * size for number, size in enumerate(turned)}
        results = await cache.set_many(values, ttl=90, consistency="all")
        for key, value in values.items():
            assert results[key].zones == STORED
            assert zones.values(key) == everywhere(value)
            assert zones.stored_versions(key) == everywhere(results[key].version)
            assert {(zones.held(key, zone).ttl, zones.held(key, zone).raw.stale) for zone in "abc"} == {(90, False)}


@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_late_older_write_is_superseded(zones, size):
    """It comes from a client whose clock is slow and whose caller does not wait. It counts as acknowledged."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    listener = Listener()
    behind = await zones.ready(hooks=listener)
    newest = await ahead.set("k", b"new" * size, ttl=50, consistency="all")
    listener.wrote.clear()
    result = await behind.set("k", b"old" * size, ttl=1000, consistency="none")
    await pass_time()
    assert result
    assert result.version < newest.version
    assert sorted(listener.wrote) == [(zone, Outcome.SUPERSEDED, True) for zone in "abc"]
    assert zones.values("k") == everywhere(b"new" * size)
    assert zones.stored_versions("k") == everywhere(newest.version)
    assert {zones.held("k", zone).ttl for zone in "abc"} == {49}


@on_zones()
async def test_write_after_a_read_is_newer_than_the_item_read(zones):
    """For any clock difference."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    behind = await zones.ready()
    await ahead.set("k", "theirs", consistency="all")
    assert await behind.get("k") == "theirs"
    assert (await behind.set("k", "ours", consistency="all")).zones == STORED
    assert zones.values("k") == everywhere("ours")


@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_item_of_a_clock_far_ahead_is_replaced(zones, size):
    """Its version is not believed, so it is replaced as the items of other clients are."""
    broken = await zones.ready(wall_clock=lambda: zones.wall_clock() + 10 * DAY)
    cache = await zones.ready()
    await broken.set("k", "from the future", consistency="all")
    assert (await cache.get_item("k")).version is None
    result = await cache.set("k", b"x" * size, consistency="all")
    assert result.zones == STORED
    assert zones.stored_versions("k") == everywhere(result.version)


@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_item_of_another_kind_of_client_is_replaced(zones, size):
    """Its small CAS looks newer than every version. The client peeks, and replaces it by compare."""
    cache = await zones.ready()
    zones.write_as_another_client("k", b"theirs", 0, "a", "b")
    result = await cache.set("k", b"x" * size, consistency="all")
    assert result.zones == STORED
    assert zones.values("k") == everywhere(b"x" * size)
    assert zones.stored_versions("k") == everywhere(result.version)


@on_zones()
async def test_stub_of_a_lease_is_replaced(zones):
    """Stubs look older than every write."""
    cache = await zones.ready()
    for zone in "abc":
        zones.one(zone).session().receive(b"mg %b v N30 E%d\r\n" % (full("k"), MAX_CAS - 12345))
    assert (await cache.set("k", "value", consistency="all")).zones == STORED
    assert zones.values("k") == everywhere("value")


@on_zones()
async def test_set_many_returns_a_result_and_a_version_for_each_key(zones):
    cache = await zones.ready()
    values = {f"k{number}": number for number in range(30)}
    results = await cache.set_many(values, ttl=33, consistency="all")
    assert results.keys() == values.keys()
    assert all(result.zones == STORED for result in results.values())
    assert len({result.version for result in results.values()}) == 30
    for key, value in values.items():
        assert zones.values(key) == everywhere(value)
        assert zones.held(key, "b").ttl == 33
    # The first few at once, to servers that have nothing to do, and the rest of the tick in one packet.
    assert [len(packets) for packets in zones.sent.values()] == [2, 2, 2]
    zones.forget()
    assert await cache.set_many({}) == {}
    assert zones.all_commands() == everywhere({})


@on_zones(nodes=3)
async def test_set_many_and_delete_many_on_several_nodes(zones):
    """Each key goes to its node in each zone, and reads find it there."""
    cache = await zones.ready()
    values = {f"k{number}": number for number in range(30)}
    assert all((await cache.set_many(values, consistency="all")).values())
    assert await cache.get_many(list(values)) == values
    assert all(0 < len(fake.store) < 30 for zone in "abc" for fake in zones.servers[zone])
    results = await cache.delete_many([*values, "k0"], consistency="all")
    assert results.keys() == values.keys()
    assert await cache.get_many(list(values)) == {}
    assert await cache.delete_many([]) == {}


@on_zones()
async def test_delete_leaves_a_tombstone(zones):
    """It is acknowledged whether or not the key was present."""
    cache = await zones.ready()
    await cache.set("k", "value", ttl=1000, consistency="all")
    for key in ("k", "never-there"):
        result = await cache.delete(key, consistency="all")
        assert result.zones == STORED
        assert zones.values(key) == everywhere(TOMBSTONE)
        assert zones.stored_versions(key) == everywhere(result.version)
        assert {zones.held(key, zone).ttl for zone in "abc"} == {60}
        assert await cache.get(key) is None
    await pass_time(61)
    assert zones.values("k") == NOWHERE


@on_zones()
async def test_tombstone_lives_for_tombstone_ttl(zones):
    cache = await zones.ready(tombstone_ttl=timedelta(hours=1))
    await cache.delete("k", consistency="all")
    assert zones.held("k", "a").ttl == 3600


@on_zones()
async def test_late_older_set_does_not_resurrect_a_deleted_value(zones):
    """The tombstone supersedes it."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 10)
    behind = await zones.ready()
    await ahead.delete("k", consistency="all")
    await behind.set("k", "late", consistency="none")
    await pass_time()
    assert zones.values("k") == everywhere(TOMBSTONE)
    later = await ahead.set("k", "later", consistency="all")
    assert later.zones == STORED
    assert zones.values("k") == everywhere("later")


@on_zones()
async def test_late_older_delete_does_not_remove_a_newer_value(zones):
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 10)
    behind = await zones.ready()
    await ahead.set("k", "newer", consistency="all")
    await behind.delete("k", consistency="none")
    await pass_time()
    assert zones.values("k") == everywhere("newer")
    assert await behind.get("k") == "newer"


# Time to live.


@pytest.mark.parametrize(
    ("ttl", "wire"),
    [
        (1, b"T1"),
        (2.2, b"T3"),
        (timedelta(minutes=2), b"T120"),
        (timedelta(milliseconds=5), b"T1"),
        (30 * DAY, b"T%d" % (30 * DAY)),
        (timedelta(days=31), b"T%d" % (int(WALL_START) + 31 * DAY)),
        (math.inf, b"T0"),
        (None, b"T900"),
    ],
)
@pytest.mark.parametrize("operation", ["set", "set_many", "add", "touch", "incr", "replace", "cas"])
@on_zones()
async def test_ttl_is_sent_as_exptime(zones, ttl, wire, operation):
    """In whole seconds, as a date over 30 days, and as 0 for a value that does not expire."""
    frozen = WALL_START
    cache = await zones.ready(wall_clock=lambda: frozen)
    seen = await cache.set("k", "value", consistency="all") if operation in {"replace", "cas", "touch"} else None
    zones.forget()
    match operation:
        case "set_many":
            await cache.set_many({"k": 1}, ttl=ttl, consistency="all")
        case "touch":
            await cache.touch("k", ttl, consistency="all")
        case "incr":
            await cache.incr("k", initial=1, ttl=ttl, consistency="all")
        case "cas":
            assert await cache.cas("k", 1, seen.version, ttl=ttl, consistency="all")
        case _:
            assert await getattr(cache, operation)("k", 1, ttl=ttl, consistency="all")
    tokens = [zones.wire(zone).replace(b"\r\n", b" ").split(b" ") for zone in "abc"]
    said = [{token for token in each if token[:1] in (b"T", b"N") and token[1:].isdigit()} for each in tokens]
    assert all(wire in each for each in said)


@on_zones()
async def test_default_ttl_applies_if_the_call_gives_none(zones):
    cache = await zones.ready(ttl=timedelta(seconds=42))
    await cache.set("k", 1, consistency="all")
    assert zones.held("k", "c").ttl == 42


@on_zones()
async def test_touch_sets_the_ttl_and_keeps_value_and_version(zones):
    cache = await zones.ready()
    stored = await cache.set("k", "value", ttl=10, consistency="all")
    result = await cache.touch("k", 5000, consistency="all")
    assert result.zones == STORED
    assert result
    assert {zones.held("k", zone).ttl for zone in "abc"} == {5000}
    assert zones.stored_versions("k") == everywhere(stored.version)
    assert zones.values("k") == everywhere("value")
    zones.evict("k", "a", "b")
    result = await cache.touch("k", 60, consistency="quorum")
    assert not result
    assert {result.zones[zone] for zone in "ab"} == {Outcome.NOT_FOUND}
    assert not await cache.touch("absent", 60)


@on_zones()
async def test_set_many_sends_nothing_if_one_value_cannot_be_encoded(zones):
    cache = await zones.ready()
    with pytest.raises(EncodeError):
        await cache.set_many({"k": 1, "j": object()})
    assert zones.all_commands() == everywhere({})


@on_zones()
async def test_version_is_sent_inverted_as_the_cas(zones):
    """It is equal in every zone."""
    cache = await zones.ready()
    result = await cache.set("k", "v", consistency="all")
    for zone in "abc":
        assert b" E%d " % cas_of(result.version) in zones.wire(zone)
