"""`write_through`: the source first, and then the cache, which never holds a value that the source has refused."""

import asyncio
import math

import pytest

from evcache import EncodeError, InvalidArgument, NearCache, Outcome, UsageError, ValueTooLarge
from evcache.load_policy import LoadPolicy
from tests.support.memory_zones import QUICK, TOMBSTONE, Stopwatch, on_zones, pass_time
from tests.support.sources import Source, assert_nothing_left, cancelled_after, outcomes, seen, started
from tests.support.virtual_time import settle

EXACT = LoadPolicy(jitter=0)


@on_zones()
async def test_write_through_writes_the_source_and_then_every_zone(zones):
    cache, source = await zones.ready(near_cache=NearCache()), Source("old", seconds=1)
    await cache.set("k", "old", consistency="all")
    writing = asyncio.create_task(cache.write_through("k", "new", source.write, ttl=50, consistency="all"))
    await started(source)
    await pass_time(0.5)
    assert seen(zones, "k") == dict.fromkeys("abc", "old"), "the source has not got it yet"
    result = await writing
    assert result
    assert result.version == zones.held("k", "a").version
    assert (source.value, source.calls) == ("new", 1)
    assert seen(zones, "k") == dict.fromkeys("abc", "new")
    assert zones.held("k", "b").ttl == 50
    assert await cache.get("k") == "new"
    await assert_nothing_left(cache)


@on_zones()
async def test_key_is_deleted_if_the_writer_raises(zones):
    """The source may hold either value. The key is deleted before the error is raised."""
    cache, source = await zones.ready(near_cache=NearCache()), Source(error=LookupError("refused"))
    await cache.set("k", "old")
    with pytest.raises(LookupError) as caught:
        await cache.write_through("k", "new", source.write)
    assert caught.value is source.error
    assert await cache.get("k") is None
    await settle()
    assert seen(zones, "k") == dict.fromkeys("abc", TOMBSTONE)
    await assert_nothing_left(cache)


@on_zones()
async def test_key_is_deleted_if_the_caller_is_cancelled(zones):
    """The cancellation reaches the writer, and not the delete."""
    cache, source = await zones.ready(), Source(seconds=1)
    await cache.set("k", "old")
    writing = asyncio.create_task(cache.write_through("k", "new", source.write))
    await started(source)
    await pass_time(0.1)
    writing.cancel()
    watch = Stopwatch()
    assert isinstance((await outcomes(writing))[0], asyncio.CancelledError)
    assert watch.seconds == 0
    await settle()
    assert source.cancelled == 1
    assert seen(zones, "k") == dict.fromkeys("abc", TOMBSTONE)
    await assert_nothing_left(cache)


@pytest.mark.parametrize("fails", [False, True])
@on_zones()
async def test_write_through_cancelled_at_any_turn_leaves_equal_zones(zones, fails):
    """They hold the old value only if the writer has not been called."""
    cache = await zones.ready(near_cache=NearCache())
    for turns in range(40):
        key, source = f"k{turns}", Source("old", error=LookupError() if fails else None)
        await cache.set(key, "old", consistency="all")
        await cancelled_after(turns, lambda key=key, source=source: cache.write_through(key, "new", source.write))
        await settle(60)
        values = set(seen(zones, key).values())
        assert len(values) == 1, turns
        if source.calls:
            assert values in ({"new"}, {TOMBSTONE}), turns
            assert not fails or values == {TOMBSTONE}
        else:
            assert values == {"old"}, turns
        await assert_nothing_left(cache)


