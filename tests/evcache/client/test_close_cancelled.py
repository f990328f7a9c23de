"""A close that is cancelled, after any number of turns of the event loop: another close finishes what it left."""

import asyncio
import gc

import pytest

from evcache import CacheUnavailable, Hedging, Hints, LocalChannel, NearCache, UsageError
from evcache._helpers.background import BackgroundTasks
from evcache.replication.handoff.journal import HintFile
from tests.support.memory_zones import PATIENT, QUICK, ChangingTopology, Listener, MemoryZones, on_zones, pass_time
from tests.support.virtual_time import settle

TURNS = range(14)  # more than a close without a drain takes

TOML = '[zones.a]\nnodes = ["a0:11211"]\n[zones.b]\nnodes = ["b0:11211"]\n[zones.c]\nnodes = ["c0:11211"]\n'


class Made:
    """A client with everything that has to be ended, and what is left of it."""

    def __init__(self, zones, tmp_path, **options):
        path = tmp_path / "zones.toml"
        path.write_text(TOML)
        self.zones = zones
        self.channel = LocalChannel()
        self.listener = Listener()
        self.cache = zones.client(
            zones=str(path),
            near_cache=NearCache(ttl=60),
            invalidation=self.channel,
            hedging=Hedging(share=1.0),
            hooks=self.listener,
            **options,
        )

    async def use(self):
        await self.cache.set("k", 1, consistency="all", timeout=5)
        await self.cache.get("k")
        await pass_time(6)  # what is fetched may be kept now
        await self.cache.get("k")

    @property
    def nodes(self):
        view = self.cache._runtime.cluster.view
        return [] if view is None else [node for pool in view.writers for node in pool.nodes]

    def assert_nothing_is_left(self):
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # A paused server keeps connections that its client has ended.
        assert all(
            connection.is_closing() for fakes in self.zones.servers.values() for fake in fakes for connection in fake._memory
        )
        assert {node.state for node in self.nodes} <= {"closed"}
        assert self.channel._topics == {}
        stats = self.cache.stats()
        assert (stats.background_tasks, stats.hints, stats.near_entries) == (0, 0, 0)
        assert [hint for hint in self.listener.ended if hint[1] != "closed"] == []
        assert len(self.listener.ended) == len(self.listener.hints)


async def connected(made):
    await made.use()


async def writing(made):
    """Requests wait for an answer, and a write runs in the background."""
    await made.use()
    made.zones.pause("c")
    await made.cache.set("late", 1, timeout=30)
    await made.cache.set("missed", 1, consistency="all", timeout=0.1)


async def connecting(made):
    await made.use()
    await made.zones.kill("c")
    made.zones.restart("c")
    made.zones.pause("c")
    await made.cache.set("late", 1, timeout=30)


async def down(made):
    await made.use()
    await made.zones.kill("b", "c")
    await made.cache.set("missed", 1, consistency="all", timeout=0.1)
    await pass_time(1)


async def opening(made):
    """The first call is on its way."""
    made.zones.pause("a", "b", "c")
    made.first_call = asyncio.ensure_future(made.cache.get("k", errors="miss"))
    await settle(1)


STATES = [connected, writing, connecting, down, opening]


