"""Operations of a client in interop mode, whatever the form in which the zones hold keys and values."""

import asyncio
import struct

import pytest

from evcache import CacheUnavailable, EncodeError, NearCache, Outcome, Unsupported
from evcache.interop import GroupInterop, Interop, KeyHash
from evcache.interop.forms.chunks import ChunkHeader
from evcache.interop.forms.java_envelope import JavaEnvelope, unwrap, wrap
from evcache.values.flags import FLAG_BYTES, FLAG_COMPACT_ENVELOPE, FLAG_INT, FLAG_JAVA, FLAG_STR
from tests.support.memory_zones import QUICK, full, on_zones, pass_time

LONG = "v" * 3_000

FORMS = {
    "plain": Interop(),
    "hashed": Interop(hash_keys="all"),
    "mixed": Interop(groups={"b": GroupInterop(hash_keys=True, key_hash=KeyHash("sha1"))}),
    "chunked": Interop(chunk_bytes=1180),
    "hashed and chunked": Interop(hash_keys="all", chunk_bytes=1180),
    "chunked in one group": Interop(groups={"c": GroupInterop(chunk_bytes=300)}),
}
in_each_form = pytest.mark.parametrize("interop", FORMS.values(), ids=FORMS)
without_chunks = pytest.mark.parametrize(
    "interop", [form for name, form in FORMS.items() if "chunked" not in name], ids=[n for n in FORMS if "chunked" not in n]
)
on_shards = on_zones(nodes=3, by_address=True)
ALL = {"consistency": "all"}


def items(zones, zone):
    """Return the items of a zone by key."""
    return {key: fake.store.get(key) for fake in zones.servers[zone] for key in list(fake.store) if fake.store.get(key)}


def put(zones, zone, key, data, flags):
    """Store an item on each server of a zone, as another client."""
    for fake in zones.servers[zone]:
        line = b"set %b %d 0 %d\r\n%b\r\n" % (key, flags, len(data), data)
        assert fake.session().receive(line) == b"STORED\r\n"


@in_each_form
@pytest.mark.parametrize(
    "value", ["", "v", LONG, b"", b"\0" * 3_000, 0, -1, 2**40, 1.5, True, ["a"]], ids=lambda v: str(v)[:8]
)
@on_shards
async def test_a_value_comes_back_from_every_zone(zones, interop, value):
    cache = await zones.ready(interop=interop)
    assert await cache.set("k", value, **ALL)
    for zone in zones.names:
        reader = await zones.ready(interop=interop, local_zone=zone, fallback_on_miss=False)
        assert await reader.get("k") == value
        assert await reader.get_many(["k", "other"]) == {"k": value}
        assert (await reader.get_item("k")).value == value
    assert await cache.get("k", **ALL) == value
    assert await cache.get("other") is None


@in_each_form
@on_shards
async def test_a_value_of_another_size_replaces_the_whole_former_one(zones, interop):
    cache = await zones.ready(interop=interop)
    for value in (LONG, "v", LONG * 2, LONG, b""):
        assert await cache.set("k", value, **ALL)
        assert await cache.get("k", **ALL) == value


@in_each_form
@pytest.mark.parametrize("value", ["v", LONG])
@on_shards
async def test_a_deleted_value_leaves_nothing_for_other_clients(zones, interop, value):
    cache = await zones.ready(interop=interop)
    await cache.set("k", value, **ALL)
    assert (await cache.delete("k", **ALL)).zones == dict.fromkeys("abc", Outcome.STORED)
    assert {zone: items(zones, zone) for zone in "abc"} == dict.fromkeys("abc", {})
    assert (await cache.delete("k", **ALL)).zones == dict.fromkeys("abc", Outcome.NOT_FOUND)


@in_each_form
@pytest.mark.parametrize("value", ["v", LONG])
@on_shards
async def test_a_touch_reaches_every_record(zones, interop, value):
    cache = await zones.ready(interop=interop)
    await cache.set("k", value, ttl=50, **ALL)
    assert await cache.touch("k", 500, **ALL)
    left = {fake.store.ttl_left(item) for z in "abc" for fake in zones.servers[z] for item in fake_items(fake)}
    assert left == {500}
    assert not await cache.touch("missing", 500, **ALL)


