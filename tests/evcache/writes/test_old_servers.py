"""Writes to servers without versions or CAS, and in the forms of other kinds of clients."""

import asyncio

import pytest

from evcache import (
    Codec,
    InvalidArgument,
    Outcome,
    StandardCodec,
    Unsupported,
)
from evcache.values.flags import FLAG_INT, FLAG_INT32
from tests.support.memory_zones import TOMBSTONE, full, on_zones, pass_time
from tests.support.written import NOWHERE, OLD, STORED, everywhere

DAY = 86400


@pytest.mark.parametrize("options", [{"versions": "1.6.18"}, {"versions": OLD}, {}])
@pytest.mark.parametrize("interop", [True, False])
def test_every_operation_on_every_kind_of_server(options, interop):
    """Old servers, new ones, a mix, and namespaces that other clients write too."""

    @on_zones(**options)
    async def main(zones):
        versions = {zone: options.get("versions", "1.6.38") for zone in "abc"}
        versions |= options["versions"] if isinstance(options.get("versions"), dict) else {}
        versioned = not interop and "1.6.38" in versions.values()
        cache = await zones.ready(interop=interop)
        result = await cache.set("k", "v", ttl=60, consistency="all")
        assert result.zones == STORED
        assert (result.version is not None) is versioned
        for zone in "abc":
            held = zones.held("k", zone)
            assert (held.value, held.ttl) == ("v", 60)
            assert held.version == (result.version if versions[zone] == "1.6.38" and not interop else None)
        assert await cache.get("k") == "v"
        assert await cache.get("k", consistency="all") == "v"
        assert await cache.get_many(["k", "absent"]) == {"k": "v"}
        assert await cache.touch("k", 500, consistency="all")
        assert {zones.held("k", zone).ttl for zone in "abc"} == {500}
        assert await cache.get_and_touch("k", 600) == "v"
        assert not await cache.add("k", "w")
        assert await cache.replace("k", "w", consistency="all")
        assert await cache.append("k", "x", consistency="all")
        assert await cache.prepend("k", "<", consistency="all")
        assert zones.values("k") == everywhere("<wx")
        item = await cache.get_item("k", for_update=True)
        assert await cache.cas("k", "y", item, consistency="all")
        assert set((await cache.cas("k", "z", item, consistency="all")).zones.values()) == {Outcome.EXISTS}
        assert zones.values("k") == everywhere("y")
        deleted = await cache.delete("k", consistency="all")
        assert deleted
        assert await cache.get("k") is None
        assert await cache.get("k", consistency="all") is None
        for zone in "abc":
            keeps = versions[zone] == "1.6.38" and not interop
            assert zones.values("k")[zone] == (TOMBSTONE if keeps else None)
        assert set((await cache.cas("k", "z", item)).zones.values()) == {Outcome.NOT_FOUND}
        assert not await cache.replace("k", "z")
        assert not await cache.append("k", "z")
        assert await cache.delete("k", consistency="all")
        assert await cache.add("k", "again", consistency="all")
        assert zones.values("k") == everywhere("again")
        assert await cache.incr("n", initial=9, consistency="all") == 9
        assert await cache.incr("n", consistency="all") == 10
        assert await cache.decr("n", 4, consistency="all") == 6
        assert all(await cache.set_many({"x": b"1" * 2000, "y": 2}, consistency="all"))
        assert await cache.get_many(["x", "y"], consistency="all") == {"x": b"1" * 2000, "y": 2}
        assert all((await cache.delete_many(["x", "y"], consistency="all")).values())
        assert await cache.get_many(["x", "y"]) == {}

    main()


@on_zones(versions="1.6.18")
async def test_cas_on_old_servers_needs_an_item_of_the_coordinator(zones):
    """The CAS of another zone proves nothing there. The error names the right way to read."""
    cache = await zones.ready(local_zone="a")
    refused = 0
    for number in range(12):
        key = f"k{number}"
        await cache.set(key, 1, consistency="all")
        item = await cache.get_item(key)
        if item.zone == (await cache.get_item(key, for_update=True)).zone:
            assert await cache.cas(key, 2, item)
            continue
        refused += 1
        with pytest.raises(InvalidArgument, match="for_update=True") as caught:
            await cache.cas(key, 2, item)
        assert caught.value.argument == "expected"
    assert 0 < refused < 12


@on_zones(versions="1.6.18")
async def test_delete_on_old_servers_reports_absent_keys(zones):
    """Without tombstones the item is removed. A key that was absent counts as deleted."""
    cache = await zones.ready()
    await cache.set("k", 1, consistency="all")
    zones.evict("k", "b")
    result = await cache.delete("k", consistency="all")
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.NOT_FOUND, "c": Outcome.STORED}
    assert result
    assert zones.values("k") == NOWHERE


