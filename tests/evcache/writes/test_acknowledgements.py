"""Acknowledgements of writes: how many zones a call waits for, and its result if zones fail."""

import asyncio
import contextlib

import pytest

from evcache import (
    CacheUnavailable,
    Consistency,
    Outcome,
)
from tests.support.memory_zones import TOMBSTONE, Listener, Stopwatch, on_zones, pass_time
from tests.support.written import everywhere

DAY = 86400


@pytest.mark.parametrize(
    ("consistency", "down", "met"),
    [
        ("one", "bc", True),
        ("quorum", "c", True),
        ("quorum", "bc", False),
        ("all_minus_one", "a", True),
        ("all_minus_one", "ab", False),
        ("all", "", True),
        ("all", "b", False),
        ("none", "abc", True),
    ],
)
@pytest.mark.parametrize("operation", ["set", "delete", "touch", "set_many", "delete_many"])
@on_zones()
async def test_write_with_zones_down_is_met_by_enough_acknowledgements(zones, consistency, down, met, operation):
    """The result names the outcome of each zone."""
    cache = await zones.ready()
    await cache.set("k", "before", consistency="all")
    await zones.kill(*down)
    calls = {
        "set": lambda: cache.set("k", "v", consistency=consistency),
        "delete": lambda: cache.delete("k", consistency=consistency),
        "touch": lambda: cache.touch("k", 60, consistency=consistency),
        "set_many": lambda: cache.set_many({"k": "v"}, consistency=consistency),
        "delete_many": lambda: cache.delete_many(["k"], consistency=consistency),
    }
    for _ in range(2):  # the first call finds out, the second one knows
        result = await calls[operation]()
        if operation.endswith("_many"):
            (result,) = result.values()
        assert bool(result) is result.met is met
        assert result.zones.keys() == {"a", "b", "c"}
        for zone, outcome in result.zones.items():
            expected = Outcome.UNAVAILABLE if zone in down else Outcome.STORED
            assert outcome in (expected, Outcome.PENDING), zone


@pytest.mark.parametrize("operation", ["set", "delete", "touch", "set_many", "delete_many", "add", "incr", "append", "cas"])
@pytest.mark.parametrize("how", ["kill", "pause"])
@on_zones()
async def test_write_without_a_reachable_zone_raises_by_its_deadline(zones, operation, how):
    """`CacheUnavailable` names the failure of each zone."""
    cache = await zones.ready(write_timeout=0.2)
    if how == "kill":
        await zones.kill(*"abc")
    else:
        zones.pause(*"abc")
    arguments = {
        "set": ("k", 1),
        "set_many": ({"k": 1},),
        "delete_many": (["k"],),
        "add": ("k", 1),
        "append": ("k", "x"),
        "cas": ("k", 1, 1),
    }.get(operation, ("k",))
    for _ in range(2):
        watch = Stopwatch()
        with pytest.raises(CacheUnavailable) as caught:
            await getattr(cache, operation)(*arguments)
        assert watch.seconds <= 0.2
        assert caught.value.operation == operation
        assert caught.value.failures


@on_zones()
async def test_write_with_errors_as_misses_is_false_and_raises_nothing(zones):
    cache = await zones.ready(errors="miss")
    await zones.kill(*"abc")
    for result in (
        await cache.set("k", 1),
        await cache.delete("k"),
        await cache.touch("k"),
        (await cache.set_many({"k": 1}))["k"],
        (await cache.delete_many(["k"]))["k"],
    ):
        assert not result
        assert result.zones == everywhere(Outcome.UNAVAILABLE)
    with pytest.raises(CacheUnavailable):
        await cache.set("k", 1, errors="raise")


@on_zones()
async def test_slow_zone_is_pending_and_gets_the_write_later(zones):
    """The call returns with enough acknowledgements. The write goes on, and the hooks report it."""
    listener = Listener()
    cache = await zones.ready(hooks=listener)
    listener.wrote.clear()
    zones.pause("c")
    watch = Stopwatch()
    result = await cache.set("k", "value", timeout=5)
    assert watch.seconds == 0
    assert result
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.STORED, "c": Outcome.PENDING}
    await pass_time(3)
    zones.resume("c")
    await pass_time()
    assert zones.values("k") == everywhere("value")
    assert result.zones["c"] is Outcome.PENDING  # a result does not change under its owner
    assert sorted(listener.wrote) == [
        ("a", Outcome.STORED, False),
        ("b", Outcome.STORED, False),
        ("c", Outcome.STORED, True),
    ]