def fake_items(fake):
    return [fake.store.get(key) for key in list(fake.store) if fake.store.get(key)]


@in_each_form
@on_shards
async def test_bulk_writes_and_deletes_work(zones, interop):
    cache = await zones.ready(interop=interop)
    values = {f"k{number}": "v" * (number * 100) for number in range(40)}
    assert all((await cache.set_many(values, **ALL)).values())
    assert await cache.get_many(list(values)) == values
    assert await cache.get_many(list(values), **ALL) == values
    assert all((await cache.delete_many(list(values), **ALL)).values())
    assert await cache.get_many(list(values)) == {}
    assert {zone: items(zones, zone) for zone in "abc"} == dict.fromkeys("abc", {})


@in_each_form
@on_shards
async def test_loaders_and_the_near_cache_work(zones, interop):
    cache = await zones.ready(interop=interop, near_cache=NearCache(ttl=5))

    async def load():
        return LONG

    for _ in range(2):
        assert await cache.get_or_load("k", load) == LONG
    assert await cache.get("k") == LONG
    assert cache.stats().near.hits


@without_chunks
@on_shards
async def test_conditional_writes_hold_in_every_zone(zones, interop):
    cache = await zones.ready(interop=interop)
    assert not await cache.replace("k", "no", **ALL)
    assert await cache.add("k", "first", **ALL)
    assert not await cache.add("k", "second", **ALL)
    assert await cache.get("k", **ALL) == "first"
    assert await cache.replace("k", "third", **ALL)
    item = await cache.get_item("k", for_update=True)
    assert await cache.cas("k", "fourth", item, **ALL)
    assert not await cache.cas("k", "fifth", item, **ALL)
    for zone in "abc":
        reader = await zones.ready(interop=interop, local_zone=zone, fallback_on_miss=False)
        assert await reader.get("k") == "fourth"


@pytest.mark.parametrize(
    "interop", [form for name, form in FORMS.items() if name != "mixed"], ids=[name for name in FORMS if name != "mixed"]
)
@on_shards
async def test_counters_are_text_under_every_form_of_key(zones, interop):
    """As the JVM client stores them: without an envelope, under the key of the group."""
    cache = await zones.ready(interop=interop)
    assert await cache.incr("n", 5, **ALL) is None
    assert await cache.incr("n", 5, initial=9, **ALL) == 9
    assert await cache.incr("n", 5, **ALL) == 14
    assert await cache.decr("n", 6, **ALL) == 8
    assert (await cache.get("n")).rstrip() == "8"
    held = {zone: {(item.value.rstrip(b" "), item.flags) for item in items(zones, zone).values()} for zone in "abc"}
    assert held == dict.fromkeys("abc", {(b"8", FLAG_STR)})


@on_shards
async def test_a_counter_that_the_jvm_client_could_not_find_is_refused(zones):
    """Whichever zone decides."""
    for group in "abc":
        cache = await zones.ready(interop=Interop(groups={group: GroupInterop(hash_keys=True)}))
        for call in (cache.incr, cache.decr):
            with pytest.raises(Unsupported, match="hashes no counters by group"):
                await call("n", 1, initial=1)
    assert {zone: items(zones, zone) for zone in "abc"} == dict.fromkeys("abc", {})


@on_shards
async def test_a_counter_that_a_jvm_client_padded_counts_on(zones):
    cache = await zones.ready(interop=Interop())
    for zone in "abc":
        put(zones, zone, full("n"), b"9 ", FLAG_STR)
    assert await cache.incr("n", 4, **ALL) == 13
    assert await cache.decr("n", 5, **ALL) == 8