async def cancelled_after(turns, work):
    """Cancel a task after this many turns of the loop; return whether it was still running."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@pytest.mark.parametrize("drain", [0, 10])
@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("state", STATES)
@on_zones()
async def test_a_second_close_finishes_one_that_was_cancelled(zones, state, turns, drain, tmp_path):
    """No connection, task or subscription is left, and what could not be delivered was reported, once."""
    made = Made(zones, tmp_path, circuit=QUICK if state is down else PATIENT)
    await state(made)
    await cancelled_after(turns, made.cache.close(drain))
    await made.cache.close(0)
    await settle()
    made.assert_nothing_is_left()
    await made.cache.close()
    with pytest.raises(UsageError):
        await made.cache.get("k")
    await settle()
    made.assert_nothing_is_left()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("turns", TURNS[1:])
@on_zones()
async def test_a_close_that_is_cancelled_ends_by_itself(zones, state, turns, tmp_path):
    """Without a second close, a few turns later: a service that is stopped may not call it again."""
    made = Made(zones, tmp_path, circuit=QUICK if state is down else PATIENT)
    await state(made)
    loop = asyncio.get_running_loop()
    began = loop.time()
    if await cancelled_after(turns, made.cache.close(10)):
        assert loop.time() - began <= 0.2  # the last words of the channel
    await settle()
    made.assert_nothing_is_left()


@pytest.mark.parametrize("second", TURNS)
@pytest.mark.parametrize("first", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("state", [writing, down])
@on_zones()
async def test_a_close_that_is_cancelled_twice(zones, state, first, second, tmp_path):
    """As by a task group that ends while a timeout has just struck: the next close finishes nevertheless."""
    made = Made(zones, tmp_path, circuit=QUICK if state is down else PATIENT)
    await state(made)
    closing = asyncio.create_task(made.cache.close(10))
    for turns in (first, second):
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
    await asyncio.wait([closing])
    await made.cache.close(0)
    await settle()
    made.assert_nothing_is_left()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("turns", [0, 1, 3, 6])
@on_zones()
async def test_closes_at_once_end_together(zones, state, turns, tmp_path):
    """No close returns while anything is left open, whichever began first."""
    made = Made(zones, tmp_path, circuit=QUICK if state is down else PATIENT)
    await state(made)

    async def close_and_look():
        await made.cache.close(1)
        assert {node.state for node in made.nodes} <= {"closed"}
        assert made.cache.stats().background_tasks == 0
        assert made.channel._topics == {}

    first = asyncio.create_task(close_and_look())
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.gather(first, close_and_look(), close_and_look())
    await settle()
    made.assert_nothing_is_left()


@on_zones()
async def test_a_watcher_cleans_up_once(zones):
    """Cancelled closes do not interrupt what a discovery does in the end, however often they come."""

    class Slow(ChangingTopology):
        cleaned = 0

        async def watch(self):
            try:
                async for topology in super().watch():
                    yield topology
            finally:
                await asyncio.sleep(1)
                self.cleaned += 1

    discovery = Slow(zones.topology)
    cache = await zones.ready(zones=discovery)
    for _ in range(3):
        assert await cancelled_after(2, cache.close())
    assert discovery.cleaned == 0
    await cache.close()
    assert discovery.cleaned == 1


@on_zones()
async def test_a_call_that_is_under_way_when_the_client_is_closed_is_not_cancelled(zones, tmp_path):
    """The caller gets an error of the cache, because the caller's task was not cancelled."""

    class Never(ChangingTopology):
        async def load(self):
            await asyncio.Event().wait()

    cache = zones.client(zones=Never(zones.topology))
    getting = asyncio.create_task(cache.get("k", timeout=5))
    await settle()
    await cache.close()
    with pytest.raises(CacheUnavailable):
        await getting


@on_zones()
async def test_background_work_is_cancelled_once(zones):
    """What it does in the end is awaited by the close that follows."""
    ended = []

    async def work():
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            ended.append(True)

    background = BackgroundTasks()
    background.spawn(work())
    await settle()
    for _ in range(3):
        assert await cancelled_after(2, background.close(10))
    assert ended == []
    await background.close(10)
    assert ended == [True]


# With a file, which a thread reads and writes: on an ordinary loop, waiting for nothing but the thread.


@pytest.mark.parametrize("drain", [0, 5])
@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("is_open", [True, False])
def test_a_second_close_closes_the_hint_file(tmp_path, turns, drain, is_open):
    """The file is free when it returns, and has the hints if it was open."""
    path = str(tmp_path / "hints")
    problems = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        zones = MemoryZones()
        cache = zones.client(hints=Hints(path=path), circuit=PATIENT, connect_timeout=10)
        if is_open:
            await cache.set("k", 1, consistency="all", timeout=5)
            await zones.kill("c")
            await cache.set("missed", 1, consistency="all", timeout=5)
        else:
            calling = asyncio.create_task(cache.get("k", timeout=5, errors="miss"))
            await asyncio.sleep(0)
        await cancelled_after(turns, cache.close(drain))
        await cache.close(drain)
        if not is_open:
            assert await calling is None
        assert asyncio.all_tasks() == {asyncio.current_task()}
        following = HintFile(path)
        assert len(await following.open()) == is_open
        await following.close()
        gc.collect()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evcache.replication.handoff.journal.BUSY_SECONDS", 0.0)
        asyncio.run(main())
    assert problems == []
