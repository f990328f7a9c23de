"""The coroutine of a read: tasks, asyncio's functions and `await` take it as they take one of an `async def`, on each core."""

import asyncio
import gc
import inspect
import sys
import warnings
from collections.abc import Coroutine

import pytest

from evcache import EVCache
from evcache.errors import CacheUnavailable, DecodeError, InvalidKey
from tests.support.cores import CORES, running
from tests.support.memory_zones import on_zones
from tests.support.virtual_time import settle


@pytest.fixture(params=CORES, ids=lambda core: core.name, autouse=True)
def each_core(request):
    with running(request.param):
        yield


async def ready(zones, **settings):
    cache = await zones.ready(telemetry=None, **settings)
    for key, value in {"bytes": b"v", "str": "text", "dict": {"a": 1}}.items():
        assert await cache.set(key, value, ttl=60, consistency="all")
    return cache


@pytest.mark.parametrize(("key", "value"), [("bytes", b"v"), ("str", "text"), ("dict", {"a": 1}), ("none", "default")])
@pytest.mark.parametrize("form", ["await", "task", "gather", "wait_for", "as_completed", "delegation"])
@on_zones()
async def test_each_form_of_waiting_gives_the_value(zones, form, key, value):
    cache = await ready(zones)

    async def delegate():
        return await cache.get(key, "default")

    read = delegate() if form == "delegation" else cache.get(key, "default")
    if form == "task":
        read = asyncio.create_task(read)
    elif form == "gather":
        (found,) = await asyncio.gather(read)
        assert found == value
        return
    elif form == "wait_for":
        read = asyncio.wait_for(read, 5)
    elif form == "as_completed":
        (read,) = asyncio.as_completed([read])
    assert await read == value


@on_zones()
async def test_it_is_a_coroutine_to_asyncio_and_to_abstract_classes(zones):
    read = (await ready(zones)).get("bytes")
    assert asyncio.iscoroutine(read)
    assert isinstance(read, Coroutine)
    assert inspect.isawaitable(read)
    assert read.__name__ == "get"
    assert read.__qualname__.endswith(".get")
    assert "get" in repr(read)
    task = asyncio.create_task(read)
    assert "get" in repr(task)
    assert await task == b"v"


@on_zones()
async def test_nothing_is_sent_before_it_is_awaited(zones):
    cache = await ready(zones)
    zones.forget()
    read = cache.get("bytes")
    await settle()
    assert not any(zones.sent.values())
    assert await read == b"v"


@pytest.mark.parametrize("started", [False, True])
@on_zones()
async def test_a_cancelled_read_leaves_nothing_behind(zones, started):
    cache = await ready(zones)
    zones.pause("a", "b", "c")
    task = asyncio.create_task(cache.get("bytes"))
    if started:
        await settle()
    assert task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    zones.resume("a", "b", "c")
    assert await cache.get("str") == "text"
    assert await cache.get("bytes") == b"v"
    assert not any(node.pending for pool in cache._runtime.cluster.view.readers for node in pool.nodes)


@on_zones()
async def test_a_deadline_of_the_caller_ends_it(zones):
    cache = await ready(zones, read_timeout=50)
    zones.pause("a", "b", "c")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.get("bytes")
    zones.resume("a", "b", "c")
    assert await cache.get("bytes") == b"v"


@pytest.mark.parametrize("started", [False, True])
@on_zones()
async def test_close_ends_it_and_its_reply_reaches_no_other_read(zones, started):
    cache = await ready(zones)
    read = cache.get("bytes")
    if started:
        assert read.send(None) is not None
        assert read.cr_await is not None
    read.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        read.send(None)
    assert await cache.get("str") == "text"


@on_zones()
async def test_an_awaited_read_cannot_be_awaited_again(zones):
    read = (await ready(zones)).get("bytes")
    assert await read == b"v"
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await read
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        read.throw(ValueError)


@on_zones()
async def test_a_new_one_takes_no_value_and_is_no_iterator(zones):
    read = (await ready(zones)).get("bytes")
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        read.send(1)
    with pytest.raises(TypeError):
        iter(read)
    assert await read == b"v"


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("error", [ValueError, ValueError("reason"), GeneratorExit, KeyboardInterrupt])
@on_zones()
async def test_an_exception_that_is_thrown_into_it_leaves_it(zones, started, error):
    cache = await ready(zones)
    read = cache.get("bytes")
    if started:
        read.send(None)
    with pytest.raises(error if isinstance(error, type) else ValueError) as raised:
        read.throw(error)
    assert isinstance(error, type) or raised.value is error
    assert await cache.get("bytes") == b"v"


