"""Calls of write-behind: what they do to the cache, and which are refused."""

import asyncio

import pytest

from evcache import CacheUnavailable, EncodeError, InvalidArgument, InvalidKey, ValueTooLarge
from evcache.write_behind import WriteBehind
from tests.support.memory_zones import on_zones, pass_time
from tests.support.virtual_time import run
from tests.support.write_behind_source import Source


@on_zones()
async def test_set_stores_at_once_and_add_does_not_touch_the_cache(zones):
    cache = await zones.ready()
    source = Source()
    async with WriteBehind(cache, source) as behind:
        result = await behind.set("k", {"a": 1}, ttl=300)
        assert result
        assert zones.values("k") == dict.fromkeys("abc", {"a": 1})
        assert 299 <= zones.held("k", "a").ttl <= 300
        await behind.add("n", 1)
        assert zones.values("n") == dict.fromkeys("abc")
        assert source.tries == []
        await pass_time(1.1)
        assert source.values == {"k": {"a": 1}, "n": 1}


@on_zones()
async def test_a_cache_that_is_not_there_costs_the_source_nothing(zones):
    """The call says so, and the value is written all the same."""
    cache = await zones.ready()
    source = Source()
    async with WriteBehind(cache, source) as behind:
        await zones.kill("a", "b", "c")
        with pytest.raises(CacheUnavailable):
            await behind.set("k", 1)
        assert behind.waiting("k") == 1
        await behind.flush()
        assert source.values == {"k": 1}


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [("with space", 1, InvalidKey), ("k", object(), EncodeError), ("k", b"x" * 2_000_000, ValueTooLarge)],
)
@on_zones()
async def test_what_the_cache_takes_for_wrong_is_not_kept(zones, key, value, error):
    """And what waited before is as it was; its room is free."""
    cache = await zones.ready()
    source = Source()
    async with WriteBehind(cache, source, max_keys=2, timeout=0) as behind:
        await behind.set("k", "before")
        with pytest.raises(error):
            await behind.set(key, value)
        await behind.set("other", 1)
        await behind.flush()
        assert source.values == {"k": "before", "other": 1}


@on_zones()
async def test_a_value_that_does_not_fit_leaves_no_room_taken_by_it(zones):
    """Whoever waited for room behind it goes on."""
    cache = await zones.ready()
    async with WriteBehind(cache, Source(), max_keys=1, timeout=None) as behind:
        results = await asyncio.gather(behind.set("with space", 1), behind.set("k", 1), return_exceptions=True)
        assert isinstance(results[0], InvalidKey)
        assert results[1]


# Bad input.


async def write(batch):
    return None


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_batch", 0),
        ("max_batch", True),
        ("max_keys", 0),
        ("max_keys", 1.5),
        ("max_attempts", 0),
        ("interval", 0),
        ("interval", float("inf")),
        ("interval", "1"),
        ("timeout", -1),
        ("flush_timeout", 0),
        ("flush_timeout", None),
        ("merge", 1),
        ("on_lost", "print"),
        ("path", ""),
        ("path", 1),
        ("writer", None),
        ("cache", "cache"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(argument, value):
    arguments = {"cache": None, "writer": write, argument: value}
    with pytest.raises(InvalidArgument) as caught:
        WriteBehind(arguments.pop("cache"), arguments.pop("writer"), **arguments)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda behind: behind.set("", 1), "key"),
        (lambda behind: behind.set(b"k", 1), "key"),
        (lambda behind: behind.set("\udc80", 1), "key"),
        (lambda behind: behind.add(None, 1), "key"),
        (lambda behind: behind.set("k", 1, ttl=0), "ttl"),
        (lambda behind: behind.add("k", "1"), "delta"),
        (lambda behind: behind.flush(timeout=-1), "timeout"),
        (lambda behind: behind.close(-1), "drain"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(call, argument):
    """Before anything is kept; the buffer works on."""

    async def main():
        async with WriteBehind(None, write) as behind:
            with pytest.raises(InvalidArgument) as caught:
                await call(behind)
            assert caught.value.argument == argument
            assert behind.stats().waiting == 0
            await behind.set("k", 1)

    run(main())
