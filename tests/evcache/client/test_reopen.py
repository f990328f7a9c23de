"""A client that is opened several times: after `close`, and on one event loop after another."""

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from evcache import CacheUnavailable, EVCache, Hints, LocalChannel, NearCache, Telemetry, UsageError
from evcache.testing import LocalZones
from tests.support.memory_zones import PATIENT, ChangingTopology, Listener, MemoryZones, on_zones, pass_time
from tests.support.near import follow_loop, kept
from tests.support.sources import Source
from tests.support.virtual_time import VirtualTimeLoop, settle

NOWHERE = {"a": ["127.0.0.1:1"]}


class Story:
    """Parts of a test that share zones and a client. Each part runs on an event loop of its own."""

    def __init__(self, *, closes=True):
        self._closes = closes
        self.zones = self.cache = None

    def run(self, *parts, **options):
        for part in parts:
            with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                loop = runner.get_loop()
                runner.run(self._one(part, options))
            assert loop.problems == []

    async def _one(self, part, options):
        if self.zones is None:
            self.zones = MemoryZones()
            self.cache = self.zones.client(**options)
        # Servers and wall clock go on where the last loop has left them.
        if self._closes:
            async with self.cache:
                await part(self)
        else:
            await part(self)


def both_ways(test):
    """Run a test with a client that each part closes, and with one that ends with the loop of the part."""
    return pytest.mark.parametrize("closes", [True, False], ids=["closed", "not closed"])(test)


@both_ways
def test_each_loop_gets_the_client(closes):
    """Each loop reads what the one before has written, in all zones, over connections of its own."""

    async def part(story):
        number = (await story.cache.get("k")) or 0
        assert (await story.cache.set("k", number + 1, consistency="all", timeout=5)).met
        seen.append(number)

    seen, story = [], Story(closes=closes)
    story.run(part, part, part)
    assert seen == [0, 1, 2]
    assert story.zones.connections_made() == 9


@both_ways
def test_versions_grow_over_all_openings(closes):
    """The clock belongs to the client: a later opening never writes an older version, even if the wall clock is stalled."""

    async def part(story):
        versions.append((await story.cache.set("k", 1)).version)
        versions.append((await story.cache.delete("k")).version)

    versions = []
    Story(closes=closes).run(part, part, part, wall_clock=lambda: 1_800_000_000.0)
    assert versions == sorted(set(versions))
    assert len(versions) == 6


@both_ways
def test_counts_go_on(closes):
    """Counters belong to the client. A counter that fell back to 0 would look like another process."""

    async def part(story):
        source = Source("loaded")
        await story.cache.get_or_load(f"k{len(stats)}", source.load)
        await story.cache.get(f"k{len(stats)}")
        stats.append(story.cache.stats())

    stats = []
    Story(closes=closes).run(part, part, near_cache=NearCache(), invalidation=LocalChannel())
    assert [one.loads.loads for one in stats] == [1, 2]
    assert stats[1].near.misses > stats[0].near.misses
    assert stats[1].loads.running == stats[1].loads.waiting == 0


@both_ways
def test_the_near_cache_begins_empty(closes):
    """The client received no invalidation while it was closed."""

    async def fill(story):
        follow_loop(story.cache)
        await story.cache.set("k", "old", consistency="all")
        assert await story.cache.get("k") == "old"
        assert kept(story.cache, "k") is not None

    async def look(story):
        follow_loop(story.cache)
        assert kept(story.cache, "k") is None
        assert story.cache.stats().near_entries == 0
        assert await story.cache.get("k") == "old"
        assert kept(story.cache, "k") is not None

    Story(closes=closes).run(fill, look, near_cache=NearCache(ttl=3600))