@on_zones()
async def test_a_new_one_does_not_let_a_stop_iteration_out(zones):
    """It would be taken for the end of the read, with a value."""
    read = (await ready(zones)).get("bytes")
    error, match = RuntimeError, "raised StopIteration"
    if inspect.iscoroutine(read) and sys.version_info >= (
        3,
        12,
    ):  # the interpreter's own, which lets it out before its start
        error, match = StopIteration, "5"
    with pytest.raises(error, match=match):
        read.throw(StopIteration(5))


@on_zones()
async def test_a_read_that_was_started_cannot_be_awaited(zones):
    read = (await ready(zones)).get("bytes")
    read.send(None)

    async def again():
        await read

    with pytest.raises(RuntimeError, match="coroutine is being awaited already|cannot reuse"):
        await again()
    read.close()


@pytest.mark.parametrize("key", ["bytes", "none"])
@on_zones()
async def test_an_exception_reaches_a_read_that_waits_for_another_zone(zones, key):
    """The read of `none` has gone on to the second zone when its caller is cancelled."""
    cache = await ready(zones)
    if key == "none":
        zones.pause("b", "c")
    else:
        zones.pause("a", "b", "c")
    task = asyncio.create_task(cache.get(key))
    await settle()
    assert not task.done()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    zones.resume("a", "b", "c")
    assert await cache.get(key) == (b"v" if key == "bytes" else None)


@on_zones()
async def test_python_warns_of_one_that_was_never_awaited(zones):
    cache = await ready(zones)
    with pytest.warns(RuntimeWarning, match=r"coroutine '.*\.get' was never awaited"):
        cache.get("bytes")
        gc.collect()


@on_zones()
async def test_python_does_not_warn_of_one_that_was_closed(zones):
    cache = await ready(zones)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.get("bytes").close()
        gc.collect()
    assert not [warning for warning in caught if "awaited" in str(warning.message)]


@on_zones()
async def test_an_invalid_key_and_an_unreachable_cache_are_errors_of_the_await(zones):
    cache = await ready(zones)
    with pytest.raises(InvalidKey, match="key"):
        await cache.get(" ")
    for zone in "abc":
        await zones.kill(zone)
    with pytest.raises(CacheUnavailable):
        await cache.get("bytes")


@on_zones()
async def test_a_decode_error_names_the_key(zones):
    class Picky:
        def encode(self, value):
            return value, 0x8000

        def decode(self, data, flags):
            raise ValueError("not that")

    cache = await zones.ready(telemetry=None, codec=Picky())
    assert await cache.set("k", b"v", ttl=60, consistency="all")
    with pytest.raises(DecodeError, match=r"key b't:k' in zone a, flags 32768: .* not that"):
        await cache.get("k")
    assert cache.stats().decode_errors == 1


@on_zones()
async def test_an_unexpected_error_ends_it(zones):
    """Each read is compared, and the comparison has a defect. Nothing continues a read that has raised an error."""
    cache = await ready(zones, read_repair_chance=1)

    def fail(*_):
        raise ValueError("a defect")

    cache._runtime.repair.start_comparison = fail
    read = cache.get("bytes")
    with pytest.raises(ValueError, match="a defect"):
        await read
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await read


def test_another_event_loop_is_refused():
    cache = EVCache("t", {"a": ["127.0.0.1:1"]}, errors="miss")

    async def use():
        return await cache.get("k")

    first = asyncio.new_event_loop()
    try:
        first.run_until_complete(use())
        with pytest.raises(Exception, match="event loop"):
            asyncio.run(use())
        first.run_until_complete(cache.close())
    finally:
        first.close()


@on_zones()
async def test_abandoned_reads_are_collected(zones):
    cache = await ready(zones)
    zones.pause("a", "b", "c")
    gc.collect()
    tasks = [asyncio.create_task(cache.get("bytes")) for _ in range(10)]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    del tasks, task
    zones.resume("a", "b", "c")
    await settle()
    gc.collect()
    kinds = ("coroutine", "OrdinaryRead")
    left = [each for each in gc.get_objects() if type(each).__name__ in kinds and each.__name__ == "get"]
    assert left == []
