"""Loads that fail: the loader, its time, or the cache itself. Nothing is kept of it, and the source is not overrun."""

import asyncio
import traceback

import pytest

from evcache import LoadTimeout, NearCache
from evcache.errors import CacheUnavailable, DecodeError, EncodeError
from evcache.load_policy import LoadPolicy
from evcache.values.flags import FLAG_ENVELOPE
from tests.support.memory_zones import Stopwatch, on_zones, pass_time
from tests.support.sources import (
    LoadListener,
    Source,
    assert_nothing_left,
    no_stubs,
    outcomes,
    seen,
    started,
)
from tests.support.virtual_time import settle

# The loader.


@pytest.mark.parametrize("lease", [True, False])
@on_zones(zones=2)
async def test_everybody_who_waits_gets_the_very_error(zones, lease):
    """As it was raised, with a traceback that does not get longer with each of them; the next caller loads."""
    listener = LoadListener()
    cache = await zones.ready(hooks=listener)
    source = Source(seconds=0.1, error=LookupError("down"))
    lengths = []

    async def ask():
        try:
            await cache.get_or_load("k", source.load, policy=LoadPolicy(lease=lease))
        except LookupError as error:
            lengths.append(len(traceback.extract_tb(error.__traceback__)))
            raise

    got = await outcomes(*(ask() for _ in range(20)))
    assert all(error is source.error for error in got)
    assert len(set(lengths)) == 1
    assert source.calls == 1
    assert listener.loads == [(1, 0.0, source.error)]
    await settle()
    assert seen(zones, "k") == {"a": None, "b": None}
    source.error = None
    watch = Stopwatch()
    assert await cache.get_or_load("k", source.load, policy=LoadPolicy(lease=lease)) == "v"
    assert watch.seconds == 0.1
    assert cache.stats().loads.failed == 1
    await assert_nothing_left(cache)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        TimeoutError("its own"),
        LoadTimeout(b"x", 1),
        CacheUnavailable("get", {}),
        ExceptionGroup("", [OSError()]),
    ],
    ids=lambda error: type(error).__name__,
)
@on_zones(zones=2)
async def test_any_error_is_passed_on_as_it_is(zones, error):
    """Also those that this SDK might have raised itself, and time that ran out inside the loader."""
    cache, source = await zones.ready(), Source(error=error)
    assert await outcomes(cache.get_or_load("k", source.load)) == [error]
    await assert_nothing_left(cache)
    assert no_stubs(zones)


@on_zones(zones=2)
async def test_a_loader_that_raises_before_it_is_awaited(zones):
    """An ordinary function that makes the coroutine may fail too."""
    cache = await zones.ready()

    def broken():
        raise LookupError("down")

    with pytest.raises(LookupError):
        await cache.get_or_load("k", broken)
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_an_error_is_not_remembered(zones):
    """Each call loads, however often the loader fails: there is no value to serve."""
    cache, source = await zones.ready(near_cache=NearCache()), Source(error=LookupError("down"))
    for _ in range(3):
        assert await outcomes(cache.get_or_load("k", source.load)) == [source.error]
    assert source.calls == 3


@on_zones(zones=2)
async def test_a_codec_that_breaks_is_an_error_like_any_other(zones):
    """Not only the errors that codecs are to raise."""

    class Broken:
        def encode(self, value):
            raise RuntimeError("broken")

        def decode(self, data, flags):
            raise AssertionError("there is nothing")

    cache = await zones.ready(codec=Broken(), near_cache=NearCache())
    for _ in range(2):
        with pytest.raises(EncodeError, match="RuntimeError: broken"):
            await cache.get_or_load("k", Source().load)
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@pytest.mark.parametrize("lease", [True, False])
@on_zones(zones=2)
async def test_a_value_that_cannot_be_stored_is_not_loaded_by_each_reader(zones, lease, caplog):
    """The loader is not called for the backoff time, as after an exception. The old value is served."""
    cache, source = await zones.ready(), Source("old")
    policy = LoadPolicy(jitter=0, stale_while_revalidate=50, xfetch_beta=0, lease=lease)
    await cache.get_or_load("k", source.load, ttl=10, policy=policy)
    await pass_time(11)
    source.value = object()
    for _ in range(5):
        assert await cache.get_or_load("k", source.load, ttl=10, policy=policy) == "old"
        await pass_time(0.1)
    assert source.calls == 2
    assert "background load of b't:k' failed: " in caplog.text


# Its time.