@pytest.mark.parametrize("interop", [FORMS["hashed"], FORMS["chunked"]], ids=["hashed", "chunked"])
@on_shards
async def test_an_append_that_a_jvm_client_loses_is_refused(zones, interop):
    cache = await zones.ready(interop=interop)
    await cache.set("k", "v", **ALL)
    for call in (cache.append, cache.prepend):
        with pytest.raises(Unsupported, match="hashes the key, or stores chunks"):
            await call("k", "w", **ALL)
    assert await cache.get("k", **ALL) == "v"


@on_shards
async def test_add_and_replace_are_refused_where_the_deciding_zone_has_chunks(zones):
    cache = await zones.ready(interop=FORMS["chunked"])
    with pytest.raises(Unsupported, match="chunks"):
        await cache.add("k", "v")
    await cache.set("k", "v", **ALL)
    with pytest.raises(Unsupported, match="chunks"):
        await cache.replace("k", "w")
    assert await cache.get("k", **ALL) == "v"


@pytest.mark.parametrize(("release", "first"), [("5.9", "a"), ("5.26", "c")])
@on_zones()
async def test_add_is_decided_by_the_zone_that_the_jvm_client_asks_first(zones, release, first):
    cache = await zones.ready(interop=Interop(release=release), local_zone="b")
    for number in range(20):
        put(zones, first, full(f"k{number}"), b"theirs", FLAG_STR)
        result = await cache.add(f"k{number}", "ours")
        assert not result
        assert result.zones == {first: Outcome.NOT_STORED}
        assert all(full(f"k{number}") not in items(zones, zone) for zone in set("abc") - {first})


@on_shards
async def test_an_envelope_has_the_key_and_the_arguments_of_the_write(zones):
    cache = await zones.ready(interop=Interop(hash_keys="all"))
    await cache.set("ké\U0001f600", "hi", ttl=900, **ALL)
    for zone in "abc":
        ((key, item),) = items(zones, zone).items()
        assert key == KeyHash().hashed("t:ké\U0001f600".encode())
        assert item.flags == FLAG_JAVA
        now_ms = int(zones.wall_clock() * 1000)
        envelope = unwrap(item.value)
        assert envelope == JavaEnvelope("t:ké\U0001f600", b"hi", FLAG_STR, 900, envelope.created_ms)
        assert now_ms - 1000 <= envelope.created_ms <= now_ms


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        (wrap(JavaEnvelope("t:other", b"secret", FLAG_STR, 0, 0)), FLAG_JAVA),
        (wrap(JavaEnvelope("t:k", b"cut", FLAG_STR, 0, 0))[:-1], FLAG_JAVA),
        (b"\xac\xed\0\x05t\0\1a", FLAG_JAVA),
        (b"bare", FLAG_STR),
        (b"\2", 9 << 8),
    ],
    ids=["collision", "cut short", "another object", "no envelope", "compact"],
)
@on_shards
async def test_a_value_that_is_not_of_the_key_is_a_miss(zones, data, flags):
    cache = await zones.ready(interop=Interop(hash_keys="all"))
    for zone in "abc":
        put(zones, zone, KeyHash().hashed(full("k")), data, flags)
    assert await cache.get("k", **ALL) is None
    assert await cache.get_many(["k"]) == {}
    assert await cache.set("k", "own", **ALL)
    assert await cache.get("k", **ALL) == "own"


@pytest.mark.parametrize(("key", "found"), [("k", "hi"), ("other", None)])
@on_shards
async def test_a_compact_envelope_is_read_if_it_has_the_key(zones, key, found):
    """A development branch of the JVM client writes them."""
    own = full(key)
    numbers = struct.pack(">Iqq", FLAG_STR, 900, 1_700_000_000_123)
    data = b"\1" + struct.pack(">i", len(own)) + own + struct.pack(">i", 2) + b"hi" + numbers
    cache = await zones.ready(interop=Interop(hash_keys="all"))
    for zone in "abc":
        put(zones, zone, KeyHash().hashed(full("k")), data, FLAG_COMPACT_ENVELOPE)
    assert await cache.get("k", **ALL) == found


