"""A node connects when it is asked, tells callers at once when it is down, comes back by itself, and closes cleanly."""

import asyncio
import logging

import pytest

from evcache.zones.errors import NodeTimeout, NodeUnavailable
from evcache.zones.health.node_health import HealthCounters
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.fields import Fields
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.node_bench import ENDPOINT, FIRST_PAUSE, LIMITS, LONGEST_PAUSE, Bench
from tests.support.scripted import MemoryDialer
from tests.support.virtual_time import in_virtual_time, now, settle

LIMIT = 20.0  # seconds of real time after which a test on a real socket is ended


@in_virtual_time
async def test_nothing_is_opened_before_it_is_asked_for():
    async with Bench() as bench:
        await asyncio.sleep(60)
        assert bench.attempts == 0
        assert bench.node.state == "idle"
        assert not bench.node.is_down
        assert bench.node.connection() is None
        assert bench.node.capabilities is None
        assert bench.attempts == 0


@in_virtual_time
async def test_the_first_call_connects_and_the_next_finds_it():
    async with Bench() as bench:
        connection = await bench.connected()
        assert connection.is_open
        assert bench.node.state == "ready"
        assert bench.node.capabilities.server == "1.6.38"
        assert bench.node.connection() is connection
        assert await bench.connected() is connection
        assert bench.attempts == 1


@in_virtual_time
async def test_callers_that_come_at_once_share_one_connect():
    async with Bench() as bench:
        connections = await asyncio.gather(*(bench.connected() for _ in range(20)))
        assert len(set(connections)) == 1
        assert bench.attempts == 1


@in_virtual_time
async def test_when_it_is_refused_the_first_caller_is_told_why_and_later_ones_at_once(caplog):
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable, match="host:11211: .*refused"):
            await bench.connected()
        assert bench.node.state == "down"
        assert bench.node.is_down
        assert bench.health.unhealthy == 1
        attempts = bench.attempts
        for _ in range(5):
            with pytest.raises(NodeUnavailable, match="it is down: .*refused"):
                await bench.connected()
        assert bench.attempts == attempts
        assert now() == 0
        assert bench.node.connection() is None


@in_virtual_time
async def test_an_outage_is_logged_once_and_its_end_too(caplog):
    caplog.set_level(logging.INFO, "evcache.zones")
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        await asyncio.sleep(600)
        assert 10 < bench.attempts < 30
        bench.accept()
        await asyncio.sleep(LONGEST_PAUSE)
        assert [record.levelname for record in caplog.records if record.name == "evcache.zones.nodes"] == ["WARNING", "INFO"]


@in_virtual_time
async def test_reconnecting_starts_soon_and_slows_down_to_its_limit():
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        await asyncio.sleep(600)
        times = [time for _, time in bench.dialer.attempts]
        pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
        least = [min(LIMITS.longest_pause, LIMITS.first_pause * 2**number) for number in range(len(pauses))]
        for pause, shortest in zip(pauses, least, strict=True):
            assert shortest - 1e-6 <= pause <= shortest * (1 + LIMITS.jitter) + 1e-6
        assert pauses[-1] >= LIMITS.longest_pause
        assert len(set(pauses)) > len(pauses) / 2  # clients do not all knock in the same moment


@in_virtual_time
async def test_a_node_that_is_back_is_found_without_a_call():
    async with Bench() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        await asyncio.sleep(100)
        bench.accept()
        await asyncio.sleep(LONGEST_PAUSE + 0.001)
        assert bench.node.state == "ready"
        assert (bench.node.is_warming, bench.health.unhealthy) == (True, 1)
        await asyncio.sleep(LIMITS.slow_start)
        assert (bench.node.is_warming, bench.health.unhealthy) == (False, 0)
        assert bench.node.connection().is_open


@in_virtual_time
async def test_a_cancelled_caller_does_not_stop_the_connect_for_the_others():
    async with Bench() as bench:
        bench.dialer.gate = asyncio.Event()
        first = asyncio.create_task(bench.connected())
        second = asyncio.create_task(bench.connected())
        await settle()
        first.cancel()
        await settle()
        bench.dialer.gate.set()
        assert (await second).is_open
        assert first.cancelled()
        assert bench.attempts == 1


@in_virtual_time
async def test_a_connect_goes_on_when_all_callers_are_gone():
    async with Bench() as bench:
        bench.dialer.gate = asyncio.Event()
        caller = asyncio.create_task(bench.connected())
        await settle()
        caller.cancel()
        bench.dialer.gate.set()
        await settle(100)
        assert bench.node.state == "ready"


@in_virtual_time
async def test_a_connect_that_takes_too_long_fails_its_callers_and_is_tried_again():
    async with Bench(connect_timeout=0.5) as bench:
        bench.dialer.gate = asyncio.Event()
        with pytest.raises(NodeUnavailable, match=r"no connection in 0\.5 s"):
            await bench.connected()
        assert now() == pytest.approx(0.5)
        assert bench.node.is_down
        bench.dialer.gate.set()
        await asyncio.sleep(FIRST_PAUSE + 0.5)
        assert bench.node.state == "ready"


