"""Every operation on every kind of server and both transports: the same calls, the same answers, but for what can't be done."""

import asyncio
import math
from datetime import UTC, datetime, timedelta

import pytest

from evcache import EVCache, InvalidArgument, Item, Outcome, StandardCodec, Unsupported, ValueTooLarge
from integration.patience import PATIENT, PATIENT_SECONDS
from integration.raw import ask


@pytest.fixture(scope="module")
def zones(each_kind):
    with each_kind.local_zones().running() as zones:
        yield zones


@pytest.fixture(params=["meta", "classic"])
def transport(request):
    """Each test runs on both transports."""
    return request.param


@pytest.fixture
def run(zones, namespace, transport):
    """Run a test's coroutine with a client; writes wait for every zone, so that what follows sees them."""

    def run(test):
        async def main():
            async with EVCache(
                namespace,
                zones.zones,
                local_zone="eu-1a",
                write_consistency="all",
                transport=transport,
                **PATIENT,
            ) as cache:
                await test(cache)

        asyncio.run(main())

    return run


@pytest.fixture
def seconds_left(zones, transport):
    """Ask what `get_item` says an item has left, or each zone itself, where the transport can't tell: a list."""

    async def seconds_left(cache, key):
        item = await cache.get_item(key)
        if transport == "meta":
            return [item.ttl]
        assert item.ttl is None, "not known, on classic servers"
        line = f"mg {cache.namespace}:{key} t\r\nmn\r\n".encode()
        answers = [ask(address, line, b"MN\r\n") for addresses in zones.zones.values() for address in addresses]
        left = [int(answer.split()[1][1:]) for answer in answers if answer.startswith(b"HD")]
        assert len(left) == len(zones.zones)
        return [None if seconds == -1 else seconds for seconds in left]

    return seconds_left


@pytest.fixture
def versions(zones, transport):
    """Whether the servers keep versions, and the transport can use them."""
    return transport == "meta" and tuple(map(int, zones.version.split("."))) >= (1, 6, 27)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes\r\nEND\r\n\x00\xff",
        "",
        "text \u00e9 \U0001f600",
        0,
        -1,
        2**31,
        -(2**63),
        2**64 - 1,
        1.5,
        -0.0,
        math.inf,
        True,
        False,
        datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        None,
        [1, "two", None, {"three": [4.5]}],
        {"nested": {"map": True}},
        b"x" * 1_024,
        b"y" * 100_000,
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:12]!r}",
)
def test_values_come_back_as_they_went(run, value):
    """From the local zone, from all zones, and among others."""

    async def test(cache):
        assert await cache.set("key", value)
        missing = object()
        for found in (
            await cache.get("key", missing),
            await cache.get("key", missing, consistency="all"),
            (await cache.get_many(["key", "other"]))["key"],
        ):
            assert found == value
            assert type(found) is type(value)

    run(test)


def test_get_and_get_item_of_nothing(run):
    async def test(cache):
        assert await cache.get("nothing") is None
        assert await cache.get("nothing", 7) == 7
        assert await cache.get_item("nothing") is None
        assert await cache.get("nothing", consistency="all") is None
        assert await cache.get_many(["nothing", "neither"]) == {}
        assert await cache.get_many([]) == {}

    run(test)


def test_get_item_tells_where_from_and_how_long(run, versions, seconds_left):
    async def test(cache):
        result = await cache.set("key", "value", ttl=100)
        item = await cache.get_item("key")
        assert isinstance(item, Item)
        assert (item.value, item.zone, item.source, item.stale) == ("value", "eu-1a", "local", False)
        assert all(left in (99, 100) for left in await seconds_left(cache, "key"))
        assert item.version == result.version
        assert (item.version is not None) == versions

    run(test)


def test_time_to_live(run, seconds_left):
    """Fractions are rounded up, over 30 days is no unix time, infinity never ends, and touch changes it."""

    async def test(cache):
        async def left(key):
            seconds = await seconds_left(cache, key)
            # Read one after another, while a server's clock may tick.
            assert None in seconds or max(seconds) - min(seconds) <= 1
            assert None not in seconds or set(seconds) == {None}
            return seconds[0]

        await cache.set("a", 1, ttl=1.2)
        assert await left("a") in (1, 2)
        await cache.set("b", 1, ttl=timedelta(days=45))
        assert 45 * 86400 - 5 < await left("b") <= 45 * 86400 + 1
        await cache.set("c", 1, ttl=math.inf)
        assert await left("c") is None
        assert await cache.touch("c", 500)
        assert 498 <= await left("c") <= 500
        assert await cache.get_and_touch("c", 1000) == 1
        async with asyncio.timeout(PATIENT_SECONDS):  # the call does not wait for its touch
            while min(await seconds_left(cache, "c")) <= 500:
                await asyncio.sleep(0.01)
        assert 996 <= await left("c") <= 1000
        assert not await cache.touch("nothing", 10)
        assert await cache.get_and_touch("nothing", 10, "default") == "default"

    run(test)


def test_conditional_writes(run):
    async def test(cache):
        assert not await cache.replace("key", 1)
        assert await cache.add("key", 2)
        again = await cache.add("key", 3)
        assert not again
        assert set(again.zones.values()) == {Outcome.NOT_STORED}
        assert await cache.get("key", consistency="all") == 2
        assert await cache.replace("key", 4)
        assert await cache.get("key", consistency="all") == 4

    run(test)