@on_shards
async def test_two_keys_with_one_hash_miss_and_never_exchange_values(zones):
    interop = Interop(release="5.26", hash_keys="all", key_hash=KeyHash("crc32", max_hash_length=1))
    cache = await zones.ready(interop=interop)
    keys = [f"k{number}" for number in range(100)]
    await cache.set_many({key: key for key in keys}, **ALL)
    found = await cache.get_many(keys)
    assert 0 < len(found) < 100
    assert all(key == value for key, value in found.items())
    assert all([await cache.get(key) in (key, None) for key in keys])


@pytest.mark.parametrize("lost", [b"_00", b"_01", b"_03"])
@on_shards
async def test_a_chunked_value_without_a_record_is_a_miss(zones, lost):
    cache = await zones.ready(interop=FORMS["chunked"])
    await cache.set("k", LONG, **ALL)
    for zone in "abc":
        assert sum(fake.store.evict(full("k") + lost) for fake in zones.servers[zone]) == 1
    assert await cache.get("k", **ALL) is None


@on_shards
async def test_records_of_two_writes_are_a_miss(zones):
    cache = await zones.ready(interop=FORMS["chunked"])
    await cache.set("k", LONG, **ALL)
    for zone in "abc":
        put(zones, zone, full("k") + b"_01", b"w" * len(items(zones, zone)[full("k") + b"_01"].value), FLAG_BYTES)
    assert await cache.get("k", **ALL) is None


@on_shards
async def test_a_header_that_names_absurd_numbers_is_a_miss(zones):
    cache = await zones.ready(interop=FORMS["chunked"])
    for zone in "abc":
        put(zones, zone, full("k") + b"_00", ChunkHeader(2**31, 1, 1, 0, 0).encode(), FLAG_STR)
    zones.forget()
    assert await cache.get("k") is None
    assert sum(zones.commands("a").values()) < 10


@in_each_form
@on_shards
async def test_one_node_that_is_down_leaves_the_other_keys_readable(zones, interop):
    cache = await zones.ready(interop=interop, circuit=QUICK)
    values = {f"k{number}": number for number in range(60)}
    await cache.set_many(values, **ALL)
    await zones.servers["a"][0].kill()
    await pass_time(0.1)
    assert await cache.get_many(list(values)) == values
    for key, value in values.items():
        assert await cache.get(key) == value


@in_each_form
@on_shards
async def test_a_zone_that_is_down_is_replaced_by_another(zones, interop):
    cache = await zones.ready(interop=interop, circuit=QUICK)
    await cache.set("k", LONG, **ALL)
    await zones.kill("a")
    await pass_time(0.1)
    assert await cache.get("k") == LONG
    assert await cache.set("k", "w")
    assert await cache.get("k") == "w"
    await zones.kill("b", "c")
    await pass_time(0.1)
    with pytest.raises(CacheUnavailable):
        await cache.get("k")


@in_each_form
@on_shards
async def test_a_write_that_is_cancelled_leaves_no_mixture(zones, interop):
    """The write goes on, or nothing of it is seen."""
    cache = await zones.ready(interop=interop)
    await cache.set("k", LONG, **ALL)
    for turns in range(12):
        task = asyncio.ensure_future(cache.set("k", chr(97 + turns) * 3_000, **ALL))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await pass_time(0.1)
        value = await cache.get("k", **ALL)
        assert len(value) == 3_000
        assert len(set(value)) == 1


class FlaggedCodec:
    """Codec of a user, whose values are pairs of bytes and flags."""

    def encode(self, value):
        return value

    def decode(self, data, flags):
        return data, flags


@in_each_form
@on_shards
async def test_values_of_another_codec_keep_their_flags_and_never_take_those_of_counters(zones, interop):
    cache = await zones.ready(interop=interop, codec=FlaggedCodec())
    for value in [(b"12", FLAG_STR), (b"x", FLAG_JAVA), (b"x" * 3_000, 2**32 - 1), (b"", 9 << 8)]:
        assert await cache.set("k", value, **ALL)
        assert await cache.get("k", **ALL) == value
    with pytest.raises(EncodeError, match="reserved for counters"):
        await cache.set("k", (b"12", FLAG_INT), **ALL)