def test_the_near_cache_gives_memory_back_after_reopening():
    """The timer that removes expired entries belongs to an opening."""

    async def part(story):
        follow_loop(story.cache)
        await story.cache.set("k", "value", consistency="all")
        assert story.cache.stats().near_entries == 1
        await pass_time(5)
        assert story.cache.stats().near_entries == 0

    Story().run(part, part, near_cache=NearCache(ttl=1))


@both_ways
def test_announcements_are_heard_and_sent_in_each_opening(closes):
    """Two clients on one channel, opened several times, as the processes of a service that is tested."""
    channel = LocalChannel()

    async def part(story):
        if not readers:
            readers.append(story.zones.client(invalidation=channel, near_cache=NearCache(ttl=3600)))
        async with readers[0] if closes else contextlib.nullcontext():
            follow_loop(readers[0])
            await readers[0].get("connects")
            await pass_time(6)  # what is fetched may be kept now
            await story.cache.set("k", "old", consistency="all")
            await pass_time(6)
            assert await readers[0].get("k") == "old"
            assert kept(readers[0], "k") is not None
            await story.cache.set("k", "new", consistency="all")
            await pass_time(0.1)
            assert kept(readers[0], "k") is None

    readers, story = [], Story(closes=closes)
    story.run(part, part, part, invalidation=channel)
    assert story.cache.stats().invalidation.published >= 6


def test_hints_in_a_file_are_loaded_again(tmp_path):
    """What one opening could not deliver the next one does, and counts once."""

    async def main():
        zones = MemoryZones()
        listener = Listener()
        cache = zones.client(hints=Hints(path=str(tmp_path / "hints")), hooks=listener)
        async with cache:
            await cache.set("k", "old", consistency="all", timeout=5)
            await zones.kill("c")
            await cache.set("k", "new", consistency="all", timeout=5)
            await cache.delete("gone", consistency="all", timeout=5)
            assert cache.stats().hints == 2
        assert listener.ended == []
        zones.restart("c")
        async with cache, asyncio.timeout(20):
            assert await cache.get("k", timeout=5) == "new"
            while cache.stats().hints:
                await asyncio.sleep(0.01)
        assert zones.held("k", "c").value == "new"
        assert listener.hints == ["c", "c"]
        assert listener.ended == [("c", "delivered")] * 2
        async with cache:
            assert cache.stats().hints == 0
            assert cache.stats().hint_file_error is None

    asyncio.run(main())


def test_hints_outlive_a_loop_that_ends_without_close():
    """They are in memory still, and nothing has dropped them."""

    async def miss(story):
        await story.cache.set("k", "old", consistency="all")
        await story.zones.kill("c")
        await story.cache.set("k", "new", consistency="all")
        assert story.cache.stats().hints == 1

    async def deliver(story):
        story.zones.restart("c")
        assert await story.cache.get("k") == "new"
        await pass_time(10)
        assert story.zones.held("k", "c").value == "new"
        assert (story.cache.stats().hints, story.cache.stats().hints_delivered) == (0, 1)

    Story(closes=False).run(miss, deliver)


def test_hints_in_memory_end_with_close():
    """`close` reports that they are lost, so the next opening must not deliver them."""
    listener = Listener()

    async def miss(story):
        await story.zones.kill("c")
        await story.cache.set("k", "new", consistency="all")

    async def look(story):
        assert listener.ended == [("c", "closed")]
        assert story.cache.stats().hints == 0

    Story().run(miss, look, hooks=listener)


