"""One source for several clients. Each follows it from the topology that its own `load` returned."""

import asyncio

import pytest

from tests.support import virtual_time
from tests.support.changing_sources import CHANGING_SOURCES

# Seconds in which each source has been asked again, or has reported a change.
LOOK = 15.0


class Client:
    """The zones that a client uses."""

    def __init__(self, source):
        self.changes = 0
        """Topologies that the source reported."""
        self._source = source
        self._task = None

    async def load(self):
        self.topology = await self._source.discovery.load()

    def watch(self):
        self._task = asyncio.create_task(self._watch())

    async def close(self):
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _watch(self):
        async for topology in self._source.discovery.watch():
            self.changes += 1
            self.topology = topology


def on_each_source(scenario):
    """Make a test of a coroutine function. It gets a source at host 1 and two clients, and is checked at its end."""

    @pytest.mark.parametrize("kind", CHANGING_SOURCES)
    def test(kind, tmp_path):
        async def main():
            source = CHANGING_SOURCES[kind](tmp_path)
            clients = [Client(source) for _ in range(2)]
            await scenario(source, *clients)
            await asyncio.sleep(LOOK)
            source.change(8)
            await asyncio.sleep(LOOK)
            for client in clients:
                assert client.topology == source.topology(8)
                await client.close()

        virtual_time.run(main())

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


@on_each_source
async def test_watches_at_the_same_time_report_each_change_once(source, first, second):
    for client in (first, second):
        await client.load()
        client.watch()
    for host in (2, 3, 2):
        source.change(host)
        await asyncio.sleep(LOOK)
        assert first.topology == second.topology == source.topology(host)
    assert (first.changes, second.changes) == (3, 3)


@on_each_source
async def test_loads_before_both_watches_are_handed_over_to_both(source, first, second):
    for client in (first, second):
        await client.load()
    for client in (first, second):
        client.watch()
    await asyncio.sleep(LOOK)
    assert (first.changes, second.changes) == (0, 0)
    source.change(2)
    await asyncio.sleep(LOOK)
    assert (first.changes, second.changes) == (1, 1)


@on_each_source
async def test_a_load_that_sees_a_change_first_does_not_hide_it_from_a_watch(source, first, second):
    await first.load()
    first.watch()
    await asyncio.sleep(0.5)
    source.change(2)
    await second.load()
    second.watch()
    await asyncio.sleep(LOOK)
    assert first.topology == second.topology == source.topology(2)
    assert (first.changes, second.changes) == (1, 0)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("host", [1, 2, 3])
@pytest.mark.parametrize("kind", CHANGING_SOURCES)
def test_loads_that_differ_lose_no_change_in_any_order_of_the_watches(kind, host, in_order, tmp_path):
    async def main():
        source = CHANGING_SOURCES[kind](tmp_path)
        clients = [Client(source) for _ in range(2)]
        await clients[0].load()
        source.change(2)
        await clients[1].load()
        source.change(host)
        for client in clients if in_order else reversed(clients):
            client.watch()
            await asyncio.sleep(0)
        await asyncio.sleep(LOOK)
        for client in clients:
            assert client.topology == source.topology(host)
            assert client.changes <= 1
            await client.close()

    virtual_time.run(main())


@on_each_source
async def test_a_load_without_a_watch_hides_no_change_from_the_next_opening(source, first, second):
    await first.load()  # of an opening that was cancelled
    source.change(2)
    await first.load()
    source.change(1)
    first.watch()
    await second.load()
    second.watch()
    await asyncio.sleep(LOOK)
    assert first.topology == second.topology == source.topology(1)


@pytest.mark.parametrize("kind", CHANGING_SOURCES)
def test_a_source_follows_changes_on_event_loops_one_after_another(kind, tmp_path):
    sources = []

    async def opening(host):
        source = sources[0] if sources else CHANGING_SOURCES[kind](tmp_path)
        sources[:] = [source]
        client = Client(source)
        await client.load()
        before = client.topology
        client.watch()
        await asyncio.sleep(LOOK)
        assert client.changes == 0
        source.change(host)
        await asyncio.sleep(LOOK)
        assert (before, client.topology, client.changes) == (source.topology(host - 1), source.topology(host), 1)
        await client.close()

    for host in (2, 3, 4):
        virtual_time.run(opening(host))


@pytest.mark.parametrize("kind", CHANGING_SOURCES)
def test_a_watch_without_a_load_reports_the_present_topology(kind, tmp_path):
    async def main():
        source = CHANGING_SOURCES[kind](tmp_path)
        for loads_first, changes in ((False, 1), (True, 0), (False, 1)):
            client = Client(source)
            if loads_first:
                await client.load()
            client.watch()
            await asyncio.sleep(LOOK)
            assert (client.topology, client.changes) == (source.topology(1), changes)
            await client.close()

    virtual_time.run(main())