def test_compare_and_set(run):
    async def test(cache):
        await cache.set("key", 1)
        item = await cache.get_item("key", for_update=True)
        assert await cache.cas("key", 2, item)
        late = await cache.cas("key", 3, item)
        assert not late
        assert set(late.zones.values()) == {Outcome.EXISTS}
        assert await cache.get("key", consistency="all") == 2
        gone = await cache.cas("nothing", 3, item.version or item.cas_token)
        assert set(gone.zones.values()) == {Outcome.NOT_FOUND}
        assert not await cache.cas("key", 3, 0)
        assert await cache.get("key") == 2

    run(test)


def test_compare_and_set_with_a_version(run, versions):
    """With versions the item may come from any zone, and the token is a number that can be kept."""
    if not versions:
        pytest.skip("these servers keep no versions")

    async def test(cache):
        await cache.set("key", 1)
        item = await cache.get_item("key")
        result = await cache.cas("key", 2, item.version)
        assert result
        assert result.version > item.version
        assert not await cache.cas("key", 3, item.version)

    run(test)


def test_append_and_prepend(run, seconds_left):
    async def test(cache):
        assert not await cache.append("key", "b")
        await cache.set("key", "b", ttl=500)
        assert await cache.append("key", "c")
        assert await cache.prepend("key", "a")
        assert await cache.get("key", consistency="all") == "abc"
        # If the remaining time is not readable, the deciding zone keeps it, and the copies get the client's TTL.
        assert any(495 < left <= 500 for left in await seconds_left(cache, "key"))
        with pytest.raises(InvalidArgument, match="value"):
            await cache.append("key", b"d")

    run(test)


def test_append_to_a_compressed_value(zones, namespace, transport):
    """A server joins bytes: behind compressed ones they would be lost, or make the value unreadable."""

    async def main():
        async with EVCache(
            namespace,
            zones.zones,
            local_zone="eu-1a",
            write_consistency="all",
            transport=transport,
            codec=StandardCodec(compress_over=100),
            **PATIENT,
        ) as cache:
            await cache.set("key", "a" * 1_000)
            await cache.set("short", "a")
            assert await cache.append("short", "b" * 1_000)
            assert await cache.get("short", consistency="all") == "a" + "b" * 1_000
            if transport == "meta":
                assert await cache.append("key", "b")
                assert await cache.get("key", consistency="all") == "a" * 1_000 + "b"
            else:
                with pytest.raises(Unsupported, match="joining to a compressed value"):
                    await cache.append("key", "b")
                assert await cache.get("key", consistency="all") == "a" * 1_000

    asyncio.run(main())


def test_counters(run):
    async def test(cache):
        assert await cache.incr("n") is None
        assert await cache.incr("n", initial=99) == 99
        assert await cache.incr("n") == 100
        assert await cache.decr("n") == 99  # a digit less: memcached keeps the width, with a space behind
        assert await cache.incr("n", 2) == 101
        assert await cache.decr("n", 1000) == 0
        assert await cache.incr("n", 2**64 - 1) == 2**64 - 1
        assert await cache.incr("n") == 0
        assert await cache.get("n", consistency="all") == 0
        await cache.set("text", "abc")
        with pytest.raises(Exception, match="not a counter"):
            await cache.incr("text")

    run(test)


def test_delete_and_what_comes_after(run):
    async def test(cache):
        await cache.set("key", 1)
        assert await cache.delete("key")
        assert await cache.get("key") is None
        assert await cache.get("key", consistency="all") is None
        assert await cache.get_item("key") is None
        assert not await cache.replace("key", 2)
        assert not await cache.append("key", "x")
        assert not await cache.touch("key", 5)
        assert await cache.incr("key") is None
        assert await cache.delete("key")
        assert await cache.delete("never-there")
        assert await cache.add("key", 3)
        assert await cache.get("key", consistency="all") == 3
        await cache.delete("key")
        assert await cache.incr("key", initial=5) == 5
        assert await cache.get("key", consistency="all") == 5
        assert await cache.set("key", 6)
        assert await cache.get("key", consistency="all") == 6

    run(test)


def test_many(run):
    async def test(cache):
        values = {f"key-{n}": {"n": n, "pad": "x" * (n * 37 % 2000)} for n in range(300)}
        assert all((await cache.set_many(values)).values())
        assert await cache.get_many([*values, "nothing"]) == values
        assert await cache.get_many(iter(values), consistency="quorum") == values
        gone = [f"key-{n}" for n in range(0, 300, 3)]
        assert all((await cache.delete_many(gone)).values())
        left = {key: value for key, value in values.items() if key not in gone}
        assert await cache.get_many(values) == left
        assert await cache.get_many(values, consistency="all") == left

    run(test)


def test_any_key(run):
    """Long, not ASCII, bytes: hashed, and never mistaken for one another."""

    async def test(cache):
        keys = ["k", "k" * 249, "k" * 250, "k" * 5000, "\u00e9", "\u4f60\u597d", b"\xff\xfe", "#sha256-x", b"bytes"]
        for number, key in enumerate(keys):
            assert await cache.set(key, number)
        for number, key in enumerate(keys):
            assert await cache.get(key) == number

    run(test)


def test_a_value_over_the_limit_leaves_what_is_there(run):
    """Sent to a server, it would be refused, and would delete the old value first."""

    async def test(cache):
        await cache.set("key", "old")
        with pytest.raises(ValueTooLarge, match="value"):
            await cache.set("key", b"x" * 1024 * 1024)
        assert await cache.get("key", consistency="all") == "old"
        full = len(cache.namespace) + len(":key")
        largest = 1024 * 1024 - 56 - full - 1 - 2 - 8
        assert await cache.set("key", b"x" * largest)
        assert len(await cache.get("key", consistency="all")) == largest

    run(test)