@pytest.mark.parametrize("wrong", [lambda value: None, lambda value: value, dict])
@on_zones(zones=2)
async def test_writer_that_is_not_async_is_an_error_and_deletes_the_key(zones, wrong):
    """It has been called by then."""
    cache = await zones.ready()
    await cache.set("k", "old")
    with pytest.raises(InvalidArgument) as caught:
        await cache.write_through("k", {}, wrong)
    assert caught.value.argument == "writer"
    assert await cache.get("k") is None


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("writer", {"writer": None}),
        ("writer", {"writer": 5}),
        ("ttl", {"ttl": 0}),
        ("ttl", {"ttl": math.nan}),
        ("timeout", {"timeout": 0}),
        ("consistency", {"consistency": "most"}),
    ],
)
@on_zones(zones=2)
async def test_invalid_argument_is_refused_before_the_writer_is_called(zones, argument, given):
    cache, source = await zones.ready(), Source("old")
    with pytest.raises(InvalidArgument) as caught:
        await cache.write_through("k", "new", **{"writer": source.write, **given})
    assert caught.value.argument == argument
    assert (source.calls, zones.wire("a")) == (0, b"")


@pytest.mark.parametrize(("value", "error"), [(object(), EncodeError), ("v" * 5000, ValueTooLarge)])
@on_zones(zones=2, item_size_max=2000)
async def test_unstorable_value_is_refused_before_the_writer_is_called(zones, value, error):
    """The present value stays."""
    cache, source = await zones.ready(codec=Plain()), Source("old")
    await cache.set("k", "old")
    with pytest.raises(error):
        await cache.write_through("k", value, source.write)
    assert source.calls == 0
    assert await cache.get("k") == "old"


class Plain:
    """Codec of text only."""

    def encode(self, value):
        if not isinstance(value, str):
            raise EncodeError("text alone")
        return value.encode(), 0

    def decode(self, data, flags):
        return data.decode()


@pytest.mark.parametrize("how", ["dead", "hanging"])
@on_zones()
async def test_write_through_without_zones_writes_the_source(zones, how):
    """The result is false, and names each failure. Hints deliver the write later."""
    cache, source = await zones.ready(circuit=QUICK), Source("old")
    await cache.set("k", "old", consistency="all")
    if how == "dead":
        await zones.kill("a", "b", "c")
    else:
        zones.pause("a", "b", "c")
    watch = Stopwatch()
    result = await cache.write_through("k", "new", source.write, timeout=0.3)
    assert not result
    assert set(result.zones.values()) <= {Outcome.UNAVAILABLE, Outcome.TIMEOUT}
    assert watch.seconds <= 0.3
    assert source.value == "new"
    if how == "dead":
        zones.restart("a", "b", "c")
    zones.resume("a", "b", "c")
    await pass_time(10)
    assert seen(zones, "k") == dict.fromkeys("abc", "new")


@on_zones()
async def test_error_of_the_writer_is_raised_unchanged_without_zones(zones):
    cache, source = await zones.ready(), Source(error=LookupError("refused"))
    await zones.kill("a", "b", "c")
    with pytest.raises(LookupError):
        await cache.write_through("k", "new", source.write)
    await pass_time(1)


class Late:
    """Discovery that finds the zones after a while."""

    def __init__(self, topology, seconds):
        self.topology = topology
        self.seconds = seconds

    async def load(self):
        await asyncio.sleep(self.seconds)
        return self.topology

    async def watch(self):
        await asyncio.sleep(10_000)
        yield


@on_zones(zones=2)
async def test_write_through_before_the_zones_are_known(zones):
    """The result is false. Zones that are known within the timeout get the value."""
    cache, source = zones.client(zones=Late(zones.topology, 0.5)), Source("old", seconds=1)
    assert await cache.write_through("k", "new", source.write)
    assert seen(zones, "k") == {"a": "new", "b": "new"}
    other, source = zones.client(zones=Late(zones.topology, 1000)), Source("old")
    result = await other.write_through("k2", "new", source.write)
    assert (bool(result), result.zones, source.value) == (False, {}, "new")
    await other.close(0)


@on_zones(zones=2)
async def test_zones_found_while_the_writer_fails_delete_the_key(zones):
    cache, other = zones.client(zones=Late(zones.topology, 0.5)), await zones.ready()
    await other.set("k", "old")
    source = Source(seconds=1, error=LookupError())
    with pytest.raises(LookupError):
        await cache.write_through("k", "new", source.write)
    await settle()
    assert await other.get("k") is None