@on_zones(versions=OLD)
async def test_latest_version_wins_in_a_mix_of_servers(zones):
    """Two zones keep versions, one does not. Reads at `all` return the latest, and do not repair the old server."""
    cache = await zones.ready()
    await cache.set("k", "old", consistency="all")
    kept = zones.held("k", "b").raw
    newest = await cache.set("k", "new", consistency="all")
    zones.one("b").store.link(kept, kept.cas)
    zones.evict("k", "a")
    assert await cache.get("k", consistency="all") == "new"
    await pass_time()
    assert zones.values("k") == {"a": None, "b": "new", "c": "new"}
    assert zones.stored_versions("k") == {"a": None, "b": newest.version, "c": newest.version}


@on_zones(cas_enabled=False)
async def test_compare_on_servers_without_cas_is_unsupported(zones):
    """The error names the node. Other operations work without versions."""
    cache = await zones.ready()
    result = await cache.set("k", "v", consistency="all")
    assert result.zones == STORED
    assert result.version is None
    assert (await cache.get_item("k")).version is None
    item = await cache.get_item("k", for_update=True)
    for call in (
        lambda: cache.cas("k", "w", item),
        lambda: cache.cas("k", "w", 0),
        lambda: cache.cas("k", "w", 5),
        lambda: cache.replace("k", "w"),
        lambda: cache.append("k", "w"),
        lambda: cache.prepend("k", "w"),
    ):
        with pytest.raises(Unsupported) as caught:
            await call()
        assert caught.value.node == f"{item.zone}0:11211"
    assert zones.values("k") == everywhere("v")
    assert not await cache.add("k", "w")
    assert await cache.delete("k", consistency="all")
    assert await cache.add("k", "w", consistency="all")
    assert zones.values("k") == everywhere("w")
    assert await cache.incr("n", initial=1, consistency="all") == 1
    assert await cache.touch("k", 5, consistency="all")


@on_zones()
async def test_interop_writes_plain_items(zones):
    """No versions, no tombstones, no hashed keys: plain stores and deletes."""
    cache = await zones.ready(interop=True)
    result = await cache.set("k", "v", consistency="all")
    assert result.version is None
    assert zones.all_commands() == everywhere({"ms": 1})
    assert (await cache.get_item("k")).version is None
    await cache.delete("k", consistency="all")
    assert zones.values("k") == NOWHERE
    assert zones.commands("b")["md"] == 1
    with pytest.raises(InvalidArgument, match="hashes no keys"):
        await cache.set("x" * 300, 1)


class Hexadecimal(Codec):
    """Codec of a user."""

    def encode(self, value):
        return b"%x" % value, 77

    def decode(self, data, flags):
        return int(data, 16)


@pytest.mark.parametrize(
    ("codec", "interop", "expected"),
    [
        (None, False, (b"300", FLAG_INT)),
        (None, True, (b"\x01\x2c", FLAG_INT32)),
        (StandardCodec(compress_over=100), False, (b"300", FLAG_INT)),
        (StandardCodec(compress_over=100), True, (b"\x01\x2c", FLAG_INT32)),
        (StandardCodec(packed_ints=True), False, (b"\x01\x2c", FLAG_INT32)),
        (Hexadecimal(), True, (b"12c", 77)),
    ],
)
@on_zones()
async def test_interop_stores_ints_as_jvm_clients_read_them(zones, codec, interop, expected):
    """Without `interop` ints are digits. A user's codec is used unchanged."""
    cache = await zones.ready(interop=interop, codec=codec, write_consistency="all")

    async def load():
        return 300

    async def load_many(keys):
        return dict.fromkeys(keys, 300)

    await cache.set("set", 300)
    await cache.add("add", 300)
    await cache.set_many({"set_many": 300})
    await cache.set("replace", "x" if type(codec) is not Hexadecimal else 1)
    await cache.replace("replace", 300)
    await cache.get_or_load("load", load)
    await cache.get_or_load_many(["load_many"], load_many)
    await asyncio.sleep(0.1)
    for key in ("set", "add", "set_many", "replace", "load", "load_many"):
        stored = zones.one("b").store.get(full(key))
        assert (stored.value, stored.flags) == expected, key
        assert await cache.get(key) == 300


@pytest.mark.parametrize("per_call", [True, False])
@pytest.mark.parametrize("size", [10, 5000])
@on_zones()
async def test_last_write_to_arrive_wins_with_ordering_arrival(zones, per_call, size):
    """One plain store for each zone, with a version. The last to arrive wins even if it is older."""
    ahead = await zones.ready(wall_clock=lambda: zones.wall_clock() + 30)
    await ahead.set("k", "newer", consistency="all")
    cache = await zones.ready(**({} if per_call else {"ordering": "arrival"}))
    zones.forget()
    result = await cache.set("k", b"x" * size, consistency="all", **({"ordering": "arrival"} if per_call else {}))
    assert result.zones == STORED
    assert zones.all_commands() == everywhere({"ms": 1})
    assert zones.values("k") == everywhere(b"x" * size)
    assert zones.stored_versions("k") == everywhere(result.version)
    guarded = await cache.set("j", 1, ordering="newest", consistency="all")
    assert guarded.zones == STORED
    assert zones.commands("a")["ms"] == 4
