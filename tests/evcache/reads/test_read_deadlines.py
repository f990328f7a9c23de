"""Deadlines of reads, the discovery of zones included, and cancellation."""

import asyncio

import pytest

from evcache import CacheUnavailable, InvalidTopology
from tests.support.memory_zones import Listener, Stopwatch, on_zones


@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@pytest.mark.parametrize(("paused", "seconds"), [("a", 0.1), ("ab", None), ("abc", 0.3)])
@on_zones()
async def test_a_call_never_exceeds_its_timeout(zones, operation, paused, seconds):
    """With three zones, one that hangs takes a third of the timeout. If all hang, the call ends at its deadline."""
    cache = await zones.ready()
    await cache.set("k", "value", consistency="all")
    zones.pause(*paused)
    watch = Stopwatch()
    call = getattr(cache, operation)(["k"] if operation == "get_many" else "k", timeout=0.3)
    if len(paused) == 3:
        with pytest.raises(CacheUnavailable):
            await call
    else:
        assert await call
    assert watch.seconds <= 0.3
    if seconds is not None:
        assert watch.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("for_update", [True, False])
@on_zones()
async def test_connects_count_towards_the_timeout_of_the_first_call(zones, for_update):
    """A zone that accepts connections and sends nothing takes its share."""
    zones.pause("a", "b", "c")
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await zones.client().get_item("k", timeout=0.2, for_update=for_update)
    assert watch.seconds == pytest.approx(0.2)


class SlowSource:
    """Discovery that takes some seconds."""

    def __init__(self, topology, seconds):
        self._topology = topology
        self._seconds = seconds

    async def load(self):
        await asyncio.sleep(self._seconds)
        return self._topology

    async def watch(self):
        return
        yield


@pytest.mark.parametrize("operation", ["get", "get_item", "get_many", "get_and_touch"])
@on_zones()
async def test_discovery_counts_towards_the_timeout(zones, operation):
    """The zones get the rest of the time."""
    cache = zones.client(zones=SlowSource(zones.topology, 0.15))
    zones.pause("a", "b", "c")
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await getattr(cache, operation)(["k"] if operation == "get_many" else "k", timeout=0.2)
    assert watch.seconds <= 0.2


@on_zones()
async def test_a_call_does_not_wait_for_a_hanging_discovery_beyond_its_timeout(zones):
    """The discovery goes on for later calls."""
    cache = zones.client(zones=SlowSource(zones.topology, 0.5))
    watch = Stopwatch()
    with pytest.raises(CacheUnavailable):
        await cache.get("k", timeout=0.2)
    assert watch.seconds == pytest.approx(0.2)
    assert await cache.get("k", "default", timeout=0.4) == "default"
    assert watch.seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("operation", "argument", "nothing"),
    [("get", "k", None), ("get_item", "k", None), ("get_many", ["k"], {}), ("get_and_touch", "k", None)],
)
@on_zones()
async def test_with_errors_as_misses_a_hanging_discovery_is_a_miss(zones, operation, argument, nothing):
    listener = Listener()
    cache = zones.client(zones=SlowSource(zones.topology, 5), errors="miss", hooks=listener)
    assert await getattr(cache, operation)(argument, timeout=0.2) == nothing
    assert len(listener.misses) == 1


@on_zones()
async def test_a_discovery_that_failed_is_repeated(zones):
    """The first call raises the error of the source. A later call gets the zones."""

    class Source(SlowSource):
        ready = False

        async def load(self):
            if not self.ready:
                raise InvalidTopology("zones", "not yet")
            return self._topology

    source = Source(zones.topology, 0)
    cache = zones.client(zones=source)
    with pytest.raises(InvalidTopology):
        await cache.get("k")
    source.ready = True
    assert await cache.get("k", "default") == "default"


@on_zones()
async def test_a_cancelled_read_disturbs_no_other_call(zones):
    """Its reply is dropped, and no connection is lost."""
    cache = await zones.ready()
    await cache.set_many({"k": "k", "j": "j"}, consistency="all")
    made = zones.connections_made()
    zones.pause("a", "b", "c")
    tasks = [asyncio.create_task(cache.get("k", timeout=5)) for _ in range(10)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    assert all(isinstance(result, asyncio.CancelledError) for result in await asyncio.gather(*tasks, return_exceptions=True))
    zones.resume("a", "b", "c")
    for _ in range(20):
        assert await cache.get("j") == "j"
        assert await cache.get("k") == "k"
    assert zones.connections_made() == made
