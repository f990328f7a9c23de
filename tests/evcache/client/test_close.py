"""`close` ends within its time, leaves no task behind, and keeps undelivered hints in the file."""

import asyncio
import gc

import pytest

from evcache import Hints, LocalChannel, NearCache, UsageError
from tests.support.memory_zones import PATIENT, QUICK, TOMBSTONE, Listener, MemoryZones, on_zones, pass_time
from tests.support.near import follow_loop, kept
from tests.support.virtual_time import settle


@pytest.mark.parametrize("when", [1, 5, 0.1, 0.5])
@on_zones()
async def test_a_close_that_is_cancelled_leaves_nothing(zones, when):
    """`close` leaves no task and no near entry, after any number of turns of the loop and of seconds."""
    listener = Listener()
    cache = await zones.ready(circuit=PATIENT, hooks=listener)
    zones.pause("c")
    await cache.set_many({f"k{number}": number for number in range(50)}, consistency="all", timeout=0.1)
    await cache.set("late", 1, timeout=10)
    closing = asyncio.create_task(cache.close(10))
    await (settle(when) if isinstance(when, int) else pass_time(when))
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    stats = cache.stats()
    assert (stats.background_tasks, stats.hints) == (0, 0)
    assert set(listener.ended) == {("c", "closed")}
    assert len(listener.ended) == len(listener.hints) == 51
    with pytest.raises(UsageError):
        await cache.get("k")


@on_zones()
async def test_close_may_be_called_again(zones):
    """Once is enough, and twice does no harm; also from two tasks at once."""
    listener = Listener()
    cache = await zones.ready(circuit=QUICK, hooks=listener)
    await zones.kill("c")
    await cache.set("k", 1, consistency="all")
    await asyncio.gather(cache.close(), cache.close())
    await cache.close()
    assert listener.ended == [("c", "closed")]


@on_zones()
async def test_nothing_is_kept_by_a_client_that_never_opened(zones):
    """There is nothing to close."""
    cache = zones.client()
    await cache.close()
    assert cache.stats().hints == 0


# Hints in a file. Files are read and written on a thread, so these run on an ordinary loop; they wait for events alone.


class Waiting(Listener):
    """Listener to the first hints that ended."""

    def __init__(self, count):
        super().__init__()
        self.enough = asyncio.Event()
        self._count = count

    def hint_ended(self, zone, end):
        super().hint_ended(zone, end)
        if len(self.ended) == self._count:
            self.enough.set()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "hints")


def test_next_process_delivers_the_hints_of_the_last(path):
    """The file has sets and deletes unchanged, and no hook reports a lost hint."""

    async def main():
        zones = MemoryZones()
        first_listener = Listener()
        first = zones.client(hints=Hints(path=path), hooks=first_listener)
        await first.set("gone", "value", consistency="all", timeout=5)
        await zones.kill("c")
        kept = await first.set("kept", "value", consistency="all", timeout=5)
        gone = await first.delete("gone", consistency="all", timeout=5)
        assert first.stats().hints == 2
        await first.close()
        assert first_listener.ended == []
        zones.restart("c")

        listener = Waiting(2)
        second = zones.client(hints=Hints(path=path), hooks=listener)
        assert await second.get("kept", timeout=5) == "value"
        async with asyncio.timeout(10):
            await listener.enough.wait()
        assert listener.ended == [("c", "delivered")] * 2
        assert zones.stored_versions("kept") == dict.fromkeys("abc", kept.version)
        assert zones.stored_versions("gone") == dict.fromkeys("abc", gone.version)
        assert zones.held("gone", "c").value == TOMBSTONE
        await second.close()

        third = zones.client(hints=Hints(path=path))
        await third.get("kept", timeout=5)
        assert third.stats().hints == 0
        await third.close()

    asyncio.run(main())


def test_delete_of_a_former_process_is_not_read_back(path):
    """The next process knows of it, as the one that deleted it did."""

    async def main():
        zones = MemoryZones()
        first = zones.client(hints=Hints(path=path))
        await first.set("k", "value", consistency="all", timeout=5)
        held = zones.held("k", "c").raw
        await zones.kill("c")
        await first.delete("k", consistency="all", timeout=5)
        await first.close()
        for zone in "ab":
            zones.evict("k", zone)  # the tombstones have expired
        zones.restart("c")
        line = b"ms t:k %d T900 E%d F%d\r\n%b\r\n" % (len(held.value), held.cas, held.flags, held.value)
        zones.one("c").session().receive(line)
        assert zones.held("k", "c").value == "value"

        second = zones.client(hints=Hints(path=path), local_zone="c", remember_versions=0)
        assert await second.get("k", timeout=5) is None
        await second.close()

    asyncio.run(main())


def test_a_close_that_is_cancelled_lets_go_of_the_file(path):
    """The next client may have it at once."""
    problems = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        zones = MemoryZones()
        first = zones.client(hints=Hints(path=path), circuit=PATIENT)
        await first.set("before", 1, timeout=5)
        zones.pause("c")
        await first.set("k", 1, timeout=10)
        closing = asyncio.create_task(first.close(10))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        second = zones.client(hints=Hints(path=path))
        assert await second.get("k", timeout=5) == 1
        await second.close(0)
        assert len(asyncio.all_tasks()) == 1
        gc.collect()

    asyncio.run(main())
    assert problems == []


def test_a_client_that_is_closed_while_it_opens_leaves_nothing(path):
    """`close` releases the file at any state of its thread."""

    async def main():
        zones = MemoryZones()
        first = zones.client(hints=Hints(path=path))
        getting = asyncio.create_task(first.get("k", timeout=5, errors="miss"))
        await asyncio.sleep(0)
        await first.close()
        assert await getting is None
        second = zones.client(hints=Hints(path=path))
        assert await second.get("k", timeout=5) is None
        await second.close()

    asyncio.run(main())


@pytest.mark.parametrize("drain", [2.0, 0.3])
@on_zones()
async def test_a_write_that_is_cut_off_by_close_is_announced(zones, drain):
    """It may have been carried out: others must not go on serving what they hold."""
    channel = LocalChannel()
    writer, reader = zones.client(invalidation=channel), zones.client(invalidation=channel, near_cache=NearCache(ttl=60))
    follow_loop(reader)
    await reader.get("connects")
    await pass_time(6)  # what is fetched may be kept now
    await writer.set("k", "old", consistency="all")
    await pass_time(6)
    assert await reader.get("k") == "old"
    assert kept(reader, "k") is not None
    zones.pause("a", "b", "c")
    writing = asyncio.ensure_future(writer.set("k", "new", timeout=30, errors="miss"))
    await pass_time(0.1)
    await writer.close(drain)
    await asyncio.wait([writing])
    await pass_time(0.1)
    assert kept(reader, "k") is None
    zones.resume("a", "b", "c")
    await channel.close()