@both_ways
def test_calls_are_observed_once_in_each_opening(closes):
    """Spans and counts of OpenTelemetry are neither doubled nor missing after the first opening."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=MeterProvider([reader]))

    async def part(story):
        await story.cache.set("k", 1)
        await story.cache.get("k")
        await settle()
        spans.append([span.name for span in exporter.get_finished_spans() if span.name == "get t"])
        reads.append(
            sum(
                point.value
                for resource in reader.get_metrics_data().resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                for point in metric.data.data_points
                if metric.name == "evcache.reads"
            )
        )

    spans, reads = [], []
    Story(closes=closes).run(part, part, part, telemetry=telemetry)
    # The first call of the first opening turns telemetry on.
    assert [len(names) for names in spans] == [1, 2, 3]
    assert reads == [1, 2, 3]


def test_a_decorated_function_of_a_module_works_in_each_loop():
    """As a service with a module-level client does in a test suite, over real sockets."""
    with LocalZones({"a": 1, "b": 1}, backend="embedded").running() as zones:
        cache = EVCache("t", zones.zones, local_zone="a")
        calls = []

        @cache.cached(key="user:{number}")
        async def user(number):
            calls.append(number)
            return {"id": number}

        async def closing():
            async with cache:
                return await user(1)

        # Without `close`, the client ends with the loop, and a call opens it on the next one.
        for main in (lambda: user(1), lambda: user(1), closing, closing):
            assert asyncio.run(main()) == {"id": 1}
        assert calls == [1]
        with pytest.raises(UsageError, match="closed"):
            asyncio.run(user(1))


@pytest.mark.parametrize("turns", range(14))
@on_zones()
async def test_opening_finishes_a_close_that_was_cancelled(zones, turns, tmp_path):
    """After any number of turns: nothing of the cancelled close touches the next opening."""
    cache = zones.client(circuit=PATIENT, near_cache=NearCache(), invalidation=LocalChannel())
    await cache.set("k", 1, consistency="all", timeout=5)
    zones.pause("c")
    await cache.set("late", 1, timeout=30)
    closing = asyncio.create_task(cache.close(10))
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    zones.resume("c")
    async with cache:
        assert await cache.get("k") == 1
        assert (await cache.set("k", 2, consistency="all", timeout=5)).met
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@on_zones()
async def test_opening_waits_for_a_close_that_is_under_way(zones, turns):
    """The close of another task must not end the new opening."""
    cache = zones.client(circuit=PATIENT)
    await cache.set("k", 1, consistency="all", timeout=5)
    zones.pause("c")
    await cache.set("late", 1, timeout=30)
    closing = [asyncio.create_task(cache.close(drain)) for drain in (1, 3)]
    for _ in range(turns + 1):
        await asyncio.sleep(0)
    async with cache:
        assert all(task.done() for task in closing)
        assert await cache.get("k") == 1
        await pass_time(5)
        assert await cache.get("k") == 1


@on_zones()
async def test_tasks_that_open_a_closed_client_together_share_one_opening(zones):
    cache = zones.client()
    await cache.set("k", 1)
    await cache.close()
    before = zones.connections_made()
    await asyncio.gather(*(cache.__aenter__() for _ in range(3)))
    assert await cache.get_many(["k"]) == {"k": 1}
    assert zones.connections_made() <= before + 3


@on_zones()
async def test_a_call_of_the_last_opening_gets_its_error(zones):
    """A call that is under way at `close` fails, also if the client is open again when it does."""
    cache = zones.client(circuit=PATIENT)
    await cache.set("k", 1, consistency="all", timeout=5)
    zones.pause("a", "b", "c")
    getting = asyncio.create_task(cache.get("k", timeout=60))
    await settle()
    await cache.close(0)
    zones.resume("a", "b", "c")
    async with cache:
        assert await cache.get("k") == 1
        with pytest.raises(CacheUnavailable):
            await getting


@on_zones()
async def test_a_topology_that_changes_is_followed_in_each_opening(zones):
    discovery = ChangingTopology(zones.topology)
    cache = zones.client(zones=discovery, topology_guard=None)
    for _ in range(2):
        async with cache:
            assert await cache.set("k", 1)
            discovery.change(type(zones.topology)(zones.topology.zones[:2]))
            await settle()
            assert len(cache.topology.zones) == 2
            discovery.change(zones.topology)
            await settle()
            assert len(cache.topology.zones) == 3


def test_two_loops_at_once():
    """The second loop gets an error, and the first continues. After `close` on the first, the second can open the client."""
    cache = EVCache("t", NOWHERE)
    errors = []

    async def elsewhere():
        for use in (cache.get("k"), cache.__aenter__(), cache.close()):
            try:
                await use
            except UsageError as error:
                errors.append(str(error))

    def in_thread(main):
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join(30)

    async def main():
        assert await cache.get("k", errors="miss", timeout=5) is None
        await asyncio.to_thread(in_thread, elsewhere)
        assert await cache.get("k", errors="miss", timeout=5) is None
        await cache.close(0)
        await asyncio.to_thread(in_thread, open_elsewhere)

    async def open_elsewhere():
        async with cache:
            errors.append(await cache.get("k", "default", errors="miss", timeout=5))

    asyncio.run(main())
    assert len(errors) == 4
    assert all("another event loop" in error for error in errors[:3])
    assert errors[3] == "default"


FORKS = """
import asyncio, os, sys
from evcache import EVCache

