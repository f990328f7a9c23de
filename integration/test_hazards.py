"""What memcached does to careless clients: each shown on the server itself first, then tried through the client."""

import asyncio

import pytest

from evcache import EVCache, InvalidKey
from evcache.replication.hlc import MAX_CAS
from evcache.zones.protocol import requests
from evcache.zones.protocol.fields import COPY_FIELDS, INSPECT_FIELDS, READ_FIELDS, VERSION_FIELDS
from evcache.zones.protocol.operations import THREE_COPIES_MAX_BYTES, guarded_store
from integration.patience import PATIENT
from integration.raw import ask, item
from tests.support.lines import get_line, store_line
from tests.support.packets import commands_of


@pytest.fixture
def client(each_server, namespace):
    """Run a test's coroutine with a client of one server."""

    def run(test):
        async def main():
            async with EVCache(namespace, {"only": [each_server]}, local_zone="only", **PATIENT) as cache:
                return await test(cache)

        return asyncio.run(main())

    return run


def version_of(server):
    return tuple(map(int, ask(server, b"version\r\n", b"\r\n").split()[1].decode().split(".")))


def test_a_store_under_a_long_key_does_not_run_its_value(client, each_server, namespace):
    """A server may answer a key of over 250 bytes with an error and then run the value: such a key never leaves."""
    victim = f"{namespace}:victim"
    ask(each_server, f"set {victim} 0 0 4\r\nsafe\r\n".encode(), b"STORED\r\n")
    attack = f"md {victim}\r\n"
    if version_of(each_server) < (1, 6, 45):
        line = f"ms {'k' * 251} {len(attack) - 2} T0\r\n"
        ask(each_server, line.encode() + attack.encode() + b"mn\r\n", b"MN\r\n")
        assert item(each_server, victim) is None, "the server ran the value: the hazard is there"
        ask(each_server, f"set {victim} 0 0 4\r\nsafe\r\n".encode(), b"STORED\r\n")

    async def test(cache):
        assert await cache.set("k" * 251, attack)
        assert await cache.get("k" * 251) == attack
        assert await cache.set("k" * 10_000, attack)
        assert await cache.get("k" * 10_000) == attack

    client(test)
    assert item(each_server, victim) == (b"safe", 0, item(each_server, victim)[2])


def test_a_nul_in_a_key_does_not_cut_it(client, each_server, namespace):
    """Servers end the line at a NUL, so that deleting `foo\\0x` deletes `foo`: such a key is refused."""

    async def test(cache):
        await cache.set("foo", "kept")
        for key in ("foo\0x", b"foo\0x"):
            with pytest.raises(InvalidKey):
                await cache.delete(key)
        assert await cache.get("foo") == "kept"

    client(test)


@pytest.mark.parametrize("key", ["a\r\nflush_all", "a b", "a\nb", "a\tb", "a\x7fb", " ", "\r\n", b"a\r\nmd x", b"a b"])
def test_no_key_is_two_commands(client, key):
    async def test(cache):
        await cache.set("witness", 1)
        for call in (cache.get, cache.delete, cache.incr, cache.touch, cache.get_item):
            with pytest.raises(InvalidKey, match="key"):
                await call(key)
        with pytest.raises(InvalidKey, match="key"):
            await cache.set(key, 1)
        with pytest.raises(InvalidKey, match="key"):
            await cache.get_many(["fine", key])
        assert await cache.get("witness") == 1

    client(test)


def test_a_value_that_is_too_large_does_not_delete_the_old_one(client, each_server, namespace):
    """A server that refuses a store for its size has deleted what was there: the client never sends one."""
    name = f"{namespace}:raw"
    ask(each_server, f"set {name} 0 0 3\r\nold\r\n".encode(), b"STORED\r\n")
    huge = b"x" * (1024 * 1024)
    ask(each_server, f"ms {name} {len(huge)} T0\r\n".encode() + huge + b"\r\nmn\r\n", b"MN\r\n")
    assert item(each_server, name) is None, "the old value is gone: the hazard is there"

    async def test(cache):
        await cache.set("key", "old")
        with pytest.raises(ValueError, match="value"):
            await cache.set("key", huge)
        with pytest.raises(ValueError, match="value"):
            await cache.set_many({"other": 1, "key": huge})
        assert await cache.get("key") == "old"
        assert await cache.get("other") is None, "nothing of a call with a bad value is sent"

    client(test)


def test_a_value_may_hold_the_protocol(client):
    """Line ends and whole replies inside a value are the value's."""

    async def test(cache):
        for value in (b"END\r\n", b"\r\n", b"VA 3 O1\r\nabc\r\n", b"HD O1\r\nEN\r\n", b"\r\n" * 5000):
            await cache.set("key", value)
            assert await cache.get("key") == value
            assert await cache.get_many(["key", "other"]) == {"key": value}

    client(test)


def test_times_over_thirty_days_are_not_unix_times(client, each_server, namespace):
    """A relative time over 30 days would be a day in 1970, and the item gone at once."""
    ask(each_server, f"ms {namespace}:raw 1 T2592001\r\nx\r\n".encode(), b"\r\n")
    assert item(each_server, f"{namespace}:raw") is None, "the hazard is there"

    async def test(cache):
        await cache.set("key", 1, ttl=2_592_001)
        assert (await cache.get_item("key")).ttl >= 2_592_000

    client(test)