@on_zones(zones=2)
async def test_a_caller_waits_so_long_and_the_load_goes_on(zones):
    """The next caller finds its value and does not load again. A caller during the load does not start a second one."""
    cache, source = await zones.ready(), Source(seconds=3)
    watch = Stopwatch()
    with pytest.raises(LoadTimeout) as caught:
        await cache.get_or_load("k", source.load, timeout=0.5)
    assert (watch.seconds, caught.value.key, caught.value.seconds) == (0.5, b"t:k", 0.5)
    with pytest.raises(LoadTimeout):
        await cache.get_or_load("k", source.load, policy=LoadPolicy(hard_timeout=1))
    assert watch.seconds == 1.5
    assert await cache.get_or_load("k", source.load) == "v"
    assert watch.seconds == 3
    assert seen(zones, "k") == {"a": "v", "b": "v"}
    assert source.calls == 1
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_each_caller_waits_for_as_long_as_it_says(zones):
    cache, source = await zones.ready(), Source(seconds=1)
    calls = [cache.get_or_load("k", source.load, timeout=seconds) for seconds in (0.2, 0.6, 2)]
    short, middle, long = await outcomes(*calls)
    assert (short.seconds, middle.seconds, long) == (0.2, 0.6, "v")
    assert source.calls == 1


@on_zones(zones=2)
async def test_a_load_takes_so_long_and_is_then_cancelled(zones):
    """Waited for or not; the lease is given back."""
    cache, source = await zones.ready(), Source(seconds=100)
    watch = Stopwatch()
    policy = LoadPolicy(load_timeout=3)
    got = await outcomes(cache.get_or_load("k", source.load, policy=policy), cache.get_or_load("k", source.load, timeout=1))
    assert [type(error) for error in got] == [LoadTimeout] * 2
    assert [error.seconds for error in got] == [3, 1]
    assert (watch.seconds, source.cancelled) == (3, 1)
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_loader_that_goes_on_after_its_time_is_heard(zones):
    """The loader swallows the cancellation. Its result is valid."""
    cache = await zones.ready()

    async def stubborn():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "late"

    assert await cache.get_or_load("k", stubborn, policy=LoadPolicy(load_timeout=3)) == "late"
    assert seen(zones, "k") == {"a": "late", "b": "late"}
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_loader_whose_callers_have_all_run_out_of_time_is_not_called(zones):
    """The load waits for a slot. Otherwise a queue of loads without callers would outlive its cause."""
    cache = await zones.ready(max_loads=1)
    slow, queued = Source(seconds=10), Source(seconds=1)
    first = asyncio.create_task(cache.get_or_load("slow", slow.load, timeout=20))
    await started(slow)
    got = await outcomes(*(cache.get_or_load(f"k{number}", queued.load, timeout=2) for number in range(20)))
    assert [type(error) for error in got] == [LoadTimeout] * 20
    assert cache.stats().loads.waiting == 1
    assert await first == "v"
    assert queued.calls == 0
    await settle()
    assert no_stubs(zones)
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_a_loader_that_fails_after_its_callers_have_gone_is_logged(zones, caplog):
    cache, source = await zones.ready(), Source(seconds=1, error=LookupError("down"))
    with pytest.raises(LoadTimeout):
        await cache.get_or_load("k", source.load, timeout=0.5)
    await pass_time(1)
    assert "background load of b't:k' failed: " in caplog.text
    assert "down" in caplog.text
    await assert_nothing_left(cache)


@on_zones(zones=2)
async def test_the_ttl_of_an_item_that_is_kept_for_when_its_loader_fails_is_its_own(zones):
    """Not how long its server keeps it."""
    cache, other = await zones.ready(), await zones.ready(local_zone="b")
    await cache.get_or_load("k", Source([1]).load, ttl=10, policy=LoadPolicy(jitter=0, stale_if_error=20))
    await pass_time(4)
    assert (await other.get_item("k")).ttl == 6


@pytest.mark.parametrize("many", [False, True])
@on_zones(zones=2)
async def test_what_a_later_release_has_stored_is_loaded_anew(zones, many):
    """While processes of two releases run, the older ones can't read the times of what the newer ones load."""
    cache, source = await zones.ready(), Source("mine")
    zones.write_as_another_client("k", b"\x09" + bytes(40), FLAG_ENVELOPE, "a", "b")
    if many:
        assert await cache.get_or_load_many(["k"], source.load_many) == {"k": "mine"}
    else:
        assert await cache.get_or_load("k", source.load) == "mine"
    with pytest.raises(DecodeError):
        zones.write_as_another_client("k2", b"\x09" + bytes(40), FLAG_ENVELOPE, "a", "b")
        await cache.get("k2")
