"""Calls of write-behind: their effect on the cache, and refused arguments."""

import asyncio

import pytest

from evcache import CacheUnavailable, EncodeError, InvalidArgument, InvalidKey, ValueTooLarge
from evcache.write_behind import WriteBehind
from tests.support.memory_zones import on_zones, pass_time
from tests.support.sources import BatchWriter
from tests.support.virtual_time import run


@on_zones()
async def test_set_stores_at_once_and_add_does_not_touch_the_cache(zones):
    cache = await zones.ready()
    source = BatchWriter()
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
async def test_value_reaches_the_source_while_the_cache_is_unavailable(zones):
    """The call raises the error of the cache."""
    cache = await zones.ready()
    source = BatchWriter()
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
async def test_value_that_the_cache_refuses_is_dropped(zones, key, value, error):
    """The previous pending value is restored, and the place of a new key is free."""
    cache = await zones.ready()
    source = BatchWriter()
    async with WriteBehind(cache, source, max_keys=2, timeout=0) as behind:
        await behind.set("k", "before")
        with pytest.raises(error):
            await behind.set(key, value)
        await behind.set("other", 1)
        await behind.flush()
        assert source.values == {"k": "before", "other": 1}


@on_zones()
async def test_refused_value_frees_its_place(zones):
    """The next call in the queue continues."""
    cache = await zones.ready()
    async with WriteBehind(cache, BatchWriter(), max_keys=1, timeout=None) as behind:
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
    """Nothing is stored, and the buffer stays usable."""

    async def main():
        async with WriteBehind(None, write) as behind:
            with pytest.raises(InvalidArgument) as caught:
                await call(behind)
            assert caught.value.argument == argument
            assert behind.stats().waiting == 0
            await behind.set("k", 1)

    run(main())