@on_zones(zones=2)
async def test_write_through_on_a_closed_client_raises(zones):
    cache, source = await zones.ready(), Source("old")
    await cache.close()
    with pytest.raises(UsageError):
        await cache.write_through("k", "new", source.write)
    assert source.calls == 0


@on_zones(zones=2)
async def test_calls_for_one_key_run_in_their_order(zones):
    """So the cache holds the value that reached the source last. Other keys do not wait."""
    cache, log = await zones.ready(), []

    def writer(seconds):
        async def write(value):
            log.append(f"{value} begins")
            await asyncio.sleep(seconds)
            log.append(f"{value} ends")

        return write

    watch = Stopwatch()
    calls = [cache.write_through("k", value, writer(seconds)) for value, seconds in (("x", 1.0), ("y", 0.1), ("z", 0.5))]
    others = [cache.write_through(f"other{number}", "o", Source(seconds=1.6).write) for number in range(5)]
    assert all(await asyncio.gather(*calls, *others))
    assert watch.seconds == 1.6
    assert log == [f"{value} {what}" for value in "xyz" for what in ("begins", "ends")]
    assert seen(zones, "k") == {"a": "z", "b": "z"}
    await assert_nothing_left(cache)


@pytest.mark.parametrize("victim", [0, 1])
@on_zones(zones=2)
async def test_cancelled_call_releases_its_key(zones, victim):
    """Both while it writes, and while it waits. A call that waited has written nothing."""
    cache = await zones.ready()
    sources = [Source("old", seconds=1) for _ in range(3)]
    calls = [asyncio.create_task(cache.write_through("k", f"v{n}", source.write)) for n, source in enumerate(sources)]
    await started(sources[0])
    calls[victim].cancel()
    got = await outcomes(*calls)
    assert [bool(result) for n, result in enumerate(got) if n != victim] == [True, True]
    assert [source.calls for source in sources] == [1, int(victim == 0), 1]
    assert seen(zones, "k") == {"a": "v2", "b": "v2"}
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_load_that_began_before_does_not_hide_the_write(zones):
    """It read the source before the writer was done. A later caller gets the written value."""
    cache, other = await zones.ready(near_cache=NearCache()), await zones.ready(local_zone="b")
    source = Source("old", seconds=1)
    loads = [asyncio.create_task(client.get_or_load("k", source.load, policy=EXACT)) for client in (cache, other)]
    await started(source, 2)
    await pass_time(0.2)
    assert await cache.write_through("k", "new", Source("old", seconds=0.3).write)
    assert await cache.get_or_load("k", source.load) == "new"
    assert await asyncio.gather(*loads) == ["old", "old"]
    await settle()
    assert seen(zones, "k") == {"a": "new", "b": "new"}
    assert await cache.get("k") == "new"
    assert source.calls == 2


@on_zones(zones=2)
async def test_load_that_begins_during_the_write_does_not_hide_it(zones):
    cache, source = await zones.ready(), Source("old", seconds=0.5)
    writing = asyncio.create_task(cache.write_through("k", "new", Source("old", seconds=1).write))
    await pass_time(0.8)
    loading = asyncio.create_task(cache.get_or_load("k", source.load))
    assert await writing
    assert await loading == "old"
    await settle()
    assert seen(zones, "k") == {"a": "new", "b": "new"}
    assert await cache.get_or_load("k", source.load) == "new"


@on_zones(zones=2)
async def test_close_during_the_writer_fails_the_write_to_the_zones(zones):
    """The writer belongs to the caller, and goes on. The result is false."""
    cache, source = await zones.ready(), Source("old", seconds=1)
    await cache.set("k", "old")
    writing = asyncio.create_task(cache.write_through("k", "new", source.write))
    await started(source)
    await cache.close(0.1)
    got = (await outcomes(writing))[0]
    assert source.value == "new"
    assert not got
    await assert_nothing_left(cache)