@in_virtual_time
async def test_a_caller_waits_no_longer_than_its_own_deadline():
    async with Bench(connect_timeout=0.5) as bench:
        bench.dialer.gate = asyncio.Event()
        with pytest.raises(NodeTimeout) as caught:
            await bench.connected(within=0.02)
        assert caught.value.node == "host:11211"
        assert now() == pytest.approx(0.02)
        assert bench.node.state == "connecting"
        bench.dialer.gate.set()
        await settle(100)
        assert bench.node.state == "ready"
        assert bench.attempts == 1


@in_virtual_time
async def test_a_server_that_accepts_and_says_nothing_is_down():
    async with Bench(connect_timeout=0.5) as bench:
        bench.server.pause()
        with pytest.raises(NodeUnavailable, match=r"no connection in 0\.5 s"):
            await bench.connected()
        assert now() == pytest.approx(0.5)
        bench.server.resume()
        await asyncio.sleep(FIRST_PAUSE + 0.5)
        assert bench.node.state == "ready"
        assert bench.server.connections == 1


@in_virtual_time
async def test_a_login_that_is_refused_is_a_node_that_is_down():
    async with Bench(FakeMemcached(auth=("alice", "s3cret")), auth=("alice", "wr0ng")) as bench:
        with pytest.raises(NodeUnavailable, match="the login was refused") as caught:
            await bench.connected()
        assert "wr0ng" not in str(caught.value)
        assert bench.server.connections == 0


@in_virtual_time
async def test_a_login_that_is_accepted():
    async with Bench(FakeMemcached(auth=("alice", "s3cret")), auth=("alice", "s3cret")) as bench:
        answer = await bench.ask()
        assert (await answer).status == b"EN"


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(NodeSettings(auth=("alice", "s3cret")))


@in_virtual_time
async def test_whatever_a_dialer_raises_the_node_is_down_and_tried_again():
    async with Bench() as bench:
        broken = [ValueError("a bug"), OSError(113, "no route")]

        async def dial(endpoint, factory):
            if broken:
                raise broken.pop()
            return await bench.dialer(endpoint, factory)

        node = Node(ENDPOINT, NodeSettings(dialer=dial))
        with pytest.raises(NodeUnavailable, match="no route"):
            await node.connected(asyncio.get_running_loop().time() + 10)
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert node.state == "ready"
        await node.close()


@in_virtual_time
async def test_pending_counts_what_waits_on_all_connections():
    async with Bench(connections=2, limits=ConnectionLimits(silence=1_000)) as bench:
        await bench.connected()
        await settle(100)
        bench.server.pause()
        answers = [await bench.ask() for _ in range(5)]
        assert bench.node.pending == 5
        bench.server.resume()
        assert {reply.status for reply in await asyncio.gather(*answers)} == {b"EN"}
        assert bench.node.pending == 0


@in_virtual_time
async def test_nodes_of_a_cluster_share_a_tally():
    health, dialer = HealthCounters(), MemoryDialer()
    nodes = [Node(Endpoint.parse(name), NodeSettings(dialer=dialer), health) for name in ("a", "b")]
    for count, node in enumerate(nodes, 1):
        with pytest.raises(NodeUnavailable):
            await node.connected(asyncio.get_running_loop().time() + 1)
        assert health.unhealthy == count
    for count, node in enumerate(nodes, 1):
        await node.close()
        assert health.unhealthy == 2 - count


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_node_on_a_real_socket(family, tmp_path):
    """Connects, answers, notices the end, and is refused afterwards."""

    async def main():
        server = FakeMemcached()
        await (server.start() if family == "tcp" else server.start_unix(str(tmp_path / "memcached.sock")))
        node = Node(Endpoint.parse(server.address), NodeSettings(connect_timeout=LIMIT))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LIMIT):
            answers = [loop.create_future() for _ in range(100)]
            connection = await node.connected(loop.time() + LIMIT)
            for number, answer in enumerate(answers):
                connection.get(b"key:%d" % number, Fields(b"k v"), answer, loop.time() + LIMIT)
            replies = await asyncio.gather(*answers)
            assert [reply.tokens[0] for reply in replies] == [b"kkey:%d" % number for number in range(100)]
            await server.stop()
            while connection.is_open:
                await asyncio.sleep(0)
            with pytest.raises(NodeUnavailable, match="it is down"):
                await node.connected(loop.time() + LIMIT)
            await node.close()
        assert server.connections == 0

    asyncio.run(main())


@in_virtual_time
async def test_repr_shows_the_state():
    async with Bench() as bench:
        assert repr(bench.node) == "<Node host:11211 idle connections=0>"
        await bench.connected()
        assert repr(bench.node) == "<Node host:11211 ready connections=1>"