def test_a_counter_keeps_its_time_to_live_when_it_gains_a_digit(client):
    """`ma` loses a `T` or `E` that comes with a new digit: the client sends neither, and copies what the server has."""

    async def test(cache):
        await cache.incr("n", initial=9, ttl=1000)
        assert await cache.incr("n") == 10
        assert 990 < (await cache.get_item("n")).ttl <= 1000

    client(test)


def test_a_shrinking_counter_is_read_without_its_padding(client):
    """A number that lost a digit keeps its width on the server, with a space behind it."""

    async def test(cache):
        await cache.incr("n", initial=100)
        assert await cache.decr("n") == 99
        assert await cache.incr("n", 0) == 99

    client(test)


def test_the_seconds_left_are_asked_after_the_time_is_given():
    """Flags are applied from left to right: `t` before `N` shows what was before."""
    line = requests.meta_lease(b"k", 60).split()
    assert line.index(b"N60") < line.index(b"t")


def guarded(key, data, cas):
    return guarded_store(key, data, 0, 60, cas=cas, stub=MAX_CAS).packet


ONE_COPY = b"x" * (THREE_COPIES_MAX_BYTES + 1)


def test_no_request_asks_for_keys_in_base64_or_to_be_repeated():
    """`b` with an auto-created item makes servers print raw keys, line ends included; `k` is what prints them."""
    lines = [
        *(get_line(b"K", fields) for fields in (READ_FIELDS, COPY_FIELDS, VERSION_FIELDS, INSPECT_FIELDS)),
        requests.meta_touch(b"K", 5),
        store_line(b"K", 1, ttl=1, cas=1, compare=2),
        *(line for data in (b"x", ONE_COPY) for line, _ in commands_of(guarded(b"K", data, cas=1))),
        *(line for line, _ in commands_of(requests.guarded_touch(b"K", cas=1, ttl=1))),
        *(line for line, _ in commands_of(requests.replace_older(b"K", b"x", flags=0, cas=1))),
        requests.meta_delete(b"K"),
        requests.meta_arithmetic(b"K", 1, compare=1, cas=1),
        requests.meta_lease(b"K", 1, 1),
    ]
    for line in lines:
        assert {b"k", b"b"}.isdisjoint(line.split()[2:])


def test_a_store_with_an_older_version_is_refused_though_the_server_would_take_it(client, each_server, namespace):
    """The server has no "store if newer": the client's version, kept inverted, makes one."""
    if version_of(each_server) < (1, 6, 27):
        pytest.skip("this server keeps no versions")
    name = f"{namespace}:key"

    async def test(cache):
        result = await cache.set("key", "new")
        assert item(each_server, name)[2] == MAX_CAS - result.version
        # An older version by hand, as it would come from another client whose packet was held up.
        older = MAX_CAS - (result.version - 1000)
        for packet in (
            guarded(name.encode(), b"old", cas=older),
            guarded(name.encode(), ONE_COPY, cas=older),
        ):
            for line, payload in commands_of(packet):
                ask(each_server, line + b"\r\n" + (b"" if payload is None else payload + b"\r\n"), b"\r\n")
            assert await cache.get("key") == "new"
        # A plain store with that version would have been taken.
        ask(each_server, b"ms %s 3 E%d\r\nold\r\n" % (name.encode(), older), b"\r\n")
        assert item(each_server, name)[0] == b"old"

    client(test)


def test_an_item_of_another_kind_of_client_does_not_look_newer_than_everything(client, each_server, namespace):
    """A server gives out small CAS numbers, which inverted are versions of a far future: they count as none."""

    async def test(cache):
        ask(each_server, f"set {namespace}:key 0 0 5\r\nother\r\n".encode(), b"STORED\r\n")
        assert (await cache.get_item("key")).version is None
        for size in (10, 5_000):  # both forms of the guarded store
            ask(each_server, f"set {namespace}:key 0 0 5\r\nother\r\n".encode(), b"STORED\r\n")
            result = await cache.set("key", "m" * size)
            assert result
            assert await cache.get("key") == "m" * size

    client(test)


def test_any_look_at_a_stale_item_takes_the_right_to_refresh_it(client, each_server, namespace):
    """That includes a look without an access time (`u`). A store then clears the mark."""
    name = f"{namespace}:key"

    async def test(cache):
        await cache.set("key", "value")
        ask(each_server, f"md {name} I T60\r\n".encode(), b"\r\n")
        first = ask(each_server, f"mg {name} c u\r\n".encode(), b"\r\n")
        second = ask(each_server, f"mg {name} c u\r\n".encode(), b"\r\n")
        assert (b" W" in first, b" Z" in second) == (True, True), "the hazard is there"
        item = await cache.get_item("key")
        assert (item.value, item.stale) == ("value", True)
        assert await cache.set("key", "fresh")
        assert (await cache.get_item("key")).stale is False
        # A refused store looks, too, and may leave no mark behind.
        assert not await cache.add("key", "other")
        answer = ask(each_server, f"mg {name} c u\r\n".encode(), b"\r\n")
        assert {b"X", b"W", b"Z"}.isdisjoint(answer.split())

    client(test)