cache = EVCache("t", {"a": ["127.0.0.1:1"]})

async def use():
    async with cache:
        return await cache.get("k", "default", errors="miss", timeout=5)

assert asyncio.run(use()) == "default"
child = os.fork()
if child == 0:
    os._exit(7 if asyncio.run(use()) == "default" else 8)
_, status = os.waitpid(child, 0)
assert asyncio.run(use()) == "default"
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_client_that_was_closed_before_a_fork_works_in_the_child():
    """A closed client holds nothing that a fork would share."""
    assert subprocess.run([sys.executable, "-c", FORKS], timeout=60, check=False).returncode == 7


def test_a_loop_that_is_closed_with_tasks_pending(caplog):
    """The next loop gets the client, whatever the first one has left: loads, turns and background tasks never end."""
    caplog.set_level(logging.ERROR)
    zones = []
    never = asyncio.Event()

    async def hang():
        await never.wait()

    async def leave(cache):
        tasks.append(asyncio.ensure_future(cache.get_or_load("loading", hang)))
        tasks.append(asyncio.ensure_future(cache.write_through("turn", 1, hang)))
        await settle()
        assert cache.stats().loads.running == 1

    async def main():
        zones.append(MemoryZones())
        cache = zones[0].client(near_cache=NearCache(), invalidation=LocalChannel(), max_loads=1)
        await leave(cache)
        return cache

    tasks = []
    first = VirtualTimeLoop()
    asyncio.set_event_loop(first)
    try:
        cache = first.run_until_complete(main())
    finally:
        asyncio.set_event_loop(None)
        first.close()

    async def use():
        source = Source("loaded")
        assert await cache.get_or_load("loading", source.load) == "loaded"
        assert (await cache.write_through("turn", 2, source.write)).met
        assert await cache.get("turn") == 2
        stats = cache.stats()
        assert (stats.loads.running, stats.loads.waiting) == (0, 0)
        await cache.close()
        assert cache.stats().background_tasks == 0

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(use())
    for task in tasks:  # of the callers, who do not care
        task._log_destroy_pending = False


def test_a_loop_whose_end_is_interrupted_does_not_keep_the_client_from_opening():
    """Ctrl-C while the end of the loop closes the client."""
    cache = EVCache("t", {"a": ["127.0.0.1:1"]}, local_zone="a")

    async def interrupted(*_):
        raise KeyboardInterrupt

    async def use():
        await cache.get("k", errors="miss")
        cache._runtime.cluster.close = interrupted

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(use())
    del cache._runtime.cluster.close

    async def again():
        await cache.close()
        async with asyncio.timeout(5), cache:
            return await cache.get("k", errors="miss")

    assert asyncio.run(again()) is None


def test_nothing_starts_on_import():
    """No thread, no task, no file: `import evcache` only defines names."""
    code = "import threading, evcache, evcache.write_behind; assert threading.active_count() == 1"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
