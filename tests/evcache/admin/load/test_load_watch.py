"""Watch of nodes in virtual time: dead, silent, slow and restarted ones."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from evcache.admin.load.table import Figures
from evcache.admin.load.watch import LoadWatch
from evcache.zones.cluster import Cluster
from evcache.zones.nodes.settings import NodeSettings
from tests.support.memory_zones import MemoryZones
from tests.support.virtual_time import in_virtual_time, now


class Watched:
    """Watch of zones in memory, with the tables and their times."""

    def __init__(self, zones, cluster, settings, interval):
        self.zones = zones
        self.tables = []
        self.times = []
        self.at = {}
        """Functions to call before the table of this number is shown, by number."""
        view = cluster.apply(zones.topology)
        self._watch = LoadWatch(view, settings, interval=interval, timeout=2.0, unix_time=zones.wall_clock)

    def _show(self, table):
        self.tables.append(table)
        self.times.append(round(now(), 3))
        change = self.at.get(len(self.tables))
        if change is not None:
            change()

    async def run(self, count, stop=None):
        return await self._watch.run(self._show, count=count, stop=stop)

    def nodes(self, zone):
        """Return the load of the only node of a zone in each table."""
        found = "abc".index(zone)
        return [table.zones[found].nodes[0] for table in self.tables]


@asynccontextmanager
async def watched(zones=3, interval=2.0, **server):
    memory = MemoryZones(zones, **server)
    settings = NodeSettings(dialer=memory.dial, connect_timeout=2.0)
    cluster = Cluster(settings, None)
    try:
        yield Watched(memory, cluster, settings, interval)
    finally:
        await cluster.close(0)


def requests(zones, zone, line, times):
    for _ in range(times):
        zones.one(zone).session().receive(line)


@in_virtual_time
async def test_rates_are_those_between_two_samples():
    async with watched(1, max_bytes=64 << 20, max_connections=77) as top:
        server = top.zones.one("a")
        server.session().receive(b"set k 0 0 1\r\nx\r\n")
        top.at[1] = lambda: requests(top.zones, "a", b"get k\r\n", 30) or requests(top.zones, "a", b"get no\r\n", 10)
        assert await top.run(3)
        assert top.times == [2.0, 4.0, 6.0]
        first, second, third = (node.figures for node in top.nodes("a"))
        assert (first.gets, first.sets, first.hit_ratio) == (0.0, 0.0, None), "the set was before the first sample"
        assert (second.gets, second.hit_ratio, second.sets, second.evictions) == (20.0, 0.75, 0.0, 0.0)
        assert (third.gets, third.hit_ratio) == (0.0, None)
        assert (second.memory_limit, second.connection_limit, second.connections) == (64 << 20, 77, 2)
        assert second.bytes_out > 0
        assert second.latency == 0.0, "no time passes here"
        assert [(node.state, node.circuit, node.error) for node in top.nodes("a")] == [("ready", "closed", None)] * 3


@in_virtual_time
async def test_a_dead_node_shows_its_error_and_delays_no_table():
    async with watched() as top:
        await top.zones.one("b").stop()
        assert await top.run(3)
        assert top.times == [2.0, 4.0, 6.0]
        for node in top.nodes("b"):
            assert (node.error, node.figures) == ("[Errno 111] the server is not running", Figures())
            assert (node.state, node.has_answer) == ("down", False)
        assert [node.error for node in top.nodes("a") + top.nodes("c")] == [None] * 6


@in_virtual_time
async def test_a_silent_node_delays_at_most_one_table():
    async with watched() as top:
        top.at[1] = top.zones.one("c").pause
        top.at[3] = top.zones.one("c").resume
        assert await top.run(6)
        assert top.times == [2.0, 5.0, 6.0, 8.0, 10.0, 12.0]
        errors = [node.error for node in top.nodes("c")]
        assert errors[:3] == [None, "no reply in 1.0 s", "no reply in 2.0 s"]
        assert errors[-1] is None
        assert top.nodes("c")[-1].figures.gets == 0.0
        assert [node.error for node in top.nodes("a")] == [None] * 6


@in_virtual_time
async def test_a_circuit_opens_after_probes_without_a_reply():
    async with watched(2) as top:
        top.at[1] = top.zones.one("b").pause
        await top.run(9)
        assert [node.circuit for node in top.nodes("b")][:2] == ["closed", "closed"]
        assert top.nodes("b")[-1].circuit != "closed"
        assert top.nodes("b")[-1].state == "down"


@in_virtual_time
async def test_a_slow_node_has_its_round_trip_and_rates_of_its_own_samples():
    async with watched(1) as top:
        top.zones.latency = 0.25
        await top.run(2)
        figures = [node.figures for node in top.nodes("a")]
        assert [each.latency for each in figures] == [0.25, 0.25]
        assert figures[0].gets == 0.0
        assert top.times == [2.35, 4.35], "statistics follow the probes after at most 0.1 s"


@in_virtual_time
async def test_statistics_are_asked_for_after_all_probes():
    """Reading the statistics of one node would count as the round trip of another one."""
    async with watched(3) as top:
        sent = []
        top.zones.sent = dict.fromkeys("abc", sent)
        top.at[1] = sent.clear
        await top.run(2)
        assert [packet.split()[0] for packet in sent] == [b"mn"] * 3 + [b"stats"] * 3


@in_virtual_time
async def test_a_restarted_node_has_no_rates_for_one_interval():
    async with watched(1) as top:
        server = top.zones.one("a")
        requests(top.zones, "a", b"get no\r\n", 100)
        restarted = []

        async def restart():
            await server.kill()
            server.store.counts.clear()
            server.revive()

        top.at[1] = lambda: restarted.append(asyncio.ensure_future(restart()))
        assert await top.run(3)
        assert restarted[0].done()
        gets = [node.figures.gets for node in top.nodes("a")]
        assert gets == [0.0, None, 0.0]
        assert top.nodes("a")[1].figures.memory_used is not None


@in_virtual_time
async def test_a_server_that_refuses_statistics_still_has_a_round_trip():
    async with watched(1, refuse={"stats": "ERROR"}) as top:
        assert await top.run(1)
        (node,) = top.nodes("a")
        assert node.error == "stats refused: ERROR"
        assert (node.figures.latency, node.figures.gets, node.figures.memory_limit) == (0.0, None, None)


@in_virtual_time
async def test_one_connection_for_administration_and_one_for_probes_stay_open():
    async with watched(1) as top:
        await top.run(5)
        assert top.zones.one("a").connections_total == 2


@in_virtual_time
async def test_an_administration_connection_that_the_server_closed_is_replaced_at_once():
    async with watched(1) as top:
        server = top.zones.one("a")

        def hang_up():
            for transport in list(server._memory):  # as `-o idle_timeout` does
                transport.hang_up(None)

        top.at[1] = hang_up
        assert await top.run(2)
        assert [node.error for node in top.nodes("a")] == [None, None]
        assert top.nodes("a")[1].figures.sets == 0.0


@in_virtual_time
async def test_without_a_live_node_the_result_is_false():
    async with watched(2) as top:
        for zone in "ab":
            await top.zones.one(zone).stop()
        assert not await top.run(2)
        assert top.times == [2.0, 4.0]
        assert not top.tables[-1].has_answer


@in_virtual_time
@pytest.mark.parametrize("number", [0, 2])
async def test_the_stop_event_ends_the_watch_without_a_wait(number):
    async with watched(1) as top:
        stop = asyncio.Event()
        if number:
            top.at[number] = stop.set
        else:
            stop.set()
        assert await top.run(None, stop)
        assert (len(top.tables), now()) == (number, number * 2.0)


@in_virtual_time
async def test_a_cancelled_watch_closes_its_connections():
    async with watched(2) as top:
        top.zones.one("b").pause()
        task = asyncio.ensure_future(top.run(None))
        await asyncio.sleep(3)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        top.zones.one("b").resume()
    await asyncio.sleep(0.01)
    assert [top.zones.one(zone).connections for zone in "ab"] == [0, 0]


@in_virtual_time
async def test_tables_name_the_time_and_the_local_zone():
    async with watched(3) as top:
        await top.run(1)
        (table,) = top.tables
        assert table.at == "2027-01-15T08:00:02.000Z"
        assert [zone.name for zone in table.zones] == ["a", "b", "c"]
        assert [zone.is_local for zone in table.zones] == [False] * 3