@on_zones()
async def test_zone_that_does_not_answer_times_out_at_the_deadline(zones):
    cache = await zones.ready()
    zones.pause("c")
    watch = Stopwatch()
    result = await cache.set("k", "value", consistency="all", timeout=0.25)
    assert watch.seconds == pytest.approx(0.25)
    assert not result
    assert result.zones == {"a": Outcome.STORED, "b": Outcome.STORED, "c": Outcome.TIMEOUT}


@on_zones()
async def test_write_that_can_no_longer_be_met_fails_at_once(zones):
    """One zone is dead and another hangs, at level `all`."""
    cache = await zones.ready()
    await zones.kill("b")
    zones.pause("c")
    watch = Stopwatch()
    result = await cache.set("k", "value", consistency="all", timeout=5)
    assert watch.seconds == 0
    assert not result
    assert result.zones["b"] is Outcome.UNAVAILABLE
    assert result.zones["c"] is Outcome.PENDING


@on_zones()
async def test_write_at_none_returns_at_once_and_arrives(zones):
    cache = await zones.ready()
    zones.pause(*"abc")
    watch = Stopwatch()
    result = await cache.set("k", "value", consistency=Consistency.NONE)
    assert watch.seconds == 0
    assert result
    assert result.zones == everywhere(Outcome.PENDING)
    assert result.version is not None
    zones.resume(*"abc")
    await pass_time()
    assert zones.values("k") == everywhere("value")
    assert zones.stored_versions("k") == everywhere(result.version)


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("operation", ["set", "set_many", "delete", "add", "append", "incr"])
@on_zones()
async def test_cancelled_write_still_reaches_all_zones(zones, connected, operation):
    """The caller stops waiting and nothing else, because half a write makes zones differ."""
    cache = zones.client(write_timeout=30)
    if connected:
        await zones.connect(cache)
    if operation in {"delete", "append"}:
        other = await zones.ready()
        await other.set("k", "before;", consistency="all")
        await pass_time(0.1)  # within one millisecond, which of two clients' writes is newer is a matter of luck
    zones.pause("b", "c")
    call, expected = {
        "set": (lambda: cache.set("k", "v", consistency="all"), "v"),
        "set_many": (lambda: cache.set_many({"k": "v"}, consistency="all"), "v"),
        "delete": (lambda: cache.delete("k", consistency="all"), TOMBSTONE),
        "add": (lambda: cache.add("k", "v", consistency="all"), "v"),
        "append": (lambda: cache.append("k", "v", consistency="all"), "before;v"),
        "incr": (lambda: cache.incr("k", initial=5, consistency="all"), 5),
    }[operation]
    task = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pass_time(0.1)
    zones.resume("b", "c")
    await pass_time()
    assert zones.values("k") == everywhere(expected)


@on_zones()
async def test_close_waits_for_writes_in_flight(zones):
    """It waits for the drain time. No task is left after that."""
    cache = await zones.ready(write_timeout=10)
    zones.pause("c")
    assert await cache.set("k", "value")
    closing = asyncio.create_task(cache.close(3))
    await pass_time()
    assert not closing.done()
    zones.resume("c")
    await closing
    assert zones.values("k") == everywhere("value")
    hanging = await zones.ready(write_timeout=10)
    zones.pause("c")
    await hanging.set("j", "value")
    watch = Stopwatch()
    await hanging.close(3)
    assert watch.seconds <= 3.01


@on_zones(write_only="c")
async def test_write_only_zone_is_written_and_never_counts(zones):
    """Neither its failure nor its success changes the result."""
    cache = await zones.ready()
    result = await cache.set("k", "value", consistency="all")
    await pass_time()
    assert zones.values("k") == everywhere("value")
    assert result
    await cache.add("added", 1)
    await cache.incr("counter", initial=1)
    await pass_time()
    assert zones.held("added", "c").value == 1
    assert zones.held("counter", "c").value == 1
    zones.pause("c")
    watch = Stopwatch()
    assert await cache.set("k", "two", consistency="all")
    assert watch.seconds == 0
    zones.resume("c")
    await zones.kill("a", "b")
    with pytest.raises(CacheUnavailable):
        await cache.set("k", "three", consistency="one")


@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas"])
@on_zones()
async def test_write_never_exceeds_its_timeout(zones, operation):
    """The question for the item limit of an unknown server is part of the call's time, also for many values."""
    zones.pause("c")
    cache = zones.client()
    large = b"x" * 700_000
    watch = Stopwatch()
    arguments = {
        "set_many": ({"k": large, "j": large, "i": large},),
        "cas": ("k", large, 2**60),
    }.get(operation, ("k", large))
    with contextlib.suppress(CacheUnavailable):
        await getattr(cache, operation)(*arguments, consistency="all", timeout=0.2)
    assert watch.seconds <= 0.2
